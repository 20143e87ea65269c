"""Spares, one at a time: started, brought up to date, given to a task, ended. Each of these may be done again."""

from datetime import datetime

from kapelle.core.agent import Agent, AgentState
from kapelle.core.attempt import Attempt, home_of
from kapelle.core.errors import HostFailed, KapelleError
from kapelle.core.events import WorkspacePrepared
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import RunId, TaskId
from kapelle.core.merge import Integration, undelivered
from kapelle.core.pool import Spare
from kapelle.core.pool_events import SpareGiven
from kapelle.core.run import Run
from kapelle.core.store import Tx, WorkspaceRow
from kapelle.core.task import Task, TaskSpec
from kapelle.engine import reuse
from kapelle.engine.boxing import cleared
from kapelle.engine.deploy import Deployed, Deployment, base_of, box_of, deploy, environment, set_up, set_up_log
from kapelle.engine.reuse import Begun
from kapelle.engine.secrets import revoke, take_back
from kapelle.engine.tickets import model_access, ticket_of
from kapelle.engine.warden import watched
from kapelle.engine.world import World

POOL = RunId("pool")
"""In the place of a run, for what has none yet."""
NOBODY = TaskId("")
"""In the place of a task."""
NO_TASK = "spare"
"""What its program is told that its task is called, until it has one."""


@frozen
class Renewed:
    """A spare's workspace stands where it should."""

    base: str | None


def workspace_of(spare: Spare) -> WorkspaceRow:
    """Return the workspace of *spare*, as its own."""
    return WorkspaceRow(
        workspace_id=spare.workspace_id,
        run_id=POOL,
        task_id=None,
        path=spare.path,
        repository=spare.make.repository,
        base=spare.base,
        first_port=spare.first_port,
        ready=spare.base is not None,
    )


def deployment_of(world: World, spare: Spare, base_url: str, integration: Integration | None = None) -> Deployment:
    """Return how *spare* is started: as the agent of a task would be that says nothing."""
    now = spare.created_at
    run = Run(run_id=POOL, spec=spare.make, submitted_at=now)
    task = Task(task_id=NOBODY, run_id=POOL, spec=TaskSpec(name=NO_TASK), rank=0.0, submitted_at=now)
    attempt = Attempt(
        attempt_id=spare.attempt_id,
        task_id=task.task_id,
        run_id=POOL,
        number=1,
        term=spare.term,
        config=spare.config.name,
        conversation_id=spare.conversation_id,
        home=spare.home,
        started_at=now,
    )
    agent, workspace = _agent(spare, now), workspace_of(spare)
    driver = world.driver(spare.config.program)
    capabilities = driver.capabilities
    return Deployment(
        agent=agent,
        task=task,
        attempt=attempt,
        run=run,
        driver=driver,
        workspace=workspace,
        ticket=ticket_of(agent, task, attempt, run, workspace),
        access=model_access(agent, run, base_url) if capabilities.uses_gateway else None,
        watched=watched(world, agent, run, attempt, workspace) if capabilities.asks else None,
        integration=integration,
        bounded=False,
    )


def _agent(spare: Spare, now: datetime) -> Agent:
    return Agent(
        agent_id=spare.agent_id,
        run_id=POOL,
        task_id=NOBODY,
        attempt_id=spare.attempt_id,
        term=spare.term,
        config=spare.config.name,
        host=spare.host,
        state=AgentState.IDLE,
        folder=spare.folder,
        process=spare.process,
        deadline_at=now,
        created_at=now,
        token=spare.token,
    )


async def start(world: World, order: Deployment) -> Deployed | str:
    """Start a spare; return why not, in words, when a set-up command failed.

    Raises:
        KapelleError: its workspace cannot be made or its program cannot be started.
    """
    if order.watched is not None:
        world.warden.admit(order.agent.agent_id, order.watched.access)
    return await deploy(world, order)


async def prime(world: World, order: Deployment, started: Deployed) -> Begun | None:
    """Let the program of a spare begin a conversation anew; None when it did not within ``reuse.PATIENCE``.

    Whatever it does once, before the first thing that it reads, it has done then: its task begins sooner.
    """
    begun = Begun(conversation_id=order.attempt.conversation_id, offset=0)
    if not order.driver.capabilities.clears:
        return begun
    return await reuse.begin_anew(world, order.driver, started.process, started.folder, begun)


async def renew(world: World, order: Deployment) -> Renewed | str:
    """Let the workspace stand at the newest base; return what failed, in words, when a set-up command did.

    Raises:
        KapelleError: it cannot be moved.
    """
    base = await base_of(world, order)
    row = order.workspace
    if base is None or base == row.base or row.repository is None:
        return Renewed(base=row.base)
    await world.workspaces.put(row.path, row.repository, base)
    problem = await set_up(world, order.run, order.task, row)
    return Renewed(base=base) if problem is None else problem


async def take_on(world: World, order: Deployment) -> Deployed | str:
    """Let the agent of *order*, which was a spare, take on its task; one that cannot is ended, and another started for it.

    It cannot when it has ended meanwhile, or when an earlier leader had started it: its input ended with that.

    Raises:
        KapelleError: as ``deploy``.
    """
    agent = order.agent
    if agent.process is None:
        return await reuse.start(world, order)
    try:
        row = order.workspace
        moved = Renewed(base=row.base) if row.ready else await renew(world, order)
    except KapelleError:
        await _discard(world, order)
        raise
    if isinstance(moved, str):
        await _discard(world, order)
        return moved
    env = reuse.marked(dict(environment(world, order.run, order.task, order.workspace)), order.attempt.attempt_id)
    try:
        # In this order: the limit is told anew, whatever was left of the one before.
        await world.host.start_clock(agent.folder)
        await world.host.bound(agent.process, agent.folder, order.task.spec.timeout)
        listens = await world.host.write(agent.process, order.driver.codec().assign(env))
    except HostFailed:
        listens = False
    if listens:
        await _forget_set_up(world, order)
        return Deployed(process=agent.process, base=moved.base, folder=agent.folder)
    await _discard(world, order)
    # A folder of its own: what the other has written, or one that an earlier leader had started, is not read as this one's.
    fresh = replace(agent, process=None, folder=f"{agent.folder}-{world.term}")
    workspace = replace(row, base=moved.base, ready=True)
    # And a conversation of its own: the other had begun its one, and no program begins one that there is already.
    attempt = replace(order.attempt, conversation_id=world.chance.uuid())
    started = await reuse.start(world, replace(order, agent=fresh, attempt=attempt, workspace=workspace))
    return started if isinstance(started, str) else replace(started, conversation_id=attempt.conversation_id)


async def _discard(world: World, order: Deployment) -> None:
    """End a spare that its task cannot use; its workspace is the task's by now."""
    agent = order.agent
    if agent.process is not None:
        await world.host.end(agent.process, agent.folder, grace=world.settings.goodbye)
    await cleared(world, box_of(order, world.folders.home(home_of(order.attempt))))
    revoke(world, agent.agent_id)


async def end(world: World, order: Deployment) -> None:
    """End a spare and remove all that was made for it: nobody has worked there.

    Raises:
        KapelleError: something of it cannot be removed.
    """
    agent, row, folders = order.agent, order.workspace, world.folders
    if agent.process is not None:
        if goodbye := order.driver.codec().goodbye():
            await world.host.write(agent.process, goodbye)
        await world.host.end(agent.process, agent.folder, grace=world.settings.goodbye)
    world.warden.dismiss(agent.agent_id)
    home = folders.home(home_of(order.attempt))
    await cleared(world, box_of(order, home))
    await take_back(world, order.run.spec.configs[0], agent)
    await world.workspaces.remove(row.path, row.repository)
    for litter in (home, agent.folder, folders.setup(row.workspace_id), folders.checks(row.workspace_id)):
        await world.workspaces.remove(litter, None)
    await _forget_set_up(world, order)
    world.secrets.forget(order.attempt.attempt_id)


async def _forget_set_up(world: World, order: Deployment) -> None:
    """Remove what set-up commands said in the workspace of a spare: they ran for nobody's task, and nobody looks for it."""
    for index, _ in enumerate(order.run.spec.workspace.setup):
        log = set_up_log(world, POOL, NOBODY, order.workspace.workspace_id, index)
        await world.workspaces.remove(log, None)


def merged(tx: Tx, spare: Spare, line: str = "") -> Integration | None:
    """Return how far the target of *spare* has come, on *line*."""
    repository, target = spare.make.repository, spare.make.target
    return tx.changes.integration(repository, target, line) if repository is not None and target is not None else None


def behind(tx: Tx, spare: Spare, line: str = "") -> bool:
    """Say whether something was merged onto *line* since the workspace of *spare* was looked at."""
    integration = merged(tx, spare, line)
    if integration is None:
        return False
    if line:
        return undelivered(integration) is not None and spare.base != integration.tip
    # Not by its base: others may have moved the target further than what was merged.
    return integration.tip != spare.merged


def give(tx: Tx, spare: Spare, run: Run, task: Task) -> None:
    """Make the workspace of *spare* that of *task*, and forget the spare; its agent is for whoever calls to put."""
    tx.spares.drop(spare.agent_id)
    fresh = spare.base == run.spec.base or (spare.looked_at is not None and spare.looked_at >= run.submitted_at)
    # What a person has committed before the run was submitted is in it; what came later is brought in when it is merged.
    row = replace(workspace_of(spare), run_id=run.run_id, task_id=task.task_id, ready=fresh and not behind(tx, spare, run.line))
    tx.agents.put_workspace(row)
    run_id, task_id = run.run_id, task.task_id
    if row.ready:
        tx.log(WorkspacePrepared(run_id=run_id, task_id=task_id, path=row.path, base=row.base or ""))
    tx.log(SpareGiven(run_id=run_id, task_id=task_id, agent_id=spare.agent_id, config=spare.config.name))
