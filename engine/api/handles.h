// What the opaque handles of dasan.h point to: each holds a share of the object it names, so that
// handles can be released in any order.
#pragma once

#include <dasan/dasan.h>

#include <memory>

namespace dasan {
class Model;
}  // namespace dasan

struct dasan_model {
  std::shared_ptr<const dasan::Model> model;
};
