// Making, comparing and hashing the values of a chat template, as Python does.
#include "engine/text/jinja_value.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "engine/text/jinja_unicode.h"
#include "kernels/core/status.h"

namespace dasan::jinja {

namespace {

// Dictionaries up to this size are searched from front to back.
constexpr size_t kScanEntries = 8;

uint32_t depth_of(const Value& v) {
  switch (v.kind) {
    case Kind::kList:
    case Kind::kTuple:
      return v.seq->depth;
    case Kind::kDict:
      return v.dict->depth;
    case Kind::kDictView:
      return v.view->dict->depth + 1;
    default:
      return 0;
  }
}

uint32_t checked_depth(uint32_t depth) {
  if (depth > kMaxValueDepth) {
    throw Error(Status::kCapacity, "a value is nested more than 256 levels deep");
  }
  return depth;
}

Value make_seq(Heap& heap, Kind kind, std::span<const Value> items) {
  Seq seq;
  seq.items = items.data();
  seq.size = items.size();
  uint32_t depth = 0;
  for (const Value& item : items) depth = std::max(depth, depth_of(item));
  seq.depth = checked_depth(depth + 1);
  return Value::of(kind, heap.make(seq));
}

int64_t as_int(const Value& v) { return v.is(Kind::kBool) ? (v.boolean ? 1 : 0) : v.integer; }

bool numbers_equal(const Value& a, const Value& b) {
  if (!a.is(Kind::kFloat) && !b.is(Kind::kFloat)) return as_int(a) == as_int(b);
  if (a.is(Kind::kFloat) && b.is(Kind::kFloat)) return a.number == b.number;
  const double number = a.is(Kind::kFloat) ? a.number : b.number;
  const int64_t integer = a.is(Kind::kFloat) ? as_int(b) : as_int(a);
  // Exact: the double must be an integer in range before it is converted.
  if (!(number >= -9223372036854775808.0 && number < 9223372036854775808.0)) return false;
  return std::floor(number) == number && static_cast<int64_t>(number) == integer;
}

bool sequences_equal(Heap& heap, const Seq& a, const Seq& b) {
  if (a.size != b.size) return false;
  for (size_t i = 0; i < a.size; ++i) {
    if (!equals(heap, a.items[i], b.items[i])) return false;
  }
  return true;
}

bool dicts_equal(Heap& heap, const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const Dict::Entry& entry : a.entries) {
    const Value* other = b.find(heap, entry.key);
    if (other == nullptr || !equals(heap, entry.value, *other)) return false;
  }
  return true;
}

uint64_t mix(uint64_t h) {
  h ^= h >> 32;
  h *= 0x9E3779B97F4A7C15ull;
  return h ^ (h >> 29);
}

}  // namespace

void fail(std::string_view kind, std::string_view message) {
  std::string text = std::string(kind) + ": " + std::string(message);
  // A message about one byte of a longer character must still be text.
  if (!valid_utf8(text)) {
    for (char& c : text) c = static_cast<unsigned char>(c) < 0x80 ? c : '?';
  }
  throw Error(Status::kInvalidArgument, text);
}
void fail_type(std::string_view message) { fail("TypeError", message); }
void fail_value(std::string_view message) { fail("ValueError", message); }

std::string undefined_message(const Value& v) {
  if (v.undefined == nullptr) return "a value is undefined";
  const Undefined& info = *v.undefined;
  const auto owner = [&] {
    const std::string name = type_name(info.object);
    return info.object.is(Kind::kNone) ? std::string("None") : name + " object";
  };
  switch (info.origin) {
    case Undefined::Origin::kName:
      return "'" + std::string(info.name) + "' is undefined";
    case Undefined::Origin::kAttribute:
      if (!info.element.missing()) {
        return owner() + " has no element " +
               (info.element.is(Kind::kInt) ? std::to_string(info.element.integer)
                                            : std::string("of type ") + type_name(info.element));
      }
      return std::string("'") + owner() + "' has no attribute '" + std::string(info.name) + "'";
    case Undefined::Origin::kHint:
      return std::string(info.name);
    case Undefined::Origin::kUnsafe:
      return "access to attribute '" + std::string(info.name) + "' of '" + type_name(info.object) +
             "' object is unsafe.";
  }
  return {};
}

void fail_undefined(const Value& v) {
  const bool unsafe = v.undefined != nullptr && v.undefined->origin == Undefined::Origin::kUnsafe;
  fail(unsafe ? "SecurityError" : "UndefinedError", undefined_message(v));
}

Value make_string_ref(Heap& heap, std::string_view text) {
  Str s;
  s.data = text.data();
  s.size = text.size();
  return Value::of(heap.make(s));
}

Value make_string(Heap& heap, std::string_view text) {
  heap.step_bytes(text.size());
  char* copy = static_cast<char*>(heap.allocate(text.size()));
  if (!text.empty()) std::memcpy(copy, text.data(), text.size());
  return make_string_ref(heap, {copy, text.size()});
}

Value concat(Heap& heap, const Value& a, const Value& b) {
  const std::string_view left = a.text();
  const std::string_view right = b.text();
  if (right.empty()) return Value::of(a.str, a.safe || b.safe);
  if (left.empty()) return Value::of(b.str, a.safe || b.safe);
  heap.step_bytes(right.size());
  Str result;
  Str::Room* room = a.str->room;
  const size_t size = left.size() + right.size();
  if (room != nullptr && room->used == left.size() && room->capacity >= size) {
    result.data = left.data();
  } else {
    heap.step_bytes(left.size());
    // Short texts are not worth the room.
    const size_t capacity = size < 256 ? size : size * 2;
    char* copy = static_cast<char*>(heap.allocate(capacity));
    std::memcpy(copy, left.data(), left.size());
    room = nullptr;
    if (capacity > size) room = heap.make(Str::Room{left.size(), capacity});
    result.data = copy;
  }
  // The bytes after `left` belong to no other string: `used` said so.
  std::memcpy(const_cast<char*>(result.data) + left.size(), right.data(), right.size());
  result.size = size;
  result.room = room;
  if (room != nullptr) room->used = size;
  if (a.str->n_chars >= 0 && b.str->n_chars >= 0) result.n_chars = a.str->n_chars + b.str->n_chars;
  return Value::of(heap.make(result), a.safe || b.safe);
}

Value make_list(Heap& heap, std::span<const Value> items) {
  return make_seq(heap, Kind::kList, items);
}
Value make_tuple(Heap& heap, std::span<const Value> items) {
  return make_seq(heap, Kind::kTuple, items);
}

Value make_pair(Heap& heap, const Value& a, const Value& b) {
  Value* items = heap.array<Value>(2);
  items[0] = a;
  items[1] = b;
  return make_tuple(heap, {items, 2});
}

Value make_iterator(Heap& heap, std::span<const Value> items, const char* type_name) {
  Iterator iterator;
  iterator.items = items.data();
  iterator.size = items.size();
  iterator.type_name = type_name;
  return Value::of(Kind::kIterator, heap.make(iterator));
}

Value make_dict(Heap& heap) { return Value::of(heap.make(Dict())); }

Value make_undefined(Heap& heap, std::string_view name) {
  Undefined info;
  info.name = name;
  return Value::of(Kind::kUndefined, heap.make(info));
}

Value make_undefined_hint(Heap& heap, std::string_view hint) {
  Undefined info;
  info.origin = Undefined::Origin::kHint;
  info.name = hint;
  return Value::of(Kind::kUndefined, heap.make(info));
}

Value make_undefined_attribute(Heap& heap, const Value& object, const Value& element) {
  Undefined info;
  info.origin = Undefined::Origin::kAttribute;
  info.object = object;
  if (element.is(Kind::kString)) {
    info.name = element.text();
  } else {
    info.element = element;
  }
  return Value::of(Kind::kUndefined, heap.make(info));
}

const char* type_name(const Value& v) {
  switch (v.kind) {
    case Kind::kMissing:
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
    case Kind::kBigInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return v.safe ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kRange:
      return "range";
    case Kind::kIterator:
      return v.iterator->type_name;
    case Kind::kDictView:
      switch (v.view->what) {
        case DictView::What::kKeys:
          return "dict_keys";
        case DictView::What::kValues:
          return "dict_values";
        case DictView::What::kItems:
          return "dict_items";
      }
      return "dict_keys";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kMacro:
      return "Macro";
    case Kind::kFunction:
      return "function";
    case Kind::kMethod:
      return "builtin_function_or_method";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kCycler:
      return "Cycler";
    case Kind::kJoiner:
      return "Joiner";
  }
  return "object";
}

bool truthy(const Value& v) {
  switch (v.kind) {
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return v.boolean;
    case Kind::kInt:
      return v.integer != 0;
    case Kind::kFloat:
      return v.number != 0;
    case Kind::kString:
      return v.str->size != 0;
    case Kind::kList:
    case Kind::kTuple:
      return v.seq->size != 0;
    case Kind::kDict:
      return !v.dict->entries.empty();
    case Kind::kRange:
      return v.range->size != 0;
    case Kind::kDictView:
      return !v.view->dict->entries.empty();
    default:
      return true;
  }
}

bool is_number(const Value& v) {
  return v.is(Kind::kBool) || v.is(Kind::kInt) || v.is(Kind::kFloat);
}

bool equals(Heap& heap, const Value& a, const Value& b) {
  heap.step();
  if (is_number(a) && is_number(b)) return numbers_equal(a, b);
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
    case Kind::kBigInt:
      if (a.str->size != b.str->size) return false;
      heap.step_bytes(a.str->size);
      return a.text() == b.text();
    case Kind::kList:
    case Kind::kTuple:
      return a.seq == b.seq || sequences_equal(heap, *a.seq, *b.seq);
    case Kind::kDict:
      return a.dict == b.dict || dicts_equal(heap, *a.dict, *b.dict);
    case Kind::kRange:
      if (a.range->size != b.range->size || a.range->size == 0) {
        return a.range->size == b.range->size;
      }
      return a.range->start == b.range->start &&
             (a.range->size == 1 || a.range->step == b.range->step);
    default:
      return a.pointer == b.pointer;
  }
}

uint64_t hash_value(Heap& heap, const Value& v) {
  switch (v.kind) {
    case Kind::kList:
    case Kind::kDict:
    case Kind::kNamespace:
    case Kind::kDictView:
      fail_type(std::string("unhashable type: '") + type_name(v) + "'");
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone:
      return 1;
    case Kind::kBool:
    case Kind::kInt:
      return mix(static_cast<uint64_t>(as_int(v)));
    case Kind::kFloat: {
      const double d = v.number;
      if (d >= -9223372036854775808.0 && d < 9223372036854775808.0 && std::floor(d) == d) {
        return mix(static_cast<uint64_t>(static_cast<int64_t>(d)));
      }
      return mix(std::hash<double>()(d));
    }
    case Kind::kString:
    case Kind::kBigInt:
      heap.step_bytes(v.str->size);
      return std::hash<std::string_view>()(v.text());
    case Kind::kTuple: {
      uint64_t h = 7;
      heap.step(v.seq->size);
      for (size_t i = 0; i < v.seq->size; ++i) h = mix(h * 31 + hash_value(heap, v.seq->items[i]));
      return h;
    }
    default:
      return mix(static_cast<uint64_t>(reinterpret_cast<uintptr_t>(v.pointer)));
  }
}

int64_t char_count(const Str& s) {
  if (s.n_chars < 0) s.n_chars = static_cast<int64_t>(count_chars(s.view()));
  return s.n_chars;
}

int64_t Dict::locate(Heap& heap, const Value& key, uint64_t hash) const {
  if (n_slots == 0) {
    for (size_t i = 0; i < entries.size(); ++i) {
      if (equals(heap, entries[i].key, key)) return static_cast<int64_t>(i);
    }
    return -1;
  }
  for (uint64_t at = hash;; ++at) {
    const uint32_t slot = slots[at & (n_slots - 1)];
    if (slot == 0) return -1;
    if (equals(heap, entries[slot - 1].key, key)) return slot - 1;
  }
}

const Value* Dict::find(Heap& heap, const Value& key) const {
  const uint64_t hash = hash_value(heap, key);
  const int64_t at = locate(heap, key, hash);
  return at < 0 ? nullptr : &entries[static_cast<size_t>(at)].value;
}

const Value* Dict::find(Heap& heap, std::string_view key) const {
  if (n_slots == 0) {
    heap.step();
    for (const Entry& entry : entries) {
      if (entry.key.is(Kind::kString) && entry.key.text() == key) return &entry.value;
    }
    return nullptr;
  }
  Str str;
  str.data = key.data();
  str.size = key.size();
  return find(heap, Value::of(&str));
}

void Dict::rebuild_slots(Heap& heap) {
  uint32_t wanted = 32;
  while (wanted < entries.size() * 3) wanted *= 2;
  slots = heap.array<uint32_t>(wanted);
  n_slots = wanted;
  for (size_t i = 0; i < entries.size(); ++i) {
    uint64_t at = hash_value(heap, entries[i].key);
    while (slots[at & (n_slots - 1)] != 0) {
      heap.step();
      ++at;
    }
    slots[at & (n_slots - 1)] = static_cast<uint32_t>(i + 1);
  }
}

void Dict::set(Heap& heap, const Value& key, const Value& value) {
  const uint64_t hash = hash_value(heap, key);
  depth = checked_depth(std::max(depth, std::max(depth_of(key), depth_of(value)) + 1));
  const int64_t at = locate(heap, key, hash);
  if (at >= 0) {
    entries[static_cast<size_t>(at)].value = value;
    return;
  }
  entries.push(heap, {key, value});
  if (entries.size() <= kScanEntries) return;
  if (entries.size() * 2 > n_slots) {
    rebuild_slots(heap);
    return;
  }
  uint64_t slot = hash;
  while (slots[slot & (n_slots - 1)] != 0) {
    heap.step();
    ++slot;
  }
  slots[slot & (n_slots - 1)] = static_cast<uint32_t>(entries.size());
}

}  // namespace dasan::jinja
