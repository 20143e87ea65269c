import json

import pytest

from kapelle.core.attempt import Outcome
from kapelle.core.errors import WorkspaceFailed
from kapelle.core.events import AgentBabbled, CheckEnded, GateFailed, GatePassed
from kapelle.core.gate import Check, CheckState, Gate
from kapelle.core.run import WorkspaceRules
from kapelle.core.task import TaskState
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import ScriptedProcess, answers, writes
from kapelle.testing.worlds import SmallWorld

BROKEN = writes({"api.py": "broken"})
MENDED = writes({"api.py": "mended"})
SCHEMA = json.dumps({"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]})


def gate(*checks: Check, rounds: int = 2) -> Gate:
    return Gate(name="check", checks=checks, rounds=rounds)


async def texts(here: SmallWorld) -> list[str]:
    return [prompt.text for prompt in await here.prompts()]


# --- The gate ---


async def test_work_that_passes_its_gate_goes_to_the_merge_queue_with_a_receipt(here: SmallWorld) -> None:
    here.host.plays("api", MENDED)
    await here.submit(run_spec(task("api", writes=("*.py",))))
    leader = await here.lead()
    await leader.run()
    (change,) = await here.changes()
    receipt = await here.store.read(lambda view: view.changes.receipt(change.receipt or ""))
    assert receipt is not None
    assert (receipt.gate, receipt.tree, receipt.tool_calls) == ("check", change.tree, 1)
    assert (receipt.declared, receipt.changed) == (("*.py",), ("api.py",))
    assert [(check.name, check.state, check.exit_code) for check in receipt.checks] == [("test", CheckState.PASSED, 0)]


async def test_a_failed_check_goes_back_to_the_same_conversation_with_its_output(here: SmallWorld) -> None:
    here.host.plays("api", BROKEN, MENDED)
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    (process,) = here.host.processes
    assert "the check check/test failed with exit code 1" in process.prompts[1].text
    assert "Command: make test" in process.prompts[1].text
    assert "broken: api.py" in process.prompts[1].text
    assert (await here.task()).state is TaskState.COMPLETED
    assert [(event.check, event.where) for event in await here.events(GateFailed)] == [("test", "workspace")]


async def test_a_round_is_no_attempt(here: SmallWorld) -> None:
    here.host.plays("api", BROKEN, BROKEN, MENDED)
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    completed = await here.task()
    assert (completed.state, completed.attempts, completed.round) == (TaskState.COMPLETED, 1, 2)


@pytest.mark.parametrize("rounds", [0, 1, 3])
async def test_rounds_are_bounded_and_then_count_as_one_attempt(here: SmallWorld, rounds: int) -> None:
    here.host.otherwise = BROKEN
    await here.submit(run_spec(task("api", max_attempts=1), gates=(gate(Check(name="test", run="make test"), rounds=rounds),)))
    leader = await here.lead()
    await leader.run()
    failed = await here.task()
    assert failed.failure is not None
    assert (failed.failure.kind, failed.failure.message) == ("gate_failed", "the check check/test failed (exit code 1)")
    assert len(here.process().prompts) == rounds + 1


async def test_checks_run_in_order_until_a_required_one_fails(here: SmallWorld) -> None:
    here.host.commands |= {"lint": lambda _: None, "types": lambda _: "wrong type", "slow": lambda _: None}
    here.host.plays("api", MENDED)
    checks = [Check(name=name, run=name) for name in ("lint", "types", "slow")]
    await here.submit(run_spec(gates=(gate(*checks),)))
    leader = await here.lead()
    await leader.run()
    assert [ran.command for ran in here.host.ran] == ["lint", "types"]
    told = [(event.check, event.state, event.tail) for event in await here.events(CheckEnded)]
    assert told == [("lint", CheckState.PASSED, ""), ("types", CheckState.FAILED, "wrong type")]


async def test_a_check_that_is_not_required_is_told_and_stops_nothing(here: SmallWorld) -> None:
    here.host.commands |= {"style": lambda _: "ugly"}
    here.host.plays("api", MENDED)
    checks = (Check(name="style", run="style", required=False), Check(name="test", run="make test"))
    await here.submit(run_spec(gates=(gate(*checks),)))
    leader = await here.lead()
    await leader.run()
    assert (await here.task()).state is TaskState.COMPLETED
    told = [(event.check, event.state) for event in await here.events(CheckEnded)]
    assert told == [("style", CheckState.FAILED), ("test", CheckState.PASSED)]


async def test_a_check_that_runs_out_of_time_has_failed(here: SmallWorld) -> None:
    def slow(_: dict[str, str]) -> str:
        raise TimeoutError

    here.host.commands["make test"] = slow
    here.host.plays("api", MENDED)
    await here.submit(run_spec(task("api", max_attempts=1), gates=(gate(Check(name="test", run="make test"), rounds=0),)))
    leader = await here.lead()
    await leader.run()
    failed = await here.task()
    assert failed.failure is not None
    assert failed.failure.message == "the check check/test ran out of time"


async def test_what_checks_leave_behind_is_no_work_of_the_agent(here: SmallWorld) -> None:
    def messy(files: dict[str, str]) -> str | None:
        files["report.xml"] = "<report/>"
        files["README.md"] = "overwritten"
        return "broken" if files["api.py"] == "broken" else None

    here.host.commands["make test"] = messy
    here.host.plays("api", BROKEN, MENDED)
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert here.repository.files("main") == {"README.md": "hello", "api.py": "mended"}


async def test_what_git_ignores_stays_in_the_workspace_between_rounds(here: SmallWorld) -> None:
    here.repository.ignored = ("cache/*",)
    here.host.plays("api", writes({"api.py": "broken", "cache/x": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert here.process().directory.files["cache/x"] == "1"


async def test_a_tree_that_passed_once_needs_no_second_run(here: SmallWorld) -> None:
    here.host.plays("api", MENDED, MENDED)
    here.points.hold("merge")
    await here.submit(run_spec(task("api")))
    leader = await here.lead()
    await leader.run()
    await here.submit(run_spec(task("api")))
    await leader.run()
    assert [ran.passed for ran in here.host.ran] == [True]
    assert [(event.reused) for event in await here.events(GatePassed)] == [False, True]


async def test_what_passed_for_one_task_proves_nothing_about_another(here: SmallWorld) -> None:
    """Checks are told which task they are for, and may look for what it was to make."""
    here.host.plays("api", MENDED)
    here.host.plays("again", answers())
    await here.submit(run_spec(task("api"), task("again", needs=("api",))))
    await (await here.lead()).run()
    told = [(event.where, event.reused) for event in await here.events(GatePassed)]
    assert told == [("workspace", False), ("merged", True), ("workspace", False)]


@pytest.mark.parametrize("what", ["check", "setup", "copy"])
async def test_another_gate_or_environment_needs_a_run_of_its_own(here: SmallWorld, what: str) -> None:
    here.host.plays("api", MENDED)
    here.host.plays("again", MENDED)
    other = {
        "check": {"gates": (gate(Check(name="test", run="true")),)},
        "setup": {"workspace": WorkspaceRules(setup=("true",))},
        "copy": {"workspace": WorkspaceRules(copy=(".env",))},
    }[what]
    here.points.hold("merge")
    await here.submit(run_spec(task("api")))
    leader = await here.lead()
    await leader.run()
    await here.submit(run_spec(task("again"), **other))
    await leader.run()
    assert [event.reused for event in await here.events(GatePassed)] == [False, False]


async def test_a_gate_that_failed_leaves_no_receipt(here: SmallWorld) -> None:
    here.host.plays("api", BROKEN)
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert await here.events(GatePassed) == []


async def test_a_task_without_a_gate_is_merged_as_it_is(here: SmallWorld) -> None:
    here.host.plays("api", BROKEN)
    await here.submit(run_spec(task("api", gate=None)))
    leader = await here.lead()
    await leader.run()
    assert here.repository.files("main")["api.py"] == "broken"
    assert here.host.ran == []


async def test_the_commit_says_who_did_what_for_which_task(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}, "Add the API\n\nWith tests."))
    run_id = await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    (change,) = await here.changes()
    commit = here.repository.commits[change.head]
    assert commit.author == "coder (Kapelle)"
    assert commit.message.startswith("api: Add the API\n\nAdd the API\n\nWith tests.\n\n")
    trailers = commit.message.strip().splitlines()[-4:]
    assert trailers == [
        f"Kapelle-Run: {run_id}",
        f"Kapelle-Task: {await here.task_id()}",
        "Kapelle-Attempt: 1",
        "Kapelle-Agent: coder",
    ]


async def test_a_workspace_that_cannot_be_committed_uses_up_an_attempt(here: SmallWorld) -> None:
    here.host.plays("api", MENDED)
    error = WorkspaceFailed("there is a git repository inside the workspace", remedy="Let it use another directory.")
    here.points.fail("commit", error)
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    failed = await here.task()
    assert failed.failure is not None
    assert failed.failure.message == "there is a git repository inside the workspace\nLet it use another directory."


# --- Claims ---


async def test_no_work_is_no_success(here: SmallWorld) -> None:
    here.host.otherwise = answers("All done!", tools=0)
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    failed = await here.task()
    assert failed.failure is not None
    assert (failed.state, failed.failure.kind) == (TaskState.FAILED, "no_work")
    assert len(here.process().prompts) == 3
    assert here.process().prompts[1].text.startswith("You ended without using a single tool")
    assert here.host.ran == []


async def test_an_agent_that_claimed_too_much_may_do_its_work_then(here: SmallWorld) -> None:
    here.host.plays("api", answers("All done!", tools=0), MENDED)
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_a_task_that_only_reads_needs_neither_tools_nor_changes(here: SmallWorld) -> None:
    here.host.plays("api", answers("It is fine.", tools=0))
    await here.submit(run_spec(task("api", reads_only=True)))
    leader = await here.lead()
    await leader.run()
    completed = await here.task()
    assert (completed.state, completed.summary, completed.commit) == (TaskState.COMPLETED, "It is fine.", None)
    assert list(await here.changes()) == []


async def test_a_task_that_only_reads_may_change_nothing(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}), writes({"api.py": None}))
    await here.submit(run_spec(task("api", reads_only=True)))
    leader = await here.lead()
    await leader.run()
    assert (await texts(here))[1] == ("You were to read only, and these files are changed: api.py. Put them back as they were.")
    assert (await here.task()).state is TaskState.COMPLETED
    assert set(here.repository.files("main")) == {"README.md"}


async def test_work_without_a_change_is_completed_without_the_merge_queue(here: SmallWorld) -> None:
    here.host.plays("api", answers("It was done already."))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    completed = await here.task()
    assert (completed.state, completed.commit) == (TaskState.COMPLETED, None)
    assert [attempt.outcome for attempt in await here.attempts()] == [Outcome.SUCCEEDED]


async def test_a_program_that_reports_no_tools_is_believed(here: SmallWorld) -> None:
    here.host.plays("api", lambda process, _: process.exit(0))
    await here.submit(run_spec(task("api", agent="once")))
    leader = await here.lead()
    await leader.run()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_a_failed_check_ends_the_attempt_of_a_program_without_a_conversation(here: SmallWorld) -> None:
    def script(process: ScriptedProcess, _: str) -> None:
        process.write("api.py", "broken")
        process.exit(0)

    here.host.plays("api", script)
    await here.submit(run_spec(task("api", agent="once", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    assert [attempt.outcome for attempt in await here.attempts()] == [Outcome.GATE_FAILED]


# --- Structured results ---


async def test_a_structured_result_is_kept(here: SmallWorld) -> None:
    here.host.plays("api", answers("two", result='{"count": 2}'))
    await here.submit(run_spec(task("api", result_schema=SCHEMA)))
    leader = await here.lead()
    await leader.run()
    completed = await here.task()
    assert (completed.state, completed.result) == (TaskState.COMPLETED, '{"count": 2}')


@pytest.mark.parametrize(
    ("result", "problem"),
    [(None, "there was none"), ("{", "there was none"), ('{"count": "two"}', "count: 'two' is not of type 'integer'")],
)
async def test_a_wrong_result_goes_back_to_the_agent(here: SmallWorld, result: str | None, problem: str) -> None:
    here.host.plays("api", answers(result=result), answers(result='{"count": 2}', tools=0))
    await here.submit(run_spec(task("api", result_schema=SCHEMA)))
    leader = await here.lead()
    await leader.run()
    assert f"Your structured result was not accepted: {problem}" in (await texts(here))[1]
    completed = await here.task()
    assert (completed.state, completed.result) == (TaskState.COMPLETED, '{"count": 2}')


async def test_wrong_results_are_bounded(here: SmallWorld) -> None:
    here.set(result_rounds=1)
    here.host.otherwise = answers(result="{}")
    await here.submit(run_spec(task("api", result_schema=SCHEMA, max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    failed = await here.task()
    assert failed.failure is not None
    assert failed.failure.kind == "wrong_result"
    assert len(here.process().prompts) == 2


async def test_a_result_that_was_right_is_not_asked_for_again_when_a_check_fails(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "broken"}, result='{"count": 2}'), MENDED)
    await here.submit(run_spec(task("api", result_schema=SCHEMA)))
    leader = await here.lead()
    await leader.run()
    completed = await here.task()
    assert (completed.state, completed.result) == (TaskState.COMPLETED, '{"count": 2}')
    assert len(await here.prompts()) == 2


async def test_a_further_attempt_does_not_inherit_a_result(here: SmallWorld) -> None:
    here.set(crashes=0)
    here.host.plays("api", writes({"api.py": "broken"}, result='{"count": 2}'), lambda process, _: process.exit(1), MENDED)
    await here.submit(run_spec(task("api", result_schema=SCHEMA)))
    leader = await here.lead()
    await leader.run_out()
    second = (await here.attempts())[1]
    prompts = await here.store.read(lambda view: view.attempts.prompts(second.attempt_id))
    assert "Your structured result was not accepted: there was none" in prompts[1].text


async def test_a_result_of_ten_megabytes_goes_nowhere(here: SmallWorld) -> None:
    here.host.plays("api", answers(result=json.dumps("x" * 10_000_000)), answers(result='{"count": 2}', tools=0))
    await here.submit(run_spec(task("api", result_schema=SCHEMA)))
    leader = await here.lead()
    await leader.run()
    (babbled,) = await here.events(AgentBabbled, "api")
    assert "its structured result has 10000002 characters" in babbled.raw
    assert "there was none that could be kept" in (await texts(here))[1]
    assert (await here.task()).result == '{"count": 2}'
