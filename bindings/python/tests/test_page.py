"""The page, used as a person does with the keyboard alone, in Chromium."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Page, open_page
from conftest import DEMO
from serving import Server, serve

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="SKIPPED: no chromium on this machine (Debian: chromium)")
LAST = "document.querySelector('#log li.assistant:last-child')"
DONE = f"{LAST} && !{LAST}.hasAttribute('aria-busy')"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve(DEMO, "--kv-mib", "16") as server:
        yield server


@pytest.fixture
def page(server: Server) -> Iterator[Page]:
    with open_page(server.url + "/") as page:
        page.until("document.getElementById('model').textContent.includes('dasan')")
        yield page
        assert page.problems == []


def keep(page: Page, name: str) -> None:
    """Pictures for a person to look at: DASAN_SCREENSHOTS=DIR."""
    if folder := os.environ.get("DASAN_SCREENSHOTS"):
        page.screenshot(Path(folder) / name)


def test_a_conversation_by_keyboard(page: Page, expected: list[dict[str, Any]], tmp_path: Path) -> None:
    assert page.run("document.activeElement.id") == "message"  # where one starts
    page.type(expected[0]["question"])
    page.key("Enter", "\r")
    page.until(DONE)
    assert page.run(f"{LAST}.querySelector('.text').textContent") == expected[0]["text"]
    assert "토큰/s" in page.run(f"{LAST}.querySelector('.figures').textContent")
    # What a screen reader is told: the end, with the answer.
    status = page.run("document.querySelector('[role=status]').textContent")
    assert status == "답변이 끝났습니다: " + expected[0]["text"]
    page.type("첫 줄")
    page.key("Enter", "\r", modifiers=8)  # Shift: a new line, nothing sent
    assert page.run("document.getElementById('message').value") == "첫 줄\n"
    keep(page, "ko.png")
    page.run("document.getElementById('language').focus()")
    page.key("Enter", "\r")
    assert page.run("document.documentElement.lang") == "en"
    assert page.run("document.getElementById('send').textContent") == "Send"
    assert "tokens/s" in page.run(f"{LAST}.querySelector('.figures').textContent")
    keep(page, "en.png")


def test_stop_errors_and_files(page: Page, server: Server, tmp_path: Path) -> None:
    note = tmp_path / "메모.txt"
    note.write_text("여권은 어디서 만드나요?", encoding="utf-8")
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#attachment")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(note)])
    page.until("document.getElementById('file').textContent.includes('메모.txt')")
    page.key("Enter", "\r")
    page.until(DONE)
    assert "메모.txt" in page.run("document.querySelector('#log li.user .text').textContent")
    # Markup in an answer or a question is text.
    page.run("document.getElementById('clear').click()")
    page.type("<img src=x onerror=alert(1)>")
    page.key("Enter", "\r")
    page.until(DONE)
    assert page.run("document.querySelectorAll('#log img').length") == 0
    # A question that is too long is answered with the server's message, and the page goes on.
    page.run("document.getElementById('message').value = '가나다 '.repeat(400)")
    page.key("Enter", "\r")
    page.until(f"!!{LAST}.querySelector('.error')")
    assert "256" in page.run(f"{LAST}.querySelector('.error').textContent")
    page.problems = [p for p in page.problems if "400" not in p]  # Chromium notes the status itself


def test_everything_can_be_reached_and_has_a_name(page: Page) -> None:
    reached = []
    for _ in range(16):
        page.key("Tab")
        reached.append(page.run("document.activeElement.id"))
    wanted = {"language", "clear", "system", "temperature", "top_p", "max_tokens", "seed", "key", "message", "attach", "send"}
    assert wanted <= set(reached), reached
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "spinbutton", "list", "complementary"}
    named = [n for n in nodes if n.get("role", {}).get("value") in roles and not n.get("ignored")]
    assert len(named) >= 12
    for node in named:
        assert node.get("name", {}).get("value"), node


def test_a_narrow_screen(server: Server) -> None:
    with open_page(server.url + "/", width=500, height=800) as page:
        page.until("document.getElementById('model').textContent.includes('dasan')")
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        keep(page, "narrow.png")
