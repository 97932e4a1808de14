// Filters on lists, dictionaries and what else can be walked through.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_runtime.h"
#include "engine/text/jinja_strings.h"
#include "engine/text/jinja_unicode.h"

namespace dasan::jinja {

namespace {

Value make_list_of(Runtime& rt, const HeapVector<Value>& items) {
  return make_list(rt.heap, {items.data(), items.size()});
}
Value make_generator(Runtime& rt, const HeapVector<Value>& items) {
  return make_iterator(rt.heap, {items.data(), items.size()});
}

Value ignore_case(Runtime& rt, const Value& v) {
  if (!v.is(Kind::kString)) return v;
  rt.heap.step_bytes(v.str->size * 2);
  return make_string(rt.heap, lower(v.text()));
}

// An attribute path such as "function.parameters.0".
class AttributePath {
 public:
  AttributePath(Runtime& rt, const Value& path) : rt_(rt) {
    if (path.missing() || path.is(Kind::kNone)) return;
    if (!path.is(Kind::kString)) {
      parts_.push_back(path);
      return;
    }
    std::string_view rest = path.text();
    for (;;) {
      const size_t dot = rest.find('.');
      const std::string_view part = rest.substr(0, dot);
      const bool digits = !part.empty() && part.size() < 18 &&
                          part.find_first_not_of("0123456789") == std::string_view::npos;
      parts_.push_back(digits ? Value::of(int64_t{std::stoll(std::string(part))})
                              : make_string_ref(rt.heap, part));
      if (dot == std::string_view::npos) break;
      rest = rest.substr(dot + 1);
    }
  }

  Value get(Value v, const Value& fallback = Value()) const {
    for (const Value& part : parts_) {
      rt_.heap.step();
      v = get_item(rt_, v, part);
      const bool use = v.is(Kind::kUndefined) && !fallback.missing() && !fallback.is(Kind::kNone);
      if (use) v = fallback;
    }
    return v;
  }

 private:
  Runtime& rt_;
  std::vector<Value> parts_;
};

struct Keyed {
  Value key;
  Value item;
};

void sort_keyed(Runtime& rt, std::vector<Keyed>& items, bool reverse) {
  // A stable sort that, reversed, still keeps equal items in their order.
  std::stable_sort(items.begin(), items.end(), [&](const Keyed& a, const Keyed& b) {
    return reverse ? less(rt, b.key, a.key) : less(rt, a.key, b.key);
  });
}

Value list_of_items(Runtime& rt, const std::vector<Keyed>& items) {
  Value* out = rt.heap.array<Value>(items.size());
  for (size_t i = 0; i < items.size(); ++i) out[i] = items[i].item;
  return make_list(rt.heap, {out, items.size()});
}

Value do_length(Runtime&, const Args& args) {
  check_positional("length", args, 1, 1);
  return Value::of(length(args.positional[0]));
}

Value do_list(Runtime& rt, const Args& args) {
  check_positional("list", args, 1, 1);
  return make_list(rt.heap, iterate(rt, args.positional[0]));
}

Value do_first(Runtime& rt, const Args& args) {
  check_positional("first", args, 1, 1);
  const Value& v = args.positional[0];
  if (v.is(Kind::kIterator)) {
    // Takes one item and leaves the rest.
    Iterator& it = *v.iterator;
    if (it.next < it.size) return it.items[it.next++];
  } else {
    const std::span<const Value> items = iterate(rt, v);
    if (!items.empty()) return items.front();
  }
  return make_undefined_hint(rt.heap, "No first item, sequence was empty.");
}

Value do_last(Runtime& rt, const Args& args) {
  check_positional("last", args, 1, 1);
  const Value& v = args.positional[0];
  if (v.is(Kind::kIterator)) {
    fail_type(std::string("'") + type_name(v) + "' object is not reversible");
  }
  const std::span<const Value> items = iterate(rt, v);
  if (!items.empty()) return items.back();
  return make_undefined_hint(rt.heap, "No last item, sequence was empty.");
}

Value do_join(Runtime& rt, const Args& args) {
  const auto [value, separator, attribute] = bind("join", args, {"value", "d", "attribute"}, 1);
  const Value cut =
      separator.missing() ? make_string_ref(rt.heap, "") : to_text(rt.heap, separator);
  std::span<const Value> items = iterate(rt, value);
  if (!attribute.missing() && !attribute.is(Kind::kNone)) {
    const AttributePath path(rt, attribute);
    Value* found = rt.heap.array<Value>(items.size());
    for (size_t i = 0; i < items.size(); ++i) found[i] = path.get(items[i]);
    items = {found, items.size()};
  }
  return join_texts(rt, cut.text(), items, false);
}

Value do_reverse(Runtime& rt, const Args& args) {
  check_positional("reverse", args, 1, 1);
  const Value& v = args.positional[0];
  const std::span<const Value> items = iterate(rt, v);
  Value* reversed = rt.heap.array<Value>(items.size());
  std::reverse_copy(items.begin(), items.end(), reversed);
  const std::span<const Value> result{reversed, items.size()};
  if (v.is(Kind::kString)) return join_texts(rt, "", result, true);
  if (v.is(Kind::kIterator)) return make_list(rt.heap, result);
  return make_iterator(rt.heap, result, "list_reverseiterator");
}

Value do_items(Runtime& rt, const Args& args) {
  check_positional("items", args, 1, 1);
  const Value& v = args.positional[0];
  if (v.is(Kind::kUndefined)) return make_iterator(rt.heap, {});
  if (!v.is(Kind::kDict)) fail_type("Can only get item pairs from a mapping.");
  const Value view =
      Value::of(Kind::kDictView, rt.heap.make(DictView{v.dict, DictView::What::kItems}));
  return make_iterator(rt.heap, iterate(rt, view));
}

Value do_dictsort(Runtime& rt, const Args& args) {
  const auto [value, case_sensitive, by, reverse] =
      bind("dictsort", args, {"value", "case_sensitive", "by", "reverse"}, 1);
  const std::string_view what = by.missing() ? "key" : need_string("dictsort", by);
  if (what != "key" && what != "value") {
    fail("FilterArgumentError", "You can only sort by either \"key\" or \"value\"");
  }
  if (value.is(Kind::kUndefined)) fail_undefined(value);
  if (!value.is(Kind::kDict)) {
    fail("AttributeError",
         std::string("'") + type_name(value) + "' object has no attribute 'items'");
  }
  std::vector<Keyed> items;
  for (const Dict::Entry& entry : value.dict->entries) {
    const Value& key = what == "key" ? entry.key : entry.value;
    items.push_back({truthy(case_sensitive) ? key : ignore_case(rt, key),
                     make_pair(rt.heap, entry.key, entry.value)});
  }
  sort_keyed(rt, items, truthy(reverse));
  return list_of_items(rt, items);
}

Value do_sort(Runtime& rt, const Args& args) {
  const auto [value, reverse, case_sensitive, attribute] =
      bind("sort", args, {"value", "reverse", "case_sensitive", "attribute"}, 1);
  // Several attributes, with commas between them, make a list of keys.
  std::vector<AttributePath> paths;
  if (attribute.is(Kind::kString)) {
    std::string_view rest = attribute.text();
    for (;;) {
      const size_t comma = rest.find(',');
      paths.emplace_back(rt, make_string_ref(rt.heap, rest.substr(0, comma)));
      if (comma == std::string_view::npos) break;
      rest = rest.substr(comma + 1);
    }
  } else {
    paths.emplace_back(rt, attribute);
  }
  std::vector<Keyed> items;
  for (const Value& item : iterate(rt, value)) {
    Value* keys = rt.heap.array<Value>(paths.size());
    for (size_t i = 0; i < paths.size(); ++i) {
      const Value key = paths[i].get(item);
      keys[i] = truthy(case_sensitive) ? key : ignore_case(rt, key);
    }
    items.push_back({make_list(rt.heap, {keys, paths.size()}), item});
  }
  sort_keyed(rt, items, truthy(reverse));
  return list_of_items(rt, items);
}

Value do_unique(Runtime& rt, const Args& args) {
  const auto [value, case_sensitive, attribute] =
      bind("unique", args, {"value", "case_sensitive", "attribute"}, 1);
  const AttributePath path(rt, attribute);
  const Value seen = make_dict(rt.heap);
  HeapVector<Value> items;
  for (const Value& item : iterate(rt, value)) {
    Value key = path.get(item);
    if (!truthy(case_sensitive)) key = ignore_case(rt, key);
    if (seen.dict->find(rt.heap, key) != nullptr) continue;
    seen.dict->set(rt.heap, key, Value::none());
    items.push(rt.heap, item);
  }
  return make_generator(rt, items);
}

template <bool largest>
Value do_extreme(Runtime& rt, const Args& args) {
  const auto [value, case_sensitive, attribute] =
      bind(largest ? "max" : "min", args, {"value", "case_sensitive", "attribute"}, 1);
  const AttributePath path(rt, attribute);
  Value best;
  Value best_key;
  for (const Value& item : iterate(rt, value)) {
    Value key = path.get(item);
    if (!truthy(case_sensitive)) key = ignore_case(rt, key);
    if (best_key.missing() || (largest ? less(rt, best_key, key) : less(rt, key, best_key))) {
      best = item;
      best_key = key;
    }
  }
  if (best_key.missing()) {
    return make_undefined_hint(rt.heap, "No aggregated item, sequence was empty.");
  }
  return best;
}

Value do_sum(Runtime& rt, const Args& args) {
  const auto [value, attribute, start] = bind("sum", args, {"iterable", "attribute", "start"}, 1);
  const AttributePath path(rt, attribute);
  Value total = start.missing() ? Value::of(int64_t{0}) : start;
  if (total.is(Kind::kString)) fail_type("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : iterate(rt, value)) {
    total = arithmetic(rt, Operator::kAdd, total, path.get(item));
  }
  return total;
}

Value do_batch(Runtime& rt, const Args& args) {
  const auto [value, count, fill] = bind("batch", args, {"value", "linecount", "fill_with"}, 2);
  const std::span<const Value> items = iterate(rt, value);
  const int64_t n = to_index(count);
  const size_t width = n <= 0 ? std::max<size_t>(items.size(), 1) : static_cast<size_t>(n);
  HeapVector<Value> rows;
  for (size_t at = 0; at < items.size(); at += width) {
    const size_t here = std::min(width, items.size() - at);
    std::span<const Value> row = items.subspan(at, here);
    if (here < width && !fill.missing() && !fill.is(Kind::kNone)) {
      rt.heap.step(width);
      Value* filled = rt.heap.array<Value>(width);
      std::copy(row.begin(), row.end(), filled);
      std::fill(filled + here, filled + width, fill);
      row = {filled, width};
    }
    rows.push(rt.heap, make_list(rt.heap, row));
    if (items.size() - at <= width) break;
  }
  return make_generator(rt, rows);
}

Value do_slice(Runtime& rt, const Args& args) {
  const auto [value, count, fill] = bind("slice", args, {"value", "slices", "fill_with"}, 2);
  const std::span<const Value> items = iterate(rt, value);
  const int64_t slices = to_index(count);
  if (slices == 0) fail("ZeroDivisionError", "integer division or modulo by zero");
  HeapVector<Value> columns;
  size_t at = 0;
  for (int64_t i = 0; i < slices; ++i) {
    rt.heap.step();
    const size_t n = items.size() / static_cast<size_t>(slices);
    const bool extra = static_cast<size_t>(i) < items.size() % static_cast<size_t>(slices);
    HeapVector<Value> column;
    for (size_t k = 0; k < n + (extra ? 1 : 0); ++k) column.push(rt.heap, items[at++]);
    if (!extra && !fill.missing() && !fill.is(Kind::kNone)) column.push(rt.heap, fill);
    columns.push(rt.heap, make_list_of(rt, column));
  }
  return make_generator(rt, columns);
}

Value do_groupby(Runtime& rt, const Args& args) {
  const auto [value, attribute, fallback, case_sensitive] =
      bind("groupby", args, {"value", "attribute", "default", "case_sensitive"}, 2);
  const AttributePath path(rt, attribute);
  std::vector<Keyed> items;
  for (const Value& item : iterate(rt, value)) {
    const Value key = path.get(item, fallback);
    items.push_back({truthy(case_sensitive) ? key : ignore_case(rt, key), item});
  }
  sort_keyed(rt, items, false);
  HeapVector<Value> groups;
  for (size_t at = 0; at < items.size();) {
    HeapVector<Value> members;
    size_t end = at;
    while (end < items.size() && equals(rt.heap, items[end].key, items[at].key)) {
      members.push(rt.heap, items[end++].item);
    }
    Value* pair = rt.heap.array<Value>(2);
    pair[0] = path.get(items[at].item, fallback);
    pair[1] = make_list_of(rt, members);
    Seq seq = *make_tuple(rt.heap, {pair, 2}).seq;
    seq.group = true;
    groups.push(rt.heap, Value::tuple(rt.heap.make(seq)));
    at = end;
  }
  return make_list_of(rt, groups);
}

Value do_map(Runtime& rt, const Args& args) {
  if (args.positional.empty()) fail_type("map() missing required argument 'value'");
  HeapVector<Value> mapped;
  const Value& value = args.positional[0];
  if (!truthy(value)) return make_generator(rt, mapped);
  if (args.positional.size() == 1) {
    Value attribute;
    Value fallback;
    for (const Keyword& keyword : args.keywords) {
      if (keyword.name == "attribute") {
        attribute = keyword.value;
      } else if (keyword.name == "default") {
        fallback = keyword.value;
      } else {
        fail("FilterArgumentError",
             std::string("Unexpected keyword argument '") + std::string(keyword.name) + "'");
      }
    }
    if (attribute.missing()) fail("FilterArgumentError", "map requires a filter argument");
    const AttributePath path(rt, attribute);
    for (const Value& item : iterate(rt, value)) mapped.push(rt.heap, path.get(item, fallback));
  } else {
    const std::string_view name = need_string("map", args.positional[1]);
    const Args rest{args.positional.subspan(2), args.keywords};
    for (const Value& item : iterate(rt, value)) {
      mapped.push(rt.heap, apply_filter(rt, name, item, rest));
    }
  }
  return make_generator(rt, mapped);
}

// select, reject, selectattr, rejectattr.
template <bool keep, bool by_attribute>
Value do_choose(Runtime& rt, const Args& args) {
  if (args.positional.empty()) fail_type("filter is missing the value to choose from");
  HeapVector<Value> chosen;
  const Value& value = args.positional[0];
  if (!truthy(value)) return make_generator(rt, chosen);
  std::span<const Value> rest = args.positional.subspan(1);
  Value attribute;
  if (by_attribute) {
    if (rest.empty()) fail("FilterArgumentError", "Missing parameter for attribute name");
    attribute = rest[0];
    rest = rest.subspan(1);
  }
  const AttributePath path(rt, attribute);
  for (const Value& item : iterate(rt, value)) {
    const Value tested = path.get(item);
    const bool passes = rest.empty() ? truthy(tested)
                                     : apply_test(rt, need_string("select", rest[0]), tested,
                                                  {rest.subspan(1), args.keywords});
    if (passes == keep) chosen.push(rt.heap, item);
  }
  return make_generator(rt, chosen);
}

constexpr std::array<FilterDef, 22> kSequenceFilters = {{
    {"length", do_length},
    {"count", do_length},
    {"list", do_list},
    {"first", do_first},
    {"last", do_last},
    {"join", do_join},
    {"reverse", do_reverse},
    {"items", do_items},
    {"dictsort", do_dictsort},
    {"sort", do_sort},
    {"unique", do_unique},
    {"min", do_extreme<false>},
    {"max", do_extreme<true>},
    {"sum", do_sum},
    {"batch", do_batch},
    {"slice", do_slice},
    {"groupby", do_groupby},
    {"map", do_map},
    {"select", do_choose<true, false>},
    {"reject", do_choose<false, false>},
    {"selectattr", do_choose<true, true>},
    {"rejectattr", do_choose<false, true>},
}};

}  // namespace

std::span<const FilterDef> sequence_filters() { return kSequenceFilters; }

}  // namespace dasan::jinja
