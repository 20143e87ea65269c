"""Taking over and handing back: a person goes on with a conversation, and the engine goes on where the person left.

    engine --TakeOver--> its agent is ended --> an agent by hand: the program's own screen, in a terminal
       ^                                                                                    |
       +--------------- the person has left, or a HandBack, or it ended ---------------------+

``Attempt.held_by`` says whose the conversation is. As long as it is a person's, the attempt's agent is one *by hand*: in the
same workspace and sandbox, with a token of its own, so that what it spends is counted; nothing prompts it. It is an agent like
any other to hosts, limits and recovery, so a take-over outlives whoever leads. When it ends, for whatever reason, the
conversation is the engine's again.
"""

from datetime import timedelta

from kapelle.core.agent import Agent, AgentState
from kapelle.core.attempt import Attempt, PromptRecord, PromptState
from kapelle.core.errors import NotFound, NotPossibleNow
from kapelle.core.frozen import replace
from kapelle.core.ids import PromptId
from kapelle.core.steering import HandBack, TakeOver
from kapelle.core.steering_events import ConversationHandedBack, ConversationTakenOver
from kapelle.core.store import Tx
from kapelle.core.task import Task, TaskState, Wait
from kapelle.core.wording import handed_back
from kapelle.engine.boxing import sandbox_of
from kapelle.engine.ending import run_of, wait
from kapelle.engine.world import World


def take_over(world: World, tx: Tx, body: TakeOver, principal: str) -> None:
    """Give an agent's conversation to a person.

    Raises:
        KapelleError: there is no such agent, or it cannot be taken over.
    """
    agent = tx.agents.get(body.agent_id)
    if agent is None:
        raise NotFound(f"there is no agent {body.agent_id}")
    task, attempt = tx.tasks.get(agent.task_id), tx.attempts.get(agent.attempt_id)
    if task is not None and task.state is TaskState.MERGING:
        raise _looked_at(task)
    if agent.state is AgentState.STOPPED or task is None or attempt is None or attempt.ended_at is not None:
        raise NotPossibleNow(f"agent {agent.agent_id} has ended already", remedy="`kapelle agents` lists those that live.")
    if attempt.held_by:
        # Somebody comes back to the screen, or another looks on.
        return
    _may_be_taken(world, tx, agent, task, attempt)
    tx.attempts.put(replace(attempt, held_by=principal))
    # It stands still for nobody any more.
    tx.agents.put(replace(agent, ends_at=tx.now, frozen_by=""))
    run_id, task_id = task.run_id, task.task_id
    tx.log(ConversationTakenOver(run_id=run_id, task_id=task_id, agent_id=agent.agent_id, principal=principal))
    wait(tx, task, Wait.PERSON, f"{principal} has taken it over")


BY_HAND = timedelta(days=1)
"""How long a person may keep a conversation."""
LOOKED_AT = {TaskState.VALIDATING: "its work is checked just now", TaskState.MERGING: "its work is in the merge queue"}
"""What is done meanwhile to work whose agent has ended its turn: a person who changed it then would change what is checked."""
BEGUN = frozenset({PromptState.SENT, PromptState.TAKEN, PromptState.ANSWERED})
"""States of a prompt of which something may be in the conversation already."""


def _looked_at(task: Task) -> NotPossibleNow:
    return NotPossibleNow(
        f"task {task.name} cannot be taken over: {LOOKED_AT[task.state]}",
        remedy=f"Take it over when it comes back to its agent, or cancel it: kapelle logs {task.name} -f tells.",
    )


def _may_be_taken(world: World, tx: Tx, agent: Agent, task: Task, attempt: Attempt) -> None:
    if task.state in LOOKED_AT:
        raise _looked_at(task)
    if not any(prompt.state in BEGUN for prompt in tx.attempts.prompts(attempt.attempt_id)):
        raise NotPossibleNow(
            f"agent {agent.agent_id} has not begun: there is no conversation yet to take over",
            remedy=f"Try again when it has been told what to do: kapelle logs {task.name} -f",
        )
    config = run_of(tx, task).spec.config(attempt.config)
    if not world.driver(config.program).capabilities.screen:
        raise NotPossibleNow(
            f"the program {config.program} has no screen that a person could take over",
            remedy=f"`kapelle attach {agent.agent_id}` shows what it does.",
        )
    if not sandbox_of(world, config.sandbox).capabilities.screens:
        raise NotPossibleNow(
            f"nobody can take over what runs in the sandbox {config.sandbox}",
            remedy="Use `sandbox: process` or `sandbox: bubblewrap` for such agents; `kapelle send` speaks to this one.",
        )
    if missing := world.terminal.missing():
        raise NotPossibleNow(missing)


def hand_back(world: World, tx: Tx, body: HandBack, principal: str) -> None:
    """Take a conversation back from the person that has it.

    Raises:
        KapelleError: nobody has taken it over.
    """
    task = tx.tasks.get(body.task_id)
    attempt = tx.attempts.get(task.attempt_id) if task is not None and task.attempt_id is not None else None
    if task is None or attempt is None or attempt.ended_at is not None or not attempt.held_by:
        raise NotPossibleNow("nobody has taken it over", remedy="`kapelle agents` shows what is taken over.")
    live = [agent for agent in tx.agents.live() if agent.attempt_id == attempt.attempt_id]
    for agent in live:
        tx.agents.put(replace(agent, ends_at=tx.now))
    if not any(agent.by_hand for agent in live):
        # The person never came to it.
        give_back(world, tx, task, attempt, principal)


def give_back(world: World, tx: Tx, task: Task, attempt: Attempt, principal: str = "", reason: str = "") -> None:
    """Let the engine go on with an attempt's conversation, which is told that a person was there.

    *reason* says why the person could not be, if that is so.
    """
    who = principal or attempt.held_by
    tx.attempts.put(replace(attempt, held_by=""))
    prompt = PromptRecord(
        prompt_id=PromptId(world.chance.uuid()),
        attempt_id=attempt.attempt_id,
        round=attempt.round,
        text=handed_back(),
    )
    tx.attempts.put_prompt(prompt)
    tx.log(ConversationHandedBack(run_id=task.run_id, task_id=task.task_id, principal=who, reason=reason))
    wait(tx, task, None)
