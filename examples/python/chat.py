"""A conversation on the terminal: chat.py MODEL. The session keeps what was computed, so that each turn
computes only what is new; Ctrl-C stops an answer, not the program."""

import sys

import dasan


def main() -> None:
    messages: list[dict[str, str]] = []
    with dasan.Engine(sys.argv[1]) as engine, engine.session() as session:
        for line in iter(lambda: input("> "), ""):
            messages.append({"role": "user", "content": line})
            stream = session.chat_stream(messages, max_tokens=256)
            answer = ""
            try:
                for chunk in stream:
                    print(chunk.text, end="", flush=True)
                    answer += chunk.text
            except KeyboardInterrupt:
                stream.cancel()
                stream.read()
            print()
            messages.append({"role": "assistant", "content": answer})


if __name__ == "__main__":
    try:
        main()
    except EOFError:
        print()
