// Runs the suite of tests/cuda on a real device. Without one it says so and passes, because most
// machines that build this have none; ./dev gpu refuses to take that for a result.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "kernels/core/status.h"
#include "tests/cuda/suite_backend.h"
#include "tests/support/device_adapter.h"

namespace suite {

dasan::kernels::Backend& suite_backend() {
  static DeviceAdapter b(dasan::kernels::make_cuda_backend(0));
  return b;
}

}  // namespace suite

int main(int argc, char** argv) {
  try {
    std::printf("device: %s\n", std::string(suite::suite_backend().name()).c_str());
  } catch (const dasan::Error& e) {
    std::printf("SKIPPED: %s\n", e.message().c_str());
    return 0;
  }
  return doctest::Context(argc, argv).run();
}
