// The filters, in the two tables that make up all of them.
#pragma once

#include <span>

#include "engine/text/jinja_runtime.h"

namespace dasan::jinja {

std::span<const FilterDef> text_filters();
std::span<const FilterDef> sequence_filters();

}  // namespace dasan::jinja
