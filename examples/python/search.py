"""Search with citations: search.py MODEL QUESTION FILE...

Files are cut into windows of tokens; each window knows the characters it came from (offsets), so a hit
is shown as file, line and the very text, whatever the tokenizer did in between.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dasan

WINDOW, STEP, HITS = 64, 48, 3


@dataclass(frozen=True)
class Window:
    file: str
    text: str
    begin: int
    end: int
    ids: list[int]

    def citation(self) -> str:
        line = self.text.count("\n", 0, self.begin) + 1
        return f"{self.file}:{line}: {' '.join(self.text[self.begin : self.end].split())}"


def windows(model: dasan.Model, file: str) -> list[Window]:
    text = Path(file).read_text(encoding="utf-8")
    encoding = model.tokenize(text, add_special=False)
    found = []
    for first in range(0, max(len(encoding) - (WINDOW - STEP), 1), STEP):
        ids = encoding.ids[first : first + WINDOW]
        if ids:
            begin, end = encoding.offsets[first][0], encoding.offsets[first + len(ids) - 1][1]
            found.append(Window(file, text, begin, end, ids))
    return found


def main() -> None:
    path, question, *files = sys.argv[1:]
    with dasan.Engine(path) as engine:
        all_windows = [w for f in files for w in windows(engine.model, f)]
        rows = engine.embed([w.ids for w in all_windows])
        scores = rows @ engine.embed([question])[0]
        for i in np.argsort(-scores, kind="stable")[:HITS]:
            print(f"{scores[i]:.3f}  {all_windows[i].citation()}")


if __name__ == "__main__":
    main()
