"""Every kind of blow, once: real processes, the real CLI, a rehearsed model. `make soak` deals hundreds."""

import random
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from kapelle.testing.blows import BLOWS, Blow, disk_full, leader_in_a_turn
from kapelle.testing.places import Place
from kapelle.testing.survival import Ordeal, room_for, unmount


@contextmanager
def ordeal_at(place: Place, **changes: str) -> Generator[Ordeal]:
    made = Ordeal(place, **changes)
    made.begin()
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("blow", BLOWS.values(), ids=lambda blow: blow.__name__)
def test_nothing_is_lost_done_twice_or_left(place: Place, blow: Blow) -> None:
    with ordeal_at(place) as ordeal:
        survives(ordeal, blow)


@pytest.mark.usefixtures("bubblewrap")
def test_a_sandbox_changes_nothing_about_it(place: Place) -> None:
    """Nor one that leads to the model alone. `make soak` deals all the others in sandboxes, too."""
    with ordeal_at(place, sandbox="bubblewrap", network="model-only") as ordeal:
        survives(ordeal, leader_in_a_turn)


def test_a_full_disk_loses_nothing(place: Place) -> None:
    """The store, the spools and the workspaces are all on it."""
    if not room_for(place.home, "24m"):
        pytest.skip("a small disk can only be mounted by root")
    try:
        with ordeal_at(place) as ordeal:
            survives(ordeal, disk_full)
    finally:
        unmount(place.home)


def survives(ordeal: Ordeal, blow: Blow) -> None:
    blow(ordeal, random.Random(1))  # noqa: S311  # not for secrets
    ordeal.finish()
    assert not ordeal.damage().all
