"""What models write is read back: the oracle is each template's own way to write an assistant's turn,
rendered by Jinja2's dialect from shared template files, and texts cut at every place."""

from __future__ import annotations

import json

import pytest

from dasan.formats import OutputFormat, OutputReader, Piece, ToolFormat, parse_calls

HERMES = ToolFormat("hermes", "<tool_call>", "</tool_call>")
XML = ToolFormat("xml", "<tool_call>", "</tool_call>")
MISTRAL = ToolFormat("mistral", "[TOOL_CALLS]", "", hidden=True)
LLAMA3 = ToolFormat("llama3", "<|python_tag|>", "")
CALL = '{"name": "find", "arguments": {"place": "수원", "n": 3}}'


def read(form: OutputFormat, pieces: list[str], **kwargs: str) -> Piece:
    reader = OutputReader(form, tools=form.tools is not None, **kwargs)  # type: ignore[arg-type]
    whole = Piece()
    for piece in pieces:
        whole.add(reader.feed(piece))
    whole.add(reader.end())
    return whole


CASES = [
    (HERMES, f"<think>\n생각\n\n더\n</think>\n\n찾겠습니다.\n<tool_call>\n{CALL}\n</tool_call>", "찾겠습니다.\n", "생각\n\n더", 1),
    (HERMES, f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>", "", "", 2),
    (HERMES, "a < b <tool", "a < b <tool", "", 0),
    (HERMES, "<tool_call>\n{not json}\n</tool_call> after", "<tool_call>\n{not json}\n</tool_call> after", "", 0),
    (HERMES, f"<tool_call>{CALL}", "", "", 1),  # the end is missing, the call is whole
    (XML, "<tool_call>\n<function=find>\n<parameter=place>\n수원\n</parameter>\n<parameter=n>\n3\n</parameter>\n"
     "</function>\n</tool_call>", "", "", 1),
    (MISTRAL, f"[TOOL_CALLS][{CALL}]</s>", "", "", 1),
    (MISTRAL, '[TOOL_CALLS]find[ARGS]{"place": "수원", "n": 3}</s>', "", "", 1),
    (MISTRAL, "plain</s>", "plain", "", 0),
    (LLAMA3, '{"name": "find", "parameters": {"place": "수원", "n": 3}}', "", "", 1),
    (LLAMA3, '{"a": 1} is JSON', '{"a": 1} is JSON', "", 0),
    (LLAMA3, "plain { text", "plain { text", "", 0),
]  # fmt: skip


@pytest.mark.parametrize(("tools", "text", "content", "reasoning", "calls"), CASES)
def test_every_cut_reads_the_same(tools: ToolFormat, text: str, content: str, reasoning: str, calls: int) -> None:
    form = OutputFormat(tools, thinks=True, drop=("</s>",) if tools.hidden else ())
    for pieces in [[text], list(text), *[[text[:i], text[i:]] for i in range(len(text))]]:
        got = read(form, pieces)
        assert (got.content, got.reasoning, len(got.calls)) == (content, reasoning, calls), pieces
        for call in got.calls:
            assert call.name == "find" and json.loads(call.arguments) == {"place": "수원", "n": 3}


def test_a_prompt_that_opened_the_thinking_and_one_that_forced_a_call() -> None:
    form = OutputFormat(HERMES, thinks=True)
    got = read(form, list("생각\n</think>\n\n답"), prompt_tail="<|assistant|><think>\n")
    assert (got.reasoning, got.content) == ("생각", "답")
    forced = HERMES.forced("find")
    got = read(form, list('{"place": "수원"}}\n</tool_call>'), forced=forced)
    assert [c.arguments for c in got.calls] == ['{"place": "수원"}'] and got.content == ""
    for tools in (MISTRAL, LLAMA3):
        rest = '{"place": "수원"}}' + ("]" if tools is MISTRAL else "")
        got = read(OutputFormat(tools), [rest], forced=tools.forced("find"))
        assert [c.name for c in got.calls] == ["find"], tools


@pytest.mark.parametrize("payload", ["", "[]x", "3", "null", '{"name": 3}', '{"name": "a", "arguments": 3}', "[" * 100000])
def test_what_is_no_call(payload: str) -> None:
    for kind in ("hermes", "mistral", "llama3", "xml"):
        assert parse_calls(payload, kind) == []  # type: ignore[arg-type]
