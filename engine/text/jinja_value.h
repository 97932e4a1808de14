// The values of a chat template: Python's, as far as templates can see them. A Value is plain data;
// what it points to lies in a Heap (a rendering's, or the parsed template's for its constants) and
// does not change once made, except namespaces and the state of iterators, cyclers and joiners.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "engine/text/jinja_heap.h"

namespace dasan::jinja {

class Runtime;
struct Frame;
struct Stmt;
struct Value;
struct Args;
struct LoopState;

enum class Kind : uint8_t {
  kMissing,  // no value at all: an argument that was not given; never seen by a template
  kUndefined,
  kNone,
  kBool,
  kInt,
  kBigInt,  // beyond 64 bits: kept as its decimal text, printed, never computed with
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kRange,
  kIterator,  // a generator: can be read once
  kDictView,  // dict.keys(), .values(), .items()
  kNamespace,
  kMacro,
  kFunction,  // a global such as range
  kMethod,    // a method bound to its object
  kLoop,
  kCycler,
  kJoiner,
};

// UTF-8, always valid.
struct Str {
  const char* data = nullptr;
  size_t size = 0;
  mutable int64_t n_chars = -1;  // code points; -1 = not counted yet
  // Room after the text, shared by every string that starts at `data`; lets `a + b` append in
  // place, so that building a text piece by piece is linear.
  struct Room {
    size_t used = 0;
    size_t capacity = 0;
  };
  Room* room = nullptr;
  std::string_view view() const { return {data, size}; }
};

struct Seq;
struct Dict;
struct Range;
struct Iterator;
struct DictView;
struct Namespace;
struct Macro;
struct Function;
struct Method;
struct Cycler;
struct Joiner;
struct Undefined;

struct Value {
  Kind kind = Kind::kMissing;
  bool safe = false;  // a string marked by `safe` or `escape`: `+` escapes what is added to it
  union {
    bool boolean;
    int64_t integer;
    double number;
    const Str* str;  // kString, kBigInt
    const Seq* seq;  // kList, kTuple
    Dict* dict;
    const Range* range;
    Iterator* iterator;
    const DictView* view;
    Namespace* ns;
    const Macro* macro;
    const Function* function;
    const Method* method;
    LoopState* loop;
    Cycler* cycler;
    Joiner* joiner;
    const Undefined* undefined;  // null: nothing is known about it
    const void* pointer;
  };

  Value() : pointer(nullptr) {}
  static Value none() { return of(Kind::kNone); }
  static Value of(bool v) {
    Value r = of(Kind::kBool);
    r.boolean = v;
    return r;
  }
  static Value of(int64_t v) {
    Value r = of(Kind::kInt);
    r.integer = v;
    return r;
  }
  static Value of(double v) {
    Value r = of(Kind::kFloat);
    r.number = v;
    return r;
  }
  static Value of(Kind kind, const void* pointer = nullptr) {
    Value r;
    r.kind = kind;
    r.pointer = pointer;
    return r;
  }
  static Value of(const Str* str, bool safe = false) {
    Value r = of(Kind::kString);
    r.str = str;
    r.safe = safe;
    return r;
  }
  static Value list(const Seq* seq) {
    Value r = of(Kind::kList);
    r.seq = seq;
    return r;
  }
  static Value tuple(const Seq* seq) {
    Value r = of(Kind::kTuple);
    r.seq = seq;
    return r;
  }
  static Value of(Dict* dict) {
    Value r = of(Kind::kDict);
    r.dict = dict;
    return r;
  }

  bool is(Kind k) const { return kind == k; }
  bool missing() const { return kind == Kind::kMissing; }
  std::string_view text() const { return str->view(); }  // kString only
};

struct Undefined {
  enum class Origin : uint8_t { kName, kAttribute, kHint, kUnsafe };
  Origin origin = Origin::kName;
  std::string_view name;  // in the template or the heap
  Value object;           // kAttribute, kUnsafe: what was asked
  Value element;          // kAttribute: set when the name was not a string
};

struct Seq {
  const Value* items = nullptr;
  size_t size = 0;
  uint32_t depth = 1;  // of nesting; bounded, so that walks may recurse
  bool group = false;  // a tuple made by groupby: has .grouper and .list
};

struct Range {
  int64_t start = 0;
  int64_t step = 1;
  int64_t size = 0;
  int64_t at(int64_t i) const { return start + i * step; }
};

struct Iterator {
  const Value* items = nullptr;
  size_t size = 0;
  size_t next = 0;
  const char* type_name = "generator";
};

// Keeps the order of insertion. Keys compare as in Python: 1, 1.0 and true are one key.
struct Dict {
  struct Entry {
    Value key;
    Value value;
  };
  HeapVector<Entry> entries;
  uint32_t* slots = nullptr;  // (n_slots): entry + 1, 0 = free; only for more than a few entries
  uint32_t n_slots = 0;
  uint32_t depth = 1;

  const Value* find(Heap& heap, const Value& key) const;
  const Value* find(Heap& heap, std::string_view key) const;
  void set(Heap& heap, const Value& key, const Value& value);  // throws for an unhashable key

 private:
  void rebuild_slots(Heap& heap);
  int64_t locate(Heap& heap, const Value& key, uint64_t hash) const;
};

struct DictView {
  enum class What : uint8_t { kKeys, kValues, kItems };
  const Dict* dict = nullptr;
  What what = What::kKeys;
};

struct Namespace {
  Dict* members = nullptr;
};

struct Keyword {
  std::string_view name;
  Value value;
};

// The arguments of one call; valid during the call.
struct Args {
  std::span<const Value> positional;
  std::span<const Keyword> keywords;
};

using FunctionPointer = Value (*)(Runtime&, const Args&);
struct Function {
  std::string_view name;
  FunctionPointer call = nullptr;
};

using MethodPointer = Value (*)(Runtime&, const Value& self, const Args&);
struct MethodDef {
  std::string_view name;
  MethodPointer call = nullptr;  // null: the method changes its object, which is not allowed
};
struct Method {
  Value self;
  const MethodDef* definition = nullptr;
};

struct Macro {
  const Stmt* definition = nullptr;
  Frame* closure = nullptr;
};

struct Cycler {
  const Value* items = nullptr;
  size_t size = 0;
  size_t position = 0;
};

struct Joiner {
  Value separator;
  bool used = false;
};

// Containers deeper than this are refused when they are made.
inline constexpr uint32_t kMaxValueDepth = 256;

// Making values.
Value make_string(Heap& heap, std::string_view text);      // copies
Value make_string_ref(Heap& heap, std::string_view text);  // refers: the text must outlive the heap
Value concat(Heap& heap, const Value& a, const Value& b);  // two strings
Value make_list(Heap& heap, std::span<const Value> items);    // takes the array, no copy
Value make_tuple(Heap& heap, std::span<const Value> items);   // likewise
Value make_pair(Heap& heap, const Value& a, const Value& b);  // a tuple of two
Value make_iterator(Heap& heap, std::span<const Value> items, const char* type_name = "generator");
Value make_dict(Heap& heap);
Value make_undefined(Heap& heap, std::string_view name);
Value make_undefined_hint(Heap& heap, std::string_view hint);
Value make_undefined_attribute(Heap& heap, const Value& object, const Value& element);

// What every value can be asked.
const char* type_name(const Value& v);  // as Python's type(v).__name__
bool truthy(const Value& v);
bool equals(Heap& heap, const Value& a, const Value& b);
uint64_t hash_value(Heap& heap, const Value& v);  // throws TypeError for lists and dicts
int64_t char_count(const Str& s);
bool is_number(const Value& v);  // bool, int or float
std::string undefined_message(const Value& v);

// Python's str() and repr().
void append_text(Heap& heap, std::string& out, const Value& v);
void append_repr(Heap& heap, std::string& out, const Value& v);
Value to_text(Heap& heap, const Value& v);  // a string; a string stays itself

// Errors name Python's exception, which is what template authors know.
[[noreturn]] void fail(std::string_view kind, std::string_view message);
[[noreturn]] void fail_type(std::string_view message);
[[noreturn]] void fail_value(std::string_view message);
[[noreturn]] void fail_undefined(const Value& v);

}  // namespace dasan::jinja
