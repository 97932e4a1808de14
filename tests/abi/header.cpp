// dasan.hpp included twice and instantiated, and dasan.h as C++; compiled with warnings as errors.
#include <dasan/dasan.h>

#include <dasan/dasan.hpp>
#include <type_traits>

static_assert(std::is_move_constructible_v<dasan::Model> &&
              !std::is_copy_constructible_v<dasan::Model>);
static_assert(std::is_move_constructible_v<dasan::Engine> &&
              !std::is_copy_constructible_v<dasan::Engine>);
static_assert(std::is_move_constructible_v<dasan::Session> &&
              !std::is_copy_constructible_v<dasan::Session>);
static_assert(std::is_move_constructible_v<dasan::Request> &&
              !std::is_copy_constructible_v<dasan::Request>);
static_assert(std::is_base_of_v<std::exception, dasan::Error>);

// Never called: the bodies of the class members must compile where they are used.
[[maybe_unused]] static std::string use(const dasan::Model& model, dasan::Engine& engine) {
  dasan::Session session(engine);
  dasan::Session fork = session.fork();
  fork.rewind(0);
  auto restored = dasan::Session::restore(engine, session.save());
  const dasan::Message messages[] = {{"user", "hello"}};
  auto request =
      engine.submit(model.chat_prompt(messages), {.max_tokens = 1, .stop = {"\n"}}, &restored);
  request.cancel();
  engine.step();
  const auto steps = engine.stats().steps;
  return request.text() + model.detokenize(restored.tokens()) + model.info().name +
         std::to_string(steps);
}
int main() { return 0; }
