"""What stands between a leader and a program's screen."""

import pytest

from kapelle.adapters.terminals.screen import pasted, texts_of, there


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
