#include "terminal.h"

#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>

namespace dasan::cli {
namespace {

// Interrupts the read() and does nothing else.
void ignore_interrupt(int) {}

}  // namespace

void prepare_terminal() {
  termios settings{};
  if (isatty(STDIN_FILENO) == 0 || tcgetattr(STDIN_FILENO, &settings) != 0) return;
  settings.c_iflag |= IUTF8;
  tcsetattr(STDIN_FILENO, TCSANOW, &settings);
}

std::optional<Line> read_line(const std::string& prompt) {
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (terminal) {
    std::fputs(prompt.c_str(), stderr);
    std::fflush(stderr);
    struct sigaction action {};
    action.sa_handler = ignore_interrupt;
    sigemptyset(&action.sa_mask);
    action.sa_flags = 0;  // no SA_RESTART: read() must return
    sigaction(SIGINT, &action, nullptr);
  }
  Line line;
  for (;;) {
    char c = 0;
    const ssize_t n = read(STDIN_FILENO, &c, 1);
    if (n < 0 && errno == EINTR) {
      std::fputc('\n', stderr);
      return Line{"", true};
    }
    if (n <= 0) {
      if (line.text.empty()) return std::nullopt;
      return line;
    }
    if (c == '\n') return line;
    if (c != '\r') line.text += c;
  }
}

}  // namespace dasan::cli
