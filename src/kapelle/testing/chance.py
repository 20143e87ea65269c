"""Randomness that is the same every time."""

from random import Random
from uuid import UUID


class SeededChance:
    """See ``core.ports.Chance``: the same seed gives the same ids and delays."""

    def __init__(self, seed: int = 0) -> None:
        self._random = Random(seed)  # noqa: S311  # guessable on purpose

    def bits(self, count: int) -> int:
        """See the port."""
        return self._random.getrandbits(count)

    def share(self) -> float:
        """See the port."""
        return self._random.random()

    def uuid(self) -> str:
        """See the port."""
        return str(UUID(int=self._random.getrandbits(128), version=4))
