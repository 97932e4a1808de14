// Notes for a person that belong to no call: the process-wide sink behind dasan_log_set.
#pragma once

#include <cstdint>
#include <string_view>

namespace dasan {

enum class LogLevel : int32_t { kError = 1, kWarn = 2, kInfo = 3, kDebug = 4 };

using LogSink = void (*)(void* user, LogLevel level, std::string_view message);

// Returns when no call of the previous sink is running any more. nullptr: silent.
void set_log_sink(LogSink sink, void* user, LogLevel max_level);

// True when a message of this level would be seen: formatting can be skipped otherwise.
bool log_enabled(LogLevel level) noexcept;
void log_message(LogLevel level, std::string_view message) noexcept;

}  // namespace dasan
