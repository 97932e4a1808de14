// The backend that the suite of this directory judges: the CUDA backend on the emulator, or, in the
// executable for machines with a GPU, on the device.
#pragma once

#include "kernels/backend.h"

namespace suite {

dasan::kernels::Backend& suite_backend();

}  // namespace suite
