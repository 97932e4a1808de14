// The operators of the expression language with Python's meaning: arithmetic, comparison,
// membership, subscripts, slices, attributes, iteration.
#pragma once

#include <span>
#include <string_view>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_runtime.h"
#include "engine/text/jinja_value.h"

namespace dasan::jinja {

Value arithmetic(Runtime& rt, Operator op, const Value& a, const Value& b);
Value negate(const Value& v, bool minus);  // unary - and +
bool compare(Runtime& rt, Operator op, const Value& a, const Value& b);
bool less(Runtime& rt, const Value& a, const Value& b);
bool contains(Runtime& rt, const Value& container, const Value& item);

// Jinja's object.name: the attribute, else the item, else undefined.
Value get_attribute(Runtime& rt, const Value& object, const Value& name);
// Jinja's object[element]: the item, else the attribute, else undefined.
Value get_item(Runtime& rt, const Value& object, const Value& element);
// object[start:stop:step]; kMissing or none where a part is left out.
Value get_slice(Runtime& rt, const Value& object, const Value& start, const Value& stop,
                const Value& step);

// Everything an iterable yields; an iterator is used up by it. Throws TypeError.
std::span<const Value> iterate(Runtime& rt, const Value& v);
bool iterable(const Value& v);
// len(v); throws TypeError.
int64_t length(const Value& v);

// HTML-escapes what is not marked safe.
Value escape(Runtime& rt, const Value& v);

}  // namespace dasan::jinja
