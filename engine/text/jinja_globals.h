// The error a template raises itself, told apart from errors in it.
#pragma once

#include <string>
#include <utility>

#include "kernels/core/status.h"

namespace dasan::jinja {

class RaisedError : public Error {
 public:
  explicit RaisedError(std::string message) : Error(Status::kInvalidArgument, std::move(message)) {}
};

}  // namespace dasan::jinja
