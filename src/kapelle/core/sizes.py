"""Sizes as people write them: ``500MB``, ``1.5GB``, ``64k``. A kilobyte is a thousand bytes, as on the box of a disk."""

import re
from decimal import Decimal

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?B|[KMGT])")
PATTERN = r"^[0-9]+(\.[0-9]+)?\s*([kKMGTmgt]?[bB]|[kKMGTmgt])$"


def parse_size(text: str) -> int:
    """Return the bytes that *text* means, such as ``500MB``.

    Raises:
        ValueError: it means no size.
    """
    written = _SIZE.fullmatch(text.strip().upper())
    if written is None:
        raise ValueError(f"{text[:100]!r} is no size; write it with its unit: 500MB, 2GB")
    number, unit = written.groups()
    return int(Decimal(number) * _UNITS[unit if unit in _UNITS else f"{unit}B"])


def format_size(size: int) -> str:
    """Return *size*, in bytes, in few letters."""
    for unit in ("TB", "GB", "MB", "kB"):
        factor = _UNITS[unit.upper()]
        if size >= factor:
            return f"{size / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} B"
