// The names of the tables, and which one to use.
#include <string>

#include "kernels/core/status.h"
#include "kernels/cpu/isa_detect.h"

namespace dasan::kernels {

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
  static const RunnableIsas runnable = detect_cpu_isas();
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
