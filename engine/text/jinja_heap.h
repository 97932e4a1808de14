// The memory and the work a chat template may use. Everything a rendering creates lies in one Heap
// and is freed with it, so values are plain data, cycles cannot leak and no destructor recurses.
// The limits make a hostile template end with an Error. Knows nothing of the language.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

// GCC 12 sees overlapping copies in inlined std::string operations where there are none (its bugs
// 105329 and 105651); what includes this header builds many messages from strings.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ == 12
#pragma GCC diagnostic ignored "-Wrestrict"
#endif

namespace dasan::jinja {

// One owner thread: the thread that renders.
class Heap {
 public:
  Heap(uint64_t step_limit, size_t byte_limit);
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;
  Heap(Heap&&) = default;
  Heap& operator=(Heap&&) = default;

  // Counts `n` units of work (about one node or 32 bytes each); throws Error(kCapacity) at the
  // limit.
  void step(uint64_t n = 1) {
    if (n > steps_left_) fail_steps();
    steps_left_ -= n;
  }
  void step_bytes(size_t bytes) { step(bytes / 32 + 1); }

  // Counts memory held outside the heap (output text) against the same limit.
  void charge_bytes(size_t bytes) {
    if (bytes > bytes_left_) fail_bytes();
    bytes_left_ -= bytes;
  }

  void* allocate(size_t bytes) {
    bytes = (bytes + 15) & ~size_t{15};
    if (bytes > static_cast<size_t>(end_ - next_)) return allocate_slow(bytes);
    char* result = next_;
    next_ += bytes;
    return result;
  }

  template <class T>
  T* array(size_t n) {
    static_assert(std::is_trivially_destructible_v<T> && alignof(T) <= 16);
    if (n > (size_t{1} << 40) / sizeof(T)) fail_bytes();
    T* items = static_cast<T*>(allocate(n * sizeof(T)));
    for (size_t i = 0; i < n; ++i) ::new (items + i) T();
    return items;
  }

  template <class T>
  T* make(T value) {
    static_assert(std::is_trivially_destructible_v<T> && alignof(T) <= 16);
    return ::new (allocate(sizeof(T))) T(std::move(value));
  }

 private:
  [[noreturn]] static void fail_steps();
  [[noreturn]] static void fail_bytes();
  void* allocate_slow(size_t bytes);

  uint64_t steps_left_;
  size_t bytes_left_;
  char* next_ = nullptr;
  char* end_ = nullptr;
  std::vector<std::unique_ptr<char[]>> blocks_;
};

// Counts a search for `wanted` in `text`, whose cost can be the product of the lengths.
inline void charge_search(Heap& heap, std::string_view text, std::string_view wanted) {
  heap.step(text.size() / 16 + 1);
  if (wanted.size() > 32) heap.step(text.size() / 16 * (wanted.size() / 8));
}

// An append-only array in the heap.
template <class T>
class HeapVector {
 public:
  void push(Heap& heap, T value) {
    if (size_ == capacity_) {
      const size_t capacity = capacity_ == 0 ? 4 : capacity_ * 2;
      T* items = heap.array<T>(capacity);
      for (size_t i = 0; i < size_; ++i) items[i] = items_[i];
      items_ = items;
      capacity_ = capacity;
    }
    items_[size_++] = value;
  }
  T* begin() { return items_; }
  T* end() { return items_ + size_; }
  const T* begin() const { return items_; }
  const T* end() const { return items_ + size_; }
  T* data() { return items_; }
  const T* data() const { return items_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](size_t i) { return items_[i]; }
  const T& operator[](size_t i) const { return items_[i]; }

 private:
  T* items_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace dasan::jinja
