"""Events of batches of the merge queue, and of checks that depend on chance."""

from typing import ClassVar

from kapelle.core.event import Event
from kapelle.core.frozen import frozen
from kapelle.core.ids import BatchId, ChangeId


@frozen
class BatchTried(Event):
    """Changes are merged onto the target's tip together, and gated once."""

    kind: ClassVar[str] = "batch.tried"
    batch_id: BatchId
    target: str
    changes: tuple[ChangeId, ...]
    again: bool = False
    """Whether this is the one change that bisection named, tried once more."""


@frozen
class BatchBroke(Event):
    """Several changes together do not pass the gate; bisection will name the one that is to blame."""

    kind: ClassVar[str] = "batch.broke"
    batch_id: BatchId
    target: str
    changes: tuple[ChangeId, ...]
    reason: str
    tree: str = ""


@frozen
class CheckFlaked(Event):
    """A gate that had failed on a tree passed on the very same tree: something in it depends on chance."""

    kind: ClassVar[str] = "check.flaked"
    gate: str
    tree: str
    before: str
    """What had failed."""
