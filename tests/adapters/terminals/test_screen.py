"""What stands between a leader and a program's screen."""

import sys
import time
from pathlib import Path

import pytest

from kapelle.adapters.terminals.screen import Runner, pasted, texts_of, there


@pytest.mark.parametrize("text", ["plain", "two\nlines\tand a tab", "\u00e9\u4e2d\U0001f600", "a\r\nb"])
def test_text_is_pasted_as_it_is(text: str) -> None:
    assert pasted(text) == text.encode()


@pytest.mark.parametrize("key", ["\x1b[201~", "\x03", "\x04", "\x7f", "\x9b201~"])
def test_nothing_that_is_pasted_is_a_key(key: str) -> None:
    """What ends the pasting would let the rest be typed: a command to the program, say."""
    said = pasted(f"before {key}!rm -rf .").decode()
    assert key[0] not in said
    assert said.startswith("before \ufffd")


def test_a_process_is_there_or_not() -> None:
    assert there(1)
    assert not there(0)
    assert not there(2**22 + 1)


def test_the_texts_of_a_message_are_found_in_every_shape() -> None:
    assert texts_of({"content": "one"}) == ["one"]
    assert texts_of({"content": [{"text": "one"}, {"text": 1}, "x", {"type": "tool_use"}]}) == ["one"]
    assert texts_of(None) == texts_of([]) == texts_of({}) == []


SLOW_TMUX = """#!{python}
import os, signal, sys
if "-D" in sys.argv:
    signal.signal(signal.SIGCHLD, lambda *_: open("buried", "w").close())
    open("ready", "w").close()
    while True:
        signal.pause()
print("4711 1", "3" if os.path.exists("buried") else "")
"""


def test_the_exit_code_is_waited_for_where_tmux_has_missed_the_end_of_a_process(tmp_path: Path) -> None:
    """It sees that the terminal was closed; that the process is over it may not see until it is told again."""
    tmux = tmp_path / "tmux"
    tmux.write_text(SLOW_TMUX.format(python=sys.executable), encoding="utf-8")
    tmux.chmod(0o700)
    runner = Runner({"name": "g-1", "tmux": str(tmux), "folder": str(tmp_path), "by_hand": False}, [])
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < deadline
        while (code := runner._ended()) is None:
            assert time.monotonic() < deadline
        assert code == 3
    finally:
        runner._tmux.server.kill()
        runner._tmux.server.wait()
