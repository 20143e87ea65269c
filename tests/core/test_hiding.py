"""Known values are cut out of any text, however it comes in pieces, and nothing else is changed."""

import base64
import json
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kapelle.core.hiding import SHORTEST, Hiding, Secret, Stream, mark

PEM = (
    "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n"
    "MzEfYyjiWA4R4/M2bS1GB4t7NXp98C3SC6dVMvDuictGeurT8jNbvJZHtCSuYEvu\n-----END PRIVATE KEY-----"
)
TOKEN = 'a/token+with"quotes\\and spaces é?&'  # noqa: S105  # nobody's

values = st.text(
    alphabet=st.characters(codec="utf-8", exclude_characters="\n\r", min_codepoint=32), min_size=SHORTEST, max_size=20
)
few = st.sampled_from(["abcabcabd", "abcabcab", "cabdabca", "aaaaaaaaa", "aaaaaaaa"])
secrets = st.lists(st.one_of(few, values), min_size=1, max_size=4, unique=True)


def hiding(*found: str) -> Hiding:
    return Hiding(Secret(name=f"S{number}", value=value) for number, value in enumerate(found))


@st.composite
def planted(draw: st.DrawFn) -> tuple[list[str], bytes, list[int]]:
    known = draw(secrets)
    piece = st.one_of(st.sampled_from(known), st.text(alphabet='abcd\n "', max_size=6), st.binary(max_size=4))
    parts = draw(st.lists(piece, max_size=12))
    data = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=20))
    return known, data, sorted(cuts)


@given(planted())
@example((["abcabcabd", "cabdabca"], b"abcabcabcabdabca", [3, 9]))
@example((["aaaaaaaa", "aaaaaaaaa"], b"aaaaaaaaaaaaaaaaa", [8]))
def test_any_cutting_gives_the_same_as_the_whole_at_once(case: tuple[list[str], bytes, list[int]]) -> None:
    known, data, cuts = case
    stream, said = Stream(hiding(*known)), b""
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        said += stream.feed(data[begin:end])
    assert said + stream.rest() == hiding(*known).hide(data)


@given(planted())
def test_no_value_is_left_and_nothing_else_is_changed(case: tuple[list[str], bytes, list[int]]) -> None:
    known, data, _ = case
    hidden = hiding(*known).hide(data)
    rest = hidden
    for number, _ in enumerate(known):
        rest = rest.replace(mark(f"S{number}").encode(), b"")
    if not hiding(*known).found(data):
        assert hidden == data
    # Between the names stands what stood between the values, and nothing else, in the same order.
    names = b"|".join(re.escape(mark(f"S{number}").encode()) for number, _ in enumerate(known))
    position = 0
    for number, part in enumerate(re.split(names, hidden)):
        at = data.find(part, position)
        assert at == position if number == 0 else at >= position
        position = at + len(part)
    assert len(rest) <= len(data)


@given(planted())
def test_a_line_is_never_held_back(case: tuple[list[str], bytes, list[int]]) -> None:
    known, data, _ = case
    stream = Stream(hiding(*known))
    stream.feed(data + b"\n")
    assert stream.rest() == b""


@pytest.mark.parametrize("value", [TOKEN, PEM, "0123456789abcdef"])
def test_every_form_that_programs_show_is_hidden(value: str) -> None:
    data = value.encode()
    shown = [
        value,
        json.dumps(value),
        json.dumps(value, ensure_ascii=False),
        json.dumps({"inner": json.dumps({"it": value})}),
        quote(value),
        quote(value, safe=""),
        quote_plus(value),
        data.hex(),
        data.hex().upper(),
        *[base64.b64encode(b"x" * before + data + b"tail").decode() for before in range(5)],
        base64.urlsafe_b64encode(b"user:" + data).decode(),
        base64.encodebytes(data).decode(),
    ]
    kept = [line for line in value.splitlines() if "-----" not in line]
    for text in shown:
        hidden = hiding(value).hide(f"before {text} after".encode()).decode()
        assert "[secret S0]" in hidden, text
        assert hidden.startswith("before ")
        assert hidden.endswith(" after")
        assert not any(line in hidden for line in kept)


def test_in_base64_no_more_than_the_letters_at_its_border_are_left() -> None:
    value = "correct-horse-battery"
    for before in range(3):
        text = base64.b64encode(b"x" * before + value.encode()).decode()
        hidden = hiding(value).hide(text.encode()).decode()
        assert len(hidden.replace("[secret S0]", "").rstrip("=")) <= before + 3


def test_a_value_is_not_shown_where_it_is_kept() -> None:
    assert "hunter2hunter2" not in repr(Secret(name="A", value="hunter2hunter2"))
