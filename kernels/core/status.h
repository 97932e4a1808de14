// The one error type of the library's inside. Exceptions of this type are caught at the C boundary
// and at thread roots only; everything between lets them pass.
#pragma once

#include <cstdint>
#include <exception>
#include <string>

namespace dasan {

// Values equal the dasan_status codes of dasan.h (checked where both are visible).
enum class Status : int32_t {
  kOk = 0,
  kInvalidArgument = -1,
  kOutOfMemory = -2,
  kNotFound = -3,
  kIo = -4,
  kFormat = -5,
  kUnsupported = -6,
  kBufferTooSmall = -7,
  kCapacity = -8,
  kTimeout = -9,
  kCancelled = -10,
  kState = -11,
  kDevice = -12,
  kInternal = -13,
};

// A message names the thing, the value and what was expected.
class Error : public std::exception {
 public:
  Error(Status status, std::string message) : status_(status), message_(std::move(message)) {}
  Status status() const noexcept { return status_; }
  const std::string& message() const noexcept { return message_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  Status status_;
  std::string message_;
};

}  // namespace dasan
