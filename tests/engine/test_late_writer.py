"""A leader that was cut off and comes back when another leads."""

import pytest

from kapelle.core.attempt import PromptState
from kapelle.core.errors import LeadLost
from kapelle.core.merge import DeliveryMode
from kapelle.core.task import TaskState
from kapelle.testing.factories import run_spec
from kapelle.testing.hosts import writes
from kapelle.testing.worlds import SmallWorld

STAGES = ("submit", "dispatch", "execute", "validate", "merge", "report")


@pytest.mark.parametrize("stage", STAGES)
async def test_a_late_writer_is_refused_and_writes_nothing(here: SmallWorld, stage: str) -> None:
    await here.submit(run_spec())
    late = await here.lead()
    await late.step("submit")
    await here.lead()
    before = await here.log()
    with pytest.raises(LeadLost):
        await late.step(stage)
    assert await here.log() == before


@pytest.mark.parametrize("stage", STAGES)
async def test_what_a_late_writer_found_out_is_not_written_down(here: SmallWorld, stage: str) -> None:
    here.points.hold("merge")
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    late = await here.lead()
    await late.run()
    await here.lead()
    here.points.release("merge")
    await late.settle()
    before = await here.log()
    with pytest.raises(LeadLost):
        await late.step(stage)
    assert await here.log() == before
    assert (await here.task()).state is TaskState.MERGING


async def test_a_late_writer_cannot_renew_its_lead(here: SmallWorld) -> None:
    late = await here.lead()
    successor = await here.lead()
    with pytest.raises(LeadLost):
        await here.leadership.renew(late.term, here.clock.now())
    await here.leadership.renew(successor.term, here.clock.now())


async def test_a_late_writer_cannot_give_up_the_lead_of_another(here: SmallWorld) -> None:
    late = await here.lead()
    successor = await here.lead()
    await here.leadership.give_up(late.term)
    lead = await here.leadership.holder()
    assert lead is not None
    assert (lead.term, lead.given_up) == (successor.term, False)


async def test_both_leaders_read_an_agent_and_one_writes_it_down(here: SmallWorld) -> None:
    await here.submit(run_spec(delivery=DeliveryMode.NEVER))
    late = await here.lead()
    await late.run()
    successor = await here.lead()
    await successor.run()
    writes({"api.py": "1"})(here.process(), "")
    await late.settle()
    with pytest.raises(LeadLost):
        await late.step("execute")
    await successor.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    assert [prompt.state for prompt in await here.prompts()] == [PromptState.ANSWERED]
    assert len([entry for entry in await here.log() if entry.event.kind == "agent.answered"]) == 1
