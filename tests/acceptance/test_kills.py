"""Every kind of blow, once: real processes, the real CLI, a rehearsed model. `make soak` deals hundreds."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from kapelle.testing.places import Place
from kapelle.testing.survival import BLOWS, Blow, Ordeal


@pytest.fixture
def ordeal(place: Place) -> Iterator[Ordeal]:
    made = Ordeal(place)
    made.begin()
    yield made
    made.close()


@pytest.mark.parametrize("blow", BLOWS.values(), ids=lambda blow: blow.__name__)
def test_nothing_is_lost_done_twice_or_left(ordeal: Ordeal, blow: Blow) -> None:
    blow(ordeal, random.Random(1))  # noqa: S311  # not for secrets
    ordeal.finish()

    assert not ordeal.damage().all
