"""Acts: what a stage has started in the world and not heard back from yet.

An act is a coroutine with a key; a second act under the same key is not started. What it found out comes back as a
``Finding``: a function that writes it down in the stage's next transaction. So everything durable is written in ``step``, in
batches, and an act that is lost in a crash is simply due again.
"""

from asyncio import Event, Task, TaskGroup
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

from kapelle.core.store import Tx

Finding = Callable[[Tx], None]


class Acts:
    """The acts of one stage, supervised by the leader's task group: an error that an act lets through ends the leader."""

    def __init__(self, group: TaskGroup, wake: Callable[[], None], wake_soon: Callable[[], None]) -> None:
        self._group = group
        self._wake = wake
        self._wake_soon = wake_soon
        self._running: dict[Hashable, Task[bool]] = {}
        self._ended: list[Hashable] = []
        self._findings: list[Finding] = []
        self._urgent = False
        self.pressing = False
        """Whether something else may begin with what was taken last."""
        self._quiet = Event()
        self._quiet.set()

    def start(self, key: Hashable, act: Coroutine[Any, Any, Finding | None]) -> bool:
        """Start *act*, unless one with this key is there; say whether it was started."""
        if key in self._running:
            act.close()
            return False
        self._quiet.clear()
        self._running[key] = self._group.create_task(self._run(act))
        # Not at the end of the task itself: one that is broken off before it began has none.
        self._running[key].add_done_callback(lambda task: self._over(key, act, task))
        return True

    async def _run(self, act: Coroutine[Any, Any, Finding | None]) -> bool:
        finding = await act
        if finding is None:
            return False
        self._findings.append(finding)
        self._urgent = True
        return True

    def _over(self, key: Hashable, act: Coroutine[Any, Any, Finding | None], task: Task[bool]) -> None:
        act.close()
        # The key stays until its finding is taken: a decision that is being made just now does not know of it yet and would
        # start the same act again.
        self._ended.append(key)
        if len(self._ended) == len(self._running):
            self._quiet.set()
        found = not task.cancelled() and task.exception() is None and task.result()
        # What found out nothing may be due again, and that has time.
        (self._wake if found else self._wake_soon)()

    def report(self, finding: Finding, *, urgent: bool = True) -> None:
        """Hand over a finding of an act that goes on; one that is not *urgent* may wait a moment for others."""
        self._findings.append(finding)
        self._urgent = self._urgent or urgent
        (self._wake if urgent else self._wake_soon)()

    def running(self, key: Hashable) -> bool:
        """Say whether an act with this key is running, or has ended and its finding was not taken yet."""
        return key in self._running

    def busy(self, key: Hashable) -> bool:
        """Say whether an act with this key is running just now."""
        return key in self._running and not self._running[key].done()

    def take(self) -> list[Finding]:
        """Return the findings since the last call and forget the acts that have ended."""
        for key in self._ended:
            del self._running[key]
        self._ended = []
        found, self._findings = self._findings, []
        self.pressing, self._urgent = self._urgent, False
        return found

    def give_back(self, findings: list[Finding]) -> None:
        """Put *findings* back whose transaction failed."""
        self._findings[:0] = findings
        self._urgent = self._urgent or self.pressing

    def cancel_all(self, which: Callable[[Hashable], bool] = lambda _: True) -> None:
        """Break off every act, or those whose key is among *which*."""
        for key, task in self._running.items():
            if which(key):
                task.cancel()

    async def settled(self) -> None:
        """Wait until no act is running; tests use it in place of sleeping."""
        await self._quiet.wait()
