"""A world in which anything may happen, at any moment, and whose invariants are checked after everything that does.

What hypothesis chooses: which agent does what, when the leader dies and where, what fails, who moves the target, who sets the
clock, who cancels or pauses or resumes. Nothing here waits for a hint: the stages are stepped, as by a loop that lost every
one, and out of turn, as by one that heard some twice. At the end everything is healed, and all tasks must come to an end.

For those who write adapters, too: ``compose`` puts their own in place of the fakes::

    class WithMyWorkspaces(Simulation):
        def compose(self) -> None:
            self.here.replace(workspaces=MyWorkspaces(self.here.git))

    def test_my_workspaces_lose_nothing() -> None:
        simulate(WithMyWorkspaces, worlds=20)

It needs hypothesis (``pip install 'kapelle[testing]'``), which nothing else of ``kapelle.testing`` does.
"""

import asyncio
import os
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test

from kapelle.core.agent import PoolRules
from kapelle.core.budget import Allowance, Scope, StandingBudget
from kapelle.core.conversation import Trouble
from kapelle.core.errors import LeadLost, StoreFailed
from kapelle.core.hours import WorkingHours, parse_window
from kapelle.core.ids import RunId
from kapelle.core.merge import DeliveryMode, MergeRules
from kapelle.core.pool import make_of
from kapelle.core.requests import (
    AnswerSpent,
    Approve,
    Cancel,
    Deploy,
    Halt,
    Pause,
    Reject,
    Resume,
    Retry,
    Scale,
    Unhalt,
)
from kapelle.core.run import RUN_TERMINAL, Limits
from kapelle.core.spent import OnSpent, SpentAnswer, SpentBudget, SpentState
from kapelle.core.steering import HandBack, Thaw
from kapelle.core.store import View
from kapelle.core.task import OnFailure, Priority, Task, TaskSpec, TaskState, Wait
from kapelle.engine.spares import NO_TASK
from kapelle.testing.factories import CODER, NOBODY, ONCE, run_spec, task
from kapelle.testing.fakes import Flight
from kapelle.testing.hosts import ScriptedProcess
from kapelle.testing.invariants import KeepingWorkspaces, Watch
from kapelle.testing.mischief import (
    ACTS,
    GRIEF,
    LONG,
    PLACES,
    STILL,
    does_well,
    ends_at_once,
    fails_again,
    fits,
    goes_deaf,
    hangs,
    mended,
)
from kapelle.testing.steerers import Steerers
from kapelle.testing.stores import LeaderDied
from kapelle.testing.worlds import Leader, SmallWorld, world

T = TypeVar("T")

STEPS = 25
SLOTS = 3
RUNS = 8
TASKS = 5
PRICE = 1.0
SHARED = (StandingBudget(scope=Scope.PROJECT, allowance=Allowance(usd=3 * PRICE)),)
"""What runs may spend together."""
HOURS = WorkingHours(windows=tuple(parse_window(f"daily {hour:02d}:00-{hour:02d}:40") for hour in range(24)))
"""Twenty minutes of rest in each hour."""
HEARTBEAT = timedelta(seconds=30)
STAGES = ("submit", "dispatch", "execute", "validate", "merge", "inbox", "report")
LOOKING = ("liveness", "alerts")
"""Stages that write nothing before their next heartbeat has come."""


class Simulation(Steerers):
    """See the module; ``here`` is the world, ``watch`` looks whether it is right."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.opened = world(Path(self.folder.name), slots=SLOTS, heartbeat=HEARTBEAT)
        self.here: SmallWorld = self.do(self.opened.__aenter__())
        self.here.host.commands["make test"] = fits
        self.workspaces = KeepingWorkspaces(self.here)
        self.here.replace(workspaces=self.workspaces)
        self.watch = Watch(here=self.here, dearest_call=PRICE)
        self.runs: list[RunId] = []
        self.flights: list[tuple[ScriptedProcess, Flight]] = []
        self.configs = (CODER, ONCE, NOBODY)
        self.rounds = 0
        """How often the present leader has gone round."""
        self.compose()
        self.leader: Leader = self.do(self.here.lead())

    def compose(self) -> None:
        """Put other adapters in place of some ports of ``here``, for all leaders of this world: nothing by default."""

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run *coroutine* to its end."""
        return self.runner.run(coroutine)

    # --- What people do ---

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """Begin with one run; what a kind of agent is stays the same in a world."""
        limit = data.draw(st.sampled_from([None, 1]), label="limit")
        warm, most = data.draw(st.sampled_from([(0, None), (0, None), (1, None), (1, 3)]), label="pool")
        rules = PoolRules(warm=warm, most=most, idle=timedelta(minutes=1))
        self.configs = (replace(CODER, pool=rules), replace(ONCE, limit=limit), NOBODY)
        self.submit(data)
        self.some_rounds(3)

    def submit(self, data: st.DataObject) -> None:
        """Ask for a run."""
        number = len(self.runs)
        letters = "abcde"[: data.draw(st.integers(1, TASKS), label="tasks")]
        names = [f"t{number}{letter}" for letter in letters]
        specs = [self.some_spec(data, name, names[:index]) for index, name in enumerate(names)]
        limits = Limits(
            agents=data.draw(st.sampled_from([None, None, 1]), label="agents"),
            budget=Allowance(usd=data.draw(st.sampled_from([None, None, 2 * PRICE]), label="budget")),
            standing=data.draw(st.sampled_from([(), (), SHARED]), label="shared budget"),
            on_spent=data.draw(st.sampled_from([OnSpent.ASK, OnSpent.ASK, OnSpent.STOP]), label="on spent"),
            answer_within=data.draw(st.sampled_from([None, None, timedelta(minutes=20)]), label="answer within"),
            merge_returns=1,
        )
        delivery = data.draw(st.sampled_from(DeliveryMode), label="delivery")
        merge = MergeRules(batch=data.draw(st.sampled_from([1, 1, 2, 8]), label="batch"))
        name = f"run {number}"
        hours = data.draw(st.sampled_from([None, None, None, HOURS]), label="hours")
        bounds = {"limits": limits, "hours": hours}
        spec = run_spec(*specs, name=name, delivery=delivery, merge=merge, configs=self.configs, **bounds)
        self.runs.append(self.do(self.here.submit(spec)))

    def some_spec(self, data: st.DataObject, name: str, earlier: list[str]) -> TaskSpec:
        """Return a task that may need some of the *earlier* ones."""
        needs = st.lists(st.sampled_from(earlier), unique=True, max_size=2) if earlier else st.just(list[str]())
        return task(
            name,
            needs=tuple(data.draw(needs, label="needs")),
            max_attempts=data.draw(st.integers(1, 2), label="attempts"),
            approval=data.draw(st.sampled_from([False, False, True]) if earlier else st.just(value=False), label="approval"),
            agent=data.draw(st.sampled_from(["coder", "coder", "coder", "once"]), label="agent"),
            priority=data.draw(st.sampled_from(Priority), label="priority"),
            on_failure=data.draw(st.sampled_from(OnFailure), label="on failure"),
            budget=Allowance(usd=data.draw(st.sampled_from([None, PRICE]), label="task budget")),
        )

    @precondition(lambda self: len(self.runs) < RUNS)
    @rule(data=st.data())
    def somebody_submits_a_run(self, data: st.DataObject) -> None:
        """Ask for another run."""
        self.submit(data)

    @precondition(lambda self: len(self.runs) < RUNS)
    @rule(data=st.data(), whole=st.booleans())
    def somebody_retries(self, data: st.DataObject, whole: bool) -> None:
        """Ask for what ended without success once more."""
        chosen = self.some_task(data)
        new = RunId(f"r-again{len(self.runs)}")
        self.do(self.here.ask(Retry(run_id=chosen.run_id, new_run_id=new, task_id=None if whole else chosen.task_id)))
        self.runs.append(new)

    @rule(data=st.data(), kind=st.sampled_from([Cancel, Pause, Resume, Resume]), of_task=st.booleans())
    def somebody_asks_for_something(self, data: st.DataObject, kind: type[Cancel | Pause | Resume], of_task: bool) -> None:
        """Cancel, pause or resume."""
        chosen = self.some_task(data)
        if kind is Cancel and of_task:
            self.do(self.here.ask(Cancel(run_id=chosen.run_id, task_id=chosen.task_id)))
        else:
            self.do(self.here.ask(kind(run_id=chosen.run_id)))

    @rule(data=st.data(), kind=st.sampled_from([Approve, Approve, Reject]))
    def somebody_decides(self, data: st.DataObject, kind: type[Approve | Reject]) -> None:
        """Approve or refuse."""
        chosen = self.some_task(data)
        self.do(self.here.ask(kind(run_id=chosen.run_id, task_id=chosen.task_id)))

    @rule(wanted=st.sampled_from([None, 0, 1, 3]))
    def somebody_scales(self, wanted: int | None) -> None:
        """Want so many agents that converse, or leave it to the configuration."""
        self.do(self.here.ask(self.scale(wanted)))

    def scale(self, wanted: int | None) -> Scale:
        """Return what asks for so many agents that converse."""
        made = make_of(run_spec(configs=self.configs), CODER.name)
        return Scale(project="", config=CODER.name, wanted=wanted, spec=made)

    @rule(data=st.data(), rounds=st.integers(0, 3))
    def somebody_gives_a_task_to_an_agent(self, data: st.DataObject, rounds: int) -> None:
        """Have it go before all others."""
        chosen = self.some_task(data)
        config = data.draw(st.sampled_from([CODER.name, CODER.name, ONCE.name]), label="config")
        self.do(self.here.ask(Deploy(run_id=chosen.run_id, task_id=chosen.task_id, config=config)))
        self.some_rounds(rounds)

    @rule(data=st.data(), rounds=st.integers(0, 3))
    def a_spare_ends_by_itself(self, data: st.DataObject, rounds: int) -> None:
        """End a program that waits for a task."""
        waiting = [process for process in self.here.host.live() if process.task == NO_TASK]
        if waiting:
            data.draw(st.sampled_from(waiting), label="spare").exit(1)
        self.some_rounds(rounds)

    @rule(more=st.sampled_from([PRICE, 5 * PRICE, 0.5 * PRICE, None]), rounds=st.integers(0, 3), all_of_them=st.booleans())
    def somebody_answers_for_the_money(self, more: float | None, rounds: int, all_of_them: bool) -> None:
        """Raise a budget that is spent, by more or less than it takes, or let what waits for it fail."""
        rows = self.do(self.here.store.read(spent_budgets))
        for row in rows if all_of_them else rows[:1]:
            self.do(self.here.ask(_answer_to(row, more)))
        self.some_rounds(rounds)

    @rule(kind=st.sampled_from([Halt, Unhalt, Unhalt]), rounds=st.integers(0, 3))
    def somebody_turns_the_switch(self, kind: type[Halt | Unhalt], rounds: int) -> None:
        """Halt everything, or let it go on."""
        self.do(self.here.ask(kind(run_id=RunId(""))))
        self.some_rounds(rounds)

    @rule(data=st.data(), place=st.sampled_from(LONG), rounds=st.integers(2, 4))
    def somebody_cancels_in_the_middle_of_an_act(self, data: st.DataObject, place: str, rounds: int) -> None:
        """Cancel a task while something is being done for it."""
        process = self.with_an_agent(data)
        if process is None:
            return
        self.here.points.hold(place)
        does_well(process)
        self.some_rounds(rounds)
        chosen = self.do(self.here.task(process.task))
        self.do(self.here.ask(Cancel(run_id=chosen.run_id, task_id=chosen.task_id)))
        self.some_rounds(1)
        self.here.points.release(place)
        self.some_rounds(2)

    def some_task(self, data: st.DataObject) -> Task:
        """Return a task that somebody means."""
        self.some_rounds(1)
        tasks = self.do(self.here.tasks())
        return tasks[data.draw(st.sampled_from(sorted(tasks)), label="task")]

    @rule(name=st.sampled_from(["theirs", "shared", "right"]), content=st.sampled_from(["1", "2"]), dirty=st.booleans())
    def somebody_moves_the_target(self, name: str, content: str, dirty: bool) -> None:
        """Commit on the target, and perhaps leave changes in the checkout."""
        self.here.repository.push({name: content})
        self.here.repository.in_the_way = "local changes are in the way" if dirty else ""

    # --- What agents do ---

    def at_work(self) -> list[ScriptedProcess]:
        """Return the agents whose turn is open."""
        return [process for process in self.here.host.live() if process.in_turn]

    def with_an_agent(self, data: st.DataObject) -> ScriptedProcess | None:
        """Return one of the agents whose turn is open; with none at work, somebody submits another run first."""
        if not self.at_work():
            if len(self.runs) >= RUNS:
                return None
            self.submit(data)
            self.some_rounds(3)
        return data.draw(st.sampled_from(self.at_work()), label="agent") if self.at_work() else None

    @rule(data=st.data(), rounds=st.integers(0, 3))
    def an_agent_does_well(self, data: st.DataObject, rounds: int) -> None:
        """Do what was asked for."""
        process = self.with_an_agent(data)
        if process is not None:
            does_well(process)
        self.some_rounds(rounds)

    @rule(rounds=st.integers(0, 4), backwards=st.booleans())
    def all_agents_are_done_at_once(self, rounds: int, backwards: bool) -> None:
        """Fill the merge queue."""
        for process in reversed(self.at_work()) if backwards else self.at_work():
            does_well(process)
        self.some_rounds(rounds)

    @rule(data=st.data(), place=st.sampled_from(["merge", "merge:done", "move_ref", "deliver"]))
    def agents_are_done_while_another_is_merged(self, data: st.DataObject, place: str) -> None:
        """Let the merge queue fill while the first in it takes its time."""
        process = self.with_an_agent(data)
        if process is None:
            return
        self.here.points.hold(place)
        does_well(process)
        self.some_rounds(3)
        for process in self.at_work():
            does_well(process)
            self.some_rounds(2)
        self.here.points.release(place)
        self.some_rounds(3)

    @rule(data=st.data(), name=st.sampled_from(["shared", "shared", "left"]), rounds=st.integers(0, 4))
    def an_agent_gets_into_anothers_way(self, data: st.DataObject, name: str, rounds: int) -> None:
        """Change what others change, or what does not fit what others change."""
        process = self.with_an_agent(data)
        if process is None:
            return
        process.write(name, f"as {process.task} likes it" if name == "shared" else "2")
        process.done("done")
        self.some_rounds(rounds)

    @rule(data=st.data(), name=st.sampled_from(["shared", "own"]), answers=st.booleans(), rounds=st.integers(0, 3))
    def an_agent_does_badly(self, data: st.DataObject, name: str, answers: bool, rounds: int) -> None:
        """Break something, and perhaps say that all is well."""
        process = self.with_an_agent(data)
        if process is None:
            return
        process.write(f"{process.task}.py" if name == "own" else name, "broken")
        if answers:
            process.done("All done!")
        self.some_rounds(rounds)

    @rule(data=st.data(), how=st.sampled_from(GRIEF), rounds=st.integers(0, 3))
    def an_agent_comes_to_grief(self, data: st.DataObject, how: Trouble | str, rounds: int) -> None:
        """End without an answer, or with one that has nothing behind it."""
        process = self.with_an_agent(data)
        if process is None:
            return
        if isinstance(how, Trouble):
            process.trouble(how)
        elif how == "claim":
            process.done("All done!")
        else:
            process.exit(1, timed_out=how == "time")
        self.some_rounds(rounds)

    @rule(data=st.data(), deaf=st.booleans(), how=st.sampled_from(["crash", Trouble.OVERLOADED]))
    def an_agent_comes_back_to_no_avail(self, data: st.DataObject, deaf: bool, how: Trouble | str) -> None:
        """Come to grief, and let the program that takes its place read nothing, or end at once."""
        process = self.with_an_agent(data)
        if process is None:
            return
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

    @rule(data=st.data(), how=st.sampled_from(STILL), beats=st.integers(1, 22))
    def an_agent_hangs(self, data: st.DataObject, how: str, beats: int) -> None:
        """Do nothing for a while: stopped by a signal, deaf, in a tool, in a model call, or going round in a circle."""
        process = self.with_an_agent(data)
        if process is None:
            return
        hangs(process, how)
        for _ in range(beats):
            self.here.clock.move(HEARTBEAT)
            if how == "loop" and process.alive and process.in_turn:
                fails_again(process)
            self.some_rounds(1)

    @rule(data=st.data(), rounds=st.integers(0, 2))
    def an_agent_goes_on_after_its_task_was_cancelled(self, data: st.DataObject, rounds: int) -> None:
        """Write and answer as if nothing had happened, while it is being ended: a late writer."""
        process = self.with_an_agent(data)
        if process is None:
            return
        chosen = self.do(self.here.task(process.task))
        self.here.points.hold("end")
        self.do(self.here.ask(Cancel(run_id=chosen.run_id, task_id=chosen.task_id)))
        self.some_rounds(rounds)
        if process.in_turn:
            does_well(process)
        self.some_rounds(2)
        self.here.points.release("end")
        self.some_rounds(2)

    @rule(data=st.data(), calls=st.sampled_from([1, 3, 6]))
    def an_agent_calls_its_model(self, data: st.DataObject, calls: int) -> None:
        """Make model calls, one after the other; the last one ends some time later."""
        process = self.with_an_agent(data)
        if process is None:
            return
        for number in range(calls):
            if any(other is process for other, _ in self.flights):
                break
            flight = self.here.gateway.begin(process.token)
            if not isinstance(flight, Flight):
                if "budget" in flight:
                    process.trouble(Trouble.BUDGET, flight)
                elif "halted" in flight or "working hours" in flight:
                    process.trouble(Trouble.HALTED, flight)
                break
            halted = self.do(self.here.store.read(lambda view: view.brakes.halt()))
            assert halted is None or not self.rounds, "a call was let through, and everything is halted"
            if number + 1 < calls:
                self.here.gateway.end(flight, usd=PRICE)
            else:
                self.flights.append((process, flight))
        self.some_rounds(1)

    @precondition(lambda self: self.flights)
    @rule(all_of_them=st.booleans())
    def model_calls_end(self, all_of_them: bool) -> None:
        """End calls that were in flight: what an agent that is gone had asked for was broken off with it."""
        ending, self.flights = (self.flights, []) if all_of_them else (self.flights[:1], self.flights[1:])
        for process, flight in ending:
            if process.alive:
                self.here.gateway.end(flight, usd=PRICE)
        self.some_rounds(1)

    # --- What the leader does, and what becomes of it ---

    def some_rounds(self, count: int) -> None:
        """Let the leader go round."""
        for _ in range(count):
            self.do(self.leader.round())
            self.rounds += 1

    @rule(seconds=st.sampled_from([0, 10, 60, 600]), jump=st.sampled_from([0, 0, 0, -1, 1, 24]), count=st.integers(1, 4))
    def time_passes(self, seconds: int, jump: int, count: int) -> None:
        """Move the clock; sometimes somebody sets it, also back."""
        self.here.clock.move(timedelta(seconds=seconds))
        self.here.clock.jump(timedelta(hours=jump))
        self.some_rounds(count)

    @rule(stages=st.lists(st.sampled_from((*STAGES, *LOOKING)), min_size=1, max_size=4))
    def hints_come_twice(self, stages: list[str]) -> None:
        """Step stages out of turn, and again though there is nothing to do."""
        self.do(self.leader.step(*stages))

    def succeed(self) -> None:
        """Let the leader die, and another take its place."""
        self.do(self.leader.die())
        self.here.store.heal()
        self.here.points.heal()
        self.flights.clear()
        self.leader, self.rounds = self.do(self.here.lead()), 0
        unknown = self.do(self.watch.unknown())
        assert not unknown, "\n".join(unknown)

    @rule(data=st.data(), commits=st.integers(0, 5), after=st.booleans(), telling=st.booleans(), in_recovery=st.booleans())
    def the_leader_dies(self, data: st.DataObject, commits: int, after: bool, telling: bool, in_recovery: bool) -> None:
        """Let it die in a commit, or just after it; perhaps the next one too, while it recovers."""
        self.with_an_agent(data)
        for process in self.at_work():
            does_well(process)
        if commits:
            self.here.store.die(commits=commits, after=after, telling=telling)
            with suppress(LeaderDied):
                self.some_rounds(4)
        if in_recovery:
            self.do(self.leader.die())
            self.here.store.heal()
            self.here.points.heal()
            self.here.store.die(after=after)
            with suppress(LeaderDied):
                self.do(self.here.lead())
            self.leader = self.here.leaders[-1]
        self.succeed()
        self.some_rounds(1)

    @rule(place=st.sampled_from(PLACES), rounds=st.integers(1, 4))
    def the_leader_dies_in_an_act(self, place: str, rounds: int) -> None:
        """Let it die while it does something in the world."""
        self.here.points.hold(place)
        for process in self.at_work()[:1]:
            does_well(process)
        self.some_rounds(rounds)
        self.succeed()
        self.some_rounds(1)

    @rule(data=st.data(), place=st.sampled_from(["start", "start:done"]))
    def the_leader_dies_while_an_agent_comes_back(self, data: st.DataObject, place: str) -> None:
        """Let it die when a process is there, and nobody has written down which."""
        process = self.with_an_agent(data)
        if process is None:
            return
        self.here.points.hold(place)
        self.here.host.starts(process.task, goes_deaf)
        process.exit(1)
        self.some_rounds(2)
        self.here.clock.move(timedelta(minutes=1))
        self.some_rounds(2)
        self.succeed()
        self.some_rounds(1)

    @rule(stages=st.lists(st.sampled_from(STAGES), min_size=1, max_size=3), rounds=st.integers(0, 2), works=st.booleans())
    def an_old_leader_wakes_again(self, stages: list[str], rounds: int, works: bool) -> None:
        """Stop the leader, let another take over, and let the old one go on where it was: it is refused."""
        late = self.leader
        for process in self.at_work()[:1] if works else []:
            does_well(process)
        self.do(late.settle())
        self.leader, self.rounds = self.do(self.here.lead()), 0
        self.some_rounds(rounds)
        for stage in stages:
            before = self.do(self.here.store.read(lambda view: view.last_seq()))
            assert self.do(_refused(late, stage)), f"an old leader was not refused when it wrote as {stage}"
            assert self.do(self.here.store.read(lambda view: view.last_seq())) == before
        self.do(late.die())
        self.some_rounds(1)

    @rule(commits=st.integers(1, 3), dies=st.booleans())
    def commits_are_refused(self, commits: int, dies: bool) -> None:
        """Let the disk be full for a while; the leader ends of it, or its stages are stepped again."""
        for process in self.at_work():
            does_well(process)
        self.here.store.refuse(commits)
        for _ in range(commits + 2):
            with suppress(StoreFailed):
                self.some_rounds(1)
        self.here.store.heal()
        if dies:
            self.succeed()
        self.some_rounds(1)

    @rule(act=st.sampled_from(sorted(ACTS)), times=st.integers(1, 2))
    def an_act_fails(self, act: str, times: int) -> None:
        """Let something that is done in the world fail."""
        self.here.points.fail(act, ACTS[act], times=times)
        for process in self.at_work()[:1]:
            does_well(process)
        self.some_rounds(3)

    # --- What always holds ---

    @invariant()
    def everything_holds(self) -> None:
        """Check all invariants."""
        broken = [*self.do(self.watch.check()), *self.workspaces.lost]
        if self.rounds:
            broken += self.do(self.watch.left_unadopted(self.leader.term))
        assert not broken, "\n".join(broken)

    # --- The end ---

    def teardown(self) -> None:
        """Heal everything and run to quiet; then nothing may be open, and nothing left."""
        try:
            self.heal()
        finally:
            self.close()

    def close(self) -> None:
        """Give back what the world has of this machine."""
        self.do(self.opened.__aexit__(None, None, None))
        self.runner.close()
        self.folder.cleanup()

    def heal(self) -> None:
        """Heal every fault, do what waits for a person, and go on until all is at rest."""
        here = self.here
        here.repository.in_the_way = ""
        here.host.forget()
        here.host.otherwise = does_well
        for process in here.host.live():
            if process.unread or process.stopped:
                process.exit(1)
        self.succeed()
        self.do(here.ask(self.scale(None)))
        for _ in range(60):
            self.do(here.ask(Unhalt(run_id=RunId(""))))
            for row in self.do(here.store.read(spent_budgets)):
                self.do(here.ask(_answer_to(row, 100 * PRICE)))
            for run_id in self.runs:
                self.do(here.ask(Resume(run_id=run_id)))
            for found in self.do(here.store.read(all_tasks)):
                if found.state is TaskState.PENDING and found.spec.approval and not found.approved:
                    self.do(here.ask(Approve(run_id=found.run_id, task_id=found.task_id)))
            for agent in self.do(here.store.read(lambda view: view.agents.live())):
                if agent.frozen_by:
                    self.do(here.ask(Thaw(run_id=agent.run_id, agent_id=agent.agent_id)))
            for found in self.do(here.store.read(all_tasks)):
                if found.waits_for is Wait.PERSON:
                    self.do(here.ask(HandBack(run_id=found.run_id, task_id=found.task_id)))
            for process in self.at_work():
                does_well(process)
            self.settle_with_the_target()
            self.do(self.leader.run())
            here.clock.move(timedelta(minutes=10))
            self.everything_holds()
            if self.do(self.at_rest()):
                break
        # Those that nothing asks for any more go last.
        self.do(self.leader.run())
        left = self.do(self.watch.left_over())
        assert not left, "\n".join(left)

    def settle_with_the_target(self) -> None:
        """Do what a person must: mend what others broke on the target, and bring it and merged work together as told."""
        repository = self.here.repository
        files = repository.files("main")
        if fits(files) is not None:
            repository.push(mended(files))
        for entry in self.do(self.here.store.read(lambda view: view.changes.integrations())):
            told = f"git merge {entry.tip[:10]} " in entry.remedy
            # What fits is for the leader to bring together: a person who did it too would hide that it does not.
            if told and fits(repository.merge_files("main", entry.tip)[0]) is not None:
                repository.merge_by_hand(entry.tip, mended)

    async def at_rest(self) -> bool:
        """Say whether every run has ended."""
        overviews = await self.here.store.read(lambda view: view.runs.overviews(limit=1000))
        return all(overview.run.state in RUN_TERMINAL for overview in overviews)


def _answer_to(row: SpentBudget, more: float | None) -> AnswerSpent:
    said = SpentAnswer.STOP if more is None else SpentAnswer.RAISE
    return AnswerSpent(run_id=row.run_id, spent_id=row.spent_id, answer=said, more=more or 0.0)


def spent_budgets(view: View) -> list[SpentBudget]:
    """Return the spent budgets that a person is asked about."""
    return [row for row in view.brakes.spent() if row.state is SpentState.OPEN]


async def _refused(late: Leader, stage: str) -> bool:
    try:
        await late.step(stage)
    except LeadLost:
        return True
    return False


def all_tasks(view: View) -> list[Task]:
    """Return the tasks of every run: a run that is tried again has some of the same name."""
    return [task for entry in view.runs.overviews(limit=1000) for task in view.tasks.of_run(entry.run.run_id)]


# A failure is shown as it was found: to make it smaller takes minutes, and is asked for by hand.
SETTINGS = settings(
    stateful_step_count=STEPS,
    deadline=None,
    phases=[phase for phase in Phase if phase is not Phase.shrink or "KAPELLE_SHRINK" in os.environ],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    report_multiple_bugs=False,
)


def simulate(kind: type[Simulation] = Simulation, *, worlds: int = 12, same: bool = True) -> None:
    """Let *worlds* worlds live, the *same* ones every time, or others.

    Raises:
        AssertionError: one of them broke an invariant; hypothesis prints what had happened in it. With KAPELLE_SHRINK set it
            looks for the shortest story first, which takes minutes.
    """
    chosen = settings(SETTINGS, max_examples=worlds, derandomize=same, database=None)
    run_state_machine_as_test(kind, settings=chosen)  # pyright: ignore[reportUnknownMemberType]


__all__ = ["PRICE", "RUNS", "SETTINGS", "SLOTS", "STAGES", "STEPS", "Simulation", "all_tasks", "simulate", "spent_budgets"]
