"""Sizes as people write them: ``500MB``, ``1.5GB``, ``64k``, ``2GiB``.

A kilobyte (kB) is a thousand bytes, as on the box of a disk; a kibibyte (KiB) is 1024.
"""

import re
from decimal import Decimal

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_ALL = {**_UNITS, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SIZE = re.compile(r"(-?)([0-9]+(?:\.[0-9]+)?)\s*([KMGT]I?B|[KMGT]I?|B)")
PATTERN = r"^[0-9]+(\.[0-9]+)?\s*([kKMGTmgt]([iI]?[bB]|[iI])?|[bB])$"
HOW = "write it with its unit, such as 500MB or 2GB (KB, MB, GB, or KiB, MiB, GiB)"


def parse_size(text: str) -> int:
    """Return the bytes that *text* means, such as ``500MB``.

    Raises:
        ValueError: it means no size.
    """
    written = _SIZE.fullmatch(text.strip().upper())
    if written is None:
        raise ValueError(f"{text[:100]!r} is no size; {HOW}")
    sign, number, unit = written.groups()
    if sign:
        raise ValueError(f"{text[:100]!r} is no size; write more than 0, such as 500MB")
    return int(Decimal(number) * _ALL[unit if unit in _ALL else f"{unit}B"])


def format_size(size: int) -> str:
    """Return *size*, in bytes, in few letters."""
    for unit in ("TB", "GB", "MB", "kB"):
        factor = _UNITS[unit.upper()]
        if size >= factor:
            return f"{size / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} B"
