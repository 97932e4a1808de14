"""Summaries of many text files, computed together: summarise.py MODEL FILE...

A file that does not fit the context is cut at paragraphs, each part is summarised, and then the
summaries are: as often as it takes.
"""

import asyncio
import sys
from pathlib import Path

import dasan

ASK = "다음 글을 세 문장으로 요약하세요.\n\n"
ANSWER_TOKENS = 160


def parts_of(engine: dasan.Engine, text: str, room: int) -> list[str]:
    """The text in parts of at most `room` tokens, cut between paragraphs, else where it has to be."""
    parts: list[str] = []
    held = ""
    for paragraph in text.split("\n\n"):
        both = f"{held}\n\n{paragraph}".strip()
        if len(engine.model.token_ids(both)) <= room:
            held = both
            continue
        if held:
            parts.append(held)
        encoding = engine.model.tokenize(paragraph, add_special=False)
        cuts = [encoding.offsets[i][0] for i in range(0, len(encoding), max(room - 8, 1))] + [len(paragraph)]
        pieces = [paragraph[a:b] for a, b in zip(cuts, cuts[1:], strict=False) if paragraph[a:b].strip()]
        parts += pieces[:-1]
        held = pieces[-1] if pieces else ""
    return [*parts, held] if held else parts


async def summary(engine: dasan.Engine, text: str) -> str:
    frame = len(engine.model.chat_tokens([{"role": "user", "content": ASK}]))
    room = engine.max_context - frame - ANSWER_TOKENS
    if room < 32:
        raise SystemExit(f"the context of {engine.max_context} tokens leaves no room for a text")
    parts = parts_of(engine, text, room)
    while True:
        prompts = [[{"role": "user", "content": ASK + part}] for part in parts]
        answers = await asyncio.gather(*(engine.agenerate(p, max_tokens=ANSWER_TOKENS) for p in prompts))
        if len(answers) == 1:
            return answers[0].text
        shorter = parts_of(engine, "\n\n".join(a.text for a in answers), room)
        if len(shorter) >= len(parts):  # summaries as long as the text: more rounds would not end
            return "\n".join(a.text for a in answers)
        parts = shorter


async def main() -> None:
    model, *files = sys.argv[1:]
    with dasan.Engine(model, max_sequences=16) as engine:
        texts = [Path(f).read_text(encoding="utf-8") for f in files]
        summaries = await asyncio.gather(*(summary(engine, text) for text in texts))
    for file, text in zip(files, summaries, strict=True):
        print(f"## {file}\n\n{text}\n")


if __name__ == "__main__":
    asyncio.run(main())
