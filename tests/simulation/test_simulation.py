"""Worlds in which anything may happen: see ``kapelle.testing.simulation``."""

import os

import pytest

from kapelle.testing.simulation import simulate

WORLDS = int(os.environ.get("KAPELLE_SOAK_WORLDS", "150"))


def test_whatever_happens_every_invariant_holds_and_every_task_ends() -> None:
    # The same worlds every time: a new finding belongs to `make soak`, not to whoever changes something else.
    simulate(worlds=14)


@pytest.mark.soak
def test_many_more_worlds_hold() -> None:
    simulate(worlds=WORLDS, same=False)
