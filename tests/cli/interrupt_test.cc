// Ctrl-C in a terminal: it stops an answer of `dasan chat` and not the program; `dasan generate`
// ends with what it has and status 130.
#include <doctest/doctest.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/paths.h"

namespace {

constexpr std::chrono::seconds kPatience{60};  // sooner, unless something hangs

// The command in a terminal of its own; killed if it is still there at the end.
class Terminal {
 public:
  explicit Terminal(std::vector<std::string> args) {
    pid_ = forkpty(&fd_, nullptr, nullptr, nullptr);
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      std::vector<char*> argv;
      args.insert(args.begin(), DASAN_COMMAND);
      for (std::string& arg : args) argv.push_back(arg.data());
      argv.push_back(nullptr);
      execv(argv[0], argv.data());
      _exit(127);
    }
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    close(fd_);
  }

  void type(std::string_view text) const {
    CHECK(write(fd_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }

  // What appears, up to and with `until`, or all there is to the program's end.
  std::string read_to(std::string_view until) {
    const auto start = std::chrono::steady_clock::now();
    std::string out;
    while (std::chrono::steady_clock::now() - start < kPatience) {
      if (const size_t at = pending_.find(until); !until.empty() && at != std::string::npos) {
        out = pending_.substr(0, at + until.size());
        pending_.erase(0, at + until.size());
        return out;
      }
      if (!receive()) break;
    }
    out.swap(pending_);
    return out;
  }

  // Waits until something appears, and leaves it.
  void read_some() {
    const auto start = std::chrono::steady_clock::now();
    while (pending_.empty() && std::chrono::steady_clock::now() - start < kPatience) receive();
  }

  // The exit status, or -1 for a program that a signal ended.
  int wait() {
    int status = 0;
    REQUIRE(waitpid(pid_, &status, 0) == pid_);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  // Adds what comes within a second to pending_; false: the program has closed its terminal.
  bool receive() {
    pollfd readable{fd_, POLLIN, 0};
    if (poll(&readable, 1, 1000) <= 0) return true;
    char buffer[4096];
    const ssize_t n = read(fd_, buffer, sizeof buffer);
    if (n <= 0) return false;  // EIO
    pending_.append(buffer, static_cast<size_t>(n));
    return true;
  }

  pid_t pid_ = -1;
  int fd_ = -1;
  std::string pending_;
};

// Contexts of 8192 tokens: an answer that is not stopped takes seconds.
const std::vector<std::string> kLong = {"--set", "llama.context_length=8192", "--threads", "1"};

std::vector<std::string> with_long_context(std::vector<std::string> args) {
  args.insert(args.end(), kLong.begin(), kLong.end());
  return args;
}

std::string demo() {
  return std::string(dasan::test::kSourceDir) + "/examples/demo_model/dasan-demo.gguf";
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("Ctrl-C stops an answer of chat, and the conversation goes on") {
  // So hot that the end token is one among hundreds.
  Terminal chat(with_long_context({"chat", demo(), "--temp", "99", "--seed", "3"}));
  CHECK(has(chat.read_to("\n> "), "/help"));
  int stopped = 0;
  // An answer may end by itself, but not several times in a row.
  for (int i = 0; i < 5 && stopped == 0; i++) {
    chat.type("안녕\n");
    chat.read_to("\r\n");  // the terminal's echo
    chat.read_some();
    chat.type("\x03");
    stopped += has(chat.read_to("\n> "), "[stopped]") ? 1 : 0;
    chat.type("/clear\n");
    chat.read_to("> ");
  }
  CHECK(stopped == 1);
  chat.type("\x03");  // at the prompt: explains how to leave
  CHECK(has(chat.read_to("> "), "Ctrl-D"));
  chat.type("/exit\n");
  CHECK(chat.wait() == 0);
}

TEST_CASE("Ctrl-C ends generate with the text so far and status 130") {
  Terminal generate(with_long_context({"generate", demo(), "-p", "hello", "--ignore-eos"}));
  generate.read_to("\r              \r");  // loaded
  generate.read_some();
  generate.type("\x03");
  const std::string rest = generate.read_to("");
  CHECK(generate.wait() == 130);
  CHECK(has(rest, "cancelled"));
}
