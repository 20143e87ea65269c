"""A world in which anything may happen, at any moment, and whose invariants are checked after everything that does.

What hypothesis chooses: which agent does what, when the leader dies and where, what fails, who moves the target, who cancels or
pauses or resumes. Nothing here waits for a hint: the stages are stepped, as by a loop that lost every one. At the end
everything is healed, and all tasks must come to an end.
"""

import asyncio
import os
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from kapelle.core.conversation import Trouble
from kapelle.core.errors import GitFailed, HostFailed, LeadLost, WorkspaceFailed
from kapelle.core.ids import RunId
from kapelle.core.merge import DeliveryMode
from kapelle.core.requests import Approve, Cancel, Pause, Reject, Resume, Retry
from kapelle.core.run import RUN_TERMINAL, Limits
from kapelle.core.store import View
from kapelle.core.task import TERMINAL, OnFailure, Priority, Task, TaskState
from kapelle.testing.factories import run_spec, task
from kapelle.testing.git import Files, has_markers
from kapelle.testing.hosts import ScriptedProcess
from kapelle.testing.invariants import KeepingWorkspaces, Watch
from kapelle.testing.stores import LeaderDied
from kapelle.testing.worlds import Leader, SmallWorld, world

T = TypeVar("T")

STEPS = 25
SLOTS = 3
RUNS = 3
PRICE = 1.0

ACTS = {
    "prepare": WorkspaceFailed("the disk is full"),
    "start": HostFailed("no more processes"),
    "commit": WorkspaceFailed("the disk is full"),
    "run": HostFailed("no more processes"),
    "merge": GitFailed("git ended with 128"),
    "bring_in": GitFailed("git ended with 128"),
    "move_ref": GitFailed("git ended with 128"),
    "deliver": GitFailed("git ended with 128"),
    "snapshot": WorkspaceFailed("the disk is full"),
    "remove": WorkspaceFailed("the disk is full"),
}
GRIEF = ("crash", "crash", "time", "claim", Trouble.OVERLOADED, Trouble.LOGIN_EXPIRED, Trouble.REFUSED)
PLACES = sorted({*ACTS, *(f"{act}:done" for act in ACTS), "write", "write:done", "end", "end:done", "put"})


LONG = ("prepare:done", "start:done", "commit", "run", "run:done", "merge", "merge:done", "bring_in")
"""Places in acts that take their time: much may happen meanwhile."""


def fits(files: Files) -> str | None:
    """What `make test` says: nothing may be broken, and the two halves of something must fit each other."""
    broken = sorted(name for name, content in files.items() if "broken" in content or has_markers(content))
    if broken:
        return f"broken: {', '.join(broken)}"
    if files.get("left", "1") != files.get("right", "1"):
        return "left and right do not fit"
    return None


def does_well(process: ScriptedProcess, _: str = "") -> None:
    """What every agent does once all is healed: it mends whatever it finds and does its own work."""
    for name, content in list(process.directory.files.items()):
        if has_markers(content) or "broken" in content:
            process.write(name, "mended")
    for name in ("left", "right"):
        if name in process.directory.files:
            process.write(name, "1")
    process.write(f"{process.task}.py", "well")
    process.done("all is well")


def goes_deaf(process: ScriptedProcess) -> None:
    process.deaf = True


def ends_at_once(process: ScriptedProcess) -> None:
    process.exit(127)


class Simulation(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.opened = world(Path(self.folder.name), slots=SLOTS)
        self.here: SmallWorld = self.do(self.opened.__aenter__())
        self.here.host.commands["make test"] = fits
        self.workspaces = KeepingWorkspaces(self.here)
        self.here.replace(workspaces=self.workspaces)
        self.watch = Watch(here=self.here, dearest_call=PRICE)
        self.runs: list[RunId] = []
        self.leader: Leader = self.do(self.here.lead())

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    # --- What people do ---

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.submit(data)
        self.some_rounds(3)

    def submit(self, data: st.DataObject) -> None:
        number = len(self.runs)
        names = [f"t{number}{letter}" for letter in "abc"[: data.draw(st.integers(1, 3), label="tasks")]]
        specs = []
        for index, name in enumerate(names):
            needs = data.draw(st.lists(st.sampled_from(names[:index]), unique=True) if index else st.just([]), label="needs")
            specs.append(
                task(
                    name,
                    needs=tuple(needs),
                    max_attempts=data.draw(st.integers(1, 2), label="attempts"),
                    approval=data.draw(st.booleans() if index else st.just(False), label="approval"),
                    agent=data.draw(st.sampled_from(["coder", "coder", "coder", "once"]), label="agent"),
                    priority=data.draw(st.sampled_from(Priority), label="priority"),
                    on_failure=data.draw(st.sampled_from(OnFailure), label="on failure"),
                )
            )
        limits = Limits(
            agents=data.draw(st.sampled_from([None, 1]), label="agents"),
            budget_usd=data.draw(st.sampled_from([None, None, 2 * PRICE]), label="budget"),
            merge_returns=1,
        )
        delivery = data.draw(st.sampled_from(DeliveryMode), label="delivery")
        spec = run_spec(*specs, name=f"run {number}", limits=limits, delivery=delivery)
        self.runs.append(self.do(self.here.submit(spec)))

    @precondition(lambda self: len(self.runs) < RUNS)
    @rule(data=st.data())
    def somebody_submits_a_run(self, data: st.DataObject) -> None:
        self.submit(data)

    @precondition(lambda self: len(self.runs) < RUNS)
    @rule(data=st.data(), whole=st.booleans())
    def somebody_retries(self, data: st.DataObject, whole: bool) -> None:
        chosen = self.some_task(data)
        new = RunId(f"r-again{len(self.runs)}")
        self.do(self.here.ask(Retry(run_id=chosen.run_id, new_run_id=new, task_id=None if whole else chosen.task_id)))
        self.runs.append(new)

    @rule(data=st.data(), kind=st.sampled_from([Cancel, Pause, Resume, Resume]), of_task=st.booleans())
    def somebody_asks_for_something(self, data: st.DataObject, kind: type[Cancel | Pause | Resume], of_task: bool) -> None:
        chosen = self.some_task(data)
        one = kind is Cancel and of_task
        self.do(self.here.ask(Cancel(run_id=chosen.run_id, task_id=chosen.task_id) if one else kind(run_id=chosen.run_id)))

    @rule(data=st.data(), kind=st.sampled_from([Approve, Approve, Reject]))
    def somebody_decides(self, data: st.DataObject, kind: type[Approve | Reject]) -> None:
        chosen = self.some_task(data)
        self.do(self.here.ask(kind(run_id=chosen.run_id, task_id=chosen.task_id)))

    @precondition(lambda self: self.at_work())
    @rule(data=st.data(), place=st.sampled_from(LONG), rounds=st.integers(2, 4))
    def somebody_cancels_in_the_middle_of_an_act(self, data: st.DataObject, place: str, rounds: int) -> None:
        self.here.points.hold(place)
        process = self.with_an_agent(data)
        does_well(process)
        self.some_rounds(rounds)
        chosen = self.do(self.here.task(process.task))
        self.do(self.here.ask(Cancel(run_id=chosen.run_id, task_id=chosen.task_id)))
        self.some_rounds(1)
        self.here.points.release(place)
        self.some_rounds(2)

    def some_task(self, data: st.DataObject) -> Task:
        self.some_rounds(1)
        tasks = self.do(self.here.tasks())
        return tasks[data.draw(st.sampled_from(sorted(tasks)), label="task")]

    @rule(name=st.sampled_from(["theirs", "shared", "right"]), content=st.sampled_from(["1", "2"]), dirty=st.booleans())
    def somebody_moves_the_target(self, name: str, content: str, dirty: bool) -> None:
        self.here.repository.push({name: content})
        self.here.repository.in_the_way = "local changes are in the way" if dirty else ""

    # --- What agents do ---

    def at_work(self) -> list[ScriptedProcess]:
        return [process for process in self.here.host.live() if process.in_turn]

    def with_an_agent(self, data: st.DataObject) -> ScriptedProcess:
        return data.draw(st.sampled_from(self.at_work()), label="agent")

    @precondition(lambda self: self.at_work())
    @rule(data=st.data(), rounds=st.integers(0, 3))
    def an_agent_does_well(self, data: st.DataObject, rounds: int) -> None:
        does_well(self.with_an_agent(data))
        self.some_rounds(rounds)

    @precondition(lambda self: self.at_work())
    @rule(data=st.data(), name=st.sampled_from(["shared", "shared", "left"]), rounds=st.integers(0, 4))
    def an_agent_gets_into_anothers_way(self, data: st.DataObject, name: str, rounds: int) -> None:
        process = self.with_an_agent(data)
        process.write(name, f"as {process.task} likes it" if name == "shared" else "2")
        process.done("done")
        self.some_rounds(rounds)

    @precondition(lambda self: self.at_work())
    @rule(data=st.data(), name=st.sampled_from(["shared", "own"]), answers=st.booleans(), rounds=st.integers(0, 3))
    def an_agent_does_badly(self, data: st.DataObject, name: str, answers: bool, rounds: int) -> None:
        process = self.with_an_agent(data)
        process.write(f"{process.task}.py" if name == "own" else name, "broken")
        if answers:
            process.done("All done!")
        self.some_rounds(rounds)

    @precondition(lambda self: self.at_work())
    @rule(data=st.data(), how=st.sampled_from(GRIEF), rounds=st.integers(0, 3))
    def an_agent_comes_to_grief(self, data: st.DataObject, how: Trouble | str, rounds: int) -> None:
        process = self.with_an_agent(data)
        if isinstance(how, Trouble):
            process.trouble(how)
        elif how == "claim":
            process.done("All done!")
        else:
            process.exit(1, timed_out=how == "time")
        self.some_rounds(rounds)

    @precondition(lambda self: self.at_work())
    @rule(data=st.data(), deaf=st.booleans(), how=st.sampled_from(["crash", Trouble.OVERLOADED]))
    def an_agent_comes_back_to_no_avail(self, data: st.DataObject, deaf: bool, how: Trouble | str) -> None:
        """An agent comes to grief, and the program that takes its place reads nothing, or ends at once."""
        process = self.with_an_agent(data)
        self.here.host.starts(process.task, goes_deaf if deaf else ends_at_once)
        if isinstance(how, Trouble):
            process.trouble(how)
        else:
            process.exit(1)
        self.here.clock.move(timedelta(minutes=1))
        self.some_rounds(5)
        for other in self.here.host.of_task(process.task):
            if other.unread:
                other.exit(1)

    @precondition(lambda self: self.at_work())
    @rule(data=st.data())
    def an_agent_calls_its_model(self, data: st.DataObject) -> None:
        process = self.with_an_agent(data)
        refusal = self.here.gateway.call(process.token, usd=PRICE)
        if refusal is not None and "budget" in refusal:
            process.trouble(Trouble.BUDGET, refusal)
        self.some_rounds(1)

    # --- What the leader does, and what becomes of it ---

    def some_rounds(self, count: int) -> None:
        for _ in range(count):
            self.do(self.leader.round())

    @rule(seconds=st.sampled_from([0, 0, 10, 60, 600]), count=st.integers(1, 4))
    def time_passes(self, seconds: int, count: int) -> None:
        self.here.clock.move(timedelta(seconds=seconds))
        self.some_rounds(count)

    def succeed(self) -> None:
        self.do(self.leader.die())
        self.here.store.heal()
        self.here.points.heal()
        self.leader = self.do(self.here.lead())
        unknown = self.do(self.watch.unknown())
        assert not unknown, "\n".join(unknown)

    @rule(commits=st.integers(0, 14), after=st.booleans())
    def the_leader_dies(self, commits: int, after: bool) -> None:
        if commits:
            self.here.store.die(commits=commits, after=after)
            with suppress(LeaderDied):
                self.some_rounds(2)
        self.succeed()
        self.some_rounds(1)

    @rule(place=st.sampled_from(PLACES), rounds=st.integers(1, 4))
    def the_leader_dies_in_an_act(self, place: str, rounds: int) -> None:
        self.here.points.hold(place)
        for process in self.at_work()[:1]:
            does_well(process)
        self.some_rounds(rounds)
        self.succeed()
        self.some_rounds(1)

    @rule(stage=st.sampled_from(["submit", "dispatch", "execute", "validate", "merge", "report"]))
    def the_leader_comes_too_late(self, stage: str) -> None:
        late = self.leader
        self.leader = self.do(self.here.lead())
        before = self.do(self.here.store.read(lambda view: view.last_seq()))
        with pytest.raises(LeadLost):
            self.do(late.step(stage))
        assert self.do(self.here.store.read(lambda view: view.last_seq())) == before
        self.do(late.die())
        self.some_rounds(1)

    @rule(act=st.sampled_from(sorted(ACTS)), times=st.integers(1, 2))
    def an_act_fails(self, act: str, times: int) -> None:
        self.here.points.fail(act, ACTS[act], times=times)
        for process in self.at_work()[:1]:
            does_well(process)
        self.some_rounds(3)

    # --- What always holds ---

    @invariant()
    def everything_holds(self) -> None:
        broken = [*self.do(self.watch.check()), *self.workspaces.lost]
        assert not broken, "\n".join(broken)

    # --- The end ---

    def teardown(self) -> None:
        try:
            self.heal()
        finally:
            self.do(self.opened.__aexit__(None, None, None))
            self.runner.close()
            self.folder.cleanup()

    def heal(self) -> None:
        here = self.here
        here.repository.in_the_way = ""
        here.host.forget()
        here.host.otherwise = does_well
        for process in here.host.live():
            if process.unread:
                process.exit(1)
        self.succeed()
        for _ in range(40):
            for run_id in self.runs:
                self.do(here.ask(Resume(run_id=run_id)))
            for found in self.do(here.store.read(all_tasks)):
                if found.state is TaskState.PENDING and found.spec.approval and not found.approved:
                    self.do(here.ask(Approve(run_id=found.run_id, task_id=found.task_id)))
            for process in self.at_work():
                does_well(process)
            self.settle_with_the_target()
            self.do(self.leader.run())
            here.clock.move(timedelta(minutes=10))
            self.everything_holds()
            if self.do(self.at_rest()):
                break
        left = self.do(self.left_over())
        assert not left, "\n".join(left)

    def settle_with_the_target(self) -> None:
        """Do what a person must: mend what others broke on the target, and settle its conflicts with merged work."""
        repository = self.here.repository
        if fits(repository.files("main")) is not None:
            repository.push({"left": "1", "right": "1"})
        for entry in self.do(self.here.store.read(lambda view: view.changes.integrations())):
            files, (_, conflicts) = repository.files(entry.tip), repository.merge_files("main", entry.tip)
            if entry.held_up and conflicts:
                repository.push({name: files.get(name) for name in conflicts})

    async def at_rest(self) -> bool:
        overviews = await self.here.store.read(lambda view: view.runs.overviews(limit=1000))
        return all(overview.run.state in RUN_TERMINAL for overview in overviews)

    async def left_over(self) -> list[str]:
        """What is left of runs that have all ended."""
        here = self.here
        tasks = await here.store.read(all_tasks)
        found = [f"{entry.name} is {entry.state} ({entry.waits_for})" for entry in tasks if entry.state not in TERMINAL]
        overviews = await here.store.read(lambda view: view.runs.overviews(limit=1000))
        found += [f"{entry.run.spec.name} is {entry.run.state}" for entry in overviews if entry.run.state not in RUN_TERMINAL]
        found += [f"a process of {process.task} lives" for process in here.host.live()]
        found += [f"{path} is left" for path in here.git.directories]
        found += [str(row) for row in await here.store.read(lambda view: view.agents.workspaces())]
        found += [str(row) for row in await here.store.read(lambda view: view.agents.live())]
        for entry in tasks:
            if entry.commit is not None and not here.repository.reachable(entry.commit):
                found.append(f"the work of {entry.name} is held by no ref")
        return found


def all_tasks(view: View) -> list[Task]:
    """Return the tasks of every run: a run that is tried again has some of the same name."""
    return [task for entry in view.runs.overviews(limit=1000) for task in view.tasks.of_run(entry.run.run_id)]


# A failure is shown as it was found: to make it smaller takes minutes, and is asked for by hand.
SETTINGS = settings(
    stateful_step_count=STEPS,
    deadline=None,
    phases=[phase for phase in Phase if phase is not Phase.shrink or "KAPELLE_SHRINK" in os.environ],
    suppress_health_check=list(HealthCheck),
)
TestSimulation = Simulation.TestCase
# The same worlds every time: a new finding belongs to `make soak`, not to whoever changes something else.
TestSimulation.settings = settings(SETTINGS, max_examples=12, derandomize=True, database=None)


@pytest.mark.soak
def test_many_more_worlds_hold() -> None:
    run_state_machine_as_test(Simulation, settings=settings(SETTINGS, max_examples=150))
