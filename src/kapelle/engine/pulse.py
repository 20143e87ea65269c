"""The pulse: what is heard of each live agent while it works, kept in memory until the liveness stage looks at it.

Whoever hears something says so here: who reads the spools, the gateway (by ``PulseMeter``), who measures processes and looks at
workspaces. All in the leader's event loop, and nothing is written down for it. A new leader begins with what its predecessor
had written down at the last beat, and hears all of the spool again.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kapelle.core.calls import Held, ModelCall, Refusal
from kapelle.core.conversation import ConversationEvent, PromptTaken, ToolCalled, ToolReturned, TurnEnded
from kapelle.core.frozen import replace
from kapelle.core.gateway import Meter
from kapelle.core.git import Glance
from kapelle.core.ids import AgentId
from kapelle.core.kept import kept
from kapelle.core.liveness import Evidence, Processes, Repeats, ToolAtWork
from kapelle.core.patience import WORKS
from kapelle.core.ports import Activity

SUSPICIOUS = 3
"""Times that a call fails in a row after which it is looked whether anything changes in between."""


@dataclass(kw_only=True, slots=True)
class Beat:
    """What was heard of one agent."""

    begun_at: datetime
    heard_at: datetime
    excused_at: datetime | None = None
    tools: dict[str, tuple[ToolAtWork, str]] = field(default_factory=dict[str, tuple[ToolAtWork, str]])
    """Tools at work, by call, each with what stands for all that it was called with."""
    repeats: Repeats = field(default_factory=Repeats)
    call_at: datetime | None = None
    calls: dict[str, datetime] = field(default_factory=dict[str, datetime])
    held: set[str] = field(default_factory=set[str])
    cpu: float | None = None
    processes: Processes | None = None
    mark: str | None = None
    changed_at: datetime | None = None
    looked_at: datetime | None = None
    files: tuple[str, ...] = ()
    wrote: bool = False
    """Whether a tool that may change files has returned since its workspace was last looked at."""
    adopted: bool = False
    """Whether an earlier leader started it: nothing can be said to it."""
    seeded: bool = False
    """Whether what an earlier leader had written down of it was taken in."""

    def shift(self, when: Callable[[datetime], datetime]) -> None:
        """Let everything have happened when *when* says."""
        self.begun_at, self.heard_at = when(self.begun_at), when(self.heard_at)
        self.excused_at = None if self.excused_at is None else when(self.excused_at)
        self.call_at = None if self.call_at is None else when(self.call_at)
        self.changed_at = None if self.changed_at is None else when(self.changed_at)
        self.looked_at = None if self.looked_at is None else when(self.looked_at)
        self.calls = {call_id: when(moment) for call_id, moment in self.calls.items()}
        self.tools = {call_id: (replace(tool, since=when(tool.since)), key) for call_id, (tool, key) in self.tools.items()}
        self.repeats = self.repeats.moved(when)
        if self.processes is not None:
            there = self.processes
            self.processes = replace(there, worked_at=when(there.worked_at), measured_at=when(there.measured_at))


def moved(moment: datetime, by: timedelta, now: datetime, beat: timedelta) -> datetime:
    """Return when it was by the clock of *now*, what was at *moment*, when time was passed over or the clock was set *by*.

    What is less than a *beat* old was heard since then, of the new clock; and nothing will only be.
    """
    return moment if now - beat <= moment <= now else min(moment + by, now)


class Pulse:
    """What was heard of all live agents."""

    def __init__(self, wake: Callable[[], None], now: Callable[[], datetime]) -> None:
        self._wake = wake
        self._now = now
        self._beats: dict[AgentId, Beat] = {}
        self._callers: dict[str, AgentId] = {}
        self._urgent = False

    def take_urgent(self) -> bool:
        """Say whether something was heard since the last call that is not to wait for the next beat."""
        urgent, self._urgent = self._urgent, False
        return urgent

    def of(self, agent_id: AgentId) -> Beat | None:
        """Return what was heard of an agent; None of one that nobody listens to."""
        return self._beats.get(agent_id)

    def shift(self, by: timedelta, now: datetime, beat: timedelta) -> None:
        """Let everything have happened *by* later: nobody looked meanwhile, or the clock was set; see ``moved``."""
        for heard in self._beats.values():
            heard.shift(lambda moment: moved(moment, by, now, beat))

    def excuse(self, agent_id: AgentId) -> None:
        """Take note that until now there was nothing that an agent could have done."""
        beat = self._beats.get(agent_id)
        if beat is not None:
            beat.excused_at = self._now()

    # --- What its spool says ---

    @property
    def listens(self) -> bool:
        """Whether there is any agent that is listened to."""
        return bool(self._beats)

    def open(self, agent_id: AgentId, *, adopted: bool = False) -> None:
        """Begin to listen to an agent; *adopted* is one that an earlier leader started."""
        now = self._now()
        self._beats[agent_id] = Beat(begun_at=now, heard_at=now, adopted=adopted)
        self._urgent = True

    def close(self, agent_id: AgentId) -> None:
        """Forget an agent that has ended."""
        self._beats.pop(agent_id, None)
        self._callers = {call_id: caller for call_id, caller in self._callers.items() if caller != agent_id}

    def prompted(self, agent_id: AgentId) -> None:
        """Take note that an agent is told something: from now on it has something to do."""
        beat = self._beats.get(agent_id)
        if beat is not None:
            beat.begun_at = self._now()

    def heard(self, agent_id: AgentId, said: Iterable[ConversationEvent], writers: frozenset[str] = frozenset()) -> None:
        """Take in what an agent said; *writers* are those of its tools that change files."""
        beat = self._beats.get(agent_id)
        if beat is None:
            return
        now = self._now()
        for event in map(kept, said):
            if isinstance(event, PromptTaken):
                # That it was read shows that its program lives, and not that anything is done.
                continue
            beat.heard_at = now
            match event:
                case ToolCalled(call_id=call_id, tool=tool, about=about, key=key) if call_id:
                    beat.tools[call_id] = (ToolAtWork(tool=tool, about=about, since=now), key)
                case ToolReturned(call_id=call_id, failed=failed) if call_id in beat.tools:
                    self._returned(beat, call_id, now, failed=failed, writers=writers)
                case TurnEnded():
                    beat.tools.clear()
                    beat.repeats = Repeats()
                case _:
                    pass

    def _returned(self, beat: Beat, call_id: str, now: datetime, *, failed: bool, writers: frozenset[str]) -> None:
        tool, key = beat.tools.pop(call_id)
        changes = tool.tool in writers
        beat.wrote = beat.wrote or changes or tool.tool == "Bash"
        if not failed:
            beat.repeats = beat.repeats.succeeded(tool.tool, key, changes=changes)
            return
        beat.repeats = beat.repeats.failed(tool.tool, key, tool.about, now)
        worst = beat.repeats.worst
        if worst is not None and worst.times >= SUSPICIOUS:
            self._urgent = True
            self._wake()

    # --- What the gateway says ---

    def asked(self, call: ModelCall, said: Refusal | Held | None) -> None:
        """Take note that an agent calls its model, and what the meter *said* to that."""
        beat = self._beats.get(call.agent_id)
        if beat is None:
            return
        beat.call_at = now = self._now()
        beat.held.discard(call.call_id)
        if said is None:
            beat.calls[call.call_id] = now
            self._callers[call.call_id] = call.agent_id
        elif isinstance(said, Held):
            beat.held.add(call.call_id)

    def goes_on(self, call_id: str) -> None:
        """Take note that something of the answer to a call has come."""
        beat = self._beats.get(self._callers.get(call_id, AgentId("")))
        if beat is not None and call_id in beat.calls:
            beat.call_at = beat.calls[call_id] = self._now()

    def ended(self, call: ModelCall) -> None:
        """Take note that a call has ended, however it did."""
        self._over(call.call_id, call.agent_id)

    def dropped(self, call_id: str) -> None:
        """Take note that a call that was let through did not go out."""
        self._over(call_id, self._callers.get(call_id, AgentId("")))

    def _over(self, call_id: str, agent_id: AgentId) -> None:
        self._callers.pop(call_id, None)
        beat = self._beats.get(agent_id)
        if beat is not None:
            beat.calls.pop(call_id, None)
            beat.held.discard(call_id)
            beat.call_at = self._now()

    # --- What was looked at ---

    def measured(self, agent_id: AgentId, found: Activity | None) -> None:
        """Take in what an agent's processes do."""
        beat = self._beats.get(agent_id)
        if beat is None:
            return
        now, before = self._now(), beat.processes
        if found is None:
            beat.processes = Processes(alive=False, worked_at=before.worked_at if before else beat.begun_at, measured_at=now)
            return
        worked_at = before.worked_at if before is not None else beat.begun_at
        if before is not None and beat.cpu is not None:
            share = WORKS * max((now - before.measured_at).total_seconds(), 1.0)
            if found.cpu - beat.cpu > share:
                worked_at = now
        beat.cpu = found.cpu
        beat.processes = Processes(stopped=found.stopped, waiting=found.waiting, worked_at=worked_at, measured_at=now)

    def glanced(self, agent_id: AgentId, found: Glance) -> None:
        """Take in what was seen of an agent's workspace."""
        beat = self._beats.get(agent_id)
        if beat is None:
            return
        beat.looked_at = now = self._now()
        if beat.mark is not None and beat.mark != found.mark:
            beat.changed_at = now
        beat.mark, beat.files, beat.wrote = found.mark, found.files, False

    def evidence(self, agent_id: AgentId) -> Evidence | None:
        """Return what was heard of an agent; what the store knows of it is to be added."""
        beat = self._beats.get(agent_id)
        if beat is None:
            return None
        return Evidence(
            begun_at=beat.begun_at,
            heard_at=beat.heard_at,
            excused_at=beat.excused_at,
            tools=tuple(tool for tool, _ in beat.tools.values()),
            call_at=beat.call_at,
            calls=tuple(beat.calls.values()),
            held=bool(beat.held),
            processes=beat.processes,
            changed_at=beat.changed_at,
            looked_at=beat.looked_at,
            repetition=beat.repeats.worst,
        )


class PulseMeter:
    """See ``core.gateway.Meter``: asks and tells *meter*, and lets the pulse hear of it."""

    def __init__(self, meter: Meter, pulse: Pulse) -> None:
        self._meter = meter
        self._pulse = pulse

    def admit(self, call: ModelCall) -> Refusal | Held | None:
        """See ``core.gateway.Meter``."""
        said = self._meter.admit(call)
        self._pulse.asked(call, said)
        return said

    async def room(self) -> None:
        """See ``core.gateway.Meter``."""
        await self._meter.room()

    async def kept(self, call_id: str) -> None:
        """See ``core.gateway.Meter``."""
        await self._meter.kept(call_id)

    def still(self, call_id: str) -> Refusal | None:
        """See ``core.gateway.Meter``."""
        said = self._meter.still(call_id)
        if said is not None:
            self._pulse.dropped(call_id)
        return said

    def heard(self, call_id: str) -> None:
        """See ``core.gateway.Meter``."""
        self._pulse.goes_on(call_id)
        self._meter.heard(call_id)

    def record(self, call: ModelCall) -> None:
        """See ``core.gateway.Meter``."""
        self._pulse.ended(call)
        self._meter.record(call)

    def crowded(self, agent_id: AgentId, reason: str) -> None:
        """See ``core.gateway.Meter``."""
        self._meter.crowded(agent_id, reason)
