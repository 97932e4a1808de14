// A conversation on the terminal, over dasan.hpp: chat MODEL [FILE]. One session keeps the
// history's KV pages, so each turn computes only what is new. With FILE the conversation is saved
// there at the end and goes on from there the next time, without computing anything again.
//
// FILE holds the messages (so that the next prompt can be rendered) and the session's snapshot.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <dasan/dasan.hpp>
#include <fstream>
#include <iostream>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

constexpr std::string_view kMagic = "dasan-chat 1\n";

void put(std::ostream& out, std::string_view bytes) {
  const uint64_t size = bytes.size();
  out.write(reinterpret_cast<const char*>(&size), sizeof size);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string get(std::istream& in, uint64_t file_size) {
  uint64_t size = 0;
  in.read(reinterpret_cast<char*>(&size), sizeof size);
  if (!in || size > file_size) throw std::runtime_error("the saved conversation is cut short");
  std::string bytes(static_cast<size_t>(size), '\0');
  in.read(bytes.data(), static_cast<std::streamsize>(size));
  if (!in) throw std::runtime_error("the saved conversation is cut short");
  return bytes;
}

void save(const std::string& path, const std::vector<dasan::Message>& history,
          const dasan::Session& session) {
  // Beside the old file and then over it: a failure leaves the old conversation whole.
  const std::string fresh = path + ".new";
  {
    std::ofstream out(fresh, std::ios::binary);
    out << kMagic;
    for (const dasan::Message& m : history) {
      put(out, m.role);
      put(out, m.content);
    }
    put(out, "");  // no role: the messages end here
    put(out, session.save());
    if (!out.flush()) throw std::runtime_error(fresh + " cannot be written");
  }
  if (std::rename(fresh.c_str(), path.c_str()) != 0)
    throw std::runtime_error(path + " cannot be replaced");
}

// Nothing when there is no such file yet.
std::optional<dasan::Session> restore(const std::string& path, const dasan::Engine& engine,
                                      std::vector<dasan::Message>& history) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) return std::nullopt;
  const auto size = static_cast<uint64_t>(in.tellg());
  in.seekg(0);
  std::string magic(kMagic.size(), '\0');
  in.read(magic.data(), static_cast<std::streamsize>(magic.size()));
  if (magic != kMagic) throw std::runtime_error(path + " is not a saved conversation");
  for (std::string role; !(role = get(in, size)).empty();) history.push_back({role, get(in, size)});
  return dasan::Session::restore(engine, get(in, size));
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2 && argc != 3) {
    std::cerr << "usage: " << argv[0] << " MODEL [FILE]\n";
    return 2;
  }
  const dasan::Model model(argv[1]);
  dasan::Engine engine(model);
  std::vector<dasan::Message> history;
  std::optional<dasan::Session> restored;
  if (argc == 3) restored = restore(argv[2], engine, history);
  dasan::Session session = restored ? std::move(*restored) : dasan::Session(engine);
  for (const dasan::Message& m : history)
    std::cout << (m.role == "user" ? "> " : "") << m.content << '\n';

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
  if (argc == 3) save(argv[2], history, session);
  return 0;
} catch (const dasan::Error& error) {
  std::cerr << dasan_status_name(error.status()) << ": " << error.what() << '\n';
  return 1;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
