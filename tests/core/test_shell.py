"""Command lines, read for what they start and what they write."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.core.shell import UNKNOWN, read

WORDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12)
PLAIN = st.from_regex(r"[a-z][a-z0-9_./-]{0,8}", fullmatch=True)


def started(text: str, cwd: str = "/w", **variables: str) -> list[tuple[str, ...]]:
    return [command.words for command in read(text, cwd, variables).commands]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ls -la", [("ls", "-la")]),
        ("a && b || c; d & e | f\ng", [("a",), ("b",), ("c",), ("d",), ("e",), ("f",), ("g",)]),
        ("a |& b", [("a",), ("b",)]),
        ("(a; b)", [("a",), ("b",)]),
        ("{ a; }", [("a",)]),
        ("if a; then b; elif c; then d; else e; fi", [("a",), ("b",), ("c",), ("d",), ("e",)]),
        ("for x in 1 2; do a; done", [("a",)]),
        ("while ! a; do b; done", [("a",), ("b",)]),
        ("case x in y|z) a;; *) b;; esac", [("a",), ("b",)]),
        ("f() { a; }; f", [("a",), ("f",)]),
        ("function f { a; }", [("a",)]),
        ("X=1 a", [("a",)]),
        ("X=1", []),
        ("a 2>/dev/null >b 2>&1 <c", [("a",)]),
        ("a # b; c\nd", [("a",), ("d",)]),
        ("a \\\n b", [("a", "b")]),
        ("a 'b c' \"d e\" f\\ g", [("a", "b c", "d e", "f g")]),
        ("a 'b'\"c\"d", [("a", "bcd")]),
        ("time a", [("a",)]),
        ("", []),
    ],
)
def test_what_it_starts(text: str, found: list[tuple[str, ...]]) -> None:
    script = read(text, "/w")
    assert [command.words for command in script.commands] == found
    assert script.sure


@pytest.mark.parametrize(
    "text",
    [
        "x=$(evil)",
        "echo `evil`",
        'echo "$(echo $(evil))"',
        "diff <(evil) b",
        "sh -c evil",
        "bash -lc 'true; evil'",
        "eval evil",
        "env -i A=b evil",
        "timeout 5 nice -n 3 evil",
        "echo | xargs -n 1 evil",
        "find . -exec evil {} \\;",
        "sh <<EOF\nevil\nEOF",
        "cat <<EOF\n$(evil)\nEOF",
        "bash <<< evil",
        "/usr/bin/env evil",
        "$(: evil) ; evil",
        "X=evil; $X",
        "export X=evil; $X",
        "((1)); evil",
        "a=${b:-c} evil",
    ],
)
def test_what_is_started_by_the_way_is_found_too(text: str) -> None:
    assert ("evil",) in [words[:1] for words in started(text)]


def test_a_here_document_is_text_for_everybody_else() -> None:
    assert started("cat > f <<'EOF'\nevil\nEOF\nls") == [("cat",), ("ls",)]


@pytest.mark.parametrize(
    "text", ["echo 'a", 'echo "a', "echo $(a", "echo `a", "echo | sh", 'sh -c "$X"', "echo $'\\x61'", "a (b", "echo ${a"]
)
def test_what_is_not_understood_is_said(text: str) -> None:
    assert not read(text, "/w").sure


def test_where_each_command_runs_is_followed() -> None:
    script = read("cd a; x; (cd ../..; y); cd $Z; z; cd ~; v; cd -P /b && u", "/w", {"HOME": "/h"})
    assert {command.words[0]: command.cwd for command in script.commands if command.words[0] != "cd"} == {
        "x": "/w/a",
        "y": "/",
        "z": UNKNOWN,
        "v": "/h",
        "u": "/b",
    }


def test_what_is_written_is_followed() -> None:
    script = read("a > b >> ../c &> /d 2>&1 >&- < e; f >| g", "/w")
    written = [command.path(word) for command in script.commands for word in command.writes]
    assert written == ["/w/b", "/c", "/d", "/w/g"]


@pytest.mark.parametrize(
    ("word", "value"),
    [("~/x", "/h/x"), ("$HOME/x", "/h/x"), ("${HOME}/x", "/h/x"), ("$PWD/x", "/w/x"), ("$Y", UNKNOWN), ("a$Y", f"a{UNKNOWN}")],
)
def test_variables_that_are_known_are_told(word: str, value: str) -> None:
    assert started(f"a {word}", HOME="/h") == [("a", value)]


def test_what_feeds_a_command_is_known() -> None:
    assert [command.fed_by for command in read("a b | c | d; e", "/w").commands] == [(), ("a", "b"), ("c",), ()]


@given(st.lists(WORDS, min_size=1, max_size=6))
def test_quoted_words_come_out_as_they_are(words: list[str]) -> None:
    text = " ".join(shlex.quote(word) for word in ["run", *words])
    script = read(text, "/w")
    assert script.commands[0].words == ("run", *words)


@given(st.text(max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    read(text, "/w", {"HOME": "/h"})


NESTINGS = (
    "{}",
    "( {} )",
    "x=$({})",
    "echo `{}`",
    "true && {}",
    "false || {} | cat",
    "{{ {}; }}",
    "if {}; then :; fi",
    "! {}",
)


@given(st.lists(st.sampled_from(NESTINGS), max_size=4), st.lists(PLAIN, max_size=3))
def test_a_command_is_found_wherever_it_stands(nestings: list[str], arguments: list[str]) -> None:
    text = " ".join(["evil", *arguments])
    backticks = 0
    for nesting in nestings:
        # Backticks within backticks would need escapes.
        backticks += "`" in nesting
        if backticks < 2 or "`" not in nesting:
            text = nesting.format(text)
    assert ("evil", *arguments) in started(text)


def test_what_is_nested_too_deeply_is_not_understood() -> None:
    assert not read("$(" * 1000 + "a" + ")" * 1000, "/w").sure
