"""Using a program again: when its task is merged, it goes on to another task of the same run and config.

It becomes a spare, of its run alone, which dispatch gives to a task as any other. Whatever goes wrong on the way, it is ended
as every agent is; until it is a spare nothing in the store says anything else.
"""

import math
from datetime import datetime, timedelta

from kapelle.core import agent as agents
from kapelle.core.agent import Agent, AgentState, ProcessRef, Reuse
from kapelle.core.attempt import Attempt, home_of
from kapelle.core.conversation import ConversationStarted, PromptTaken, TurnEnded
from kapelle.core.errors import HostFailed, KapelleError
from kapelle.core.events import AgentUsedTool
from kapelle.core.frozen import frozen, replace
from kapelle.core.hiding import NOTHING
from kapelle.core.ids import AgentId, AttemptId, PromptId, RunId
from kapelle.core.merge import ChangeState
from kapelle.core.pool import Spare, SpareState, fit_of, make_of, suits
from kapelle.core.pool_events import AgentCleared, AgentWorn
from kapelle.core.ports import Driver
from kapelle.core.run import Run, RunSpec, RunState
from kapelle.core.store import Tx
from kapelle.core.task import Task, TaskState
from kapelle.engine.acts import Acts, Finding
from kapelle.engine.boxing import met_so_far
from kapelle.engine.deploy import Deployed, Deployment, base_of, box_of, deploy, set_up
from kapelle.engine.holds import Brakes
from kapelle.engine.turns import Turns
from kapelle.engine.world import World

PATIENCE = timedelta(seconds=30)
"""How long a program may take to begin a new conversation."""
TOOLS = 1000
"""How many uses of tools are looked through, the newest, for what would go on in the next conversation."""


@frozen
class Renewal:
    """An agent that is to be made as new, and what was merged of its task."""

    order: Deployment
    tree: str | None
    """None where it changed nothing."""


@frozen
class Rest:
    """An agent that is through with its task stays for another: *watched* as before, or made as new."""

    watched: bool = False
    renew: tuple[Renewal, ...] = ()


@frozen
class Begun:
    """Where a program's new conversation begins in its spool."""

    conversation_id: str
    offset: int


@frozen
class _Fresh:
    """An agent that is as new."""

    base: str
    begun: Begun | None = None
    """None: its workspace is, and its program is not."""
    problem: str = ""
    """Why not, in words."""
    attempt_id: AttemptId = AttemptId("")
    looked_at: datetime | None = None


# --- Which ------------------------------------------------------------------------------------------------------------


class Again:
    """The agents of the execute stage that are through with their tasks, and may go on to others."""

    def __init__(self, world: World, acts: Acts) -> None:
        self._world = world
        self._acts = acts
        self._due: dict[AgentId, tuple[datetime, Agent]] = {}
        """Until when each of those that are made as new must have come to it."""
        self._tried: set[AttemptId] = set()
        """For which of their tasks that was tried: whatever came of it, it is tried once."""

    def rest(self, tx: Tx, order: Deployment, turns: Turns, brakes: Brakes) -> Rest | None:
        """Return how the agent of *order* stays, which its task does not need any more; None when it is to end."""
        found = self._rest(tx, order, turns, brakes)
        late = ("renew", order.agent.agent_id)
        if found is None and self._acts.busy(late):
            self._acts.cancel_all(lambda key: key == late)
        return found

    def _rest(self, tx: Tx, order: Deployment, turns: Turns, brakes: Brakes) -> Rest | None:
        agent, task, attempt, run = order.agent, order.task, order.attempt, order.run
        if agent.state is not AgentState.ACTIVE:
            self._tried.discard(attempt.attempt_id)
            return None
        if turns.leaving or agent.agent_id in turns.adopted:
            return None
        braked = brakes.halt is not None or brakes.of(run, task, calls=True) is not None
        if braked or not goes_on(run, task, attempt, order.driver) or not may_rest(tx, agent, task, attempt, run):
            return None
        if task.state is TaskState.MERGING:
            return Rest(watched=True)
        if self._acts.running(("renew", agent.agent_id)):
            return Rest()
        if attempt.attempt_id in self._tried:
            return None
        renewal = renewal_of(tx, order)
        if isinstance(renewal, str):
            tx.log(worn(agent, renewal))
        return Rest(renew=(renewal,)) if isinstance(renewal, Renewal) else None

    def start(self, renewal: Renewal) -> None:
        """Begin to make an agent as new."""
        agent_id = renewal.order.agent.agent_id
        self._tried.add(renewal.order.attempt.attempt_id)
        due = self._world.clock.now() + allowance(self._world, renewal.order.run.spec)
        self._due[agent_id] = (due, renewal.order.agent)
        # What it says from now on is not about its task.
        self._acts.cancel_all(lambda key: key == ("watch", agent_id))
        self._acts.start(("renew", agent_id), self._renew(renewal))

    def next(self, now: datetime) -> datetime | None:
        """Give up those that have not come to it by *now*; return when the next of them must have."""
        for agent_id, (due, agent) in list(self._due.items()):
            if not self._acts.busy(("renew", agent_id)):
                del self._due[agent_id]
            elif due <= now:
                del self._due[agent_id]
                why = worn(agent, DEAF)
                self._acts.report(lambda tx, why=why: tx.log(why))
                self._acts.cancel_all(lambda key, late=("renew", agent_id): key == late)
        return min((due for due, _ in self._due.values()), default=None)

    async def _renew(self, renewal: Renewal) -> Finding | None:
        order = renewal.order
        try:
            finding = await renew(self._world, renewal)
        except KapelleError as error:
            why = worn(order.agent, error.in_full)
            return lambda tx: tx.log(why)

        def write(tx: Tx) -> None:
            finding(tx)
            now = tx.agents.get(order.agent.agent_id)
            if now is None or now.state is AgentState.STOPPED:
                self._tried.discard(order.attempt.attempt_id)

        return write


DEAF = "its program did not begin a new conversation"


def worn(agent: Agent, reason: str) -> AgentWorn:
    """Return what tells why *agent* ends with its task."""
    return AgentWorn(run_id=agent.run_id, task_id=agent.task_id, agent_id=agent.agent_id, reason=reason)


def goes_on(run: Run, task: Task, attempt: Attempt, driver: Driver) -> bool:
    """Say whether an agent that works on *task* is of the kind that goes on to another."""
    config, capable = run.spec.config(attempt.config), driver.capabilities
    return (
        config.reuse is Reuse.SAME_RUN
        # Whoever watches its session sees one task in it.
        and not config.terminal
        and capable.clears
        and capable.warm
        and make_of(run.spec, config.name) is not None
        and suits(task.spec, run.spec.upstream)
    )


def may_rest(tx: Tx, agent: Agent, task: Task, attempt: Attempt, run: Run) -> bool:
    """Say whether an agent that is through with *task* may wait until that is merged: it could go on to another then.

    Where its task may come back to it, or may take for ever to be merged, it makes room for others.
    """
    free = not agent.by_hand and not agent.frozen_by and agent.frozen_at is None and agent.ends_at is None
    if not free or attempt.held_by or run.paused or run.state is not RunState.RUNNING:
        return False
    merging = task.state is TaskState.MERGING and task.waits_for is None and attempt.ended_at is None
    if not merging and task.state is not TaskState.COMPLETED:
        return False
    others = sum(other.run_id == run.run_id and other.agent_id != agent.agent_id for other in tx.agents.live())
    return run.unfinished - (1 if merging else 0) > others


def resting(tx: Tx, run_id: RunId) -> list[Spare]:
    """Return the agents of a run that are through with a task and wait for another, the longest first."""
    return [spare for spare in tx.spares.all() if spare.run_id == run_id and spare.state is not SpareState.ENDING]


def renewal_of(tx: Tx, order: Deployment) -> Renewal | str | None:
    """Return what is to be done so that the agent of *order*, whose task is merged, can go on, or why it cannot, in words.

    None where nothing needs it.
    """
    task, run, config = order.task, order.run, order.run.spec.config(order.attempt.config)
    tree = next((entry.tree for entry in tx.changes.of_task(task.task_id) if entry.state is ChangeState.MERGED), None)
    waiting = sum(
        other.state is TaskState.PENDING and config.name in other.spec.choices and suits(other.spec, run.spec.upstream)
        for other in tx.tasks.of_run(run.run_id)
    )
    if waiting <= sum(spare.config.name == config.name for spare in resting(tx, run.run_id)):
        return None
    repository, target = order.workspace.repository, run.spec.target
    if repository is not None and target is not None:
        order = replace(order, integration=tx.changes.integration(repository, target, run.line))
    lasting = order.driver.capabilities.lasting
    used = tx.events_of_task(run.run_id, task.task_id, AgentUsedTool.kind, TOOLS) if lasting else ()
    tools = (entry.event.tool for entry in used if isinstance(entry.event, AgentUsedTool))
    if lasts := next((tool for tool in tools if tool in lasting), None):
        return f"what it does with {lasts} would go on in its next conversation"
    return Renewal(order=order, tree=tree)


def allowance(world: World, spec: RunSpec) -> timedelta:
    """Return how long it may take until an agent of *spec* is as new."""
    return PATIENCE + len(spec.workspace.setup) * world.settings.setup_timeout


# --- How --------------------------------------------------------------------------------------------------------------


async def start(world: World, order: Deployment) -> Deployed | str:
    """Start an agent that may go on to other tasks later; otherwise as ``deploy``.

    Raises:
        KapelleError: as ``deploy``.
    """
    if not goes_on(order.run, order.task, order.attempt, order.driver):
        return await deploy(world, order)
    # Its time limit is the task's, not the program's.
    deployed = await deploy(world, replace(order, bounded=False))
    if isinstance(deployed, Deployed):
        try:
            await world.host.bound(deployed.process, deployed.folder, order.task.spec.timeout)
        except HostFailed:
            await world.host.end(deployed.process, deployed.folder, grace=timedelta(0))
            raise
        # Only what it starts while it works carries this. Should it hear nothing any more, its first prompt says so.
        await world.host.write(deployed.process, order.driver.codec().assign(marked({}, order.attempt.attempt_id)))
    return deployed


def marked(env: dict[str, str], attempt_id: AttemptId) -> dict[str, str]:
    """Return *env* with what tells that a process was started by the agent of an attempt, and not with it."""
    return {**env, "KAPELLE_ATTEMPT": attempt_id}


async def renew(world: World, renewal: Renewal) -> Finding:
    """Make an agent as new; what is found makes a spare of it, where nothing speaks against that by then.

    Raises:
        KapelleError: its workspace cannot be made as new.
    """
    begun, order = world.clock.now(), renewal.order
    found = await _fresh(world, renewal)
    attempt_id = AttemptId(world.new_id("a"))

    def write(tx: Tx) -> None:
        agent, run = tx.agents.get(order.agent.agent_id), tx.runs.get(order.run.run_id)
        task = tx.tasks.get(order.task.task_id)
        if agent is None or run is None or task is None or agent.term != tx.term:
            return
        if isinstance(found, str):
            tx.log(worn(agent, found))
            return
        fresh = found
        if fresh.problem:
            tx.log(worn(agent, fresh.problem))
        ready = fresh.begun is not None and agent.state is AgentState.ACTIVE
        if ready and may_rest(tx, agent, task, order.attempt, run):
            _to_spare(tx, order, agent, replace(fresh, attempt_id=attempt_id, looked_at=begun))
        elif (row := tx.agents.workspace(order.workspace.workspace_id)) is not None:
            # Nothing of its task is there any more, and whoever clears it away keeps nothing.
            tx.agents.put_workspace(replace(row, base=fresh.base))

    return write


def _to_spare(tx: Tx, order: Deployment, agent: Agent, fresh: _Fresh) -> None:
    """Let *agent* be a spare of its run: its program, its workspace and its home are the spare's from now on."""
    run, row, make = order.run, order.workspace, make_of(order.run.spec, order.attempt.config)
    if make is None or agent.process is None or fresh.begun is None:
        return
    tx.agents.put(agents.move(agent, AgentState.STOPPED, tx.now))
    tx.agents.drop_workspace(row.workspace_id)
    tx.spares.put(
        Spare(
            agent_id=agent.agent_id,
            attempt_id=fresh.attempt_id,
            workspace_id=row.workspace_id,
            conversation_id=fresh.begun.conversation_id,
            make=make,
            fit=fit_of(make),
            term=tx.term,
            host=agent.host,
            state=SpareState.READY,
            path=row.path,
            base=fresh.base,
            first_port=row.first_port,
            folder=agent.folder,
            process=agent.process,
            created_at=tx.now,
            ready_at=tx.now,
            looked_at=fresh.looked_at,
            merged=order.integration.tip if order.integration is not None else "",
            run_id=run.run_id,
            home=home_of(order.attempt),
            offset=fresh.begun.offset,
            bounded=math.ceil(order.task.spec.timeout.total_seconds()),
            token=agent.token,
        )
    )
    tx.log(AgentCleared(run_id=run.run_id, task_id=agent.task_id, agent_id=agent.agent_id, config=agent.config))


async def _fresh(world: World, renewal: Renewal) -> _Fresh | str:
    """Make an agent as new; when nothing was changed, since it cannot be, return why, in words."""
    order = renewal.order
    row, attempt = order.workspace, order.attempt
    if row.repository is None:
        return "it has no workspace of a repository"
    if await world.host.at_work_for(world.mark, attempt.attempt_id):
        # It ends with its agent, and with nobody else's task.
        return "something that it started is at work still"
    limit = await met_so_far(world, box_of(order, world.folders.home(home_of(attempt))))
    if limit is not None:
        # It is counted for as long as the program lives: at its end it is told of this task, and of no other.
        return limit.reason
    ref = f"refs/kapelle/{world.store.store_id}/kept/{order.task.task_id}/{attempt.number}"
    commit = await world.workspaces.snapshot(row.path, row.repository, ref, NOTHING)
    if commit is not None:
        merged = renewal.tree or await world.repositories.tree(row.repository, row.base or "HEAD")
        if await world.repositories.tree(row.repository, commit) != merged:
            # It is kept by whoever clears the workspace away.
            return "something in its workspace was not merged"
        await world.repositories.delete_ref(row.repository, ref)
    base = await base_of(world, order)
    if base is None:
        return "it has no branch to begin at"
    await world.workspaces.put(row.path, row.repository, base, bare=True)
    # What its checks kept for themselves was theirs, and made by what it wrote.
    await world.workspaces.remove(world.folders.checks(row.workspace_id), None)
    problem = await set_up(world, order.run, order.task, row)
    if order.agent.process is None or problem is not None:
        return _Fresh(base=base, problem=problem or "it has no program")
    begun = Begun(conversation_id=attempt.conversation_id, offset=order.agent.offset)
    anew = await begin_anew(world, order.driver, order.agent.process, order.agent.folder, begun)
    if anew is None:
        return _Fresh(base=base, problem=DEAF)
    # Until it has another task it has no limit: how long it waits is bounded by whoever leads.
    await world.host.stop_clock(order.agent.folder)
    return _Fresh(base=base, begun=anew)


async def begin_anew(world: World, driver: Driver, process: ProcessRef, folder: str, begun: Begun) -> Begun | None:
    """Let a program that has nothing to do begin a new conversation, from where *begun* is; None when it has ended instead.

    It waits as long as it takes: whoever calls knows how long that may be.
    """
    codec, offset, conversation_id, taken = driver.codec(), begun.offset, "", False
    prompt_id = PromptId(world.chance.uuid())
    if not await world.host.write(process, codec.clear(prompt_id)):
        return None
    while True:
        spool = await world.host.look(process, folder, offset)
        offset += len(spool.data)
        for event in codec.feed(spool.data) if spool.data else ():
            match event:
                case ConversationStarted(conversation_id=found):
                    conversation_id = found
                case PromptTaken(prompt_id=read):
                    taken = taken or read == prompt_id
                case TurnEnded(trouble=trouble) if taken:
                    known = bool(conversation_id) and trouble is None
                    return Begun(conversation_id=conversation_id, offset=offset) if known else None
                case _:
                    pass
        if spool.ended is not None:
            return None
        if not spool.data:
            await world.host.wait(process, folder, offset)
