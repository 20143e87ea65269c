"""Large numbers as people write them: ``2000000``, ``2M``, ``1.5M``, ``500k``."""

import re
from decimal import Decimal

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMG]?)")
PATTERN = r"^[0-9]+(\.[0-9]+)?\s*[kKMmGg]?$"
HOW = "write it as 2000000 or 2M (k, M, G)"


def parse_count(text: str) -> int:
    """Return the number that *text* means, such as ``1.5M``.

    Raises:
        ValueError: it means none.
    """
    written = _COUNT.fullmatch(text.strip().upper())
    if written is None:
        raise ValueError(f"{text[:100]!r} is no number; {HOW}")
    number, unit = written.groups()
    return int(Decimal(number) * _UNITS[unit])
