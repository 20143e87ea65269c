"""The Python API: submit, wait, look, be called back; and leave nothing behind."""

import asyncio

import pytest

from kapelle import AgentConfig, Check, Gate, KapelleError, Orchestrator, Task, TaskResult, Workflow
from kapelle.core.errors import FileInvalid, NotFound, UsageError
from kapelle.testing.places import Place

SCRIPT = AgentConfig(name="script", program="command")


def orchestra(place: Place, **more: object) -> Orchestrator:
    return Orchestrator(place.repository, home=place.home, environment=place.environment, **more)


async def test_a_task_is_run_checked_and_merged(place: Place) -> None:
    async with orchestra(place) as opened:
        task = await opened.submit_task(
            Task(name="hello", prompt="echo hi > hi.txt; echo said hi", agent="script", gate="python")
        )
        result = await opened.result(task)

    assert result.ok
    assert (result.name, result.summary, result.attempts) == ("hello", "said hi", 1)
    assert result.commit == place.git("rev-parse", "main")
    assert place.git("show", "main:hi.txt") == "hi"
    assert place.processes() == []


async def test_tasks_side_by_side_are_one_run_with_all_results(place: Place) -> None:
    async with orchestra(place) as opened:
        done = await opened.run_parallel(
            [Task(prompt=f"echo {number} > {number}.txt", agent="script", gate="none") for number in range(3)]
            + [Task(name="bad", prompt="exit 3", agent="script", gate="none", max_attempts=1)]
        )

    assert not done.ok
    assert set(done.tasks) == {"task-1", "task-2", "task-3", "bad"}
    assert [task.name for task in done.failed] == ["bad"]
    assert "exit code 3" in (done.failed[0].failure or "")
    assert {"0.txt", "1.txt", "2.txt"} <= set(place.git("ls-tree", "--name-only", "main").splitlines())


async def test_a_workflow_of_objects_or_of_a_file_is_executed(place: Place) -> None:
    path = place.write(
        "flow.yml",
        "name: flow\ninputs: {who: world}\ntasks: {a: {agent: script, gate: none, prompt: 'echo {{ inputs.who }}'}}\n",
    )
    flow = Workflow.of(
        "flow",
        [Task(name="a", prompt="echo one"), Task(name="b", needs=["a"], prompt="echo {{ tasks.a.summary }} two")],
        defaults={"agent": "script", "gate": "none"},
    )

    async with orchestra(place) as opened:
        objects = await opened.execute_workflow(flow)
        file = await opened.execute_workflow(path, inputs={"who": "moon"})

    assert objects.tasks["b"].summary == "one two"
    assert file.tasks["a"].summary == "moon"


async def test_agents_and_gates_may_come_from_code_and_a_function_may_be_a_task(place: Place) -> None:
    (place.repository / "counting.py").write_text(
        "def files(task):\n    print('counting')\n    return {'files': len(list(task.cwd.glob('*.py'))), 'said': task.prompt}\n"
    )
    place.git("add", "-A")
    place.git("commit", "-q", "-m", "a function")
    agents = [SCRIPT, AgentConfig(name="counter", program="python", function="counting:files")]
    gates = {"mine": Gate(checks=[Check(name="there", run="test -e made.txt")])}

    async with orchestra(place, agents=agents, gates=gates) as opened:
        made = await opened.result(await opened.submit_task(Task(prompt="touch made.txt", agent="script", gate="mine")))
        counted = await opened.result(
            await opened.submit_task(Task(prompt="how many", agent="counter", reads_only=True, workspace="worktree"))
        )

    assert made.ok
    assert counted.result == {"files": 1, "said": "how many"}


async def test_callbacks_are_called_for_every_task_that_ends_and_their_errors_stop_nothing(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []
    everything = asyncio.Event()

    def bad(result: TaskResult) -> None:
        raise ValueError(result.name)

    async def good(result: TaskResult) -> None:
        ended.append(f"{result.name} {result.state}")
        if len(ended) == 2:
            everything.set()

    async with orchestra(place) as opened:
        opened.on_completion(bad)
        opened.on_completion(good)
        await opened.run_parallel([Task(name=name, prompt="true", agent="script", gate="none") for name in ("a", "b")])
        await everything.wait()

    assert sorted(ended) == ["a completed", "b completed"]
    assert "a callback for completed tasks failed" in caplog.text


async def test_status_and_events_tell_what_goes_on(place: Place) -> None:
    async with orchestra(place, slots=3) as opened:
        events = opened.events(after=0)
        task = await opened.submit_task(Task(name="ask", prompt="true", agent="script", gate="none", approval=True))
        status = await opened.get_status()
        kinds = [(await anext(events)).event.kind for _ in range(2)]
        await events.aclose()

    assert status.slots == 3
    assert [run.name for run in status.runs] == ["ask"]
    assert status.runs[0].tasks["ask"].task_id == task.task_id
    assert not status.runs[0].tasks["ask"].ended
    assert kinds[-1] in {"run.submitted", "task.submitted", "lead.taken"}


async def test_what_is_wrong_is_told_and_nothing_is_submitted(place: Place) -> None:
    async with orchestra(place) as opened:
        with pytest.raises(FileInvalid) as caught:
            await opened.submit_task(Task(prompt="{{ nope", agent="nobody"))
        with pytest.raises(UsageError, match="two tasks are called"):
            await opened.run_parallel([Task(name="a", prompt="x"), Task(name="a", prompt="y")])

    assert len(caught.value.mistakes) == 2
    assert place.runs() == 0


async def test_it_must_be_opened_first(place: Place) -> None:
    with pytest.raises(UsageError, match="not open"):
        await orchestra(place).get_status()


async def test_mistakes_in_the_configuration_are_told_when_it_is_opened(place: Place) -> None:
    (place.repository / ".kapelle" / "agents.yml").write_text("nonsense: 1\n", encoding="utf-8")

    with pytest.raises(KapelleError):
        async with orchestra(place):
            pass


async def test_what_was_submitted_goes_on_in_the_next_process(place: Place) -> None:
    async with orchestra(place) as opened:
        task = await opened.submit_task(Task(name="ask", prompt="echo yes", agent="script", gate="none", approval=True))

    assert place.run("approve", task.task_id).code == 0
    async with orchestra(place) as again:
        result = await again.result(task)

    assert result.ok


async def test_what_waits_for_a_person_can_be_looked_at_and_answered(place: Place) -> None:
    async with orchestra(place) as opened:
        submitted = await opened.submit_task(Task(name="one", prompt="true", agent="script", gate="none", approval=True))
        other = await opened.submit_task(Task(name="two", prompt="true", agent="script", gate="none", approval=True))
        items = {item.name: item for item in await opened.inbox()}
        assert {item.kind for item in items.values()} == {"approval"}
        with pytest.raises(UsageError, match="is no answer"):
            await opened.answer(items["one"], "perhaps")
        await opened.answer(items["one"], "allow")
        await opened.answer(items["two"].item_id, "deny", "not today")

        assert (await opened.result(submitted)).ok
        refused = await opened.result(other)

        assert (refused.state, refused.failure) == ("rejected", "not today")
        assert await opened.inbox() == []
        with pytest.raises(NotFound):
            await opened.answer(items["one"], "allow")
