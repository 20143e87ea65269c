"""Working hours: by the clock on the wall, also when that is set."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.hours import MINUTES, Window, WorkingHours, opening, parse_window

quick = settings(max_examples=150, deadline=None)
ZONES = [ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")]
MINUTE = timedelta(minutes=1)
windows = st.builds(
    Window,
    days=st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days))),
    start=st.integers(0, MINUTES - 1),
    end=st.integers(1, MINUTES),
).filter(lambda window: window.start != window.end)
hours = st.builds(WorkingHours, windows=st.lists(windows, max_size=3).map(tuple))
moments = st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


def by_the_wall(window: Window, shown: datetime) -> bool:
    """Say whether what the wall clock shows is in *window*, with nothing but its hands."""
    minute = shown.hour * 60 + shown.minute
    today, yesterday = shown.weekday() in window.days, (shown.weekday() - 1) % 7 in window.days
    if window.start < window.end:
        return today and window.start <= minute < window.end
    return (today and minute >= window.start) or (yesterday and minute < window.end)


def quiet(zone: ZoneInfo, now: datetime) -> bool:
    """Say whether nobody sets the clock of *zone* for some days around *now*."""
    offsets = {(now + timedelta(days=day)).astimezone(zone).utcoffset() for day in range(-3, 4)}
    return len(offsets) == 1


@quick
@given(found=hours, zone=st.sampled_from(ZONES), now=moments)
def test_it_is_what_the_hands_of_the_wall_clock_say(found: WorkingHours, zone: ZoneInfo, now: datetime) -> None:
    if quiet(zone, now):
        shown = now.astimezone(zone)
        assert opening(found, zone, now).open is any(by_the_wall(window, shown) for window in found.windows)


@quick
@given(found=hours, zone=st.sampled_from(ZONES), now=moments, share=st.floats(0, 1))
def test_it_stays_so_until_it_says_and_no_longer(found: WorkingHours, zone: ZoneInfo, now: datetime, share: float) -> None:
    said = opening(found, zone, now)
    if said.until is None:
        later = now + timedelta(days=30) * share
        assert opening(found, zone, later).open is said.open
        return
    assert said.until > now
    between = now + (said.until - now) * share * 0.999999
    assert opening(found, zone, between).open is said.open
    assert opening(found, zone, said.until).open is not said.open
    assert opening(found, zone, said.until).until != said.until


def test_without_hours_nobody_ever_works() -> None:
    found = opening(WorkingHours(windows=()), UTC, datetime(2026, 1, 1, tzinfo=UTC))
    assert (found.open, found.until) == (False, None)


BERLIN = ZoneInfo("Europe/Berlin")
# The clock goes from 02:00 to 03:00 on 2026-03-29, and from 03:00 to 02:00 on 2026-10-25: both at 01:00 UTC.


@pytest.mark.parametrize(
    ("text", "now", "is_open", "until"),
    [
        # Office hours are eight o'clock on both sides of it.
        ("daily 08:00-18:00", "2026-03-28T20:00", False, "2026-03-29T06:00"),
        ("daily 08:00-18:00", "2026-03-27T20:00", False, "2026-03-28T07:00"),
        # A time that is skipped is the moment at which the clock is set.
        ("daily 02:30-03:30", "2026-03-28T22:00", False, "2026-03-29T01:00"),
        ("daily 01:00-02:30", "2026-03-29T00:30", True, "2026-03-29T01:00"),
        # What is shown twice begins with the first and ends with the second.
        ("daily 02:30-04:00", "2026-10-24T22:00", False, "2026-10-25T00:30"),
        ("daily 01:00-02:30", "2026-10-25T00:45", True, "2026-10-25T01:30"),
        # A night from one day to the next is an hour longer then.
        ("Sat 22:00-06:00", "2026-10-24T20:00", True, "2026-10-25T05:00"),
        ("Mon-Fri 08:00-18:00", "2026-11-20T17:30", False, "2026-11-23T07:00"),
        ("Mon,Wed 00:00-24:00, ", "2026-11-22T12:00", None, None),
        ("daily 00:00-24:00", "2026-11-22T12:00", True, None),
        ("Fri-Mon 00:00-24:00", "2026-11-22T12:00", True, "2026-11-23T23:00"),
    ],
)
def test_the_clock_on_the_wall_counts_whatever_is_done_to_it(
    text: str, now: str, is_open: bool | None, until: str | None
) -> None:
    if is_open is None:
        with pytest.raises(ValueError, match="no working hours"):
            parse_window(text)
        return
    said = opening(WorkingHours(windows=(parse_window(text),)), BERLIN, datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert said.open is is_open
    assert said.until == (None if until is None else datetime.fromisoformat(until).replace(tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("always", "no working hours"),
        ("Mon-Fri 8-18", "no working hours"),
        ("Mon-Foo 08:00-18:00", "no day of the week"),
        ("Monkey 08:00-18:00", "no day of the week"),
        ("Mo-Fr 08:00-18:00", "no day of the week"),
        ("Mondays 08:00-18:00", "no day of the week"),
        ("Mon 08:00-25:00", "a time that no day has"),
        ("Mon 08:60-09:00", "a time that no day has"),
        ("Mon 24:00-08:00", "a time that no day has"),
        ("Mon 08:00-08:00", "no time at all"),
    ],
)
def test_what_are_no_hours_is_told(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_window(text)


def test_days_are_written_as_people_do() -> None:
    assert parse_window("monday - wednesday, Sunday 9:00 - 12:30").days == (0, 1, 2, 6)
    assert parse_window("TUES-Thurs 9:00-12:30").days == (1, 2, 3)
    assert parse_window("Sat-Mon 09:00-12:30") == Window(days=(0, 5, 6), start=540, end=750)
