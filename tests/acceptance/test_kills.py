"""Kinds of blows, each once, some of them in the same run: real processes, a rehearsed model. `make soak` deals hundreds."""

import random
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kapelle.testing.blows import BLOWS, Blow, disk_full, leader_in_a_turn
from kapelle.testing.places import Place, make_repository
from kapelle.testing.survival import Ordeal, Over, room_for, unmount

DEMO = Path(__file__).parents[2] / "examples" / "demo" / "repository"
SOAKED = (
    "leader, at any moment",
    "leader, while it starts",
    "the shell round an agent",
    "tool of an agent",
    "leader, spool truncated",
    "leader, spool missing",
    "leader, while it recovers",
    "leader, spool damaged",
    "clock set, forward or back",
)
"""Blows that have a sister among the others: `make soak` deals these, too."""
GROUPS = 2
"""In how many runs the others are dealt, if each run lasts long enough for its share."""
DEALT = [name for name in BLOWS if name not in SOAKED]


@contextmanager
def ordeal_at(place: Place, **changes: str) -> Generator[Ordeal]:
    made = Ordeal(place, **changes)
    made.begin()
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    "names",
    [*(tuple(DEALT)[start::GROUPS] for start in range(GROUPS)), pytest.param(SOAKED, marks=pytest.mark.soak)],
    ids=" ".join,
)
def test_nothing_is_lost_done_twice_or_left(tmp_path: Path, names: tuple[str, ...]) -> None:
    left, number = list(names), 0
    while left:
        number += 1
        repository = tmp_path / str(number) / "shop"
        shutil.copytree(DEMO, repository)
        place = Place(repository=make_repository(repository), home=tmp_path / str(number) / "state")
        dealt: list[str] = []
        with ordeal_at(place) as ordeal:
            while left:
                try:
                    BLOWS[left[0]](ordeal, random.Random(1))  # noqa: S311  # not for secrets
                except Over:
                    # The run had ended before the moment came; the next one is dealt this blow.
                    assert dealt, f"the moment of {left[0]} never came"
                    break
                dealt.append(left.pop(0))
            ordeal.finish()
            assert not ordeal.damage().all, dealt


@pytest.mark.soak
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
