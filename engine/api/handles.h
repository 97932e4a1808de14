// What the opaque handles of dasan.h point to: each holds a share of the object it names, so that
// handles can be released in any order.
#pragma once

#include <dasan/dasan.h>

#include <memory>

#include "engine/session/engine.h"
#include "engine/session/request.h"

struct dasan_model {
  std::shared_ptr<const dasan::Model> model;
};

struct dasan_engine {
  std::shared_ptr<dasan::Engine> engine;
  ~dasan_engine() {
    if (engine) engine->shutdown();
  }
};

struct dasan_session {
  std::shared_ptr<dasan::Engine> engine;
  std::shared_ptr<dasan::Sequence> sequence;
  ~dasan_session() {
    if (engine && sequence) engine->drop(*sequence);
  }
};

struct dasan_request {
  std::shared_ptr<dasan::Engine> engine;
  std::shared_ptr<dasan::Request> request;
  dasan::Event event;  // what the last dasan_request_next lent out
};
