#include "kernels/core/log.h"

#include <atomic>
#include <mutex>
#include <shared_mutex>

namespace dasan {
namespace {

std::shared_mutex sink_mutex;  // shared while a sink runs, exclusive while it is replaced
LogSink current_sink = nullptr;
void* current_user = nullptr;
std::atomic<int32_t> current_level{0};  // 0: silent

}  // namespace

void set_log_sink(LogSink sink, void* user, LogLevel max_level) {
  const std::unique_lock lock(sink_mutex);
  current_sink = sink;
  current_user = user;
  current_level = sink == nullptr ? 0 : static_cast<int32_t>(max_level);
}

bool log_enabled(LogLevel level) noexcept {
  return static_cast<int32_t>(level) <= current_level.load(std::memory_order_relaxed);
}

void log_message(LogLevel level, std::string_view message) noexcept {
  if (!log_enabled(level)) return;
  try {
    const std::shared_lock lock(sink_mutex);
    if (current_sink != nullptr) current_sink(current_user, level, message);
  } catch (...) {
    // A note that cannot be delivered is dropped: logging never fails its caller.
  }
}

}  // namespace dasan
