"""What a world in which anything may happen is made of, before anything happens in it; see ``simulation.py``."""

import asyncio
import tempfile
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize

from kapelle.core.agent import PoolRules, Reuse
from kapelle.core.budget import Allowance, Scope, StandingBudget
from kapelle.core.frozen import replace
from kapelle.core.hours import WorkingHours, parse_window
from kapelle.core.ids import RunId
from kapelle.core.merge import DeliveryMode, MergeRules
from kapelle.core.pool import make_of
from kapelle.core.requests import Scale
from kapelle.core.run import Limits
from kapelle.core.spent import OnSpent, SpentBudget, SpentState
from kapelle.core.store import View
from kapelle.core.task import OnFailure, Priority, Task, TaskSpec
from kapelle.testing.factories import CODER, NOBODY, ONCE, run_spec, task
from kapelle.testing.fakes import Flight
from kapelle.testing.hosts import ScriptedProcess
from kapelle.testing.invariants import KeepingWorkspaces, Watch
from kapelle.testing.mischief import fits
from kapelle.testing.worlds import Leader, SmallWorld, world

T = TypeVar("T")

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


class Living(RuleBasedStateMachine):
    """A world with its leader and its runs; ``watch`` looks whether it is right. It has no rules yet."""

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

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """Begin with one run; what a kind of agent is stays the same in a world."""
        limit = data.draw(st.sampled_from([None, 1]), label="limit")
        warm, most = data.draw(st.sampled_from([(0, None), (0, None), (1, None), (1, 3)]), label="pool")
        rules = PoolRules(warm=warm, most=most, idle=timedelta(minutes=1))
        reuse = data.draw(st.sampled_from([Reuse.NEVER, Reuse.SAME_RUN]), label="reuse")
        self.configs = (replace(CODER, pool=rules, reuse=reuse), replace(ONCE, limit=limit), NOBODY)
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

    def some_task(self, data: st.DataObject) -> Task:
        """Return a task that somebody means."""
        self.some_rounds(1)
        tasks = self.do(self.here.tasks())
        return tasks[data.draw(st.sampled_from(sorted(tasks)), label="task")]

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

    def some_rounds(self, count: int) -> None:
        """Let the leader go round."""
        for _ in range(count):
            self.do(self.leader.round())
            self.rounds += 1

    def scale(self, wanted: int | None) -> Scale:
        """Return what asks for so many agents that converse."""
        made = make_of(run_spec(configs=self.configs), CODER.name)
        return Scale(project="", config=CODER.name, wanted=wanted, spec=made)

    def succeed(self) -> None:
        """Let the leader die, and another take its place."""
        self.do(self.leader.die())
        self.here.store.heal()
        self.here.points.heal()
        self.flights.clear()
        self.leader, self.rounds = self.do(self.here.lead()), 0
        unknown = self.do(self.watch.unknown())
        assert not unknown, "\n".join(unknown)


def spent_budgets(view: View) -> list[SpentBudget]:
    """Return the spent budgets that a person is asked about."""
    return [row for row in view.brakes.spent() if row.state is SpentState.OPEN]


def all_tasks(view: View) -> list[Task]:
    """Return the tasks of every run: a run that is tried again has some of the same name."""
    return [task for entry in view.runs.overviews(limit=1000) for task in view.tasks.of_run(entry.run.run_id)]
