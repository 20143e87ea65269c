"""Times, as people write them on the command line."""

from datetime import UTC, datetime

from kapelle.core.durations import parse_duration
from kapelle.core.errors import UsageError

HOW = "Write a day such as 2026-03-01, a time such as 2026-03-01T12:00, or how long ago: 7d, 12h."


def moment(text: str | None, now: datetime) -> datetime | None:
    """Return the time that *text* means.

    Raises:
        UsageError: it means none.
    """
    if text is None:
        return None
    try:
        return now - parse_duration(text)
    except (ValueError, OverflowError):
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text[:100]!r} is no time", remedy=HOW) from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
