"""Agents that crash, get stuck, or cannot reach their model: what counts as an attempt, and what does not."""

from datetime import timedelta

import pytest

from kapelle.core.attempt import Outcome, PromptState
from kapelle.core.conversation import Trouble
from kapelle.core.events import AgentAnswered, AgentStopped
from kapelle.core.task import TaskState, Wait
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import ScriptedProcess, answers, crashes, hangs, times_out, troubled, writes
from kapelle.testing.worlds import SmallWorld


def dies(process: ScriptedProcess) -> None:
    process.exit(127)


async def test_a_program_that_crashes_is_resumed_in_the_same_attempt(here: SmallWorld) -> None:
    here.host.plays("api", crashes(), writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run_out()
    completed = await here.task()
    assert (completed.state, completed.attempts) == (TaskState.COMPLETED, 1)
    assert [(attempt.number, attempt.crashes) for attempt in await here.attempts()] == [(1, 1)]
    assert len({process.conversation_id for process in here.host.processes}) == 1
    assert len({process.launch.cwd for process in here.host.processes}) == 1


async def test_crashes_are_bounded_and_then_count_as_one_attempt(here: SmallWorld) -> None:
    here.set(crashes=2)
    here.host.otherwise = crashes()
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert failed.state is TaskState.FAILED
    assert failed.failure is not None
    assert failed.failure.kind == "agent_failed"
    assert "ended with exit code 1 in the middle of its turn" in failed.failure.message
    assert len(here.host.processes) == 3


async def test_a_program_that_ends_at_once_is_not_started_for_ever(here: SmallWorld) -> None:
    here.host.starts("api", *[dies] * 20)
    await here.submit(run_spec(task("api", max_attempts=2)))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert (failed.state, failed.attempts) == (TaskState.FAILED, 2)
    assert failed.failure is not None
    assert failed.failure.message == "the agent's program ended (exit code 127) without an answer"
    assert len(here.host.processes) == 6


async def test_an_attempt_begins_anew_in_a_workspace_and_a_conversation_of_its_own(here: SmallWorld) -> None:
    here.set(crashes=0)
    here.host.plays("api", lambda process, _: (process.write("half.py", "half"), process.exit(1))[0])
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run_out()
    first, second = here.host.of_task("api")
    assert first.conversation_id != second.conversation_id
    assert not second.resumed
    assert second.directory.files == {"README.md": "hello"}
    (kept,) = here.kept.values()
    assert here.repository.files(kept)["half.py"] == "half"


async def test_a_program_without_a_conversation_that_crashes_has_failed(here: SmallWorld) -> None:
    here.host.plays("api", crashes(3))
    await here.submit(run_spec(task("api", agent="once", max_attempts=1)))
    leader = await here.lead()
    await leader.run_out()
    assert (await here.task()).state is TaskState.FAILED
    assert len(here.host.processes) == 1


# --- Errors of the way to the model ---


@pytest.mark.parametrize(
    ("trouble", "wait"),
    [
        (Trouble.OVERLOADED, Wait.RETRY),
        (Trouble.UNREACHABLE, Wait.RETRY),
        (Trouble.API_ERROR, Wait.RETRY),
        (Trouble.UNKNOWN, Wait.RETRY),
        (Trouble.RATE_LIMITED, Wait.LIMIT),
    ],
)
async def test_an_error_of_the_model_waits_and_is_no_attempt(here: SmallWorld, trouble: Trouble, wait: Wait) -> None:
    here.host.plays("api", troubled(trouble, "the API said so"), writes({"api.py": "1"}))
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    later = await leader.run()
    waiting = await here.task()
    assert (waiting.state, waiting.waits_for, waiting.detail) == (TaskState.RUNNING, wait, "the API said so")
    assert here.host.live() == []
    assert later is not None
    assert timedelta(seconds=8) <= later - here.clock.now() <= timedelta(seconds=12)
    here.clock.move_to(later)
    await leader.run()
    completed = await here.task()
    assert (completed.state, completed.attempts) == (TaskState.COMPLETED, 1)
    assert len({process.conversation_id for process in here.host.processes}) == 1


async def test_a_task_that_waits_for_the_model_takes_no_slot(here: SmallWorld) -> None:
    here.set(slots=1)
    here.host.plays("api", troubled(Trouble.USAGE_LIMIT))
    here.host.plays("ui", troubled(Trouble.USAGE_LIMIT))
    await here.submit(run_spec(task("api"), task("ui")))
    leader = await here.lead()
    await leader.run()
    assert {found.waits_for for found in (await here.tasks()).values()} == {Wait.LIMIT}


async def test_the_waits_for_the_model_grow(here: SmallWorld) -> None:
    here.host.plays("api", *[troubled(Trouble.OVERLOADED)] * 3)
    await here.submit(run_spec())
    leader = await here.lead()
    waits: list[timedelta] = []
    for _ in range(3):
        later = await leader.run()
        assert later is not None
        waits.append(later - here.clock.now())
        here.clock.move_to(later)
    assert waits[0] < waits[1] < waits[2]


async def test_errors_that_nobody_knows_are_bounded(here: SmallWorld) -> None:
    here.set(interruptions=2)
    here.host.otherwise = troubled(Trouble.UNKNOWN, "something new")
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert failed.failure is not None
    assert (failed.state, failed.failure.kind) == (TaskState.FAILED, "agent_failed")
    assert len(here.host.processes) == 3


async def test_a_turn_that_went_well_lets_the_errors_be_counted_anew(here: SmallWorld) -> None:
    here.set(interruptions=1)
    strange = troubled(Trouble.UNKNOWN)
    here.host.plays("api", strange, writes({"api.py": "broken"}), strange, writes({"api.py": "mended"}))
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_too_many_turns_are_the_agents_own_fault(here: SmallWorld) -> None:
    here.host.plays("api", troubled(Trouble.MAX_TURNS, "no way on"))
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert failed.failure is not None
    assert (failed.failure.kind, failed.failure.message) == ("agent_failed", "no way on")
    assert len(here.host.processes) == 1


async def test_trouble_is_told(here: SmallWorld) -> None:
    here.host.plays("api", troubled(Trouble.OVERLOADED, "overloaded"))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert [(event.trouble, event.text) for event in await here.events(AgentAnswered)] == [("overloaded", "overloaded")]


# --- Time limits ---


@pytest.mark.parametrize("agent", ["coder", "once"])
async def test_an_agent_at_its_time_limit_has_timed_out(here: SmallWorld, agent: str) -> None:
    here.host.plays("api", times_out())
    await here.submit(run_spec(task("api", agent=agent, max_attempts=1, timeout=timedelta(minutes=5))))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert failed.failure is not None
    assert (failed.failure.kind, failed.failure.message) == ("timed_out", "it ran longer than its time limit of 5 minutes")
    assert [attempt.outcome for attempt in await here.attempts()] == [Outcome.TIMED_OUT]


async def test_a_time_limit_counts_as_one_attempt(here: SmallWorld) -> None:
    here.host.plays("api", times_out(), writes({"api.py": "1"}))
    await here.submit(run_spec(task("api", max_attempts=2)))
    leader = await here.lead()
    await leader.run_out()
    completed = await here.task()
    assert (completed.state, completed.attempts) == (TaskState.COMPLETED, 2)


async def test_a_time_limit_that_comes_when_the_work_is_done_changes_nothing(here: SmallWorld) -> None:
    here.points.hold("run")
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    here.process().time_out()
    await leader.run()
    here.points.release("run")
    await leader.run()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_a_hung_agent_is_a_matter_of_its_time_limit_alone(here: SmallWorld) -> None:
    here.host.plays("api", hangs())
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    here.clock.move(timedelta(days=1))
    await leader.run()
    assert (await here.task()).state is TaskState.RUNNING
    here.process().time_out()
    await leader.run()
    assert (await here.task()).waits_for is Wait.RETRY


# --- How a process ends ---


async def test_an_end_is_told_with_its_exit_code(here: SmallWorld) -> None:
    here.host.plays("api", crashes(42))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.step("submit", "dispatch", "execute", "execute", "execute")
    assert [event.exit_code for event in await here.events(AgentStopped)] == [42]


async def test_an_answer_and_the_end_may_come_together(here: SmallWorld) -> None:
    def script(process: ScriptedProcess, _: str) -> None:
        writes({"api.py": "1"})(process, "")
        process.exit(0)

    here.host.plays("api", script)
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    assert (await here.attempts())[0].crashes == 0
    assert [prompt.state for prompt in await here.prompts()] == [PromptState.ANSWERED]


async def test_an_answer_is_valid_although_its_program_ends_badly(here: SmallWorld) -> None:
    def script(process: ScriptedProcess, _: str) -> None:
        answers("all well")(process, "")
        process.exit(1)

    here.host.plays("api", script)
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_a_conversation_that_is_lost_begins_anew_in_the_same_workspace(here: SmallWorld) -> None:
    # The program was killed before it had written anything of it down: it cannot be resumed, however often it is tried.
    lost = troubled(Trouble.CONVERSATION_LOST, "No conversation found with session ID: 1")
    here.host.plays("api", crashes(), lost, writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run_out()
    completed = await here.task()
    assert (completed.state, completed.attempts) == (TaskState.COMPLETED, 1)
    first, _, last = here.host.of_task("api")
    assert last.conversation_id != first.conversation_id
    assert not last.resumed
    assert last.launch.cwd == first.launch.cwd
    assert [read.text for read in last.prompts] == [first.prompts[0].text]
    assert {prompt.state for prompt in await here.prompts()} == {PromptState.DROPPED, PromptState.ANSWERED}


async def test_a_program_that_always_loses_its_conversation_fails_in_the_end(here: SmallWorld) -> None:
    here.host.otherwise = troubled(Trouble.CONVERSATION_LOST, "No conversation found")
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run_out()
    assert (await here.task()).state is TaskState.FAILED


async def test_an_agent_whose_spool_is_gone_is_followed_by_one_that_is_spoken_to(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    process = here.process()
    await leader.die()
    # Whatever it said after it had read its prompt was written to a file that somebody deleted.
    process.spool.clear()
    process.exit(0)
    here.host.otherwise = writes({"api.py": "1"})
    successor = await here.lead()
    await successor.run_out()
    completed = await here.task()
    assert (completed.state, completed.attempts) == (TaskState.COMPLETED, 1)
    assert here.process().resumed
    assert here.process().prompts[0].text.startswith("You were cut off")
