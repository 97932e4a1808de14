// The boundary between C and C++: exceptions become a status and this thread's message here, and
// nowhere else.
#pragma once

#include <dasan/dasan.h>

#include <new>
#include <string_view>

#include "kernels/core/status.h"

namespace dasan::api {

// Stores the message in this thread's fixed buffer (cut at a character boundary) and returns
// `status`. Allocates nothing, so that running out of memory can be reported.
dasan_status fail(Status status, std::string_view message) noexcept;

// Runs body(), which returns nothing, and translates what it throws.
template <class Body>
dasan_status guard(Body&& body) noexcept {
  try {
    body();
    return DASAN_OK;
  } catch (const Error& error) {
    return fail(error.status(), error.message());
  } catch (const std::bad_alloc&) {
    return fail(Status::kOutOfMemory, "out of memory");
  } catch (const std::exception& error) {
    return fail(Status::kInternal, error.what());
  } catch (...) {
    return fail(Status::kInternal, "unknown exception");
  }
}

}  // namespace dasan::api
