"""Changes of protected files that wait for a person: what they are, and how to look at, approve and reject them."""

from typing import Any

from kapelle.core.frozen import frozen
from kapelle.core.ids import TaskId
from kapelle.core.merge import Change, ChangeState
from kapelle.core.plain_text import shown_files
from kapelle.core.store import View


@frozen
class Review:
    """A change of protected files that a person must see before it is merged."""

    task_id: TaskId
    name: str
    files: tuple[str, ...]
    """The protected ones among those that it changes."""
    commit: str
    target: str

    @property
    def what(self) -> str:
        """What is to be reviewed, in a sentence."""
        return f"{self.name} waits for your approval: it changes the protected files {shown_files(self.files)}"

    @property
    def commands(self) -> tuple[str, ...]:
        """What can be done, a line each."""
        commit = self.commit[:10]
        return (
            f"look at it: git show {commit}    all of it, when it has several commits: git diff {self.target}...{commit}",
            f"let it through: kapelle approve {self.task_id}",
            f"refuse it: kapelle reject {self.task_id} --reason ...",
        )

    @property
    def text(self) -> str:
        """Everything, in lines."""
        return "\n".join((self.what, *(f"  {line}" for line in self.commands)))


def review_of(change: Change, name: str) -> Review | None:
    """Return the review that *change*, of the task called *name*, waits for, or None."""
    if change.state is not ChangeState.QUEUED or not change.waits_for_a_person:
        return None
    return Review(task_id=change.task_id, name=name, files=change.protected, commit=change.head, target=change.target)


def review_of_task(view: View, task_id: TaskId, name: str) -> Review | None:
    """Return the review that a task waits for, or None."""
    found = (review_of(change, name) for change in view.changes.of_task(task_id))
    return next((review for review in found if review is not None), None)


def review_json(review: Review) -> dict[str, Any]:
    """Return a review as JSON."""
    return {"files": list(review.files), "commit": review.commit, "target": review.target}
