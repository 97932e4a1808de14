// str() and repr() of values, as Python prints them.
#include <string>

#include "engine/text/jinja_format.h"
#include "engine/text/jinja_value.h"

namespace dasan::jinja {

namespace {

void append_seq(Heap& heap, std::string& out, const Seq& seq, char open, char close, bool tuple) {
  out.push_back(open);
  for (size_t i = 0; i < seq.size; ++i) {
    if (i != 0) out += ", ";
    append_repr(heap, out, seq.items[i]);
  }
  if (tuple && seq.size == 1) out.push_back(',');
  out.push_back(close);
}

void append_dict(Heap& heap, std::string& out, const Dict& dict) {
  out.push_back('{');
  bool first = true;
  for (const Dict::Entry& entry : dict.entries) {
    if (!first) out += ", ";
    first = false;
    append_repr(heap, out, entry.key);
    out += ": ";
    append_repr(heap, out, entry.value);
  }
  out.push_back('}');
}

void append_view(Heap& heap, std::string& out, const DictView& view) {
  out += type_name(Value::of(Kind::kDictView, &view));
  out += "([";
  bool first = true;
  for (const Dict::Entry& entry : view.dict->entries) {
    if (!first) out += ", ";
    first = false;
    switch (view.what) {
      case DictView::What::kKeys:
        append_repr(heap, out, entry.key);
        break;
      case DictView::What::kValues:
        append_repr(heap, out, entry.value);
        break;
      case DictView::What::kItems:
        out.push_back('(');
        append_repr(heap, out, entry.key);
        out += ", ";
        append_repr(heap, out, entry.value);
        out.push_back(')');
        break;
    }
  }
  out += "])";
}

void append_range(std::string& out, const Range& range) {
  out += std::string("range(") + std::to_string(range.start) + ", " +
         std::to_string(range.start + range.step * range.size);
  if (range.step != 1) out += std::string(", ") + std::to_string(range.step);
  out.push_back(')');
}

}  // namespace

void append_text(Heap& heap, std::string& out, const Value& v) {
  switch (v.kind) {
    case Kind::kString: {
      heap.step_bytes(v.str->size);
      heap.charge_bytes(v.str->size);
      out += v.text();
      return;
    }
    case Kind::kMissing:
    case Kind::kUndefined:
      return;
    default:
      append_repr(heap, out, v);
  }
}

void append_repr(Heap& heap, std::string& out, const Value& v) {
  heap.step();
  const size_t before = out.size();
  switch (v.kind) {
    case Kind::kMissing:
    case Kind::kUndefined:
      out += "Undefined";
      break;
    case Kind::kNone:
      out += "None";
      break;
    case Kind::kBool:
      out += v.boolean ? "True" : "False";
      break;
    case Kind::kInt:
      out += std::to_string(v.integer);
      break;
    case Kind::kBigInt:
      out += v.text();
      break;
    case Kind::kFloat:
      append_float(out, v.number);
      break;
    case Kind::kString:
      heap.step_bytes(v.str->size);
      if (v.safe) out += "Markup(";
      append_quoted(out, v.text());
      if (v.safe) out.push_back(')');
      break;
    case Kind::kList:
      append_seq(heap, out, *v.seq, '[', ']', false);
      return;
    case Kind::kTuple:
      append_seq(heap, out, *v.seq, '(', ')', true);
      return;
    case Kind::kDict:
      append_dict(heap, out, *v.dict);
      return;
    case Kind::kDictView:
      append_view(heap, out, *v.view);
      return;
    case Kind::kRange:
      append_range(out, *v.range);
      break;
    case Kind::kNamespace:
      // Members are not printed: a namespace can hold itself.
      out += "<Namespace>";
      break;
    default:
      out += "<";
      out += type_name(v);
      out += " object>";
      break;
  }
  heap.charge_bytes(out.size() - before);
}

Value to_text(Heap& heap, const Value& v) {
  if (v.is(Kind::kString)) return v;
  std::string text;
  append_text(heap, text, v);
  return make_string(heap, text);
}

}  // namespace dasan::jinja
