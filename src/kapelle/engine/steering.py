"""Steering: what a person asks of one task, or of one agent at work, written down in the transaction of the submit stage.

Nothing is done to any process here: the execute stage finds in the store what is wanted, and does it, whoever leads by then.
"""

from kapelle.core.agent import Agent, AgentState, thawed
from kapelle.core.attempt import Attempt, PromptRecord, PromptState
from kapelle.core.errors import NotFound, NotPossibleNow
from kapelle.core.event import Event
from kapelle.core.frozen import replace
from kapelle.core.ids import AgentId, TaskId
from kapelle.core.run import Run
from kapelle.core.steering import Freeze, HandBack, Send, Steering, StopAgent, TakeOver, Thaw
from kapelle.core.steering_events import (
    AgentFrozen,
    AgentNotFrozen,
    AgentStopAsked,
    AgentThawed,
    PromptQueued,
    TaskPaused,
    TaskResumed,
)
from kapelle.core.store import Tx
from kapelle.core.task import TERMINAL, Task, TaskState, Wait, how_it_ended
from kapelle.engine.ending import begins_after, run_of, wait
from kapelle.engine.handing import hand_back, take_over
from kapelle.engine.world import World

SPOKEN_TO = frozenset({TaskState.ASSIGNED, TaskState.RUNNING, TaskState.VALIDATING})
"""The states of a task whose agent may be spoken to: later its work is on its way already."""
AGENT = "agent:"
"""How the principal of an agent begins."""
BY_PERSONS: dict[type[Steering], str] = {Send: "speak to an agent", TakeOver: "take a conversation over"}
"""What no agent may ask of another."""
LISTED = "`kapelle agents` lists those that live."
LIFTED = "kapelle resume {} lets it go on"
"""What is told of a paused task."""


def pause_task(tx: Tx, task_id: TaskId, principal: str) -> None:
    """Let a task begin no new attempt and get no new agent; one at work goes on.

    Raises:
        KapelleError: there is no such task, or it has ended.
    """
    task = _open_task(tx, task_id)
    if not task.paused:
        task = replace(task, paused=True)
        tx.tasks.put(task)
        tx.log(TaskPaused(run_id=task.run_id, task_id=task_id, principal=principal))
    if task.state is TaskState.PENDING and begins_after(task) is Wait.PAUSED:
        wait(tx, task, Wait.PAUSED, LIFTED.format(task.name), until=task.due_at)


def resume_task(tx: Tx, task_id: TaskId, principal: str) -> None:
    """Let a paused task go on.

    Raises:
        KapelleError: there is no such task, it has ended, or it is not paused.
    """
    task = _open_task(tx, task_id)
    if not task.paused:
        raise NotPossibleNow(f"task {task.name} is not paused", remedy=f"`kapelle explain {task.name}` says what it waits for.")
    _go_on(tx, task, principal)


def resume_tasks(tx: Tx, run: Run, principal: str) -> None:
    """Let all paused tasks of *run* go on."""
    for task in tx.tasks.of_run(run.run_id):
        if task.paused and task.state not in TERMINAL:
            _go_on(tx, task, principal)


def _go_on(tx: Tx, task: Task, principal: str) -> None:
    going = replace(task, paused=False)
    tx.tasks.put(going)
    tx.log(TaskResumed(run_id=task.run_id, task_id=task.task_id, principal=principal))
    if task.waits_for is Wait.PAUSED:
        wait(tx, going, begins_after(going))


def steer(world: World, tx: Tx, body: Steering, principal: str) -> None:
    """Apply what is asked of an agent.

    Raises:
        KapelleError: there is no such agent, or it cannot be done.
    """
    if principal.startswith(AGENT) and type(body) in BY_PERSONS:
        raise NotPossibleNow(f"only a person can {BY_PERSONS[type(body)]}, and this is {principal}")
    match body:
        case Freeze():
            agent = _live(tx, body.agent_id)
            if agent.process is None or agent.state is not AgentState.ACTIVE:
                raise NotPossibleNow(f"agent {agent.agent_id} cannot be frozen: it is {agent.state.value}", remedy=LISTED)
            if not agent.frozen_by:
                tx.agents.put(replace(agent, frozen_by=principal))
        case Thaw():
            agent = _live(tx, body.agent_id)
            if not agent.frozen_by:
                raise NotPossibleNow(f"agent {agent.agent_id} is not frozen", remedy=LISTED)
            tx.agents.put(replace(agent, frozen_by=""))
            tx.log(AgentThawed(run_id=agent.run_id, task_id=agent.task_id, agent_id=agent.agent_id, principal=principal))
        case StopAgent():
            _stop(world, tx, body, principal)
        case Send():
            _send(world, tx, body, principal)
        case TakeOver():
            take_over(world, tx, body, principal)
        case HandBack():
            hand_back(world, tx, body, principal)


def _send(world: World, tx: Tx, body: Send, principal: str) -> None:
    if tx.attempts.prompt(body.prompt_id) is not None:
        return
    agent = _live(tx, body.agent_id)
    task, attempt = tx.tasks.get(agent.task_id), tx.attempts.get(agent.attempt_id)
    if agent.by_hand or (attempt is not None and attempt.held_by):
        raise NotPossibleNow(
            f"a person has taken agent {agent.agent_id} over, and speaks to it already",
            remedy=f"Say it on that screen, or first: kapelle handback {agent.agent_id}",
        )
    if task is None or attempt is None or attempt.ended_at is not None or task.state not in SPOKEN_TO:
        state = "ended" if task is None else task.state.value
        raise NotPossibleNow(
            f"agent {agent.agent_id} has nothing more to do: its task is {state}",
            remedy="What is still to be changed is a task of its own: `kapelle submit`.",
        )
    run = run_of(tx, task)
    if not world.driver(run.spec.config(attempt.config).program).capabilities.conversation:
        raise NotPossibleNow(
            f"{attempt.config} takes no messages: its program has no conversation",
            remedy="What it is to do is in the prompt of its task.",
        )
    if agent.ends_at is not None:
        raise NotPossibleNow(f"agent {agent.agent_id} is being stopped", remedy=f"First: kapelle resume {task.name}")
    prompt = PromptRecord(
        prompt_id=body.prompt_id, attempt_id=attempt.attempt_id, round=attempt.round, text=body.text, sender=principal
    )
    tx.attempts.put_prompt(prompt)
    queued = PromptQueued(
        run_id=task.run_id,
        task_id=task.task_id,
        agent_id=agent.agent_id,
        prompt_id=body.prompt_id,
        principal=principal,
        length=len(body.text),
    )
    tx.log(queued)


def waiting_prompts(tx: Tx, attempt: Attempt) -> bool:
    """Say whether a person has something to say in an attempt's conversation that was not said yet."""
    return any(prompt.state is PromptState.PENDING and prompt.sender for prompt in tx.attempts.prompts(attempt.attempt_id))


def write_frozen(tx: Tx, agent_id: AgentId, reason: str) -> None:
    """Write down that an agent stands still, or the *reason* why it does not."""
    agent = tx.agents.get(agent_id)
    if agent is None or agent.state is AgentState.STOPPED:
        return
    run_id, task_id = agent.run_id, agent.task_id
    if reason:
        tx.agents.put(replace(agent, frozen_by=""))
        tx.log(AgentNotFrozen(run_id=run_id, task_id=task_id, agent_id=agent_id, reason=reason))
        return
    tx.agents.put(replace(agent, frozen_at=tx.now))
    if agent.frozen_by:
        # Otherwise it was thawed meanwhile, and goes on presently.
        tx.log(AgentFrozen(run_id=run_id, task_id=task_id, agent_id=agent_id, principal=agent.frozen_by))


def write_thawed(tx: Tx, agent_id: AgentId, left: Event | None) -> None:
    """Write down that an agent goes on; *left* says why it may not."""
    if left is not None:
        tx.log(left)
    agent = tx.agents.get(agent_id)
    if agent is not None and agent.state is not AgentState.STOPPED and agent.frozen_at is not None:
        tx.agents.put(thawed(agent, tx.now))


def _stop(world: World, tx: Tx, body: StopAgent, principal: str) -> None:
    agent = _live(tx, body.agent_id)
    task = tx.tasks.get(agent.task_id)
    if task is not None and task.state not in TERMINAL:
        pause_task(tx, task.task_id, principal)
    # One that stands still never ends its turn.
    at_once = body.at_once or bool(agent.frozen_by)
    until = tx.now if at_once else tx.now + world.settings.finish
    tx.agents.put(replace(agent, ends_at=until if agent.ends_at is None else min(until, agent.ends_at)))
    run_id, task_id = agent.run_id, agent.task_id
    asked = AgentStopAsked(run_id=run_id, task_id=task_id, agent_id=agent.agent_id, principal=principal, at_once=body.at_once)
    tx.log(asked)


def _live(tx: Tx, agent_id: AgentId) -> Agent:
    agent = tx.agents.get(agent_id)
    if agent is None:
        raise NotFound(f"there is no agent {agent_id}")
    if agent.state is AgentState.STOPPED:
        raise NotPossibleNow(f"agent {agent_id} has ended already", remedy=LISTED)
    return agent


def _open_task(tx: Tx, task_id: TaskId) -> Task:
    task = tx.tasks.get(task_id)
    if task is None:
        raise NotFound(f"there is no task {task_id}")
    if task.state in TERMINAL:
        raise NotPossibleNow(f"task {task.name} has ended already: it {how_it_ended(task.state)}")
    return task
