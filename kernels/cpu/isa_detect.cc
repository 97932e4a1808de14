// Asks the processor which tables it can run.
#include "kernels/cpu/isa_detect.h"

namespace dasan::kernels {

RunnableIsas detect_cpu_isas() noexcept {
  RunnableIsas r;
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

}  // namespace dasan::kernels
