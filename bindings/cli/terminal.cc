#include "terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>

namespace dasan::cli {
namespace {

// Ctrl-C at the prompt: a byte in a pipe, which is there to be read whatever thread the signal came
// to and however long before the prompt waits for it.
int interrupt_pipe[2] = {-1, -1};

void on_interrupt(int) {
  const int kept = errno;
  static_cast<void>(!write(interrupt_pipe[1], "", 1));  // full: there is one to be read already
  errno = kept;
}

// From here on Ctrl-C does not end the program. Without a pipe it does, as before.
void catch_interrupts() {
  if (interrupt_pipe[0] < 0 && pipe2(interrupt_pipe, O_CLOEXEC | O_NONBLOCK) != 0) return;
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
}

// Waits for standard input; true when Ctrl-C came first.
bool interrupted() {
  pollfd ready[2] = {{STDIN_FILENO, POLLIN, 0}, {interrupt_pipe[0], POLLIN, 0}};
  while (poll(ready, 2, -1) < 0 && errno == EINTR) {
  }
  if ((ready[1].revents & POLLIN) == 0) return false;
  char byte = 0;
  while (read(interrupt_pipe[0], &byte, 1) > 0) {
  }
  return true;
}

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
    catch_interrupts();
    std::fputs(prompt.c_str(), stderr);
    std::fflush(stderr);
  }
  Line line;
  for (;;) {
    if (terminal && interrupted()) {
      std::fputc('\n', stderr);
      return Line{"", true};
    }
    char c = 0;
    const ssize_t n = read(STDIN_FILENO, &c, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      if (line.text.empty()) return std::nullopt;
      return line;
    }
    if (c == '\n') return line;
    if (c != '\r') line.text += c;
  }
}

}  // namespace dasan::cli
