// Checks and copies of what crosses the C boundary. All throw Error(kInvalidArgument) naming the
// argument.
#pragma once

#include <dasan/dasan.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "engine/text/utf8.h"
#include "kernels/core/status.h"

namespace dasan::api {

[[noreturn]] inline void bad_argument(std::string message) {
  throw Error(Status::kInvalidArgument, std::move(message));
}

template <class T>
T& not_null(T* p, std::string_view name) {
  if (p == nullptr) bad_argument(std::string(name) + " is NULL");
  return *p;
}

// A struct_size that no version of a struct will have: memory that nobody has initialised.
constexpr size_t kLargestStruct = size_t{1} << 16;

[[noreturn]] inline void bad_struct_size(std::string_view name, size_t given, size_t expected) {
  bad_argument(std::string(name) + ".struct_size is " + std::to_string(given) + ", expected " +
               std::to_string(expected) + " (use the _INIT macro)");
}

// A versioned struct of the caller, extended with zeros when the caller's is older. A newer one is
// accepted when the fields this library does not know are zero, that is, default.
template <class T>
T read_struct(const T* p, std::string_view name) {
  T copy{};
  if (p == nullptr) {
    copy.struct_size = sizeof(T);
    return copy;
  }
  const size_t size = p->struct_size;
  if (size < sizeof(p->struct_size) || size > kLargestStruct)
    bad_struct_size(name, size, sizeof(T));
  const auto* bytes = reinterpret_cast<const unsigned char*>(p);
  if (size > sizeof(T) &&
      std::any_of(bytes + sizeof(T), bytes + size, [](unsigned char b) { return b != 0; }))
    throw Error(Status::kUnsupported, std::string(name) +
                                          ": a field newer than this library (" DASAN_VERSION_STRING
                                          ") is set");
  std::memcpy(&copy, p, std::min(size, sizeof(T)));
  copy.struct_size = sizeof(T);
  return copy;
}

// A struct that write_struct() can fill, found out before anything is given up for it.
template <class T>
void check_struct(const T* out, std::string_view name) {
  const size_t size = not_null(out, name).struct_size;
  if (size < sizeof(out->struct_size) || size > kLargestStruct)
    bad_struct_size(name, size, sizeof(T));
}

// Fills the caller's struct as far as it reaches; a longer tail is zeroed. Its struct_size stays.
template <class T>
void write_struct(T* out, std::string_view name, const T& value) {
  check_struct(out, name);
  const size_t size = out->struct_size;
  auto* bytes = reinterpret_cast<unsigned char*>(out);
  const size_t known = std::min(size, sizeof(T));
  constexpr size_t skip = sizeof(out->struct_size);
  std::memcpy(bytes + skip, reinterpret_cast<const unsigned char*>(&value) + skip, known - skip);
  if (size > known) std::memset(bytes + known, 0, size - known);
}

inline void check_flags(uint32_t flags, uint32_t known, std::string_view name) {
  if ((flags & ~known) != 0)
    throw Error(Status::kUnsupported,
                std::string(name) + ": unknown flags " + std::to_string(flags & ~known));
}

// The bytes of a text; whoever reads them checks that they are UTF-8.
inline std::string_view bytes_argument(const char* data, size_t size, std::string_view name) {
  if (data == nullptr) {
    if (size != 0 && size != DASAN_NTS) bad_argument(std::string(name) + " is NULL");
    return {};
  }
  return {data, size == DASAN_NTS ? std::strlen(data) : size};
}
inline std::string_view text_argument(const char* data, size_t size, std::string_view name) {
  const std::string_view text = bytes_argument(data, size, name);
  if (const size_t bad = utf8_first_invalid(text); bad != std::string_view::npos)
    bad_argument(std::string(name) + " is not valid UTF-8 at byte " + std::to_string(bad));
  return text;
}
inline std::string_view text_argument(const dasan_str& s, std::string_view name) {
  return text_argument(s.data, s.size, name);
}

template <class T>
std::span<const T> array_argument(const T* data, size_t size, std::string_view name) {
  if (data == nullptr && size != 0)
    bad_argument(std::string(name) + " is NULL, with a count of " + std::to_string(size));
  return {data, size};
}

// Copies `values` to the caller's buffer, or throws kBufferTooSmall; *len gets the full size in
// either case.
template <class T>
void write_array(std::span<const T> values, T* out, size_t cap, size_t* len) {
  if (len != nullptr) *len = values.size();
  if (values.size() > cap)
    throw Error(Status::kBufferTooSmall, "the buffer holds " + std::to_string(cap) +
                                             " elements, expected at least " +
                                             std::to_string(values.size()));
  if (values.empty()) return;
  not_null(out, "the output buffer");
  std::memcpy(out, values.data(), values.size_bytes());
}
inline void write_text(std::string_view text, char* out, size_t cap, size_t* len) {
  write_array(std::span<const char>(text.data(), text.size()), out, cap, len);
}

// Into a fixed, NUL-terminated field, cut at a character boundary.
template <size_t N>
void write_field(char (&field)[N], std::string_view text) {
  size_t size = std::min(text.size(), N - 1);
  while (size > 0 && size < text.size() && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80)
    size--;
  std::memcpy(field, text.data(), size);
  std::memset(field + size, 0, N - size);
}

}  // namespace dasan::api
