// Which tables this machine can run, best first, and which one to use.
#include <array>
#include <cstddef>
#include <string>

#include "kernels/backend.h"
#include "kernels/core/status.h"

namespace dasan::kernels {
namespace {

struct Runnable {
  std::array<CpuIsa, 3> isas{};
  size_t count = 0;
};

Runnable detect() noexcept {
  Runnable r;
#if defined(__x86_64__)
  __builtin_cpu_init();
  // These include the operating system's support for the registers.
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vnni"))
    r.isas[r.count++] = CpuIsa::kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c"))
    r.isas[r.count++] = CpuIsa::kAvx2;
#endif
  r.isas[r.count++] = CpuIsa::kGeneric;
  return r;
}

}  // namespace

std::string_view cpu_isa_name(CpuIsa isa) noexcept {
  switch (isa) {
    case CpuIsa::kGeneric:
      return "generic";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
  }
  return "unknown";
}

std::span<const CpuIsa> runnable_cpu_isas() noexcept {
  static const Runnable runnable = detect();
  return {runnable.isas.data(), runnable.count};
}

CpuIsa choose_cpu_isa(std::string_view forced) {
  if (forced.empty()) return runnable_cpu_isas().front();
  std::string runnable;
  for (const CpuIsa isa : runnable_cpu_isas()) {
    if (cpu_isa_name(isa) == forced) return isa;
    runnable += runnable.empty() ? "" : ", ";
    runnable += cpu_isa_name(isa);
  }
  for (const CpuIsa isa : {CpuIsa::kGeneric, CpuIsa::kAvx2, CpuIsa::kAvx512})
    if (cpu_isa_name(isa) == forced)
      throw Error(Status::kUnsupported, "CPU instruction set '" + std::string(forced) +
                                            "': this machine runs " + runnable);
  throw Error(Status::kInvalidArgument, "CPU instruction set '" + std::string(forced) +
                                            "' is unknown, expected one of: avx512, avx2, generic");
}

}  // namespace dasan::kernels
