"""What dispatch decides on, read from the store: the demand of a task, and the room that there is.

It only reads: whoever explains a decision reads the same.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from kapelle.core.account import Account, account_of, may_start, told
from kapelle.core.agent import AgentConfig
from kapelle.core.dispatch import Demand, Room
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import AccountId, RunId
from kapelle.core.placing import Choice, Group, HostRoom, Limits, Of
from kapelle.core.ports import Driver, Measure
from kapelle.core.run import Run, RunSpec
from kapelle.core.store import View
from kapelle.core.task import Task

SETTLING = timedelta(seconds=60)
"""So long after its start an agent may not use yet what it asked for, and what is free by measure is not free."""


@frozen
class Around:
    """What there is beside the store."""

    host: str
    slots: int
    driver: Callable[[str], Driver]
    measure: Measure | None = None
    """None: not measured, and memory and processors are not counted."""
    keep_free: int = 0
    """Bytes of memory that are never promised to anybody, and stay free by measure."""

    @property
    def memory(self) -> int | None:
        """Bytes that may be promised to agents; None when not known."""
        return None if self.measure is None else max(self.measure.memory - self.keep_free, 0)


@frozen
class _Alike:
    """What the demands of many tasks of a run have in common."""

    choices: tuple[Choice, ...]
    limits: Limits
    slotless: bool


class Reckoning:
    """Demands and room, on one state of the store; what is asked for several times is remembered."""

    def __init__(
        self,
        view: View,
        around: Around,
        now: datetime,
        closed: Mapping[AccountId, Account],
        given: Mapping[Group, int] | None = None,
    ) -> None:
        self._view = view
        self._around = around
        self._now = now
        self._given = given or {}
        self.closed = closed
        """The accounts that are not open."""
        self._wanted = {(pool.project, pool.config): pool.wanted for pool in view.spares.standing()}
        self._runs: dict[RunId, Run | None] = {}
        self._alike: dict[tuple[RunId, tuple[str, ...], int, bool], _Alike] = {}

    def run(self, run_id: RunId) -> Run | None:
        """Return the run, or None."""
        if run_id not in self._runs:
            self._runs[run_id] = self._view.runs.get(run_id)
        return self._runs[run_id]

    # --- Demands ---

    def demand(self, task: Task, run: Run, configs: Sequence[str], *, returning: bool) -> Demand:
        """Return the demand of *task*, which may be given to *configs*."""
        its = self._its(run, tuple(configs), len(task.spec.requires), begun=task.attempt_id is not None and returning)
        return Demand(
            task_id=task.task_id,
            run_id=task.run_id,
            project=run.spec.project,
            rank=task.rank,
            priority=task.spec.priority,
            choices=its.choices,
            strategy=run.spec.strategy,
            limits=its.limits,
            writes=task.spec.writes,
            returning=returning,
            # There is one host: whatever workspace there is, is there.
            at=self._around.host if returning else None,
            slotless=its.slotless,
        )

    def _its(self, run: Run, configs: tuple[str, ...], required: int, *, begun: bool = True) -> "_Alike":
        key = (run.run_id, configs, required, begun)
        found = self._alike.get(key)
        if found is None:
            drivers = [self._around.driver(run.spec.config(name).program).capabilities for name in configs]
            made = [self._made(run.spec, run.spec.config(name), begun=begun) for name in configs]
            found = self._alike[key] = _Alike(
                choices=tuple(replace(choice, spare=choice.spare - required) for choice in made),
                limits=_limits(run),
                slotless=drivers[0].immediate,
            )
        return found

    def _made(self, spec: RunSpec, config: AgentConfig, *, begun: bool) -> Choice:
        driver = self._around.driver(config.program).capabilities
        account = account_of(spec.upstream)
        own = Group(Of.CONFIG, config.name, spec.project)
        of_model = Group(Of.MODEL, config.model, account.account_id) if config.model is not None else None
        of_account = _group(account) if driver.uses_gateway else None
        # What there is of it, and how many there may be.
        counted = [
            (own, config.limit),
            (own, config.pool.most),
            # How many a person wants keeps those from beginning that have not begun.
            (own, None if begun else self._wanted.get((spec.project, config.name))),
            (of_model, dict(spec.limits.models).get(config.model or "")),
            (of_account, spec.limits.account),
        ]
        return Choice(
            config=config.name,
            groups=tuple(dict.fromkeys(group for group, _ in counted if group is not None)),
            account=of_account,
            limits=tuple((group, most) for group, most in counted if group is not None and most is not None),
            memory=self._memory(config),
            least_memory=driver.least_memory,
            cpus=config.asks.cpus,
            spare=len(config.abilities),
        )

    def _memory(self, config: AgentConfig) -> int:
        if config.asks.memory is not None:
            return config.asks.memory
        most = config.isolation.limits.memory or 0
        # What it may use at most may be more than there is: one of them can live all the same.
        return most if self._around.memory is None else min(most, self._around.memory)

    # --- Room ---

    def room(self) -> Room:
        """Return what is live, and what there is left."""
        live_by: Counter[Group] = Counter()
        writing: dict[str, list[str]] = {}
        memory, young, cpus = 0, 0, 0.0
        live = self._view.agents.live()
        for agent in live:
            run = self.run(agent.run_id)
            if run is None:
                continue
            choice = self._its(run, (agent.config,), 0).choices[0]
            live_by.update([Group(Of.RUN, run.run_id), Group(Of.PROJECT, run.spec.project), *choice.groups])
            memory += choice.memory
            cpus += choice.cpus
            if agent.created_at > self._now - SETTLING:
                young += choice.memory
            task = self._view.tasks.get(agent.task_id)
            if task is not None:
                writing.setdefault(run.spec.project, []).extend(task.spec.writes)
        # A spare that has just begun does not use yet what it will, either.
        begun = [spare for spare in self._view.spares.all() if spare.created_at > self._now - SETTLING]
        young += sum(self._memory(spare.config) for spare in begun)
        accounts = {_group(account): account for account in self.closed.values()}
        starts = {group: may_start(account, self._now) for group, account in accounts.items()}
        return Room(
            hosts=(self._host(len(live), memory, young, cpus),),
            live_by=live_by,
            given=self._given,
            starts={group: bound for group, bound in starts.items() if bound is not None},
            why={group: told(account) for group, account in accounts.items()},
            writing={project: tuple(globs) for project, globs in writing.items()},
        )

    def _host(self, live: int, promised: int, young: int, cpus: float) -> HostRoom:
        around = self._around
        free = None
        if around.measure is not None:
            free = around.measure.memory_free - around.keep_free - young
        return HostRoom(
            name=around.host,
            slots=around.slots,
            live=live,
            memory=around.memory,
            memory_promised=promised,
            memory_free=free,
            cpus=around.measure.cpus if around.measure is not None else None,
            cpus_promised=cpus,
        )


def _group(account: Account) -> Group:
    return Group(Of.ACCOUNT, account.name, account.account_id)


def _limits(run: Run) -> Limits:
    limits = run.spec.limits
    found: list[tuple[Group, int]] = []
    if limits.agents is not None:
        found.append((Group(Of.RUN, run.run_id), limits.agents))
    if limits.project is not None:
        found.append((Group(Of.PROJECT, run.spec.project), limits.project))
    return tuple(found)
