// Says that this machine runs the AVX-512 table: the test that links this runs it emulated.
#include "kernels/cpu/isa_detect.h"

namespace dasan::kernels {

RunnableIsas detect_cpu_isas() noexcept {
  RunnableIsas r;
  r.isas[r.count++] = CpuIsa::kAvx512;
  r.isas[r.count++] = CpuIsa::kGeneric;
  return r;
}

}  // namespace dasan::kernels
