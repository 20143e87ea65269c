"""Every kind of blow, once: real processes, the real CLI, a rehearsed model. `make soak` deals hundreds."""

import random
from collections.abc import Iterator

import pytest

from kapelle.testing.blows import BLOWS, Blow, disk_full, leader_in_a_turn
from kapelle.testing.places import Place
from kapelle.testing.survival import Ordeal, room_for, unmount


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


@pytest.mark.usefixtures("bubblewrap")
def test_a_sandbox_changes_nothing_about_it(place: Place) -> None:
    """`make soak` deals all the others in sandboxes, too."""
    ordeal = Ordeal(place, sandbox="bubblewrap")
    try:
        ordeal.begin()
        leader_in_a_turn(ordeal, random.Random(1))  # noqa: S311  # not for secrets
        ordeal.finish()
        assert not ordeal.damage().all
    finally:
        ordeal.close()


def test_a_full_disk_loses_nothing(place: Place) -> None:
    """The store, the spools and the workspaces are all on it."""
    if not room_for(place.home, "24m"):
        pytest.skip("a small disk can only be mounted by root")
    ordeal = Ordeal(place)
    try:
        ordeal.begin()
        disk_full(ordeal, random.Random(1))  # noqa: S311  # not for secrets
        ordeal.finish()
        assert not ordeal.damage().all
    finally:
        ordeal.close()
        unmount(place.home)
