"""What the end of a question means for the task whose agent asked it; shared by those who settle questions."""

from kapelle.core.question import Question, detail
from kapelle.core.store import Tx
from kapelle.core.task import TaskState, Wait
from kapelle.engine.ending import wait


def no_longer_asks(tx: Tx, question: Question) -> None:
    """Let the task go on that waited for *question*, unless it waits for another one."""
    task = tx.tasks.get(question.task_id)
    if task is None or task.state is not TaskState.RUNNING or task.waits_for is not Wait.APPROVAL:
        return
    rest = [other for other in tx.questions.open() if other.task_id == task.task_id and other != question]
    if not rest:
        wait(tx, task, None)
        return
    wait(tx, task, Wait.APPROVAL, detail(rest[0]))


def still_asks(tx: Tx, question: Question) -> None:
    """Let the task say what it waits for, whatever it said since: it may have gone through its gate and come back."""
    task = tx.tasks.get(question.task_id)
    if task is not None and task.state is TaskState.RUNNING and task.waits_for is None:
        wait(tx, task, Wait.APPROVAL, detail(question))
