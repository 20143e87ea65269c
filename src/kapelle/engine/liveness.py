"""Liveness: what each agent is really doing, looked at once in every heartbeat, and what is done about those that are stuck.

What an agent says and calls is heard all the time (``pulse.py``) and costs nothing more. Only of one that looks silent the
processes are measured, and only where it may matter its workspace is looked at. What is decided is written down before it is
done: a new leader goes on from there, and answers nothing twice.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from kapelle.core import agent as agents
from kapelle.core.account import Account, AccountState, account_of, told
from kapelle.core.agent import Agent, AgentState, ProcessRef
from kapelle.core.attempt import Attempt, Outcome, PromptRecord, PromptState
from kapelle.core.errors import KapelleError
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import AccountId, AttemptId, PromptId
from kapelle.core.isolation_events import LimitMet
from kapelle.core.liveness import (
    EXCUSED,
    Condition,
    Evidence,
    Grade,
    Judgement,
    Source,
    Standing,
    answered,
    judge,
    outside,
    respond,
    settled,
)
from kapelle.core.liveness_events import (
    AgentGivenUp,
    AgentInterrupted,
    AgentNoted,
    AgentNudged,
    AgentProbed,
    AgentRecovered,
    AgentRestarted,
)
from kapelle.core.nudging import broken_off, nudged, started_anew
from kapelle.core.patience import Patience
from kapelle.core.ports import Driver
from kapelle.core.question import detail
from kapelle.core.store import Tx, View, WorkspaceRow
from kapelle.core.task import Task, TaskState, Wait
from kapelle.engine.acts import Acts
from kapelle.engine.boxing import sandbox_of
from kapelle.engine.ending import give_up_attempt, run_of
from kapelle.engine.pulse import SUSPICIOUS, Beat, Pulse, moved
from kapelle.engine.world import World

MISSED = 3
"""Heartbeats after which nobody has looked for so long that it is not counted: the machine slept, or its clock was set."""
STRAYING_EVERY = timedelta(minutes=2)
"""Between two looks for files that a task does not name."""
EVENTS: dict[Grade, type[AgentNoted | AgentProbed | AgentNudged | AgentInterrupted | AgentRestarted | AgentGivenUp]] = {
    Grade.NOTE: AgentNoted,
    Grade.PROBE: AgentProbed,
    Grade.NUDGE: AgentNudged,
    Grade.INTERRUPT: AgentInterrupted,
    Grade.RESTART: AgentRestarted,
    Grade.GIVE_UP: AgentGivenUp,
}
WAITED_FOR = {
    Wait.APPROVAL: Condition.WAITING,
    Wait.LIMIT: Condition.USAGE_LIMIT,
    Wait.CREDENTIALS: Condition.EXPIRED_LOGIN,
}
"""What a task waits for whose agent has ended for it, and goes on afterwards."""


@frozen
class _Watched:
    """A live agent at work, with all that belongs to it."""

    agent: Agent
    task: Task
    attempt: Attempt
    driver: Driver
    workspace: WorkspaceRow | None
    patience: Patience
    sandbox: str
    seen: Evidence


@frozen
class _Orders:
    """What a transaction decided is to be done."""

    measure: tuple[_Watched, ...] = ()
    glance: tuple[_Watched, ...] = ()
    probe: tuple[_Watched, ...] = ()
    interrupt: tuple[_Watched, ...] = ()
    watching: bool = False


class LivenessStage:
    """Looks after agents that look as if they did nothing."""

    name = "liveness"

    def __init__(self, world: World, acts: Acts, pulse: Pulse) -> None:
        self._world = world
        self._acts = acts
        self._pulse = pulse
        self._next: datetime | None = None
        self._last: datetime | None = None
        """When it was last looked."""
        self._again = False
        """Whether something was found out that is not to wait for the next beat."""
        self._idle = False
        """Whether there was nobody to look at, and nothing written down of anybody."""

    async def step(self, now: datetime) -> datetime | None:
        """See ``engine.stage.Stage``."""
        beat = self._world.settings.heartbeat
        self._acts.take()
        if not beat or (self._idle and not self._pulse.listens):
            return None
        heard = self._pulse.take_urgent()
        # A clock that was set back does not put the next beat off.
        due = self._next is None or now >= self._next or self._next - now > beat
        if not due and not heard and not self._again:
            return self._next
        by = None if self._last is None else _missed(self._last, now, beat)
        if by:
            self._pulse.shift(by, now, beat)
            self._last = now

        def decide(tx: Tx) -> _Orders:
            rows = tx.standings.all()
            last = max((row.beat_at for row in rows), default=tx.now)
            shift = _missed(last, tx.now, beat) if by is None else by
            there = [_moved(row, shift, tx.now, beat) for row in rows]
            closed = {account.account_id: account for account in tx.accounts.not_open()}
            return self._decide(tx, {row.attempt_id: row for row in there}, closed, closer=due or heard)

        self._again = False
        try:
            orders = await self._world.store.transact(decide, term=self._world.term)
        except BaseException:
            self._again = True
            raise
        self._idle = not orders.watching
        self._last = now if orders.watching else None
        if due or not orders.watching:
            self._next = now + beat if orders.watching else None
        self._carry_out(orders)
        return self._next

    # --- Deciding, inside the transaction ---

    def _decide(
        self, tx: Tx, rows: Mapping[AttemptId, Standing], closed: Mapping[AccountId, Account], *, closer: bool
    ) -> _Orders:
        orders = _Orders()
        live: set[AttemptId] = set()
        for agent in tx.agents.live():
            live.add(agent.attempt_id)
            orders = replace(orders, watching=True)
            if agent.process is not None and agent.state is AgentState.ACTIVE and agent.term == tx.term:
                orders = self._about(tx, agent, rows.get(agent.attempt_id), closed, orders, closer=closer)
        for attempt_id, row in rows.items():
            if attempt_id not in live and self._without_agent(tx, row):
                orders = replace(orders, watching=True)
        return orders

    def _about(
        self,
        tx: Tx,
        agent: Agent,
        before: Standing | None,
        closed: Mapping[AccountId, Account],
        orders: _Orders,
        *,
        closer: bool,
    ) -> _Orders:
        watched = self._watched(tx, agent, before, closed)
        if watched is None:
            self._not_watched(tx, agent, before)
            return orders
        seen, patience, now = watched.seen, watched.patience, tx.now
        found = judge(seen, now, patience)
        if found.condition in EXCUSED:
            self._pulse.excuse(agent.agent_id)
        row = before
        if row is None or row.agent_id != agent.agent_id:
            # Another goes on, maybe before anybody has looked at how the last one ended.
            _note_its_end(tx, before)
            row = _fresh(agent, before, now)
        after = replace(settled(row, found, now), worked_at=seen.worked_at, doing=_doing(agent, seen))
        _tell(tx, row, after, found)
        grade = respond(after, found, now, patience, hears=seen.hears)
        if grade is not None:
            after = answered(after, grade, now)
            orders = self._answer(tx, watched, found, grade, orders)
        tx.standings.put(after)
        return _look_closer(watched, self._pulse, now, orders) if closer else orders

    @staticmethod
    def _not_watched(tx: Tx, agent: Agent, before: Standing | None) -> None:
        """Forget what an agent did whose work is looked at: nothing is wrong with it, and nothing is expected of it."""
        task = tx.tasks.get(agent.task_id)
        if before is None or before.agent_id != agent.agent_id or task is None or task.state is not TaskState.VALIDATING:
            return
        found = Judgement(condition=Condition.WORKING, since=tx.now)
        after = settled(before, found, tx.now)
        _tell(tx, before, after, found)
        tx.standings.put(replace(after, doing="its work is checked"))

    def _watched(self, tx: Tx, agent: Agent, before: Standing | None, closed: Mapping[AccountId, Account]) -> _Watched | None:
        """Return what is known of an agent; None when nobody listens to it yet, or its task does without it just now."""
        task, attempt = tx.tasks.get(agent.task_id), tx.attempts.get(agent.attempt_id)
        beat = self._pulse.of(agent.agent_id)
        if task is None or attempt is None or beat is None or attempt.ended_at is not None:
            return None
        if task.state is not TaskState.RUNNING or task.attempt_id != attempt.attempt_id:
            return None
        if not beat.seeded:
            beat.seeded = True
            if before is not None and before.agent_id == agent.agent_id:
                # An earlier leader has listened to it: what was not heard for long then was not there.
                beat.begun_at = beat.heard_at = min(before.worked_at, tx.now)
        heard = self._pulse.evidence(agent.agent_id)
        if heard is None:
            return None
        config = run_of(tx, task).spec.config(attempt.config)
        workspace = tx.agents.workspace(attempt.workspace_id) if attempt.workspace_id is not None else None
        watched = _Watched(
            agent=agent,
            task=task,
            attempt=attempt,
            driver=self._world.driver(config.program),
            workspace=workspace,
            patience=config.patience,
            sandbox=config.sandbox,
            seen=heard,
        )
        return replace(watched, seen=_whole(tx, watched, beat, closed))

    def _without_agent(self, tx: Tx, row: Standing) -> bool:
        """Look at an attempt whose agent has ended: say whether it goes on, and remember what it waits for."""
        attempt, task = tx.attempts.get(row.attempt_id), tx.tasks.get(row.task_id)
        if attempt is None or task is None or attempt.ended_at is not None:
            _note_its_end(tx, row)
            tx.standings.drop(row.attempt_id)
            return False
        condition, why = Condition.WORKING, ""
        if task.waits_for is not None and task.waits_for in WAITED_FOR:
            condition, why = WAITED_FOR[task.waits_for], task.detail
        elif met := _out_of_memory(tx, row):
            condition, why = Condition.OUT_OF_MEMORY, met
        since = row.since if condition is row.condition else tx.now
        found = Judgement(condition=condition, since=since, reasons=(why,) if why else ())
        after = replace(settled(row, found, tx.now), doing="")
        _tell(tx, row, after, found)
        if respond(after, found, tx.now, Patience(hands_off=True)) is Grade.NOTE:
            after = answered(after, Grade.NOTE, tx.now)
            _log(tx, after, found, Grade.NOTE)
        tx.standings.put(after)
        return True

    def _answer(self, tx: Tx, watched: _Watched, found: Judgement, grade: Grade, orders: _Orders) -> _Orders:
        """Write down what is done, and return what else is to be done."""
        agent, attempt = watched.agent, watched.attempt
        _log(tx, _fresh(agent, None, tx.now), found, grade)
        match grade:
            case Grade.PROBE:
                return replace(orders, probe=(*orders.probe, watched))
            case Grade.NUDGE:
                self._say(tx, attempt, nudged(found.condition, found.reasons), aside=True)
            case Grade.INTERRUPT:
                self._say(tx, attempt, broken_off(found.condition, found.reasons))
                return replace(orders, interrupt=(*orders.interrupt, watched))
            case Grade.RESTART:
                if _drop_own(tx, watched):
                    self._say(tx, attempt, started_anew(found.condition, found.reasons))
                tx.agents.put(agents.move(agent, AgentState.COMPLETING, tx.now))
            case Grade.GIVE_UP:
                message = f"its agent got stuck again and again: {'; '.join(found.reasons)}"
                chance = self._world.chance.share()
                give_up_attempt(tx, watched.task, attempt, Outcome.AGENT_FAILED, message, chance=chance)
            case _:
                pass
        return orders

    def _say(self, tx: Tx, attempt: Attempt, text: str, *, aside: bool = False) -> None:
        prompt_id = PromptId(self._world.chance.uuid())
        record = PromptRecord(prompt_id=prompt_id, attempt_id=attempt.attempt_id, round=attempt.round, text=text, aside=aside)
        tx.attempts.put_prompt(record)

    # --- Acting ---

    def _carry_out(self, orders: _Orders) -> None:
        if orders.measure:
            self._acts.start(("measure",), self._measure(orders.measure))
        for watched in orders.glance:
            self._acts.start(("glance", watched.agent.agent_id), self._glance(watched))
        for watched in orders.probe:
            self._acts.start(("probe", watched.agent.agent_id), self._probe(watched))
        for watched in orders.interrupt:
            self._acts.start(("interrupt", watched.agent.agent_id), self._interrupt(watched))

    async def _measure(self, watched: Sequence[_Watched]) -> None:
        """Measure the processes of agents that look silent, all in one look."""
        roots = [await self._roots(entry) for entry in watched]
        for entry, found in zip(watched, await self._world.host.activities(roots), strict=True):
            self._pulse.measured(entry.agent.agent_id, found)
        self._again = True

    async def _roots(self, watched: _Watched) -> list[ProcessRef]:
        """Return what an agent's processes are below of."""
        process = watched.agent.process
        own = [process] if process is not None else []
        try:
            inside = await sandbox_of(self._world, watched.sandbox).inside(self._world.mark, [watched.agent.agent_id])
        except KapelleError:
            # What the host sees by itself has to do.
            return own
        return [*own, *inside]

    async def _glance(self, watched: _Watched) -> None:
        workspace = watched.workspace
        if workspace is None or workspace.repository is None or workspace.base is None:
            return
        try:
            seen = await self._world.workspaces.glance(workspace.path, workspace.repository, workspace.base)
        except KapelleError:
            # It cannot be looked at just now: nothing is known of it, and nothing is concluded from that.
            return
        self._pulse.glanced(watched.agent.agent_id, seen)
        self._again = True

    async def _probe(self, watched: _Watched) -> None:
        """Let go on what was stopped, and measure anew. Who is held still on purpose is left alone."""
        if await self._world.store.read(lambda view: _is_at_work(view, watched)):
            await self._world.host.go_on(await self._roots(watched))
            await self._measure([watched])

    async def _interrupt(self, watched: _Watched) -> None:
        """Break a turn off; what it is to do then is written down already."""
        data, process = watched.driver.codec().interrupt(), watched.agent.process
        if data and process is not None:
            # One that cannot be written to any more is started anew when its time has come.
            await self._world.host.write(process, data)


def _missed(last: datetime, now: datetime, beat: timedelta) -> timedelta:
    """Return how much of the time since *last* is not counted: the machine slept, nobody led, or somebody set the clock."""
    gap = now - last
    if gap < timedelta(0):
        return gap
    return gap - beat if gap > MISSED * beat else timedelta(0)


def _moved(row: Standing, by: timedelta, now: datetime, beat: timedelta) -> Standing:
    if not by:
        return row
    answered_at = None if row.answered_at is None else moved(row.answered_at, by, now, beat)
    since, worked_at = moved(row.since, by, now, beat), moved(row.worked_at, by, now, beat)
    return replace(row, since=since, answered_at=answered_at, worked_at=worked_at)


def _fresh(agent: Agent, before: Standing | None, now: datetime) -> Standing:
    """Return how an agent stands of which nothing is known yet, but how often others of its attempt were helped."""
    return Standing(
        attempt_id=agent.attempt_id,
        agent_id=agent.agent_id,
        run_id=agent.run_id,
        task_id=agent.task_id,
        since=now,
        interrupts=before.interrupts if before is not None else 0,
        restarts=before.restarts if before is not None else 0,
        warned=before is not None and before.warned,
        beat_at=now,
        worked_at=now,
    )


def _whole(tx: Tx, watched: _Watched, beat: Beat, closed: Mapping[AccountId, Account]) -> Evidence:
    """Return what was seen of an agent, with what the store knows."""
    agent, task, attempt, can = watched.agent, watched.task, watched.attempt, watched.driver.capabilities
    run = run_of(tx, task)
    states = {prompt.state for prompt in tx.attempts.prompts(attempt.attempt_id)}
    account = closed.get(account_of(run.spec.upstream).account_id) if can.uses_gateway else None
    why = told(account) if account is not None and account.shut else ""
    refused = account is not None and account.state is AccountState.REFUSED
    strays = bool(task.spec.writes) and not attempt.merge_returns and watched.patience.straying
    asked = next((question for question in tx.questions.open() if question.agent_id == agent.agent_id), None)
    return replace(
        watched.seen,
        # One that a person works at, or has stopped, owes nobody anything.
        in_turn=bool(states & {PromptState.SENT, PromptState.TAKEN}) and not agent.by_hand and agent.ends_at is None,
        sees_calls=can.uses_gateway and not run.spec.upstream.bypass,
        strayed=outside(beat.files, task.spec.writes) if strays else (),
        question=detail(asked) if asked is not None else "",
        limited="" if refused else why,
        refused=why if refused else "",
        frozen=_frozen(agent),
        reports_tools=can.reports_tools,
        resumable=can.conversation,
        # One that has read nothing yet is not reached by words either.
        hears=can.interrupt and not beat.adopted and _has_read(states, watched.seen),
    )


def _frozen(agent: Agent) -> bool:
    return bool(agent.frozen_by) or agent.frozen_at is not None


def _held_by_a_person(agent: Agent) -> bool:
    return _frozen(agent) or agent.by_hand or agent.ends_at is not None


def _doing(agent: Agent, seen: Evidence) -> str:
    """Say in a few words what an agent does."""
    if agent.by_hand:
        return "a person has taken it over"
    if seen.tools:
        oldest = min(seen.tools, key=lambda tool: tool.since)
        return f"{oldest.tool} {oldest.about}".strip()
    return "asks its model" if seen.calls else ""


def _tell(tx: Tx, before: Standing, after: Standing, found: Judgement) -> None:
    """Write down that an agent's condition has changed; that it is a bad one is noted by its first answer."""
    if before.condition is after.condition:
        return
    if after.condition is Condition.WORKING:
        tx.log(
            AgentRecovered(
                run_id=after.run_id,
                task_id=after.task_id,
                agent_id=after.agent_id,
                after=before.condition.value,
                since=before.since,
            )
        )
    elif after.grade is not Grade.NONE:
        _log(tx, after, found, Grade.NOTE)


def _log(tx: Tx, row: Standing, found: Judgement, grade: Grade) -> None:
    tx.log(
        EVENTS[grade](
            run_id=row.run_id,
            task_id=row.task_id,
            agent_id=row.agent_id,
            condition=found.condition.value,
            since=found.since,
            evidence=found.reasons,
            sources=tuple(sorted(source.value for source in found.sources)),
        )
    )


def _look_closer(watched: _Watched, pulse: Pulse, now: datetime, orders: _Orders) -> _Orders:
    """Return *orders* with what is to be looked at of an agent: its processes when it is silent, its files when they matter."""
    seen, beat, patience = watched.seen, pulse.of(watched.agent.agent_id), watched.patience
    if beat is None or not seen.in_turn:
        return orders
    quiet = now - seen.worked_at
    if quiet >= patience.quiet:
        orders = replace(orders, measure=(*orders.measure, watched))
    loops = seen.repetition is not None and seen.repetition.times >= SUSPICIOUS
    long_ago = beat.looked_at is None or now - beat.looked_at >= STRAYING_EVERY
    strays = bool(watched.task.spec.writes) and patience.straying and beat.wrote and long_ago
    if loops or strays or quiet >= patience.silence / 2:
        orders = replace(orders, glance=(*orders.glance, watched))
    return orders


def _out_of_memory(tx: Tx, row: Standing) -> str:
    """Return how the agent of *row*, which has ended, met its limit of memory; empty when it did not."""
    for entry in tx.events_of_task(row.run_id, row.task_id, LimitMet.kind, 1):
        event = entry.event
        if isinstance(event, LimitMet) and event.agent_id == row.agent_id and event.out_of_memory:
            return event.reason
    return ""


def _note_its_end(tx: Tx, row: Standing | None) -> None:
    """Tell that the agent of *row*, which has ended, had no memory left, unless that was told."""
    if row is None or row.condition is Condition.OUT_OF_MEMORY or not (met := _out_of_memory(tx, row)):
        return
    found = Judgement(condition=Condition.OUT_OF_MEMORY, since=tx.now, reasons=(met,), sources=frozenset({Source.STORE}))
    _log(tx, row, found, Grade.NOTE)


def _has_read(states: Collection[PromptState], seen: Evidence) -> bool:
    """Say whether an agent has read what it was told to do: it says so, perhaps late, or it has asked its model since."""
    return PromptState.TAKEN in states or (seen.call_at is not None and seen.call_at >= seen.begun_at)


def _drop_own(tx: Tx, watched: _Watched) -> bool:
    """Drop what was to be said after an interruption that did not come about; say whether the agent has read anything."""
    prompts = tx.attempts.prompts(watched.attempt.attempt_id)
    begun = _has_read({prompt.state for prompt in prompts}, watched.seen)
    for prompt in prompts:
        if begun and prompt.state is PromptState.PENDING and not prompt.sender:
            tx.attempts.put_prompt(replace(prompt, state=PromptState.DROPPED))
        if begun and prompt.state is PromptState.SENT and not prompt.aside:
            # It is in the conversation already, which goes on.
            tx.attempts.put_prompt(replace(prompt, state=PromptState.TAKEN))
    return begun


def _is_at_work(view: View, watched: _Watched) -> bool:
    """Say whether an agent is still the one that was found stuck: its task runs, and nobody holds it still on purpose."""
    task, agent = view.tasks.get(watched.task.task_id), view.agents.get(watched.agent.agent_id)
    if task is None or agent is None or task.state is not TaskState.RUNNING:
        return False
    return agent.state is AgentState.ACTIVE and not _held_by_a_person(agent)
