"""What every event of the log has; see events.py."""

from typing import ClassVar

from kapelle.core.frozen import frozen
from kapelle.core.ids import RunId, TaskId


@frozen
class Event:
    """A fact about a run; most are about one of its tasks."""

    kind: ClassVar[str] = ""
    run_id: RunId | None = None
    task_id: TaskId | None = None
