"""Minutes from a transcript: minutes.py MODEL TRANSCRIPT

The transcript, lines of "speaker: words", goes into one session turn by turn as it would while people
speak, so each addition costs only itself. Each section of the minutes is then asked of a fork of that
session: the transcript is read once, whatever the number of questions.
"""

import sys
from pathlib import Path

import dasan

SECTIONS = ("논의한 안건", "결정 사항", "할 일과 담당자")


def main() -> None:
    path, transcript = sys.argv[1:]
    with dasan.Engine(path) as engine, engine.session() as session:
        model = engine.model
        mark = "\x00"
        frame = model.apply_chat_template([{"role": "user", "content": f"회의록입니다.\n{mark}"}])
        before, after = frame.split(mark)
        session.eval(model.token_ids(before, add_special=False, parse_special=True))
        for line in Path(transcript).read_text(encoding="utf-8").splitlines():
            if line.strip():
                session.eval(model.token_ids(line + "\n", add_special=False))
        print(f"# 회의록 ({len(session)} tokens)\n")
        for section in SECTIONS:
            with session.fork() as branch:
                ask = f"\n위 회의에서 {section}만 정리하세요." + after
                prompt = model.token_ids(ask, add_special=False, parse_special=True)
                answer = engine.generate(prompt, session=branch, max_tokens=200)
            print(f"## {section}\n\n{answer.text.strip()}\n")


if __name__ == "__main__":
    main()
