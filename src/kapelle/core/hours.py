"""Working hours: when agents of a project may work, as people write it: ``Mon-Fri 08:00-18:00``.

By the clock on the wall. A time that the wall clock skips in spring is the moment at which it is set forward; of one that it
shows twice in autumn, hours begin with the first and end with the second.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache

from kapelle.core.frozen import frozen

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
LETTERS = 3
"""Of the name of a day, at least."""
MINUTES = 24 * 60
"""Of a day."""
AHEAD = 15
"""Days that are looked at: hours that do not end within so long never do."""
SECOND = timedelta(seconds=1)
HOW = "write it as Mon-Fri 08:00-18:00, Sat,Sun 10:00-14:00 or daily 22:00-06:00"
_WINDOW = re.compile(r"([A-Za-z]+(?:\s*[-,]\s*[A-Za-z]+)*)\s+(\d\d?):(\d\d)\s*-\s*(\d\d?):(\d\d)")


@frozen
class Window:
    """One span of hours on some days of the week."""

    days: tuple[int, ...]
    """Those on which it begins; 0 is Monday."""
    start: int
    """Minutes after midnight."""
    end: int
    """Minutes after midnight, up to the midnight that ends the day; of the next day where it is not after *start*."""


@frozen
class WorkingHours:
    """When agents may work."""

    windows: tuple[Window, ...]
    zone: str = "UTC"
    """The IANA name of the time zone whose clock counts."""


@frozen
class Opening:
    """Whether it is within the hours, and until when that stays so."""

    open: bool
    until: datetime | None
    """In UTC; None: for ever."""


def parse_window(text: str) -> Window:
    """Return the window that *text* means.

    Raises:
        ValueError: it means none.
    """
    found = _WINDOW.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text[:100]!r} are no working hours; {HOW}")
    start, end = (int(found[hour]) * 60 + int(found[hour + 1]) for hour in (2, 4))
    if int(found[3]) > 59 or int(found[5]) > 59 or start >= MINUTES or end > MINUTES:  # noqa: PLR2004  # minutes of an hour
        raise ValueError(f"{text[:100]!r} names a time that no day has; {HOW}")
    if start == end:
        raise ValueError(f"{text[:100]!r} is no time at all; a whole day is 00:00-24:00")
    return Window(
        days=tuple(sorted({day for part in found[1].split(",") for day in _days(part.strip())})), start=start, end=end
    )


def _days(text: str) -> Iterator[int]:
    if text.lower() == "daily":
        yield from range(7)
        return
    first, dash, last = (part.strip() for part in text.partition("-"))
    begin, finish = _day(first), _day(last) if dash else _day(first)
    while True:
        yield begin
        if begin == finish:
            return
        begin = (begin + 1) % 7


def _day(text: str) -> int:
    found = [number for number, name in enumerate(DAYS) if len(text) >= LETTERS and name.startswith(text.lower())]
    if not found:
        raise ValueError(f"{text[:100]!r} is no day of the week; {HOW}")
    return found[0]


def opening(hours: WorkingHours, zone: tzinfo, now: datetime) -> Opening:
    """Say whether *now* is within *hours*, and until when; *zone* is that of the hours."""
    today = now.astimezone(zone).date()
    for start, end in _joined(hours, zone, today):
        if now < start:
            return Opening(open=False, until=start.replace(fold=0))
        if now < end:
            never = end > now + timedelta(days=AHEAD - 3)
            return Opening(open=True, until=None if never else end.replace(fold=0))
    return Opening(open=False, until=None)


def hours_told(found: Opening) -> str:
    """Say in words when it goes on."""
    if found.until is None:
        return "outside of the working hours, which never come"
    return f"outside of the working hours until {found.until:%Y-%m-%d %H:%M} UTC"


@lru_cache(maxsize=64)  # Asked of every run whenever anything happens, and the same all day.
def _joined(hours: WorkingHours, zone: tzinfo, today: date) -> tuple[tuple[datetime, datetime], ...]:
    """Return the spans around *today* in their order; those that touch each other are one."""
    found: list[tuple[datetime, datetime]] = []
    for start, end in sorted(_spans(hours, zone, today)):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return tuple(found)


def _spans(hours: WorkingHours, zone: tzinfo, today: date) -> Iterator[tuple[datetime, datetime]]:
    for number in range(-2, AHEAD):
        day = today + timedelta(days=number)
        for window in hours.windows:
            if day.weekday() not in window.days:
                continue
            length = window.end if window.end > window.start else window.end + MINUTES
            start = _instant(_at(day, window.start), zone, last=False)
            end = _instant(_at(day, length), zone, last=True)
            if start < end:
                yield start, end


def _at(day: date, minutes: int) -> datetime:
    return datetime(day.year, day.month, day.day) + timedelta(minutes=minutes)  # noqa: DTZ001  # what the wall clock shows


def _instant(shown: datetime, zone: tzinfo, *, last: bool) -> datetime:
    """Return when the wall clock of *zone* shows *shown* (the *last* time that it does), in UTC."""
    one, other = (shown.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if one <= other:
        return other if last else one
    # It never does: the clock is set forward somewhere between the two.
    before, after = other, one
    offset = before.astimezone(zone).utcoffset()
    while after - before > SECOND:
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)
