"""What was in the way of a task: limits that it met, and what was refused to it; the same for every door."""

from collections.abc import Sequence
from typing import Any

from kapelle.core.event import Event
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import AgentId, RunId, TaskId
from kapelle.core.isolation_events import LimitMet, NetworkDenied
from kapelle.core.network import what_was_refused
from kapelle.core.rule_events import CommandDenied, WardenFailed, WardenRefused
from kapelle.core.store import View

LAST = 5
"""Of each kind so many are named."""
ABOUT = 120
"""Characters of what an agent wanted to do."""
KINDS = {
    LimitMet: ("limits met", "limits_met"),
    NetworkDenied: ("refused by the network rules", "network_denied"),
    CommandDenied: ("denied by the command rules", "commands_denied"),
    WardenRefused: ("refused at its warden", "warden_refused"),
    WardenFailed: ("failures of its warden", "warden_failed"),
}
"""How each is called by people, and in JSON."""


@frozen
class Hindrance:
    """One kind of what was in the way."""

    title: str
    name: str
    times: int
    last: tuple[str, ...]
    """The last few different ones, in words, the newest last."""


def hindrances(view: View, run_id: RunId, task_id: TaskId) -> tuple[Hindrance, ...]:
    """Return what was in the way of a task, each kind of it that there was."""
    found: list[Hindrance] = []
    for kind, (title, name) in KINDS.items():
        events = [entry.event for entry in view.events_of_task(run_id, task_id, kind.kind)]
        if events:
            counted = _counted(events)
            last = tuple(_words(event, times) for event, times in list(counted.items())[-LAST:])
            found.append(Hindrance(title=title, name=name, times=sum(counted.values()), last=last))
    return tuple(found)


def hindrances_json(found: tuple[Hindrance, ...]) -> dict[str, Any]:
    """Return *found* as JSON."""
    return {each.name: {"times": each.times, "last": list(each.last)} for each in found}


def _counted(events: Sequence[Event]) -> dict[Event, int]:
    """Return how often each thing happened, whoever of the task's processes it happened to; the last at the end."""
    counted: dict[Event, int] = {}
    for event in events:
        same = _same(event)
        counted[same] = counted.pop(same, 0) + getattr(event, "times", 1)
    return counted


def _same(event: Event) -> Event:
    nobody = AgentId("")
    match event:
        case NetworkDenied():
            return replace(event, key="", times=1)
        case CommandDenied() | WardenRefused():
            return replace(event, agent_id=nobody, times=1)
        case LimitMet() | WardenFailed():
            return replace(event, agent_id=nobody)
        case _:
            return event


def _words(event: Event, times: int) -> str:
    often = f", {times} times" if times > 1 else ""
    match event:
        case NetworkDenied(host=host, port=port, reason=reason):
            return what_was_refused(host, port, reason, times)
        case CommandDenied(tool=tool, what=what, rule=rule, reason=reason):
            why = f" ({reason})" if reason else ""
            return f"{rule}: {': '.join(filter(None, (tool, what[:ABOUT])))}{why}{often}"
        case LimitMet(reason=reason) | WardenRefused(reason=reason) | WardenFailed(reason=reason):
            return f"{reason}{often}"
        case _:
            raise TypeError(event.kind)
