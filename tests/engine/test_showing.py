"""A session for each agent whose config asks for one."""

from dataclasses import replace

from kapelle.core.steering import StopAgent
from kapelle.core.steering_events import TerminalFailed
from kapelle.core.task import TaskState
from kapelle.testing.factories import CODER, run_spec, task
from kapelle.testing.mischief import does_well
from kapelle.testing.worlds import SmallWorld

SEEN = (replace(CODER, terminal="tmux"),)


async def test_an_agent_has_a_session_as_long_as_it_lives(here: SmallWorld) -> None:
    await here.submit(run_spec(task(), configs=SEEN))
    leader = await here.lead()
    await leader.run()
    found = (await here.store.read(lambda view: view.agents.live()))[0]
    assert here.terminal.sessions == {here.ports.folders.terminal(found.agent_id): f"coder-{found.agent_id}"}
    does_well(here.process())
    await leader.run_out()
    assert here.terminal.sessions == {}


async def test_a_session_that_cannot_be_opened_keeps_nobody_from_working(here: SmallWorld) -> None:
    here.terminal.absent = "tmux is not installed"
    await here.submit(run_spec(task(), configs=SEEN))
    leader = await here.lead()
    await leader.run()
    does_well(here.process())
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    assert len(await here.events(TerminalFailed)) == 1


async def test_the_sessions_that_a_dead_leader_left_are_closed_by_the_next(here: SmallWorld) -> None:
    await here.submit(run_spec(task(), configs=SEEN))
    leader = await here.lead()
    await leader.run()
    found = (await here.store.read(lambda view: view.agents.live()))[0]
    await here.ask(StopAgent(run_id=found.run_id, agent_id=found.agent_id, at_once=True))
    await leader.run()
    await leader.die()
    here.terminal.sessions[here.ports.folders.terminal(found.agent_id)] = "left"
    successor = await here.lead()
    assert here.terminal.sessions == {}
    await successor.run()
