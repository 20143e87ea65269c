"""Durations as people write them."""

import re
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.durations import PATTERN, format_duration, parse_duration

quick = settings(max_examples=100, deadline=None)
UNITS = {"ms": timedelta(milliseconds=1), "s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200ms", timedelta(milliseconds=200)),
        ("30s", timedelta(seconds=30)),
        ("1.5m", timedelta(seconds=90)),
        ("2h", timedelta(hours=2)),
        ("1h30m", timedelta(minutes=90)),
        ("1h 30m", timedelta(minutes=90)),
        ("1 d", timedelta(days=1)),
        ("0s", timedelta(0)),
        ("  5m\n", timedelta(minutes=5)),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", " ", "10", "m", "-1s", "1e3s", "10 minutes", "1h30", "1s,2s", ".5s", "1.s", "1S"])
def test_what_is_no_duration_is_refused_with_a_hint_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="write for example 30s, 10m or 1h30m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["999999999999d", "9" * 400 + "h"])
def test_a_duration_that_is_too_long_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="longer than any duration can be"):
        parse_duration(text)


@quick
@given(parts=st.lists(st.tuples(st.integers(0, 5000), st.sampled_from(sorted(UNITS))), min_size=1, max_size=4))
def test_the_parts_of_a_duration_are_added(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    expected = sum((number * UNITS[unit] for number, unit in parts), timedelta(0))
    assert abs(parse_duration(text) - expected) <= timedelta(microseconds=1)
    assert re.match(PATTERN, text), "the pattern that editors check by agrees"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0.0s"),
        (0.34, "0.3s"),
        (10, "10s"),
        (42.4, "42s"),
        (59.6, "1m00s"),
        (185, "3m05s"),
        (3599.7, "1h00m"),
        (7800, "2h10m"),
        (90_000, "25h00m"),
    ],
)
def test_a_duration_is_shown_in_few_letters(seconds: float, expected: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == expected


@quick
@given(seconds=st.floats(min_value=0, max_value=1e7))
def test_what_is_shown_can_be_read_again_and_is_near(seconds: float) -> None:
    resolution = 0.05 if seconds < 10 else 0.5 if seconds < 3599.5 else 60
    again = parse_duration(format_duration(timedelta(seconds=seconds)))
    assert abs(again.total_seconds() - seconds) <= resolution + 1e-6
