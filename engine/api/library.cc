// What concerns the library as a whole: version, errors, log, devices.
#include <sys/sysinfo.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <mutex>
#include <string>

#include "engine/api/arguments.h"
#include "engine/api/guard.h"
#include "kernels/backend.h"
#include "kernels/core/log.h"

namespace dasan::api {
namespace {

constexpr size_t kMessageBytes = 1024;
thread_local char last_message[kMessageBytes] = "";

// The C callback of dasan_log_set, adapted to the inner sink: written while no sink is installed,
// by one caller at a time.
std::mutex log_set_mutex;
dasan_log_fn user_log = nullptr;

void forward_log(void* user, LogLevel level, std::string_view message) {
  user_log(user, static_cast<int32_t>(level), {message.data(), message.size()});
}

std::string make_build_info() {
  std::string out = DASAN_VERSION_STRING " cpu=";
  bool first = true;
  for (const kernels::CpuIsa isa : kernels::runnable_cpu_isas()) {
    if (!first) out += ',';
    out += kernels::cpu_isa_name(isa);
    first = false;
  }
  return out + (kernels::built_with_cuda() ? " cuda=yes" : " cuda=no");
}

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) {
      const size_t colon = line.find(": ");
      if (colon != std::string::npos) return line.substr(colon + 2);
    }
  return "CPU";
}

}  // namespace

static_assert(static_cast<int32_t>(Status::kOk) == DASAN_OK);
static_assert(static_cast<int32_t>(Status::kInvalidArgument) == DASAN_E_INVALID_ARGUMENT);
static_assert(static_cast<int32_t>(Status::kOutOfMemory) == DASAN_E_OUT_OF_MEMORY);
static_assert(static_cast<int32_t>(Status::kNotFound) == DASAN_E_NOT_FOUND);
static_assert(static_cast<int32_t>(Status::kIo) == DASAN_E_IO);
static_assert(static_cast<int32_t>(Status::kFormat) == DASAN_E_FORMAT);
static_assert(static_cast<int32_t>(Status::kUnsupported) == DASAN_E_UNSUPPORTED);
static_assert(static_cast<int32_t>(Status::kBufferTooSmall) == DASAN_E_BUFFER_TOO_SMALL);
static_assert(static_cast<int32_t>(Status::kCapacity) == DASAN_E_CAPACITY);
static_assert(static_cast<int32_t>(Status::kTimeout) == DASAN_E_TIMEOUT);
static_assert(static_cast<int32_t>(Status::kCancelled) == DASAN_E_CANCELLED);
static_assert(static_cast<int32_t>(Status::kState) == DASAN_E_STATE);
static_assert(static_cast<int32_t>(Status::kDevice) == DASAN_E_DEVICE);
static_assert(static_cast<int32_t>(Status::kInternal) == DASAN_E_INTERNAL);

dasan_status fail(Status status, std::string_view message) noexcept {
  write_field(last_message, message);
  return static_cast<dasan_status>(status);
}

}  // namespace dasan::api

using dasan::api::guard;

extern "C" {

uint32_t dasan_version_number(void) { return DASAN_VERSION_NUMBER; }

const char* dasan_build_info(void) {
  try {
    static const std::string info = dasan::api::make_build_info();
    return info.c_str();
  } catch (...) {
    return DASAN_VERSION_STRING;
  }
}

const char* dasan_status_name(dasan_status s) {
  switch (s) {
    case DASAN_OK:
      return "DASAN_OK";
    case DASAN_E_INVALID_ARGUMENT:
      return "DASAN_E_INVALID_ARGUMENT";
    case DASAN_E_OUT_OF_MEMORY:
      return "DASAN_E_OUT_OF_MEMORY";
    case DASAN_E_NOT_FOUND:
      return "DASAN_E_NOT_FOUND";
    case DASAN_E_IO:
      return "DASAN_E_IO";
    case DASAN_E_FORMAT:
      return "DASAN_E_FORMAT";
    case DASAN_E_UNSUPPORTED:
      return "DASAN_E_UNSUPPORTED";
    case DASAN_E_BUFFER_TOO_SMALL:
      return "DASAN_E_BUFFER_TOO_SMALL";
    case DASAN_E_CAPACITY:
      return "DASAN_E_CAPACITY";
    case DASAN_E_TIMEOUT:
      return "DASAN_E_TIMEOUT";
    case DASAN_E_CANCELLED:
      return "DASAN_E_CANCELLED";
    case DASAN_E_STATE:
      return "DASAN_E_STATE";
    case DASAN_E_DEVICE:
      return "DASAN_E_DEVICE";
    case DASAN_E_INTERNAL:
      return "DASAN_E_INTERNAL";
    default:
      return "unknown status";
  }
}

const char* dasan_error_message(void) { return dasan::api::last_message; }

void dasan_log_set(dasan_log_fn fn, void* user, int32_t max_level) {
  guard([&] {
    const std::lock_guard lock(dasan::api::log_set_mutex);
    // Silence first: no call of the old sink is running when the new function pointer is stored.
    dasan::set_log_sink(nullptr, nullptr, dasan::LogLevel::kError);
    dasan::api::user_log = fn;
    if (fn != nullptr && max_level >= DASAN_LOG_ERROR)
      dasan::set_log_sink(
          dasan::api::forward_log, user,
          static_cast<dasan::LogLevel>(std::min<int32_t>(max_level, DASAN_LOG_DEBUG)));
  });
}

int32_t dasan_device_count(void) {
  int32_t count = 1;
  guard([&] { count += static_cast<int32_t>(dasan::kernels::cuda_devices().size()); });
  return count;
}

dasan_status dasan_device_get(int32_t index, dasan_device_info* out) {
  return guard([&] {
    dasan::api::not_null(out, "out");
    dasan_device_info info{};
    if (index != 0) {
      const auto cuda = dasan::kernels::cuda_devices();
      if (index < 0 || static_cast<size_t>(index) > cuda.size())
        throw dasan::Error(
            dasan::Status::kNotFound,
            "device " + std::to_string(index) + ": there are " + std::to_string(cuda.size() + 1));
      const dasan::kernels::CudaDevice& d = cuda[static_cast<size_t>(index) - 1];
      info.kind = DASAN_DEVICE_CUDA;
      info.ordinal = d.ordinal;
      info.memory_total = d.memory_total;
      info.memory_free = d.memory_free;
      dasan::api::write_field(info.name, d.name);
      dasan::api::write_field(info.isa, "sm_" + std::to_string(d.major) + std::to_string(d.minor));
      dasan::api::write_struct(out, "out", info);
      return;
    }
    info.kind = DASAN_DEVICE_CPU;
    struct sysinfo memory {};
    if (sysinfo(&memory) == 0) {
      info.memory_total = uint64_t{memory.totalram} * memory.mem_unit;
      info.memory_free = uint64_t{memory.freeram} * memory.mem_unit;
    }
    dasan::api::write_field(info.name, dasan::api::cpu_name());
    dasan::api::write_field(
        info.isa, dasan::kernels::cpu_isa_name(dasan::kernels::runnable_cpu_isas().front()));
    dasan::api::write_struct(out, "out", info);
  });
}

}  // extern "C"
