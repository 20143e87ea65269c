"""Requests of the process that leads are applied in the transaction that appends them."""

import pytest

from kapelle.core.ids import RequestId, RunId
from kapelle.core.requests import Request, Submit
from kapelle.engine.submit import Asked, SubmitStage
from kapelle.testing.factories import run_spec, task
from kapelle.testing.stores import LeaderDied
from kapelle.testing.worlds import SmallWorld


def request(here: SmallWorld) -> Request:
    submit = Submit(run_id=RunId("r-1"), spec=run_spec(task("api")))
    return Request(request_id=RequestId("q-1"), body=submit, principal="you", asked_at=here.clock.now())


async def test_a_request_of_the_leading_process_needs_one_commit(here: SmallWorld) -> None:
    leader = await here.lead()
    asked, wanted = Asked(), request(here)
    asked.add(wanted)
    commits = here.store.commits
    assert await SubmitStage(leader.world, asked).step(here.clock.now()) == here.clock.now()
    assert here.store.commits == commits + 1
    assert list(await here.tasks()) == ["api"]
    settled = await here.store.read(lambda view: view.requests.get(wanted.request_id))
    assert settled is not None
    assert settled.settled_at == here.clock.now()


async def test_a_request_whose_transaction_failed_is_applied_with_the_next(here: SmallWorld) -> None:
    leader = await here.lead()
    asked = Asked()
    asked.add(request(here))
    stage = SubmitStage(leader.world, asked)
    here.store.die()
    with pytest.raises(LeaderDied):
        await stage.step(here.clock.now())
    here.store.heal()
    assert list(await here.tasks()) == []
    await stage.step(here.clock.now())
    assert list(await here.tasks()) == ["api"]
