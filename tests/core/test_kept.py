"""What is kept of what an agent says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.core.conversation import ConversationEvent, Said, ToolCalled, ToolReturned, TurnEnded, Unrecognised
from kapelle.core.kept import depth, kept, result_unkept

BIG = "x" * 5_000_000
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='[]{}"\\\\a', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[{"\\\\', max_size=3), inner, max_size=3),
    max_leaves=20,
)


def nested(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(nested, inner), default=0)


@pytest.mark.parametrize(
    "event",
    [
        Said(text=BIG),
        ToolCalled(call_id="c", tool=BIG, about=BIG),
        ToolReturned(call_id="c", failed=True, about=BIG),
        Unrecognised(kind=BIG, raw=BIG),
        TurnEnded(text=BIG, message=BIG, denied=(BIG,) * 100),
    ],
)
def test_no_event_is_kept_whole_when_it_is_huge(event: ConversationEvent) -> None:
    assert len(repr(kept(event))) < 250_000
    assert "[...]" in repr(kept(event))


@given(st.text(max_size=50))
def test_what_is_short_is_kept_as_it_is(text: str) -> None:
    for event in (Said(text=text), TurnEnded(text=text), ToolCalled(call_id="c", tool="t", about=text)):
        assert kept(event) == event


@given(json_values, st.integers(0, 300))
def test_the_depth_of_json_is_counted(value: object, around: int) -> None:
    text = "[" * around + json.dumps(value) + "]" * around
    assert depth(text) in {0, around + nested(value)}
    assert bool(result_unkept(text)) == (around + nested(value) > 100)


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (json.dumps(BIG), "characters"),
        ("[" * 100_000 + "]" * 100_000, "deep"),
        ("{", "no JSON"),
        ("NaN", "no JSON"),
        ("9" * 10_000, "no JSON"),
    ],
)
def test_a_result_that_cannot_be_kept_is_told(result: str, why: str) -> None:
    assert why in result_unkept(result)


def test_a_result_that_can_be_kept_is() -> None:
    assert not result_unkept(None)
    assert not result_unkept('{"a": [1, 2, "[[["]}')
