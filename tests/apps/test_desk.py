"""Asking: in the process that leads, and when it stops leading before the request was applied."""

import asyncio
from pathlib import Path

import pytest

from kapelle.apps import compose
from kapelle.apps.settings import load
from kapelle.core.agent import AgentConfig
from kapelle.core.errors import LeadLost
from kapelle.core.ids import RunId
from kapelle.core.requests import Request, Submit
from kapelle.core.run import RunSpec, RunState
from kapelle.core.task import TaskSpec, WorkspaceKind
from kapelle.engine.leader import Stop

RUN = RunId("r-asked")
SPEC = RunSpec(
    name="one",
    tasks=(TaskSpec(name="task", agent="noop", prompt="-", workspace=WorkspaceKind.SCRATCH),),
    configs=(AgentConfig(name="noop", program="noop"),),
)


def opened(folder: Path):
    return compose.open_desk(load(folder, given={"home": folder / "home"}, environment={}))


async def test_what_the_leading_process_asks_for_is_done_when_it_is_answered(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk, asyncio.TaskGroup() as group:
        stop, led = Stop(), asyncio.Event()

        async def finished() -> bool:
            led.set()
            return False

        group.create_task(desk.lead_or_follow(finished, stop))
        await led.wait()
        await desk.ask(Submit(run_id=RUN, spec=SPEC), "you")
        run = await desk.store.read(lambda view: view.runs.get(RUN))
        assert run is not None
        assert run.state is RunState.COMPLETED
        stop.asked.set()


async def test_what_was_asked_of_a_leader_that_lost_the_lead_is_asked_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        engine = desk._engine

        def lose(request: Request) -> None:
            del request
            desk._leading = False

        desk._leading = True
        engine.ask = lose  # pyright: ignore[reportAttributeAccessIssue]  # the lead is lost at this very moment
        await desk.ask(Submit(run_id=RUN, spec=SPEC), "you")
        run = await desk.store.read(lambda view: view.runs.get(RUN))
        assert run is not None


@pytest.mark.parametrize("times", [1, 2])
async def test_who_loses_the_lead_that_was_taken_for_a_request_is_answered_all_the_same(tmp_path: Path, times: int) -> None:
    async with opened(tmp_path) as desk:
        engine, apply, lost = desk._engine, desk._engine.apply_requests, 0

        async def lose(term: int, own: Request | None = None) -> None:
            nonlocal lost
            lost += 1
            if lost > times:
                await apply(term, own)
                return
            await engine._give_up(term)
            raise LeadLost("another was faster")

        engine.apply_requests = lose  # pyright: ignore[reportAttributeAccessIssue]  # the lead is lost at this very moment
        await desk.ask(Submit(run_id=RUN, spec=SPEC), "you")
        assert lost == times + 1
        assert await desk.store.read(lambda view: view.runs.get(RUN)) is not None


async def test_one_process_does_not_take_the_lead_twice(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        engine = desk._engine
        async with asyncio.TaskGroup() as group:
            taken = [group.create_task(engine.take()) for _ in range(2)]
        assert [each.result() for each in taken] == [1, None]
        await engine.apply_requests(1)
        assert await engine.take() == 2
        await engine.recover(2)
        assert await engine.take() == 3
        await engine.apply_requests(3)
