"""The pool: start spares before there are tasks for them, keep them up to date, and end those that nobody asks for any more.

How many there should be is said in ``core.pool``. Dispatch gives them to tasks. They are this leader's alone: a new one ends
what is left of those before it (``recover``), and on a planned exit the pool is emptied.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import field
from datetime import datetime, timedelta
from typing import NamedTuple, cast

from kapelle.core.account import account_of
from kapelle.core.agent import AgentConfig, PoolRules
from kapelle.core.errors import KapelleError
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import AccountId, AgentId, AttemptId, RunId, TaskId, WorkspaceId
from kapelle.core.merge import Integration
from kapelle.core.pool import LASTING, Spare, SpareState, Stock, asked_for, fit_of, key_of, make_of, plan, suits
from kapelle.core.pool_events import SpareEnded, SpareFailed, SpareReady
from kapelle.core.ports import Measure
from kapelle.core.run import Run, RunSpec, RunState
from kapelle.core.store import Tx
from kapelle.core.task import Task, TaskSpec, TaskState, Wait
from kapelle.engine import spares
from kapelle.engine.acts import Acts, Finding
from kapelle.engine.demands import SETTLING
from kapelle.engine.deploy import Deployed
from kapelle.engine.due import WORD
from kapelle.engine.ending import begins_after
from kapelle.engine.holds import brakes_of
from kapelle.engine.reuse import PATIENCE, Begun, resting
from kapelle.engine.rooms import free_ports
from kapelle.engine.world import World

AGAIN = timedelta(seconds=60)
"""How long none of a kind is tried again after one could not be started; each time after that, twice as long."""
LONGEST = timedelta(hours=1)
"""How long that is at most."""
AT_ONCE = 2
"""How many are started at once for each processor: more would only take longer, and so would the agents of tasks."""
NEARLY = (TaskState.VALIDATING, TaskState.MERGING)
"""What is done in a moment, and lets others begin."""
LOOK = timedelta(seconds=10)
"""How often it is looked whether somebody else has moved the target."""
NOTHING = TaskSpec(name=spares.NO_TASK)
"""A task that asks for nothing."""
FEW = 200
"""How many tasks are looked at to see what waits and what comes."""


class Kind(NamedTuple):
    """A kind of agent that is asked for: what it is made by, and what is asked."""

    make: RunSpec
    fit: str
    rules: PoolRules
    wanted: int | None


@frozen
class _Orders:
    start: tuple[Spare, ...] = ()
    renew: tuple[Spare, ...] = ()
    end: tuple[Spare, ...] = ()
    watch: tuple[Spare, ...] = ()
    late: tuple[Spare, ...] = ()
    """Those that are not to be waited for any more."""
    merged: Mapping[AgentId, Integration] = field(default_factory=dict[AgentId, Integration])
    """How far the targets have come, for those that are to stand at the newest."""


class PoolStage:
    """Looks after every spare."""

    name = "pool"

    def __init__(self, world: World, acts: Acts, base_url: str) -> None:
        self._world = world
        self._acts = acts
        self._base_url = base_url
        self._leaving = False
        self._halted = False
        """Whether a person has halted everything, in the transaction that is running."""
        self._kinds: dict[RunId, tuple[Kind, ...]] = {}
        """Of each run, what its configuration asks for: that never changes."""
        self._since: dict[TaskId, datetime] = {}
        """When each of the tasks that wait for an agent was first seen to."""
        self._quiet: dict[str, datetime] = {}
        """Since when there are more spares of a fit than are asked for."""
        self._not_before: dict[str, datetime] = {}
        """When a kind may be tried again of which one could not be started."""
        self._failures: Counter[str] = Counter()
        """How often in a row one of a kind could not be started."""
        self._begun: dict[AgentId, datetime] = {}
        """Since when the programs run of those that are starting."""
        self._opens: datetime | None = None
        """When the next run may go on by itself that nobody may work for now."""
        self._needed = False
        """Whether any kind is asked for, so that the host is measured."""
        self._measure: Measure | None = None
        self._measured_at: datetime | None = None

    async def empty(self) -> None:
        """Start nothing any more, and end every spare: whoever leads gives the lead up."""
        self._leaving = True
        self._acts.cancel_all(lambda key: _what(key) != "end")
        while await self._world.store.read(lambda view: view.spares.all()):
            await self._acts.settled()
            await self.step(self._world.clock.now())

    async def step(self, now: datetime) -> datetime | None:
        """See ``engine.stage.Stage``."""
        findings = self._acts.take()
        if self._needed and (self._measured_at is None or not self._measured_at <= now < self._measured_at + WORD):
            self._measure, self._measured_at = await self._world.host.measure(), now

        def decide(tx: Tx) -> tuple[_Orders, datetime | None]:
            for finding in findings:
                finding(tx)
            wake = self._plan(tx)
            return self._orders(tx), wake

        try:
            orders, wake = await self._world.store.transact(decide, term=self._world.term)
        except BaseException:
            self._acts.give_back(findings)
            raise
        self._carry_out(orders)
        unmeasured = self._needed and self._measure is None
        return now if findings or unmeasured else wake

    # --- How many ---

    def _plan(self, tx: Tx) -> datetime | None:
        self._brakes = brakes_of(tx, tx.now)
        self._halted = self._brakes.halt is not None
        starting = {spare.agent_id for spare in tx.spares.all() if spare.state is SpareState.STARTING}
        self._begun = {agent_id: since for agent_id, since in self._begun.items() if agent_id in starting}
        for spare in tx.spares.all():
            if spare.state is SpareState.READY and spare.ready_at is not None and tx.now - spare.ready_at >= AGAIN:
                self._failures.pop(spare.fit, None)
            if spare.state is SpareState.STARTING and spare.process is not None and self._ready_by(spare) <= tx.now:
                self._failed(tx, spare, "its program did not begin a conversation")
            elif spare.run_id is not None and spare.state is not SpareState.ENDING and (why := self._no_more(tx, spare)):
                tx.spares.put(replace(spare, state=SpareState.ENDING, reason=why))
        # Those that had a task are of their run, and nobody counts on them.
        there = [spare for spare in tx.spares.all() if spare.state is not SpareState.ENDING and spare.run_id is None]
        kinds = {} if self._leaving or self._halted else self._asked(tx)
        self._needed = bool(kinds)
        self._not_before = {fit: until for fit, until in self._not_before.items() if until > tx.now}
        if not there and not kinds:
            return self._next(tx, ())
        stocks = self._stocks(tx, kinds, there)
        planned = plan(stocks, self._carry(tx, kinds, there), tx.now)
        room = self._at_once() - len(starting)
        for fit, kind in kinds.items():
            if self._not_before.get(fit, tx.now) > tx.now:
                continue
            for _ in range(min(planned[fit] - sum(spare.fit == fit for spare in there), room)):
                tx.spares.put(self._new(tx, kind))
                room -= 1
        for stock in stocks:
            of_it = [spare for spare in there if spare.fit == stock.fit]
            # Those that are not ready yet go first, and of the others the youngest.
            of_it.sort(key=lambda spare: (spare.state is SpareState.READY, spare.created_at), reverse=True)
            for spare in of_it[planned[stock.fit] :]:
                tx.spares.put(replace(spare, state=SpareState.ENDING, reason=self._why()))
        return self._next(tx, stocks)

    def _why(self) -> str:
        if self._halted:
            return "everything is halted"
        return "whoever leads ends" if self._leaving else "nothing asks for it any more"

    def _at_once(self) -> int:
        return max(1, round(self._measure.cpus * AT_ONCE)) if self._measure is not None else 0

    def _ready_by(self, spare: Spare) -> datetime:
        """Return when the program of *spare* must have begun a conversation; its workspace may have taken long to make."""
        return self._begun.get(spare.agent_id, spare.created_at) + PATIENCE

    def _no_more(self, tx: Tx, spare: Spare) -> str:
        """Return why a spare that had a task is not needed any more; empty while it is."""
        run = tx.runs.get(spare.run_id) if spare.run_id is not None else None
        if self._leaving or self._halted:
            return self._why()
        if run is None or run.state is not RunState.RUNNING or run.paused:
            return "its run is paused or has ended"
        if spare.ready_at is not None and tx.now - spare.ready_at >= spare.config.pool.idle:
            return "nobody needed it for a while"
        at_work = sum(agent.run_id == run.run_id for agent in tx.agents.live())
        before = [other.agent_id for other in resting(tx, run.run_id)].index(spare.agent_id)
        return "" if run.unfinished > at_work + before else "nothing asks for it any more"

    def _asked(self, tx: Tx) -> dict[str, Kind]:
        """Return the kinds of agents of which there should be spares, or might."""
        found: dict[str, Kind] = {}
        wanted = {(pool.project, pool.config): pool for pool in tx.spares.standing()}
        self._opens = None
        asking = self._asking(tx, wanted)
        shut = {row.account_id for row in tx.accounts.not_open() if row.shut} if asking else set[AccountId]()
        for run, kinds in asking:
            for kind in () if run.paused or self._held(run, shut) else kinds:
                pool = wanted.get(_key(kind))
                found[kind.fit] = kind._replace(wanted=None if pool is None else pool.wanted)
        named = {_key(kind) for kind in found.values()}
        for key, pool in wanted.items():
            if key not in named and (kind := self._kind(pool.spec, pool.config)) is not None:
                found[kind.fit] = kind._replace(wanted=pool.wanted)
        return found

    def _asking(self, tx: Tx, wanted: Collection[tuple[str, str]]) -> list[tuple[Run, list[Kind]]]:
        """Return the runs for which there should be spares, with their kinds; the one submitted last is the last.

        Most runs ask for none. They are not even read: this is gone through at every pass, however many of them wait.
        """
        self._kinds = {run_id: self._of_run(tx, run_id) for run_id in tx.runs.open_ids()}
        found: list[tuple[Run, list[Kind]]] = []
        for run_id, kinds in self._kinds.items():
            asked = [kind for kind in kinds if _key(kind) in wanted or kind.make.configs[0].pool != PoolRules()]
            run = tx.runs.get(run_id) if asked else None
            if run is not None:
                found.append((run, asked))
        return sorted(found, key=lambda each: (each[0].submitted_at, each[0].run_id))

    def _held(self, run: Run, shut: Collection[AccountId]) -> bool:
        """Say whether nobody may work for *run* now: a budget of it is spent, it is not the hour, or its account is shut."""
        task = Task(task_id=TaskId(""), run_id=run.run_id, spec=NOTHING, rank=0.0, submitted_at=run.submitted_at)
        hold = self._brakes.of(run, task, calls=True)
        if hold is not None and hold.until is not None:
            self._opens = hold.until if self._opens is None else min(self._opens, hold.until)
        return hold is not None or account_of(run.spec.upstream).account_id in shut

    def _of_run(self, tx: Tx, run_id: RunId) -> tuple[Kind, ...]:
        if run_id in self._kinds:
            return self._kinds[run_id]
        run = tx.runs.get(run_id)
        if run is None:
            return ()
        used = {name for task in run.spec.tasks for name in task.choices}
        kinds = [self._kind(run.spec, config.name) for config in run.spec.configs if config.name in used]
        return tuple(kind for kind in kinds if kind is not None)

    def _kind(self, spec: RunSpec, config: str) -> Kind | None:
        make = make_of(spec, config)
        if make is None or not self._world.driver(make.configs[0].program).capabilities.warm:
            return None
        its = make.configs[0]
        # More than may ever be at work at once would wait for nothing.
        most = self._world.settings.slots if its.limit is None else min(its.limit, self._world.settings.slots)
        rules = replace(its.pool, warm=min(its.pool.warm, most), least=min(its.pool.least, most))
        return Kind(make, fit_of(make), rules, None)

    def _stocks(self, tx: Tx, kinds: Mapping[str, Kind], there: Sequence[Spare]) -> list[Stock]:
        follow = {fit for fit, kind in kinds.items() if kind.wanted is None and kind.rules.most is not None}
        waiting, coming = self._queue(tx) if follow else ([], [])
        live = tx.agents.live()
        found: list[Stock] = []
        for fit in dict.fromkeys([*kinds, *(spare.fit for spare in there)]):
            kind = kinds.get(fit)
            stock = Stock(fit=fit, rules=PoolRules(), wanted=0)
            if kind is not None:
                stock = Stock(
                    fit=fit,
                    group=key_of(kind.make.project, kind.make.configs[0].name),
                    rules=kind.rules,
                    wanted=kind.wanted,
                    at_work=sum(self._is(tx, agent.run_id, agent.config, kind) for agent in live),
                    waiting=sum(self._may_have(tx, task, kind) for task in waiting) if fit in follow else 0,
                    coming=sum(self._may_have(tx, task, kind) for task in coming) if fit in follow else 0,
                )
            elif not self._leaving:
                # Its run has ended, or is paused: it may be wanted again in a moment.
                mine = next(spare for spare in there if spare.fit == fit)
                group = key_of(mine.make.project, mine.config.name)
                stock = Stock(fit=fit, group=group, rules=replace(mine.config.pool, warm=0, least=0))
            found.append(self._quietly(replace(stock, spares=sum(spare.fit == fit for spare in there)), tx.now))
        return found

    def _quietly(self, stock: Stock, now: datetime) -> Stock:
        """Return *stock* with since when there are more than are asked for."""
        if stock.spares <= asked_for(stock):
            self._quiet.pop(stock.fit, None)
            return stock
        return replace(stock, quiet_since=self._quiet.setdefault(stock.fit, now))

    @staticmethod
    def _is(tx: Tx, run_id: RunId, config: str, kind: Kind) -> bool:
        run = tx.runs.get(run_id)
        return run is not None and (run.spec.project, config) == (kind.make.project, kind.make.configs[0].name)

    def _may_have(self, tx: Tx, task: Task, kind: Kind) -> bool:
        return suits(task.spec, kind.make.upstream) and self._is(tx, task.run_id, task.spec.choices[0], kind)

    def _queue(self, tx: Tx) -> tuple[list[Task], list[Task]]:
        """Return the tasks that have waited for an agent for a while, and those that can begin when others are through."""
        now = tx.now
        due = [task for task in tx.tasks.due(now, FEW) if task.waits_for is Wait.CAPACITY]
        self._since = {task.task_id: self._since.get(task.task_id, now) for task in due}
        waiting = [task for task in due if now - self._since[task.task_id] >= LASTING]
        coming: dict[TaskId, Task] = {}
        for state in NEARLY:
            for nearly in tx.tasks.in_state(state, FEW):
                for task in tx.tasks.needed_by(nearly.task_id):
                    # One that a person has to let go on first may wait for long.
                    next_up = task.unmet == 1 and begins_after(replace(task, unmet=0)) is None
                    if task.state is TaskState.PENDING and next_up:
                        coming[task.task_id] = task
        return waiting, list(coming.values())

    def _carry(self, tx: Tx, kinds: Mapping[str, Kind], there: Sequence[Spare]) -> int:
        """Return how many more spares the host can carry; none before it was measured."""
        if self._measure is None or not kinds:
            return 0
        most = max(1, *(self._memory(kind.make.configs[0]) for kind in kinds.values()))
        # Those that have just begun do not use yet what they will.
        since = tx.now - SETTLING
        young = sum(self._memory(spare.config) for spare in there if spare.created_at > since)
        for agent in tx.agents.live():
            run = tx.runs.get(agent.run_id) if agent.created_at > since else None
            young += self._memory(run.spec.config(agent.config)) if run is not None else 0
        return max(self._measure.memory_free - self._world.settings.keep_free - young, 0) // most

    def _memory(self, config: AgentConfig) -> int:
        asked = config.asks.memory or config.isolation.limits.memory or 0
        return max(self._world.driver(config.program).capabilities.least_memory, asked)

    def _next(self, tx: Tx, stocks: Sequence[Stock]) -> datetime | None:
        """Return when something changes by itself."""
        moments = [stock.quiet_since + stock.rules.idle for stock in stocks if stock.quiet_since is not None]
        moments += [since + LASTING for since in self._since.values()]
        moments += self._not_before.values()
        if self._opens is not None:
            moments.append(self._opens)
        if any(asked_for(stock) > stock.spares for stock in stocks):
            # Nobody tells when other programs give memory back.
            moments.append(tx.now + LOOK)
        for spare in tx.spares.all():
            if spare.run_id is not None and spare.ready_at is not None:
                moments.append(spare.ready_at + spare.config.pool.idle)
            elif spare.agent_id in self._begun:
                moments.append(self._ready_by(spare))
            elif spare.looked_at is not None:
                moments.append(spare.looked_at + LOOK)
        return min((moment for moment in moments if moment > tx.now), default=None)

    def _new(self, tx: Tx, kind: Kind) -> Spare:
        world = self._world
        agent_id, workspace_id = AgentId(world.new_id("g")), WorkspaceId(world.new_id("w"))
        return Spare(
            agent_id=agent_id,
            attempt_id=AttemptId(world.new_id("a")),
            workspace_id=workspace_id,
            conversation_id=world.chance.uuid(),
            make=kind.make,
            fit=kind.fit,
            term=tx.term,
            host=world.host.name,
            path=world.folders.workspace(workspace_id, kind.make.configs[0].name),
            first_port=free_ports(world, tx, kind.make.workspace.ports),
            folder=world.folders.agent(agent_id),
            created_at=tx.now,
            token=f"kapelle-{world.chance.bits(160):040x}",
        )

    # --- What is done about them ---

    def _orders(self, tx: Tx) -> _Orders:
        there = tx.spares.all()
        stale = [spare for spare in there if spare.state is SpareState.READY and self._stale(tx, spare)]
        if stale and not any(spare.state is SpareState.RENEWING for spare in there):
            # Until it is up to date it is nobody's. The others are given away as they are, and brought up to date by then.
            tx.spares.put(replace(stale[0], state=SpareState.RENEWING))
            there = tx.spares.all()
        merged = {spare.agent_id: spares.merged(tx, spare) for spare in there}
        return _Orders(
            merged={agent_id: found for agent_id, found in merged.items() if found is not None},
            start=tuple(spare for spare in there if spare.state is SpareState.STARTING),
            renew=tuple(spare for spare in there if spare.state is SpareState.RENEWING),
            watch=tuple(spare for spare in there if spare.state in {SpareState.READY, SpareState.RENEWING}),
            end=tuple(spare for spare in there if spare.state is SpareState.ENDING and not self._being_made(spare)),
            late=tuple(spare for spare in there if spare.state is SpareState.ENDING and self._ready_by(spare) <= tx.now),
        )

    @staticmethod
    def _stale(tx: Tx, spare: Spare) -> bool:
        """Say whether it is to be looked whether its base is the newest still."""
        if spare.run_id is not None:
            # It is looked when it is given to a task, which is soon, or never.
            return False
        return spares.behind(tx, spare) or spare.looked_at is None or tx.now - spare.looked_at >= LOOK

    def _being_made(self, spare: Spare) -> bool:
        return any(self._acts.running((what, spare.agent_id)) for what in ("start", "renew"))

    def _carry_out(self, orders: _Orders) -> None:
        watched = {("watch", spare.agent_id) for spare in orders.watch}
        late = {("start", spare.agent_id) for spare in orders.late if spare.process is not None}
        self._acts.cancel_all(lambda key: key in late)
        # Who has a task by now, or is being ended, is looked after by others.
        self._acts.cancel_all(lambda key: _what(key) == "watch" and key not in watched)
        for spare in orders.start:
            self._acts.start(("start", spare.agent_id), self._start(spare, orders.merged.get(spare.agent_id)))
        for spare in orders.end:
            self._acts.start(("end", spare.agent_id), self._end(spare))
        for spare in orders.watch:
            self._acts.start(("watch", spare.agent_id), self._watch(spare))
        for spare in orders.renew:
            self._acts.start(("renew", spare.agent_id), self._renew(spare, orders.merged.get(spare.agent_id)))

    async def _start(self, spare: Spare, merged: Integration | None) -> Finding:
        begun, tip = self._world.clock.now(), merged.tip if merged is not None else ""
        order = spares.deployment_of(self._world, spare, self._base_url, merged)
        try:
            started = await spares.start(self._world, order)
            problem = started if isinstance(started, str) else ""
        except KapelleError as error:
            started, problem = None, error.in_full
        primed: Begun | None = None
        if isinstance(started, Deployed):
            known = replace(spare, process=started.process, base=started.base)
            # Whatever comes of it, its process is known from now on.
            self._acts.report(lambda tx: self._started(tx, known))
            primed = await spares.prime(self._world, order, started)
            problem = "" if primed is not None else "its program did not begin a conversation"

        def write(tx: Tx) -> None:
            current = tx.spares.get(spare.agent_id)
            if current is None:
                return
            if current.state is not SpareState.STARTING:
                return
            if not isinstance(started, Deployed) or primed is None:
                self._failed(tx, current, problem)
                return
            tx.spares.put(
                replace(
                    current,
                    state=SpareState.READY,
                    ready_at=tx.now,
                    looked_at=begun,
                    merged=tip,
                    conversation_id=primed.conversation_id,
                    offset=primed.offset,
                )
            )
            tx.log(SpareReady(agent_id=spare.agent_id, config=spare.config.name, pid=started.process.pid))

        return write

    def _started(self, tx: Tx, known: Spare) -> None:
        current = tx.spares.get(known.agent_id)
        if current is not None:
            self._begun[known.agent_id] = tx.now
            tx.spares.put(replace(current, process=known.process, base=known.base))

    def _failed(self, tx: Tx, spare: Spare, problem: str) -> None:
        self._not_before[spare.fit] = tx.now + min(AGAIN * 2 ** min(self._failures[spare.fit], 10), LONGEST)
        self._failures[spare.fit] += 1
        tx.spares.put(replace(spare, state=SpareState.ENDING, reason="it could not be started"))
        tx.log(SpareFailed(config=spare.config.name, reason=problem))

    async def _renew(self, spare: Spare, merged: Integration | None) -> Finding:
        begun, tip = self._world.clock.now(), merged.tip if merged is not None else ""
        order = spares.deployment_of(self._world, spare, self._base_url, merged)
        try:
            moved = await spares.renew(self._world, order)
            problem = moved if isinstance(moved, str) else ""
        except KapelleError as error:
            moved, problem = None, error.in_full

        def write(tx: Tx) -> None:
            current = tx.spares.get(spare.agent_id)
            if current is None or current.state is not SpareState.RENEWING:
                return
            if isinstance(moved, spares.Renewed):
                tx.spares.put(replace(current, base=moved.base, state=SpareState.READY, looked_at=begun, merged=tip))
            else:
                self._failed(tx, current, problem)

        return write

    async def _watch(self, spare: Spare) -> Finding | None:
        """Wait for the end of a spare: it should not end by itself."""
        if spare.process is None:
            return None
        offset = spare.offset
        while True:
            spool = await self._world.host.look(spare.process, spare.folder, offset)
            offset += len(spool.data)
            if spool.ended is not None:
                break
            await self._world.host.wait(spare.process, spare.folder, offset)
        code = spool.ended.exit_code

        def write(tx: Tx) -> None:
            current = tx.spares.get(spare.agent_id)
            if current is not None and current.state is not SpareState.ENDING:
                self._failed(tx, current, f"its program ended before it had a task (exit code {code})")

        return write

    async def _end(self, spare: Spare) -> Finding | None:
        order = spares.deployment_of(self._world, spare, self._base_url)
        left = ""
        try:
            await spares.end(self._world, order)
        except KapelleError as error:
            # Nobody's work is in it; the next leader sweeps what is left.
            left = f"; {error.in_full}"

        def write(tx: Tx) -> None:
            tx.spares.drop(spare.agent_id)
            tx.log(SpareEnded(agent_id=spare.agent_id, config=spare.config.name, reason=f"{spare.reason}{left}"))

        return write


def _key(kind: Kind) -> tuple[str, str]:
    """Return how a standing pool names its kind: by project and configuration."""
    return (kind.make.project, kind.make.configs[0].name)


def _what(key: Hashable) -> str:
    """Return which act *key* is of: each is known by a word and a spare."""
    return cast("tuple[str, AgentId]", key)[0]
