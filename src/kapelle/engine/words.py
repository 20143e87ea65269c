"""What a person says to an agent that is gone before it heard it: the next one hears it, or it is told that nobody did."""

from collections.abc import Sequence

from kapelle.core.attempt import Attempt, PromptRecord, PromptState, unsaid
from kapelle.core.frozen import replace
from kapelle.core.ids import PromptId
from kapelle.core.steering_events import PromptCarriedOver, PromptUnheard
from kapelle.core.store import Tx
from kapelle.core.task import Task
from kapelle.engine.world import World


def carry_over(world: World, tx: Tx, task: Task, attempt: Attempt) -> None:
    """Let *attempt* at *task*, which begins, hear what was not heard in the one before; after its own prompt."""
    if task.started_at is None:
        return
    before = [other for other in tx.attempts.of_task(task.task_id) if other.attempt_id != attempt.attempt_id]
    for prompt in _unsaid(tx, before[-1:]):
        tx.attempts.put_prompt(replace(prompt, state=PromptState.DROPPED))
        fresh = PromptId(world.chance.uuid())
        tx.attempts.put_prompt(
            PromptRecord(prompt_id=fresh, attempt_id=attempt.attempt_id, round=0, text=prompt.text, sender=prompt.sender)
        )
        tx.log(
            PromptCarriedOver(
                run_id=task.run_id,
                task_id=task.task_id,
                before=prompt.prompt_id,
                prompt_id=fresh,
                principal=prompt.sender,
                length=len(prompt.text),
            )
        )


def say_unheard(tx: Tx, task: Task) -> None:
    """Say of what a person wanted to say to the agent of *task*, which has ended, that nobody heard it."""
    last = tx.attempts.get(task.attempt_id) if task.attempt_id is not None else None
    waited = tx.attempts.of_task(task.task_id)[-1:] if last is None and task.started_at is not None else ()
    for prompt in _unsaid(tx, waited if last is None else (last,)):
        tx.attempts.put_prompt(replace(prompt, state=PromptState.DROPPED))
        tx.log(
            PromptUnheard(
                run_id=task.run_id,
                task_id=task.task_id,
                prompt_id=prompt.prompt_id,
                principal=prompt.sender,
                length=len(prompt.text),
            )
        )


def _unsaid(tx: Tx, attempts: Sequence[Attempt]) -> list[PromptRecord]:
    # Without a workspace there was no agent to speak to.
    spoken_to = [attempt.attempt_id for attempt in attempts if attempt.workspace_id is not None]
    return [prompt for attempt_id in spoken_to for prompt in tx.attempts.prompts(attempt_id) if unsaid(prompt)]
