"""The deploy act: a workspace, its set-up, and the agent's process, in this order; each step may be repeated."""

from kapelle.core.agent import Agent, ProcessRef
from kapelle.core.attempt import Attempt, home_of
from kapelle.core.conversation import Prompt
from kapelle.core.errors import HostFailed, WorkspaceFailed
from kapelle.core.frozen import frozen, replace
from kapelle.core.gateway import Ticket
from kapelle.core.git import WorkspaceOrder
from kapelle.core.ids import RunId, TaskId, WorkspaceId
from kapelle.core.isolation import Mount, MountKind
from kapelle.core.merge import Integration, undelivered
from kapelle.core.ports import AgentOrder, Codec, Driver, Launch, ModelAccess
from kapelle.core.run import Run
from kapelle.core.store import WorkspaceRow
from kapelle.core.task import Task
from kapelle.core.terminals import ScreenDriver
from kapelle.engine.boxing import Box, boxed, run_boxed, sandbox_of
from kapelle.engine.handing import BY_HAND
from kapelle.engine.rooms import port_names
from kapelle.engine.secrets import hand_over, hiding
from kapelle.engine.warden import Watched
from kapelle.engine.world import World

SCREENS = "Use `sandbox: process` or `sandbox: bubblewrap` for it."


@frozen
class Deployment:
    """Everything about an agent that is to be started, or was."""

    agent: Agent
    task: Task
    attempt: Attempt
    run: Run
    driver: Driver
    workspace: WorkspaceRow
    ticket: Ticket
    access: ModelAccess | None
    watched: Watched | None = None
    """Where its program asks, for programs that do."""
    resume: bool = False
    first_prompt: Prompt | None = None
    hand_over: bool = False
    """Its conversation is a fresh one in the place of another, and is told what that had done."""
    integration: Integration | None = None
    raised_usd: float = 0.0
    """By how much a person has raised the task's own budget of money."""
    bounded: bool = True
    """Whether its time limit holds from its start on: one without a task has none yet."""


@frozen
class Deployed:
    """An agent that was started."""

    process: ProcessRef
    base: str | None
    changed: tuple[str, ...] = ()
    """The files that were changed already, for a conversation that takes over."""
    folder: str = ""
    """Where its spool is."""
    conversation_id: str = ""
    """Its conversation, where that is not the one that was asked for."""


async def deploy(world: World, order: Deployment) -> Deployed | str:
    """Start the agent of *order*; return why not, in words, when a set-up command failed.

    Raises:
        KapelleError: the workspace cannot be made or the program cannot be started.
    """
    base = order.workspace.base
    if not order.workspace.ready:
        base = await base_of(world, order)
        if order.workspace.owned:
            await world.workspaces.prepare(
                WorkspaceOrder(
                    workspace_id=order.workspace.workspace_id,
                    path=order.workspace.path,
                    repository=order.workspace.repository,
                    base=base,
                    copy=order.run.spec.workspace.copy if order.workspace.repository is not None else (),
                )
            )
        problem = await set_up(world, order.run, order.task, order.workspace)
        if problem is not None:
            return problem
    changed = await _changed(world, order)
    home = world.folders.home(home_of(order.attempt))
    config = order.run.spec.config(order.attempt.config)
    apart = sandbox_of(world, config.sandbox).capabilities.files
    outfit = await hand_over(world, config, order.attempt.attempt_id, order.agent.agent_id, boxed=apart)
    launch = launch_of(
        order,
        AgentOrder(
            agent_id=order.agent.agent_id,
            config=config,
            cwd=order.workspace.path,
            folder=order.agent.folder,
            home=home,
            conversation_id=order.attempt.conversation_id,
            resume=order.resume,
            first_prompt=order.first_prompt,
            result_schema=order.task.spec.result_schema,
            # The gateway counts more finely than the program itself; this is for when it is bypassed.
            budget_usd=_own_budget(order),
            timeout=order.task.spec.timeout if order.bounded else None,
            model=order.access,
            warden=order.watched.access if order.watched is not None else None,
            env=(*environment(world, order.run, order.task, order.workspace), *outfit.env),
            memory=outfit.memory,
            mcp_config=outfit.mcp_config,
        ),
    )
    box = box_of(order, home)
    wrapped = await boxed(world, replace(box, mounts=(*box.mounts, *outfit.mounts)), launch)
    if wrapped.screen is not None:
        # Outside of the sandbox: whoever attaches to a terminal does what its server says.
        if not sandbox_of(world, config.sandbox).capabilities.screens:
            raise HostFailed(
                f"a program with a screen of its own cannot be started in the sandbox {config.sandbox}", remedy=SCREENS
            )
        wrapped = world.terminal.hosted(wrapped, order.agent.folder)
    process = await world.host.start(replace(wrapped, hide=outfit.hide), order.agent.folder)
    return Deployed(process=process, base=base, changed=changed, folder=order.agent.folder)


def launch_of(order: Deployment, asked: AgentOrder) -> Launch:
    """Return how the agent's program is started: as its driver does it, or with its own screen, for a person."""
    if not order.agent.by_hand:
        return order.driver.launch(asked)
    if not isinstance(order.driver, ScreenDriver):
        raise HostFailed(f"the program of {order.attempt.config} has no screen that a person could take over")
    return replace(order.driver.screen(asked, by_hand=True), limit=BY_HAND)


def codec_of(order: Deployment) -> Codec:
    """Return the codec of what the agent's program says."""
    if order.agent.by_hand and isinstance(order.driver, ScreenDriver):
        return order.driver.screen_codec()
    return order.driver.codec()


def _own_budget(order: Deployment) -> float | None:
    """Return what the program itself may spend, where no gateway counts its calls."""
    usd = order.task.spec.budget.usd
    if usd is None or order.access is None or order.access.base_url is not None:
        return None
    return usd + order.raised_usd


def box_of(order: Deployment, home: str) -> Box:
    """Return the box that the agent of *order* works in."""
    config = order.run.spec.config(order.attempt.config)
    return Box(
        sandbox=config.sandbox,
        isolation=config.isolation,
        workspace=order.workspace,
        key=order.agent.agent_id,
        folder=order.agent.folder,
        home=home,
        run_id=order.run.run_id,
        task_id=order.task.task_id,
        model=order.access.base_url if order.access is not None else None,
        mounts=(Mount(kind=MountKind.READ, path=order.watched.access.folder),) if order.watched is not None else (),
    )


async def _changed(world: World, order: Deployment) -> tuple[str, ...]:
    """Return the files in the workspace that differ from where it began, committed or not."""
    repository, base = order.workspace.repository, order.workspace.base
    if not order.hand_over or repository is None or base is None:
        return ()
    ref = f"refs/kapelle/{world.store.store_id}/looked-at/{order.attempt.attempt_id}"
    found = await hiding(world, order.run.spec.config(order.attempt.config), order.attempt.attempt_id)
    commit = await world.workspaces.snapshot(order.workspace.path, repository, ref, found)
    if commit is None:
        return ()
    try:
        return tuple(await world.repositories.changed(repository, base, commit))
    finally:
        await world.repositories.delete_ref(repository, ref)


async def base_of(world: World, order: Deployment) -> str | None:
    """Return the commit to begin from: all that was merged so far, and all that the target holds."""
    repository, target = order.workspace.repository, order.run.spec.target
    if repository is None or target is None:
        return None
    tip = await world.repositories.resolve(repository, f"refs/heads/{target}")
    if tip is None:
        raise WorkspaceFailed(f"the branch {target} is gone", remedy=f"Make it again: git branch {target} COMMIT")
    merged = undelivered(order.integration)
    if merged is None or await world.repositories.is_ancestor(repository, merged, tip):
        return tip
    return merged


def environment(world: World, run: Run, task: Task | None, workspace: WorkspaceRow) -> tuple[tuple[str, str], ...]:
    """Return what every process in *workspace* is told: where it belongs, and its ports. No secrets."""
    names = [("KAPELLE_STORE", world.mark), ("KAPELLE_RUN", run.run_id)]
    # A path may be shared, and comes again; what is still at work in a workspace is found by the id.
    names += [("KAPELLE_WORKSPACE", workspace.path), ("KAPELLE_WORKSPACE_ID", workspace.workspace_id)]
    if task is not None:
        names.append(("KAPELLE_TASK", task.name))
    return (*names, *port_names(workspace.first_port, run.spec.workspace.ports))


def command_box(run: Run, task: Task | None, workspace: WorkspaceRow, key: str, folder: str) -> Box:
    """Return the box of a set-up command or a check in *workspace*; *task* is None where it is for several."""
    rules = run.spec.workspace
    return Box(
        sandbox=rules.sandbox,
        isolation=rules.isolation,
        workspace=workspace,
        key=key,
        folder=folder,
        home=f"{folder}/home",
        run_id=run.run_id,
        task_id=task.task_id if task is not None else None,
    )


def set_up_log(world: World, run_id: RunId, task_id: TaskId | str, workspace_id: WorkspaceId, index: int) -> str:
    """Return the path of what the set-up command with that *index* says."""
    return world.folders.log(run_id, task_id, f"{workspace_id}-setup-{index}")


async def set_up(world: World, run: Run, task: Task | None, workspace: WorkspaceRow) -> str | None:
    """Run the set-up commands in a new workspace of a repository; return what failed, in words, or None."""
    if workspace.repository is None:
        return None
    folder = world.folders.setup(workspace.workspace_id)
    for index, command in enumerate(run.spec.workspace.setup):
        launch = Launch(
            argv=("sh", "-c", command),
            cwd=workspace.path,
            env=environment(world, run, task, workspace),
            limit=world.settings.setup_timeout,
        )
        output = set_up_log(world, run.run_id, task.task_id if task else "gate", workspace.workspace_id, index)
        box = command_box(run, task, workspace, f"{workspace.workspace_id}-setup", folder)
        result, limit = await run_boxed(world, box, launch, output)
        if result.exit_code != 0:
            how = "ran out of time" if result.timed_out else f"ended with exit code {result.exit_code}"
            why = "" if limit is None else f" ({limit.reason})"
            return f"the set-up command {command!r} {how}{why}:\n{result.tail[-2000:].strip()}"
    return None
