// Which tables this machine can run. Apart from its users, so that a test with an emulated table
// can answer for itself.
#pragma once

#include <array>
#include <cstddef>

#include "kernels/backend.h"

namespace dasan::kernels {

struct RunnableIsas {
  std::array<CpuIsa, 3> isas{};  // best first
  size_t count = 0;
};
RunnableIsas detect_cpu_isas() noexcept;

}  // namespace dasan::kernels
