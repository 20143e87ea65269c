"""What a store finds, and in which order."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from kapelle.core.agent import AgentState
from kapelle.core.attempt import Attempt, Outcome, PromptRecord, PromptState
from kapelle.core.budget import Spend
from kapelle.core.frozen import replace
from kapelle.core.ids import PromptId, RunId, TaskId
from kapelle.core.merge import ChangeState
from kapelle.core.paths import Took
from kapelle.core.run import RunSpec, RunState
from kapelle.core.store import Edge, Tx
from kapelle.core.task import TERMINAL, Task, TaskState, Wait
from kapelle.testing.conformance.samples import NOON, a_call, a_change, a_run, a_task, an_agent, an_attempt
from kapelle.testing.conformance.transactions import Led, StoreTests

SECOND = timedelta(seconds=1)
WORKING = (TaskState.ASSIGNED, TaskState.RUNNING, TaskState.VALIDATING, TaskState.MERGING)


async def _add(led: Led, *tasks: Task, edges: Sequence[Edge] = ()) -> None:
    await led.do(lambda tx: tx.tasks.add(tasks, edges))


def _names(tasks: Sequence[Task]) -> list[str]:
    return [task.name for task in tasks]


class DueSuite(StoreTests):
    """Which tasks could run now."""

    async def test_due_tasks_come_by_rank(self, led: Led) -> None:
        """And no more of them than asked for."""
        run = a_run()
        await _add(led, *[a_task(run, name=f"{rank}", rank=rank) for rank in (3.5, -1.0, 2.0, 1e9)])
        assert _names(await led.read(lambda view: view.tasks.due(NOON, 10))) == ["-1.0", "2.0", "3.5", "1000000000.0"]
        assert _names(await led.read(lambda view: view.tasks.due(NOON, 2))) == ["-1.0", "2.0"]

    async def test_those_behind_a_due_task_can_be_asked_for(self, led: Led) -> None:
        """Also where ranks are the same."""
        run = a_run()
        await _add(led, *[a_task(run, name=f"{rank}-{number}", rank=rank) for rank in (1.0, 2.0) for number in range(3)])
        first = await led.read(lambda view: view.tasks.due(NOON, 2))
        then = await led.read(lambda view: view.tasks.due(NOON, 10, first[-1]))
        everything = await led.read(lambda view: view.tasks.due(NOON, 10))
        assert _names([*first, *then]) == _names(everything)
        assert len(everything) == 6

    async def test_the_due_tasks_of_one_run_come_by_rank(self, led: Led) -> None:
        """Whatever waits of others; and no more of them than asked for."""
        run, other = a_run(), a_run()
        await _add(led, *[a_task(run, name=f"{rank}", rank=rank) for rank in (3.0, 1.0, 2.0)], a_task(other, rank=0.0))
        await _add(led, a_task(run, name="later", rank=0.0, due_at=NOON + SECOND), a_task(run, name="needs", unmet=1, rank=0.0))
        assert _names(await led.read(lambda view: view.tasks.due_of_run(run.run_id, NOON, 10))) == ["1.0", "2.0", "3.0"]
        assert _names(await led.read(lambda view: view.tasks.due_of_run(run.run_id, NOON, 2))) == ["1.0", "2.0"]

    async def test_the_runs_with_due_tasks_are_found_each_once(self, led: Led) -> None:
        """By id, from any of them on; those whose tasks all wait for others are not among them."""
        runs = sorted((a_run() for _ in range(4)), key=lambda run: run.run_id)
        assert await led.read(lambda view: list(view.tasks.runs_due(10))) == []
        for run in runs[:3]:
            await _add(led, a_task(run), a_task(run), a_task(run, unmet=1))
        await _add(led, a_task(runs[3], unmet=1))
        ids = [run.run_id for run in runs[:3]]
        assert await led.read(lambda view: list(view.tasks.runs_due(10))) == ids
        assert await led.read(lambda view: list(view.tasks.runs_due(2))) == ids[:2]
        assert await led.read(lambda view: list(view.tasks.runs_due(2, ids[0]))) == ids[1:]
        assert await led.read(lambda view: list(view.tasks.runs_due(2, ids[2]))) == []

    async def test_how_long_tasks_took_is_kept_by_project_name_and_config(self, led: Led) -> None:
        """The newest word stands for all before it."""
        first = Took(project="shop", name="api", config="coder", seconds=1.5)
        others = [replace(first, name="ui"), replace(first, config="tester"), replace(first, project="blog")]

        def work(tx: Tx) -> None:
            for took in (first, *others, replace(first, seconds=2.5, times=2)):
                tx.history.put(took)

        await led.do(work)
        newest = replace(first, seconds=2.5, times=2)
        assert await led.read(lambda view: view.history.alike("shop", "api", "coder")) == newest
        assert await led.read(lambda view: view.history.alike("shop", "api", "nobody")) is None
        assert await led.read(lambda view: list(view.history.of_project("shop"))) == [newest, others[1], others[0]]
        assert len(await led.read(lambda view: view.history.of_project("shop", 1))) == 1

    async def test_a_task_is_due_when_its_time_has_come(self, led: Led) -> None:
        """At that very moment, and not before."""
        run = a_run()
        later = a_task(run, name="later", due_at=NOON + SECOND)
        await _add(led, a_task(run, name="now", due_at=NOON), later)
        assert _names(await led.read(lambda view: view.tasks.due(NOON, 10))) == ["now"]
        assert len(await led.read(lambda view: view.tasks.due(NOON + SECOND, 10))) == 2

    async def test_it_is_known_when_the_next_task_comes_due(self, led: Led) -> None:
        """The first of those that are not due yet."""
        run = a_run()
        assert await led.read(lambda view: view.tasks.next_due_at(NOON)) is None
        times = (NOON - SECOND, NOON, NOON + 3 * SECOND, NOON + 2 * SECOND)
        await _add(led, *[a_task(run, due_at=time) for time in times])
        assert await led.read(lambda view: view.tasks.next_due_at(NOON)) == NOON + 2 * SECOND
        assert await led.read(lambda view: view.tasks.next_due_at(NOON + 3 * SECOND)) is None

    async def test_a_task_with_an_unmet_need_is_not_due(self, led: Led) -> None:
        """Until the last one is met."""
        run = a_run()
        task = a_task(run, unmet=1)
        await _add(led, task)
        assert await led.read(lambda view: list(view.tasks.due(NOON, 10))) == []
        await led.do(lambda tx: tx.tasks.put(replace(task, unmet=0)))
        assert await led.read(lambda view: len(view.tasks.due(NOON, 10))) == 1

    async def test_a_task_that_needs_approval_is_due_when_it_has_it(self, led: Led) -> None:
        """Not before."""
        run = a_run()
        task = a_task(run, approval=True)
        await _add(led, task)
        assert await led.read(lambda view: list(view.tasks.due(NOON, 10))) == []
        await led.do(lambda tx: tx.tasks.put(replace(task, approved=True)))
        assert await led.read(lambda view: len(view.tasks.due(NOON, 10))) == 1

    @pytest.mark.parametrize("state", [state for state in TaskState if state is not TaskState.PENDING])
    async def test_only_pending_tasks_are_due(self, led: Led, state: TaskState) -> None:
        """What runs or has ended is not."""
        task = a_task(a_run(), state=state, due_at=NOON)
        await _add(led, task)
        assert await led.read(lambda view: list(view.tasks.due(NOON, 10))) == []
        assert await led.read(lambda view: view.tasks.next_due_at(NOON - SECOND)) is None

    async def test_no_task_of_a_paused_run_is_due(self, led: Led) -> None:
        """Until the run goes on; other runs are not touched."""
        run, other = a_run(), a_run()

        def work(tx: Tx) -> None:
            tx.runs.add(run)
            tx.runs.add(other)
            tx.tasks.add([a_task(run, name="mine")], [])
            tx.tasks.add([a_task(other, name="other")], [])
            tx.runs.pause(run, paused=True)

        await led.do(work)
        assert _names(await led.read(lambda view: view.tasks.due(NOON, 10))) == ["other"]
        paused = await led.read(lambda view: view.runs.get(run.run_id))
        assert paused == replace(run, paused=True)
        await led.do(lambda tx: tx.runs.pause(replace(run, paused=True), paused=False))
        assert sorted(_names(await led.read(lambda view: view.tasks.due(NOON, 10)))) == ["mine", "other"]
        assert await led.read(lambda view: view.runs.get(run.run_id)) == run

    async def test_a_task_that_changes_while_its_run_is_paused_stays_held(self, led: Led) -> None:
        """Writing a task does not lift the pause."""
        run = a_run()
        task = a_task(run)

        def work(tx: Tx) -> None:
            tx.runs.add(run)
            tx.tasks.add([task], [])
            tx.runs.pause(run, paused=True)
            tx.tasks.put(replace(task, detail="changed"))

        await led.do(work)
        assert await led.read(lambda view: list(view.tasks.due(NOON, 10))) == []


class TaskSuite(StoreTests):
    """Tasks, by what they belong to and what they need."""

    async def test_the_tasks_of_a_run_come_in_the_order_of_the_workflow(self, led: Led) -> None:
        """Whatever their names, ids and ranks."""
        run = a_run()
        tasks = [a_task(run, name=name, rank=float(rank)) for rank, name in enumerate(["c", "a", "d", "b"])]
        await _add(led, *reversed(tasks))
        await _add(led, a_task(a_run(), name="of another run"))
        assert _names(await led.read(lambda view: view.tasks.of_run(run.run_id))) == ["b", "d", "a", "c"]

    @pytest.mark.parametrize("state", WORKING)
    async def test_tasks_in_a_state_come_by_rank(self, led: Led, state: TaskState) -> None:
        """Only those in it, and not more than asked for."""
        run = a_run()
        tasks = [a_task(run, name=f"{rank}", rank=rank, state=state) for rank in (3.0, 1.0, 2.0)]
        others = [a_task(run, name="other", state=other) for other in TaskState if other is not state]
        await _add(led, *tasks, *others)
        assert _names(await led.read(lambda view: view.tasks.in_state(state))) == ["1.0", "2.0", "3.0"]
        assert _names(await led.read(lambda view: view.tasks.in_state(state, limit=1))) == ["1.0"]

    async def test_needs_are_found_from_both_ends(self, led: Led) -> None:
        """What a task needs, and what needs it; in the order of the workflow."""
        run = a_run()
        first, second, last = (a_task(run, name=name) for name in ("first", "second", "last"))
        edges = [Edge(task_id=last.task_id, need_id=task.task_id) for task in (second, first)]
        await _add(led, first, second, last, edges=edges)
        assert _names(await led.read(lambda view: view.tasks.needs(last.task_id))) == ["first", "second"]
        assert _names(await led.read(lambda view: view.tasks.needed_by(first.task_id))) == ["last"]
        assert await led.read(lambda view: [*view.tasks.needs(first.task_id), *view.tasks.needed_by(last.task_id)]) == []

    async def test_a_task_may_need_one_that_was_added_before(self, led: Led) -> None:
        """The other end of an edge is in the store already."""
        run = a_run()
        old, new = a_task(run, name="old"), a_task(run, name="new")
        await _add(led, old)
        await _add(led, new, edges=[Edge(task_id=new.task_id, need_id=old.task_id)])
        assert _names(await led.read(lambda view: view.tasks.needed_by(old.task_id))) == ["new"]


class WaitingSuite(StoreTests):
    """Which tasks of a run wait for something."""

    async def test_the_tasks_of_a_run_that_wait_for_something_come_by_rank(self, led: Led) -> None:
        """Those alone that wait for that, begun or not; no more of them than asked for, and none that ended."""
        run, other = a_run(), a_run()
        asked = [a_task(run, name=f"{rank}", rank=rank, waits_for=Wait.APPROVAL) for rank in (3.0, 1.0)]
        merging = a_task(run, name="2.0", rank=2.0, waits_for=Wait.APPROVAL, state=TaskState.MERGING)
        over = a_task(run, name="over", waits_for=Wait.APPROVAL, state=TaskState.CANCELLED, ended_at=NOON)
        await _add(led, *asked, merging, over, a_task(run), a_task(run, waits_for=Wait.LIMIT))
        await _add(led, a_task(other, name="theirs", waits_for=Wait.APPROVAL))
        assert _names(await led.read(lambda view: view.tasks.waiting(run.run_id, Wait.APPROVAL))) == ["1.0", "2.0", "3.0"]
        assert _names(await led.read(lambda view: view.tasks.waiting(run.run_id, Wait.APPROVAL, 2))) == ["1.0", "2.0"]
        assert _names(await led.read(lambda view: view.tasks.waiting(run.run_id, Wait.BUDGET))) == []

    async def test_what_was_put_in_the_same_transaction_is_known(self, led: Led) -> None:
        """Both that it waits now, and that it does not any more."""
        run = a_run()
        one, two = a_task(run, name="one"), a_task(run, name="two", waits_for=Wait.BUDGET)
        await _add(led, one, two)

        def work(tx: Tx) -> Sequence[Task]:
            tx.tasks.put(replace(one, waits_for=Wait.BUDGET))
            tx.tasks.put(replace(two, waits_for=None))
            return tx.tasks.waiting(run.run_id, Wait.BUDGET)

        assert _names(await led.do(work)) == ["one"]


class FindSuite(StoreTests):
    """Ids that people shorten."""

    async def test_tasks_that_try_one_of_a_run_again_are_found(self, led: Led) -> None:
        """Of whatever run, the first first; not those that try them again in their turn."""
        first, second, third = (a_run(submitted_at=NOON + timedelta(seconds=number)) for number in range(3))
        old = a_task(first, name="old")
        again = a_task(second, name="again", retry_of=old.task_id, submitted_at=NOON + timedelta(seconds=1))
        later = a_task(third, name="later", retry_of=old.task_id, submitted_at=NOON + timedelta(seconds=2))
        last = a_task(third, name="last", retry_of=again.task_id, submitted_at=NOON + timedelta(seconds=2))
        await _add(led, later, last, again, old)
        assert _names(await led.read(lambda view: view.tasks.retries_of(first.run_id))) == ["again", "later"]
        assert _names(await led.read(lambda view: view.tasks.retries_of(second.run_id))) == ["last"]
        assert await led.read(lambda view: list(view.tasks.retries_of(third.run_id))) == []

    async def test_a_run_is_found_by_the_beginning_of_its_id(self, led: Led) -> None:
        """At most two, since one more already means that the prefix is too short."""
        ids = [RunId(text) for text in ("r-abc1", "r-abc2", "r-abc3", "r-xyz")]

        def work(tx: Tx) -> None:
            for run_id in ids:
                tx.runs.add(a_run(run_id=run_id))

        await led.do(work)
        assert await led.read(lambda view: list(view.runs.find("r-x"))) == ["r-xyz"]
        assert await led.read(lambda view: list(view.runs.find("r-abc2"))) == ["r-abc2"]
        assert await led.read(lambda view: len(view.runs.find("r-abc"))) == 2
        assert await led.read(lambda view: list(view.runs.find("abc"))) == []

    async def test_runs_are_found_by_their_name(self, led: Led) -> None:
        """The newest first; a part of a name is no name."""
        names = {"r-1": "night work", "r-2": 'ünï "✓"', "r-3": "night work", "r-4": "night"}

        def work(tx: Tx) -> None:
            for number, (run_id, name) in enumerate(names.items()):
                at = NOON + timedelta(seconds=number)
                tx.runs.add(a_run(run_id=RunId(run_id), spec=RunSpec(name=name, tasks=()), submitted_at=at))

        await led.do(work)

        async def named(name: str, limit: int = 10) -> list[str]:
            return [run.run_id for run in await led.read(lambda view: view.runs.named(name, limit))]

        assert await named("night work") == ["r-3", "r-1"]
        assert await named("night work", 1) == ["r-3"]
        assert await named('ünï "✓"') == ["r-2"]
        assert await named("nigh") == []
        assert await named("%") == []

    @pytest.mark.parametrize("prefix", ["%", "_", "r-%", "r_abc", "r-ab_", "%abc", "*", "r-*", "r-?", "r-[a]", "\\", "r-abc\\"])
    async def test_nothing_in_a_prefix_is_a_wildcard(self, led: Led, prefix: str) -> None:
        """Whoever types one finds nothing rather than everything."""
        run = a_run(run_id=RunId("r-abc"))
        task = a_task(run, task_id=TaskId("r-abc"))

        def work(tx: Tx) -> None:
            tx.runs.add(run)
            tx.tasks.add([task], [])

        await led.do(work)
        assert await led.read(lambda view: list(view.runs.find(prefix))) == []
        assert await led.read(lambda view: list(view.tasks.find(prefix))) == []
        assert await led.read(lambda view: list(view.tasks.find(prefix, run.run_id))) == []

    async def test_a_task_is_found_by_the_beginning_of_its_id(self, led: Led) -> None:
        """Of whatever run, at most two."""
        tasks = [a_task(a_run(), name=text, task_id=TaskId(text)) for text in ("t-abc1", "t-abc2", "t-abc3", "t-xyz")]
        await _add(led, *tasks)
        assert _names(await led.read(lambda view: view.tasks.find("t-x"))) == ["t-xyz"]
        assert len(await led.read(lambda view: view.tasks.find("t-abc"))) == 2

    async def test_in_a_run_a_task_is_found_by_its_name(self, led: Led) -> None:
        """The same name in another run is another task's; a part of a name is no name."""
        run, other = a_run(), a_run()
        mine, others = a_task(run, name="build"), a_task(other, name="build")
        await _add(led, mine, others)
        assert await led.read(lambda view: list(view.tasks.find("build", run.run_id))) == [mine]
        assert await led.read(lambda view: list(view.tasks.find("bui", run.run_id))) == []
        assert await led.read(lambda view: list(view.tasks.find("build"))) == []

    async def test_in_a_run_only_its_own_tasks_are_found(self, led: Led) -> None:
        """However many tasks of other runs begin like it."""
        run, other = a_run(), a_run()
        mine = a_task(run, task_id=TaskId("t-ab3"))
        await _add(led, *[a_task(other, task_id=TaskId(f"t-ab{number}")) for number in range(3)], mine)
        assert await led.read(lambda view: list(view.tasks.find("t-ab", run.run_id))) == [mine]


class RunSuite(StoreTests):
    """Runs and how they stand."""

    async def test_runs_that_have_not_ended_are_open(self, led: Led) -> None:
        """The oldest first."""
        newer, ended, older = a_run(submitted_at=NOON + SECOND), a_run(ended_at=NOON), a_run(submitted_at=NOON - SECOND)

        def work(tx: Tx) -> None:
            for run in (newer, ended, older):
                tx.runs.add(run)

        await led.do(work)
        assert await led.read(lambda view: list(view.runs.open())) == [older, newer]
        assert await led.read(lambda view: set(view.runs.open_ids())) == {older.run_id, newer.run_id}

        def end(tx: Tx) -> None:
            tx.runs.put(replace(older, ended_at=NOON))
            assert tx.runs.open_ids() == [newer.run_id]

        await led.do(end)

    async def test_runs_are_done_when_their_tasks_are_and_they_have_not_ended(self, led: Led) -> None:
        """The oldest first."""
        older, newer = a_run(unfinished=0, submitted_at=NOON - timedelta(days=1)), a_run(unfinished=0)
        busy, ended = a_run(unfinished=1), a_run(unfinished=0, state=RunState.COMPLETED, ended_at=NOON)

        def work(tx: Tx) -> None:
            for run in (newer, busy, ended, older):
                tx.runs.add(run)
            assert tx.runs.done() == [older, newer]
            tx.runs.put(replace(busy, unfinished=0))
            assert busy.run_id in [run.run_id for run in tx.runs.done()]
            tx.runs.put(busy)

        await led.do(work)
        assert await led.read(lambda view: list(view.runs.done())) == [older, newer]

    async def test_an_overview_counts_tasks_and_spend(self, led: Led) -> None:
        """Of its own run only."""
        run, other = a_run(), a_run()
        states = [TaskState.PENDING, TaskState.RUNNING, TaskState.RUNNING, *sorted(TERMINAL)]
        call = replace(a_call(an_attempt(a_task(run))), cost_usd=0.5)

        def work(tx: Tx) -> None:
            tx.runs.add(run)
            tx.runs.add(other)
            tx.tasks.add([a_task(run, state=state) for state in states], [])
            tx.tasks.add([a_task(other)], [])
            tx.ledger.add([call], NOON)

        await led.do(work)
        (overview,) = await led.read(lambda view: view.runs.overviews([run.run_id]))
        expected = {TaskState.PENDING: 1, TaskState.RUNNING: 2, **dict.fromkeys(TERMINAL, 1)}
        assert overview.run == run
        assert dict(overview.counts) == expected
        assert overview.spend == Spend(usage=call.usage, cost_usd=0.5, calls=1)

    async def test_tasks_are_counted_by_state_and_by_what_they_wait_for(self, led: Led) -> None:
        """As they are in the same transaction, too."""
        run, other = a_run(), a_run()
        states = [(TaskState.PENDING, Wait.BUDGET), (TaskState.PENDING, None), (TaskState.RUNNING, Wait.APPROVAL)]
        tasks = [a_task(run, state=state, waits_for=wait) for state, wait in (*states, states[0])]
        expected = {states[0]: 2, states[1]: 1, states[2]: 1}

        def work(tx: Tx) -> None:
            tx.tasks.add([*tasks, a_task(other)], [])
            assert tx.runs.counts(run.run_id) == expected
            tx.tasks.put(replace(tasks[1], state=TaskState.ASSIGNED))

        await led.do(work)
        del expected[states[1]]
        assert await led.read(lambda view: view.runs.counts(run.run_id)) == {**expected, (TaskState.ASSIGNED, None): 1}
        assert await led.read(lambda view: view.runs.counts(RunId("r-gone"))) == {}

    async def test_overviews_show_the_newest_runs_first(self, led: Led) -> None:
        """As many as asked for; ended ones too."""
        runs = [a_run(submitted_at=NOON + number * SECOND, ended_at=NOON) for number in range(4)]

        def work(tx: Tx) -> None:
            for run in runs:
                tx.runs.add(run)

        await led.do(work)
        found = await led.read(lambda view: view.runs.overviews(limit=3))
        assert [overview.run for overview in found] == [runs[3], runs[2], runs[1]]
        assert found[0].counts == ()
        assert found[0].spend == Spend()

    async def test_overviews_of_runs_that_are_not_there_are_left_out(self, led: Led) -> None:
        """And no run that was not asked for is in."""
        run = a_run()
        await led.do(lambda tx: tx.runs.add(run))
        found = await led.read(lambda view: view.runs.overviews([RunId("r-gone"), run.run_id]))
        assert [overview.run for overview in found] == [run]
        assert await led.read(lambda view: list(view.runs.overviews([]))) == []


class WorkSuite(StoreTests):
    """Attempts, prompts, agents, changes: what hangs together."""

    async def test_the_attempts_of_a_task_come_in_order(self, led: Led) -> None:
        """The first first, whenever they were written."""
        task = a_task(a_run())
        attempts = [an_attempt(task, number=number) for number in (3, 1, 2)]

        def work(tx: Tx) -> None:
            for attempt in (*attempts, an_attempt(a_task(a_run()))):
                tx.attempts.put(attempt)

        await led.do(work)
        found = await led.read(lambda view: view.attempts.of_task(task.task_id))
        assert [attempt.number for attempt in found] == [1, 2, 3]

    async def test_attempts_at_the_tasks_of_a_run_are_counted_by_how_they_ended(self, led: Led) -> None:
        """Open ones too; of that run alone."""
        run, other = a_run(), a_run()
        tasks = [a_task(run), a_task(run)]
        ended = [an_attempt(task, number=number, outcome=Outcome.NO_WORK, ended_at=NOON) for task in tasks for number in (1, 2)]

        def work(tx: Tx) -> None:
            strange = a_task(other)
            tx.tasks.add([*tasks, strange], [])
            for attempt in (*ended, an_attempt(tasks[0], number=3), an_attempt(strange)):
                tx.attempts.put(attempt)
            assert tx.attempts.outcomes(run.run_id) == {Outcome.NO_WORK: 4, None: 1}

        await led.do(work)
        assert await led.read(lambda view: view.attempts.outcomes(run.run_id)) == {Outcome.NO_WORK: 4, None: 1}
        assert await led.read(lambda view: view.attempts.outcomes(RunId("r-gone"))) == {}

    async def test_the_last_merged_changes_of_a_run_come_last_first(self, led: Led) -> None:
        """As many as asked for; neither those that wait nor another run's."""
        run, other = a_run(), a_run()
        tasks = [a_task(each) for each in (run, run, run, run, other)]
        ends = {"state": ChangeState.MERGED}
        merged = [a_change(an_attempt(task), **ends, ended_at=NOON + at * SECOND) for at, task in enumerate(tasks)]
        waits = a_change(an_attempt(tasks[0]))
        await _add(led, *tasks)
        await led.do(lambda tx: [tx.changes.put(change) for change in (*merged, waits)])
        assert await led.read(lambda view: list(view.changes.merged(run.run_id, 3))) == merged[3:0:-1]
        assert await led.read(lambda view: list(view.changes.merged(other.run_id, 3))) == merged[4:]

    async def test_the_prompts_of_an_attempt_come_in_the_order_they_were_made(self, led: Led) -> None:
        """A prompt that moved on keeps its place."""
        attempt, other = an_attempt(a_task(a_run())), an_attempt(a_task(a_run()))
        prompts = [
            PromptRecord(prompt_id=PromptId(name), attempt_id=attempt.attempt_id, round=0, text=name)
            for name in ("z", "a", "m")
        ]
        moved = replace(prompts[0], state=PromptState.ANSWERED)

        def work(tx: Tx) -> None:
            for prompt in prompts:
                tx.attempts.put_prompt(prompt)
            tx.attempts.put_prompt(
                PromptRecord(prompt_id=PromptId("o"), attempt_id=other.attempt_id, round=0, text="of another")
            )
            tx.attempts.put_prompt(moved)

        await led.do(work)
        expected = [moved, *prompts[1:]]
        assert await led.read(lambda view: list(view.attempts.prompts(attempt.attempt_id))) == expected

    async def test_an_open_attempt_of_a_running_task_without_a_live_agent_is_found(self, led: Led) -> None:
        """By the rank of its task; an agent that was stopped is no live one."""
        run = a_run()
        rows = [self._running(run.run_id, rank) for rank in (2.0, 1.0)]
        stopped = an_agent(rows[0][1], state=AgentState.STOPPED, stopped_at=NOON)

        def work(tx: Tx) -> None:
            for task, attempt in rows:
                tx.tasks.add([task], [])
                tx.attempts.put(attempt)
            tx.agents.put(stopped)

        await led.do(work)
        assert await led.read(lambda view: list(view.attempts.without_agent())) == [rows[1][1], rows[0][1]]

    async def test_an_attempt_that_has_ended_or_is_served_or_is_not_running_is_not_found(self, led: Led) -> None:
        """Nor one that its task has left behind."""
        run = a_run()
        served, ended, old, elsewhere = (self._running(run.run_id, 1.0) for _ in range(4))

        def work(tx: Tx) -> None:
            tx.tasks.add([served[0], ended[0], old[0], replace(elsewhere[0], state=TaskState.VALIDATING)], [])
            tx.attempts.put(served[1])
            tx.agents.put(an_agent(served[1]))
            tx.attempts.put(replace(ended[1], ended_at=NOON))
            tx.attempts.put(an_attempt(old[0]))
            tx.attempts.put(elsewhere[1])

        await led.do(work)
        assert await led.read(lambda view: list(view.attempts.without_agent())) == []

    @staticmethod
    def _running(run_id: RunId, rank: float) -> tuple[Task, Attempt]:
        task = a_task(a_run(run_id=run_id), state=TaskState.RUNNING, rank=rank)
        attempt = an_attempt(task)
        return replace(task, attempt_id=attempt.attempt_id), attempt

    async def test_agents_that_are_not_stopped_are_live(self, led: Led) -> None:
        """The oldest first; one that is stopped is still known by its id."""
        attempt = an_attempt(a_task(a_run()))
        newer, older = an_agent(attempt, created_at=NOON + SECOND), an_agent(attempt, created_at=NOON)
        stopped = an_agent(attempt, state=AgentState.STOPPED, stopped_at=NOON)

        def work(tx: Tx) -> None:
            for agent in (newer, older, stopped):
                tx.agents.put(agent)

        await led.do(work)
        assert await led.read(lambda view: list(view.agents.live())) == [older, newer]
        assert await led.read(lambda view: view.agents.get(stopped.agent_id)) == stopped

    async def test_agents_are_found_by_the_beginning_of_their_id_and_by_their_task(self, led: Led) -> None:
        """The newest first, whether they live or not, and no more than asked for."""
        first, other = an_attempt(a_task(a_run())), an_attempt(a_task(a_run()))
        older, newer = an_agent(first, created_at=NOON), an_agent(first, created_at=NOON + SECOND)
        last = an_agent(other, created_at=NOON + 2 * SECOND, state=AgentState.STOPPED, stopped_at=NOON + 3 * SECOND)

        def work(tx: Tx) -> None:
            for agent in (newer, last, older):
                tx.agents.put(agent)

        await led.do(work)
        assert list(await led.read(lambda view: view.agents.newest(10))) == [last, newer, older]
        assert list(await led.read(lambda view: view.agents.newest(2))) == [last, newer]
        assert list(await led.read(lambda view: view.agents.newest(10, first.task_id))) == [newer, older]
        assert list(await led.read(lambda view: view.agents.newest(1, first.task_id))) == [newer]
        assert list(await led.read(lambda view: view.agents.find(older.agent_id))) == [older]
        assert list(await led.read(lambda view: view.agents.find("g-"))) == [last, newer]
        assert list(await led.read(lambda view: view.agents.find("%"))) == []

    async def test_a_task_that_is_paused_is_not_due(self, led: Led) -> None:
        """Until it is not paused any more."""
        run = a_run()
        paused = a_task(run, paused=True)
        await led.do(lambda tx: (tx.runs.add(run), tx.tasks.add([paused], [])))
        assert list(await led.read(lambda view: view.tasks.due(NOON, 10))) == []
        await led.do(lambda tx: tx.tasks.put(replace(paused, paused=False)))
        assert [task.task_id for task in await led.read(lambda view: view.tasks.due(NOON, 10))] == [paused.task_id]

    async def test_what_a_commit_brought_is_found(self, led: Led) -> None:
        """All changes of a batch, in their order, and none that is not merged."""
        attempt = an_attempt(a_task(a_run()))
        merged = [a_change(attempt, rank=rank, merged_as="e" * 40) for rank in (2.0, 1.0)]
        others = [a_change(attempt), a_change(attempt, merged_as="f" * 40)]

        def work(tx: Tx) -> None:
            for change in (*merged, *others):
                tx.changes.put(change)

        await led.do(work)
        assert list(await led.read(lambda view: view.changes.merged_as("e" * 40))) == merged[::-1]
        assert list(await led.read(lambda view: view.changes.merged_as("0" * 40))) == []

    async def test_queued_changes_come_by_rank(self, led: Led) -> None:
        """Of all targets; what is merged, returned or refused waits no more."""
        attempt = an_attempt(a_task(a_run()))
        queued = [a_change(attempt, rank=rank, target=f"t{rank}") for rank in (2.0, 1.0, 3.0)]
        others = [a_change(attempt, state=state, rank=0.0) for state in ChangeState if state is not ChangeState.QUEUED]

        def work(tx: Tx) -> None:
            for change in (*queued, *others):
                tx.changes.put(change)

        await led.do(work)
        found = await led.read(lambda view: view.changes.queued())
        assert [change.rank for change in found] == [1.0, 2.0, 3.0]

    async def test_the_changes_of_a_task_come_in_the_order_they_were_ready(self, led: Led) -> None:
        """Whatever became of them."""
        attempt, other = an_attempt(a_task(a_run())), an_attempt(a_task(a_run()))
        late = a_change(attempt, ready_at=NOON + SECOND)
        early = a_change(attempt, ready_at=NOON, state=ChangeState.RETURNED, ended_at=NOON)

        def work(tx: Tx) -> None:
            for change in (late, early, a_change(other)):
                tx.changes.put(change)

        await led.do(work)
        assert await led.read(lambda view: list(view.changes.of_task(attempt.task_id))) == [early, late]
