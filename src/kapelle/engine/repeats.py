"""Repeats: the same thing, told of one agent again and again, is told a few times and then counted; nobody fills the log."""

from collections.abc import Iterator

from kapelle.core.frozen import replace
from kapelle.core.rule_events import CommandAllowed, CommandDenied, WardenRefused

FEW = 3
"""Times that one thing is told each by itself; further ones are told together, at the agent's end."""
MANY = 200
"""Different things that are told of one agent; further ones are counted together."""


Counted = CommandAllowed | CommandDenied | WardenRefused
"""Events that can stand for several."""


class Repeats:
    """What has been told of one agent."""

    def __init__(self) -> None:
        self._times: dict[Counted, int] = {}

    def tells(self, event: Counted, together: Counted) -> bool:
        """Count *event*, and say whether it is to be told by itself. *together* stands for all that are too many."""
        if event not in self._times and len(self._times) >= MANY:
            event = together
            self._times.setdefault(event, FEW)
        times = self._times[event] = self._times.get(event, 0) + 1
        return times <= FEW

    def rest(self) -> Iterator[Counted]:
        """Yield what was counted and not told."""
        for event, times in self._times.items():
            if times > FEW:
                yield replace(event, times=times - FEW)
        self._times.clear()
