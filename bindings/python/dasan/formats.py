"""The forms in which models write tool calls and reasoning, and a reader of them for text that comes
in pieces. Which form a model uses is read from its own chat template; nothing goes by its name.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .model import Model

Kind = Literal["hermes", "xml", "mistral", "llama3"]


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How a call is written: open, payload, close ('' : to the end of the text)."""

    kind: Kind
    open: str
    close: str
    hidden: bool = False  # the marker is a control token, which plain text leaves out

    def forced(self, name: str | None) -> str:
        """What an answer that must be a call starts with: of `name`, or of any tool."""
        if self.kind == "xml":
            return f"{self.open}\n<function=" + (f"{name}>\n" if name else "")
        key = "parameters" if self.kind == "llama3" else "arguments"
        start = {"hermes": f"{self.open}\n", "mistral": f"{self.open}[", "llama3": ""}[self.kind]
        return start + '{"name": "' + (f'{name}", "{key}": ' if name else "")


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """What can be in a model's answer besides plain text."""

    tools: ToolFormat | None = None
    thinks: bool = False
    drop: tuple[str, ...] = ()  # control tokens that are no part of the answer

    @property
    def render_special(self) -> bool:
        return self.tools is not None and self.tools.hidden


THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


def format_of(model: Model) -> OutputFormat:
    """Read from the markers that the model's template writes."""
    template = model.chat_template or ""
    tools: ToolFormat | None = None
    if "tools" in template:
        if "[TOOL_CALLS]" in template:
            tools = ToolFormat("mistral", "[TOOL_CALLS]", "", _hidden(model, "[TOOL_CALLS]"))
        elif "<tool_call>" in template:
            kind: Kind = "xml" if "<function=" in template else "hermes"
            tools = ToolFormat(kind, "<tool_call>", "</tool_call>", _hidden(model, "<tool_call>"))
        elif '"parameters": ' in template or "<|python_tag|>" in template:
            tools = ToolFormat("llama3", "<|python_tag|>", "", False)
    drop: tuple[str, ...] = ()
    if tools is not None and tools.hidden:
        ends = (model.token_bytes(t).decode("utf-8", "replace") for t in model.eos_tokens)
        drop = tuple(text for text in ends if text)
    return OutputFormat(tools, THINK_OPEN in template or THINK_CLOSE in template, drop)


def _hidden(model: Model, marker: str) -> bool:
    ids = model.token_ids(marker, add_special=False, parse_special=True)
    return len(ids) == 1 and model.detokenize(ids) == ""


@dataclass(slots=True)
class ToolCall:
    name: str
    arguments: str  # JSON


@dataclass(slots=True)
class Piece:
    """What a reader made of some text."""

    content: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = field(default_factory=list)

    def add(self, other: Piece) -> None:
        self.content += other.content
        self.reasoning += other.reasoning
        self.calls += other.calls


class OutputReader:
    """Takes the text of an answer in pieces of any size and tells content, reasoning and calls apart.
    What cannot be read as a call is content: no text is lost."""

    def __init__(self, form: OutputFormat, *, tools: bool, prompt_tail: str = "", forced: str = "") -> None:
        self._tools = form.tools if tools else None
        self._drop = form.drop if form.render_special else ()
        self._mode: Literal["content", "think", "tool"] = "content"
        self._thinks = form.thinks
        self._skip = False  # newlines that belong to a marker before them
        tail = prompt_tail.rstrip()
        if form.thinks and tail.endswith(THINK_OPEN) and not forced:
            self._mode, self._skip = "think", True  # the template has opened it
        self._held = forced
        self._at_start = True
        self.n_calls = 0

    def copy(self) -> OutputReader:
        """A reader for another answer to the same prompt; before the first piece."""
        return copy.copy(self)

    def feed(self, text: str) -> Piece:
        piece = Piece()
        self._held += text
        while self._step(piece, final=False):
            pass
        return piece

    def end(self) -> Piece:
        """What was held back for want of more."""
        piece = Piece()
        while self._held and self._step(piece, final=True):
            pass
        return piece

    def _step(self, piece: Piece, *, final: bool) -> bool:
        """Takes what it can from what is held; False: more text is needed."""
        if self._skip:
            self._held = self._held.lstrip("\n")
            if not self._held:
                return False
            self._skip = False
        if self._mode == "think":
            return self._until(THINK_CLOSE, piece, "reasoning", final)
        if self._mode == "tool":
            return self._call(piece, final)
        tools = self._tools
        if tools is not None and tools.kind == "llama3" and self._at_start:
            start = self._held.lstrip()
            if not start and not final:
                return False
            if start.startswith("{"):
                self._mode = "tool"
                return True
        markers = [*self._drop]
        if tools is not None:
            markers.append(tools.open)
        if self._thinks:
            markers.append(THINK_OPEN)
        found = min(((self._held.find(m), m) for m in markers if m in self._held), default=None)
        if found is not None:
            at, marker = found
            self._emit(piece, "content", self._held[:at])
            self._held = self._held[at + len(marker) :]
            if marker == THINK_OPEN:
                self._mode, self._skip = "think", True
            elif marker not in self._drop:
                self._mode = "tool"
            return True
        keep = 0 if final else max((_overlap(self._held, m) for m in markers), default=0)
        cut = len(self._held) - keep
        self._emit(piece, "content", self._held[:cut])
        self._held = self._held[cut:]
        return False

    def _until(self, marker: str, piece: Piece, where: str, final: bool) -> bool:
        at = self._held.find(marker)
        if at >= 0:
            self._emit(piece, where, self._held[:at].rstrip("\n"))
            self._held = self._held[at + len(marker) :]
            self._mode, self._skip = "content", True
            return True
        # A newline before the marker belongs to the marker.
        keep = 0 if final else max(_overlap(self._held, m) for m in (f"\n\n{marker}", f"\n{marker}", marker))
        cut = len(self._held) - keep
        self._emit(piece, where, self._held[:cut])
        self._held = self._held[cut:]
        return False

    def _call(self, piece: Piece, final: bool) -> bool:
        assert self._tools is not None
        close = self._tools.close
        at = self._held.find(close) if close else -1
        if at < 0 and not final:
            return False
        payload = self._held if at < 0 else self._held[:at]
        rest = "" if at < 0 else self._held[at + len(close) :]
        for text in self._drop:
            payload = payload.replace(text, "")
        calls = parse_calls(payload, self._tools.kind)
        if calls:
            piece.calls += calls
            self.n_calls += len(calls)
            self._skip = True
        else:
            opened = "" if self._tools.kind == "llama3" else self._tools.open
            self._emit(piece, "content", opened + payload + (close if at >= 0 else ""))
        self._held, self._mode, self._at_start = rest, "content", False
        return bool(rest)

    def _emit(self, piece: Piece, where: str, text: str) -> None:
        if not text:
            return
        if where == "content":
            if self.n_calls and not text.strip():
                return  # what separates calls
            self._at_start = self._at_start and not text.strip()
            piece.content += text
        else:
            piece.reasoning += text


def _overlap(text: str, marker: str) -> int:
    """Length of the longest end of `text` that may be the start of `marker`."""
    for size in range(min(len(text), len(marker) - 1), 0, -1):
        if marker.startswith(text[-size:]):
            return size
    return 0


def parse_calls(payload: str, kind: Kind) -> list[ToolCall]:
    """The calls in a payload; none if it is not what this kind of model writes."""
    text = payload.strip()
    if kind == "xml":
        return _parse_xml(text)
    if kind == "mistral" and (named := re.match(r"([\w.-]+)(?:\[ARGS\])?(?=\{)", text)):
        return _calls_of([{"name": named[1], "arguments": _json(text[named.end() :])}])
    if kind == "llama3" and ";" in text and _json(text) is None:
        return _calls_of([_json(part) for part in text.split(";")])
    value = _json(text)
    return _calls_of(value if isinstance(value, list) else [value])


def _calls_of(values: Sequence[Any]) -> list[ToolCall]:
    calls = []
    for value in values:
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            return []
        arguments = value.get("arguments", value.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = _json(arguments)
        if not isinstance(arguments, dict):
            return []
        calls.append(ToolCall(value["name"], json.dumps(arguments, ensure_ascii=False)))
    return calls


def _parse_xml(text: str) -> list[ToolCall]:
    calls = []
    for name, body in re.findall(r"<function=([^>\s]+)>(.*?)</function>", text, flags=re.S):
        arguments: dict[str, Any] = {}
        for key, raw in re.findall(r"<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>", body, flags=re.S):
            value = _json(raw)
            arguments[key] = raw if value is None else value
        calls.append(ToolCall(name, json.dumps(arguments, ensure_ascii=False)))
    return calls


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
