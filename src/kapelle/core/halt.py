"""The off switch: while it is off, no model call passes and no agent works."""

from datetime import datetime

from kapelle.core.frozen import frozen
from kapelle.core.ids import HaltId


@frozen
class Halt:
    """Somebody has halted everything, until somebody lifts that."""

    halt_id: HaltId
    by: str
    """Who."""
    reason: str = ""
    began_at: datetime
    lifted_at: datetime | None = None
    lifted_by: str = ""


def told(halt: Halt) -> str:
    """Say who has halted everything, since when, and how it goes on."""
    why = f" ({halt.reason})" if halt.reason else ""
    return f"halted by {halt.by} since {halt.began_at:%Y-%m-%d %H:%M:%S} UTC{why}: kapelle unhalt"
