"""Halting: the off switch, written down inside a transaction of whoever applies requests."""

from kapelle.core.brake_events import HaltBegun, HaltLifted
from kapelle.core.errors import NotPossibleNow
from kapelle.core.frozen import replace
from kapelle.core.halt import Halt, told
from kapelle.core.ids import HaltId
from kapelle.core.store import Tx


def halt(tx: Tx, halt_id: HaltId, principal: str, reason: str) -> Halt:
    """Halt everything, and return how that is written down.

    Raises:
        NotPossibleNow: it is halted already.
    """
    standing = tx.brakes.halt()
    if standing is not None:
        raise NotPossibleNow(f"everything is halted already: {told(standing)}", remedy="kapelle unhalt")
    begun = Halt(halt_id=halt_id, by=principal, reason=reason, began_at=tx.now)
    tx.brakes.put_halt(begun)
    tx.log(HaltBegun(halt_id=halt_id, principal=principal, reason=reason))
    return begun


def unhalt(tx: Tx, principal: str, reason: str) -> None:
    """Let everything go on.

    Raises:
        NotPossibleNow: nothing is halted.
    """
    standing = tx.brakes.halt()
    if standing is None:
        raise NotPossibleNow("nothing is halted", remedy="`kapelle status` tells what else may hold things up.")
    tx.brakes.put_halt(replace(standing, lifted_at=tx.now, lifted_by=principal))
    tx.log(HaltLifted(halt_id=standing.halt_id, principal=principal, reason=reason))
