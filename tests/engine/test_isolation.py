"""What a sandbox has to say at the end: limits that were met, what could not be removed, and what nobody stands for."""

from dataclasses import replace

import pytest

from kapelle.core.agent import AgentConfig
from kapelle.core.errors import HostFailed
from kapelle.core.events import CheckEnded
from kapelle.core.isolation import Isolation, Limit, Network, NetworkKind, Place, ProcessLimits, Remains
from kapelle.core.isolation_events import LimitMet, SandboxLeft, SandboxSwept
from kapelle.core.ports import Launch
from kapelle.core.run import WorkspaceRules
from kapelle.core.task import TaskState
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import crashes, hangs, writes
from kapelle.testing.worlds import SmallWorld

LIMITS = ProcessLimits(memory=512_000_000, pids=100, disk=2_000_000_000)
ASKED = Isolation(limits=LIMITS)


def of_agent(place: Place) -> bool:
    return not place.key.endswith(("-setup", "-check"))


def limited(**changes: object) -> AgentConfig:
    return replace(AgentConfig(name="coder", program="line", isolation=ASKED), **changes)  # pyright: ignore[reportArgumentType]


async def test_what_is_asked_of_a_sandbox_gets_to_it(here: SmallWorld) -> None:
    rules = WorkspaceRules(setup=("true",), isolation=Isolation(network=Network(kind=NetworkKind.NONE)))
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec(configs=(limited(),), workspace=rules))
    leader = await here.lead()
    await leader.run()
    asked = {launch.argv[-1]: place.isolation for launch, place in here.sandbox.wrapped}
    agent, setup, check = (place for _, place in sorted(here.sandbox.wrapped, key=lambda pair: pair[0].argv[0] == "sh"))
    assert asked["true"] == asked["make test"] == rules.isolation
    assert agent.isolation == ASKED
    assert {place.store_id for place in (agent, setup, check)} == {here.store.store_id}
    assert len({place.key for place in (agent, setup, check)}) == 3
    assert set(here.sandbox.cleared) == {agent.key, setup.key, check.key}


WORDS = [
    (Remains(out_of_memory=True), "it used more than the 512 MB of memory that it may"),
    (Remains(full=Limit.MEMORY), "it used more than the 512 MB of memory that it may"),
    (Remains(full=Limit.PIDS), "it could not start further processes: it may have 100 at once"),
]


@pytest.mark.parametrize(("remains", "words"), WORDS)
async def test_a_limit_that_an_agent_met_is_told_to_people_and_to_the_agent(
    here: SmallWorld, remains: Remains, words: str
) -> None:
    here.host.plays("api", crashes(137), writes({"api.py": "1"}))
    ends = iter([remains])
    here.sandbox.remains = lambda place: next(ends, Remains()) if of_agent(place) else Remains()
    await here.submit(run_spec(configs=(limited(),)))
    leader = await here.lead()
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    (event,) = await here.events(LimitMet)
    assert event.reason == words
    first, second = here.host.of_task("api")
    assert first.conversation_id == second.conversation_id
    assert words.replace("it ", "you ") in second.prompts[0].text


async def test_a_workspace_that_is_too_full_is_not_gone_on_in(here: SmallWorld) -> None:
    here.host.plays("api", crashes(137), writes({"api.py": "1"}))
    ends = iter([Remains(full=Limit.DISK)])
    here.sandbox.remains = lambda place: next(ends, Remains()) if of_agent(place) else Remains()
    await here.submit(run_spec(configs=(limited(),)))
    leader = await here.lead()
    await leader.run_out()
    assert [attempt.number for attempt in await here.attempts()] == [1, 2]
    first, second = here.host.of_task("api")
    assert first.launch.cwd != second.launch.cwd
    (event,) = await here.events(LimitMet)
    assert event.reason == "it wrote more than the 2 GB on disk that it may"


async def test_a_task_that_fails_at_a_limit_says_which(here: SmallWorld) -> None:
    here.set(crashes=0)
    here.host.otherwise = crashes(137)
    here.sandbox.remains = lambda place: Remains(out_of_memory=of_agent(place))
    await here.submit(run_spec(task("api", max_attempts=1), configs=(limited(),)))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert failed.failure is not None
    assert failed.failure.message.endswith(": it used more than the 512 MB of memory that it may")


async def test_a_check_that_met_a_limit_says_so_to_the_agent(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "broken"}), writes({"api.py": "2"}))
    here.sandbox.remains = lambda place: Remains(out_of_memory=place.key.endswith("-check"))
    await here.submit(run_spec(workspace=WorkspaceRules(isolation=ASKED)))
    leader = await here.lead()
    await leader.run()
    assert "failed with exit code 1 (it used more than the 512 MB of memory that it may)." in here.process().prompts[1].text
    first, *_ = await here.events(CheckEnded, "api")
    assert first.limit == "it used more than the 512 MB of memory that it may"


async def test_what_could_not_be_removed_is_told_and_keeps_nobody_from_working(here: SmallWorld) -> None:
    def stuck(place: Place) -> Remains:
        if of_agent(place):
            raise HostFailed("2 processes cannot be ended")
        return Remains()

    here.host.plays("api", writes({"api.py": "1"}))
    here.sandbox.remains = stuck
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert (await here.task()).state is TaskState.COMPLETED
    (event,) = await here.events(SandboxLeft)
    assert event.reason.startswith("2 processes cannot be ended")


async def test_what_nobody_stands_for_is_swept_by_the_next_leader(here: SmallWorld) -> None:
    here.host.otherwise = hangs()
    await here.submit(run_spec())
    first = await here.lead()
    await first.run()
    await first.die()
    lost = Place(workspace="/w", folder="/f", home="/h", store_id=here.store.store_id, key="a-lost")
    await here.sandbox.wrap(Launch(argv=("true",), cwd="/w"), lost)
    await here.lead()
    swept = await here.events(SandboxSwept)
    assert [(event.sandbox, event.keys) for event in swept] == [("process", ("a-lost",))]
