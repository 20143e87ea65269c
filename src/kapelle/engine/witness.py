"""The witness: what the proxy decided, kept until the execute stage writes it down with its next transaction."""

from collections.abc import Callable

from kapelle.core.event import Event
from kapelle.core.isolation_events import NetworkAllowed, NetworkDenied
from kapelle.core.network import Decision


class Witness:
    """Hears every decision; all in the leader's event loop."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._heard: list[Event] = []

    def hear(self, decision: Decision) -> None:
        """Take in what the proxy said to somebody."""
        holder, to = decision.holder, decision.to
        if decision.refusal:
            event: Event = NetworkDenied(
                run_id=holder.run_id,
                task_id=holder.task_id,
                key=holder.key,
                host=to.host,
                port=to.port,
                reason=decision.refusal,
                times=decision.times,
            )
        else:
            event = NetworkAllowed(
                run_id=holder.run_id,
                task_id=holder.task_id,
                key=holder.key,
                host=to.host,
                port=to.port,
                times=decision.times,
            )
        self._heard.append(event)
        self._wake()

    def take(self) -> list[Event]:
        """Return what was heard since the last call."""
        heard, self._heard = self._heard, []
        return heard

    def give_back(self, heard: list[Event]) -> None:
        """Put back what could not be written down."""
        self._heard[:0] = heard
