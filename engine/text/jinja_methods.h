// The methods of strings, for the lookup of methods.
#pragma once

#include <span>

#include "engine/text/jinja_value.h"

namespace dasan::jinja {

std::span<const MethodDef> string_methods();

}  // namespace dasan::jinja
