"""Durations as people write them: ``200ms``, ``30s``, ``1.5m``, ``2h``, ``1h30m``, ``1d``."""

import re
from datetime import timedelta

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
PATTERN = r"^(\d+(\.\d+)?\s*(ms|s|m|h|d)\s*)+$"


def parse_duration(text: str) -> timedelta:
    """Return the duration that *text* means.

    Raises:
        ValueError: it is none; the message says how to write one.
    """
    if not re.match(PATTERN, text.strip()):
        raise ValueError(f"{text!r} is no duration; write for example 30s, 10m or 1h30m")
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)))
    except OverflowError as error:
        raise ValueError(f"{text!r} is longer than any duration can be; write for example 30s, 10m or 1h30m") from error


MINUTE, HOUR = 60, 3600
EXACT_BELOW = 10
"""Seconds below which a tenth of a second is worth showing."""


def format_duration(duration: timedelta) -> str:
    """Return *duration* in few letters: ``0.3s``, ``42s``, ``3m05s``, ``2h10m``."""
    seconds = duration.total_seconds()
    if seconds < EXACT_BELOW:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole}s"
    if whole < HOUR:
        return f"{whole // MINUTE}m{whole % MINUTE:02d}s"
    return f"{whole // HOUR}h{whole % HOUR // MINUTE:02d}m"
