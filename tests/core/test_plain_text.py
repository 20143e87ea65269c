"""What is shown of the text of others."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.plain_text import shown, shown_block, shown_file, shown_files, shown_json

quick = settings(max_examples=200, deadline=None)
HARD = '\x00\t\n\r\x1b\x7f\x85\x9b\u061c\u200e\u200f\u2028\u202e\u2066\u2069\udc80, :"\\'
ANY = st.text(st.characters() | st.sampled_from(HARD))
TURNS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def _steers(letter: str) -> bool:
    return unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} or letter in TURNS


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain text, ünïcode, 日本, 👩‍💻", "plain text, ünïcode, 日本, 👩‍💻"),
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x9b2J\x7f\x85", r"\x9b2J\x7f\x85"),
        ("\u202egnp.exe\u2066x\u2069\u200f", r"\u202egnp.exe\u2066x\u2069\u200f"),
        ("no text \udcff", r"no text \udcff"),
    ],
)
def test_what_steers_a_terminal_is_seen(text: str, line: str) -> None:
    assert shown(text) == line


@quick
@given(ANY)
def test_a_line_is_one_line_and_steers_nothing(text: str) -> None:
    line = shown(text)
    assert not any(_steers(letter) for letter in line)
    assert len(line.splitlines()) <= 1
    assert shown(line) == line


@quick
@given(ANY)
def test_a_block_keeps_newlines_and_tabs_and_nothing_else_that_steers(text: str) -> None:
    block = shown_block(text)
    assert not any(_steers(letter) for letter in block if letter not in "\n\t")
    assert block.count("\n") == text.count("\n")
    assert block.count("\t") == text.count("\t")
    assert shown_block(block) == block


@quick
@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_text_that_steers_nothing_is_left_as_it_is(text: str) -> None:
    assert shown(text) == text
    assert shown_block(text) == text


def test_the_newlines_of_other_systems_are_newlines_in_a_block() -> None:
    assert shown_block("a\r\nb\rc") == "a\nb\\rc"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("src/shop/api.py", "src/shop/api.py"),
        ("ü-é.txt", "ü-é.txt"),
        ("a, b: kapelle approve x", '"a, b: kapelle approve x"'),
        (".kapelle/x\ny", r'".kapelle/x\ny"'),
        ('a"b', r'"a\"b"'),
        (r"a\nb", r'"a\\nb"'),
        ("\x1b[2J", r'"\x1b[2J"'),
        ("", '""'),
    ],
)
def test_a_file_name_that_could_be_taken_for_something_else_is_quoted(name: str, said: str) -> None:
    assert shown_file(name) == said


@quick
@given(st.lists(ANY, max_size=4), st.lists(ANY, max_size=4))
def test_different_lists_of_files_are_shown_differently(one: list[str], other: list[str]) -> None:
    assert (shown_files(one) == shown_files(other)) == (one == other)


@quick
@given(ANY)
def test_json_is_read_as_it_was_meant_and_steers_nothing(text: str) -> None:
    said = shown_json(json.dumps({text: [text]}, ensure_ascii=False, indent=2))
    assert json.loads(said) == {text: [text]}
    assert not any(_steers(letter) for letter in said.replace("\n", ""))
