"""A person who does what Kapelle says brings every world to its end, whoever changed the target meanwhile."""

from collections.abc import Iterator

import pytest

from kapelle.core.merge import DeliveryMode
from kapelle.core.run import RunState
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import writes
from kapelle.testing.simulation import Simulation


@pytest.fixture
def world() -> Iterator[Simulation]:
    made = Simulation()
    yield made
    made.close()


def two_lines_that_fit_the_target_no_more(world: Simulation) -> None:
    """Two runs, each with a line of its own, have merged what fits what a person had begun on the target."""
    world.here.repository.push({"right": "2"})
    world.here.repository.in_the_way = "local changes are in the way"
    for number, delivery in enumerate((DeliveryMode.EACH, DeliveryMode.END)):
        name = f"t{number}a"
        world.here.host.plays(name, writes({"left": "2", f"{name}.py": "1"}))
        run = run_spec(task(name), name=f"run {number}", delivery=delivery)
        world.runs.append(world.do(world.here.submit(run)))
    world.do(world.leader.run())


def states(world: Simulation) -> list[RunState]:
    return [world.do(world.here.run(run_id)).state for run_id in world.runs]


@pytest.mark.parametrize(
    "pushed",
    [
        pytest.param([], id="the-person-mends-what-did-not-fit-another-way"),
        pytest.param([{"right": "1"}], id="a-clean-merge-that-does-not-pass"),
        pytest.param([{"right": "1", "left": "1"}], id="a-conflict-whose-simple-answer-does-not-pass"),
        pytest.param([{"t0a.py": "theirs", "right": "2", "left": "2"}], id="a-conflict"),
    ],
)
def test_whoever_moves_the_target_meanwhile_every_run_ends(world: Simulation, pushed: list[dict[str, str]]) -> None:
    two_lines_that_fit_the_target_no_more(world)
    assert states(world) == [RunState.DELIVERING, RunState.DELIVERING]
    for changes in pushed:
        world.here.repository.push(changes)

    world.heal()

    assert states(world) == [RunState.COMPLETED, RunState.COMPLETED]
    assert {"t0a.py", "t1a.py"} <= set(world.here.repository.files("main"))
