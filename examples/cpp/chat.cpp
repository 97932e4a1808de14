// A conversation on the terminal, over dasan.hpp: chat MODEL. One session keeps the history's KV
// pages, so each turn computes only what is new.
#include <algorithm>
#include <dasan/dasan.hpp>
#include <iostream>
#include <span>
#include <string>
#include <vector>

int main(int argc, char** argv) try {
  if (argc != 2) {
    std::cerr << "usage: " << argv[0] << " MODEL\n";
    return 2;
  }
  const dasan::Model model(argv[1]);
  dasan::Engine engine(model);
  dasan::Session session(engine);
  std::vector<dasan::Message> history;

  for (std::string line; std::cout << "> " << std::flush && std::getline(std::cin, line);) {
    history.push_back({"user", line});
    const std::vector<int32_t> prompt = model.chat_prompt(history);
    // A template may write earlier turns otherwise than they were generated: keep the part of the
    // session that agrees with the prompt, and submit the rest, which must not be empty.
    const std::vector<int32_t> held = session.tokens();
    const auto parts = std::mismatch(held.begin(), held.end(), prompt.begin(), prompt.end());
    const auto same = std::min(static_cast<size_t>(parts.first - held.begin()), prompt.size() - 1);
    session.rewind(same);

    std::string answer;
    auto request = engine.submit(std::span(prompt).subspan(same), {.max_tokens = 256}, &session);
    while (auto event = request.next()) {
      std::cout << event->text << std::flush;
      answer += event->text;
    }
    std::cout << '\n';
    history.push_back({"assistant", answer});
  }
  return 0;
} catch (const dasan::Error& error) {
  std::cerr << dasan_status_name(error.status()) << ": " << error.what() << '\n';
  return 1;
}
