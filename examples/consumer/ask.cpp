// Asks a model one question and prints the whole answer: ask_cpp MODEL QUESTION
#include <dasan/dasan.hpp>
#include <iostream>
#include <vector>

int main(int argc, char** argv) try {
  if (argc != 3) return 2;
  const dasan::Model model(argv[1]);
  dasan::Engine engine(model);
  const std::vector<dasan::Message> messages = {{"user", argv[2]}};
  std::cout << engine.submit(model.chat_prompt(messages), {.max_tokens = 64}).text() << '\n';
  return 0;
} catch (const dasan::Error& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
