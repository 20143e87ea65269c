"""Liveness: what an agent that looks still is really doing, by evidence of several kinds, and how far it is interfered with.

    evidence --judge--> condition, with what speaks for it --respond--> the next grade, if its time has come

Nothing is broken off on the word of one source: what interrupts an agent, or starts it anew, needs signs from two of them. All
answers but the last can be taken back, and are: an agent that works again begins with a clean slate.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from datetime import datetime, timedelta
from enum import StrEnum

from kapelle.core.durations import format_duration
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import AgentId, AttemptId, RunId, TaskId
from kapelle.core.judging import glob_matches
from kapelle.core.patience import Patience
from kapelle.core.plain_text import shown_files


class Condition(StrEnum):
    """What an agent is doing."""

    WORKING = "working"
    SILENT_TOOL = "silent_tool"
    STALLED_STREAM = "stalled_stream"
    WAITING = "waiting_for_person"
    USAGE_LIMIT = "usage_limit"
    EXPIRED_LOGIN = "expired_login"
    OUT_OF_MEMORY = "out_of_memory"
    BLOCKED = "blocked"
    LOOPING = "looping"
    STRAYING = "straying"
    FROZEN = "frozen"
    DEAD = "dead"


class Source(StrEnum):
    """Where a sign comes from: what one source says, another may contradict."""

    SPOOL = "spool"
    GATEWAY = "gateway"
    PROCESSES = "processes"
    WORKSPACE = "workspace"
    STORE = "store"


class Grade(StrEnum):
    """How far an agent is interfered with, from nothing at all to what cannot be taken back."""

    NONE = "none"
    NOTE = "note"
    PROBE = "probe"
    NUDGE = "nudge"
    INTERRUPT = "interrupt"
    RESTART = "restart"
    GIVE_UP = "give_up"

    @property
    def height(self) -> int:
        """Its place among all of them."""
        return list(Grade).index(self)


BREAKS_OFF = frozenset({Grade.INTERRUPT, Grade.RESTART, Grade.GIVE_UP})
"""Grades that end something that the agent is doing."""
LADDERS: dict[Condition, tuple[Grade, ...]] = {
    Condition.BLOCKED: tuple(Grade)[1:],
    Condition.STALLED_STREAM: (Grade.NOTE, Grade.PROBE, Grade.INTERRUPT, Grade.RESTART, Grade.GIVE_UP),
    # An agent reads nothing while its tool runs.
    Condition.SILENT_TOOL: (Grade.NOTE, Grade.PROBE, Grade.INTERRUPT, Grade.RESTART, Grade.GIVE_UP),
    Condition.LOOPING: (Grade.NOTE, Grade.NUDGE, Grade.INTERRUPT, Grade.RESTART, Grade.GIVE_UP),
    Condition.STRAYING: (Grade.NOTE, Grade.NUDGE),
}
"""The grades that there are for a condition, in order. What others look after (a person, an account) is only noted."""
EXCUSED = frozenset({Condition.FROZEN, Condition.WAITING, Condition.USAGE_LIMIT, Condition.EXPIRED_LOGIN})
"""Conditions in which an agent can do nothing: as long as they last, its silence says nothing of it."""
TOLD_ELSEWHERE = frozenset({*EXCUSED, Condition.OUT_OF_MEMORY})
"""Conditions that have events of their own, with what a person can do; an agent in one of them is not stuck."""
STILL = frozenset({Condition.BLOCKED, Condition.STALLED_STREAM, Condition.SILENT_TOOL})
"""Conditions in which nothing happens: one of them may turn out to be another, and the answers go on from where they were."""


@frozen
class ToolAtWork:
    """A tool that was called and has not returned."""

    tool: str
    about: str = ""
    since: datetime


@frozen
class Repetition:
    """One call that fails again and again."""

    tool: str
    about: str = ""
    times: int = 0
    since: datetime
    """When it failed first."""


@frozen
class Processes:
    """What an agent's processes do."""

    alive: bool = True
    stopped: int = 0
    """How many were stopped by a signal."""
    waiting: int = 0
    """How many wait for a disk or a device, and cannot be ended meanwhile."""
    worked_at: datetime
    """When they last used a processor."""
    measured_at: datetime


@frozen
class Evidence:
    """What was seen of an agent. None stands for what nobody has looked at."""

    begun_at: datetime
    """When its turn began."""
    excused_at: datetime | None = None
    """Until when there was nothing that it could have done: it stood still, or others had to do something first."""
    in_turn: bool = True
    heard_at: datetime
    """When it last said something."""
    tools: tuple[ToolAtWork, ...] = ()
    sees_calls: bool = True
    """Whether its model calls pass the gateway."""
    call_at: datetime | None = None
    """When a model call last began, went on or ended."""
    calls: tuple[datetime, ...] = ()
    """For each model call on its way, when something last came of it."""
    held: bool = False
    """Whether a model call waits at the gateway: there is nothing that the agent could do."""
    processes: Processes | None = None
    changed_at: datetime | None = None
    """When something was last seen to change in its workspace."""
    looked_at: datetime | None = None
    """When its workspace was last looked at."""
    strayed: tuple[str, ...] = ()
    """Files that it has changed outside of what its task says."""
    repetition: Repetition | None = None
    question: str = ""
    """What it waits for a person to answer."""
    limited: str = ""
    """Why its account is at its limit."""
    refused: str = ""
    """Why its account's credentials are refused."""
    out_of_memory: str = ""
    """That it was ended for want of memory, in words."""
    frozen: bool = False
    """Whether a person holds it still."""
    reports_tools: bool = True
    """Whether its program says what it does; otherwise all of it is like one tool."""
    resumable: bool = True
    """Whether its program can go on where it was when it is started anew."""
    hears: bool = True
    """Whether it can be spoken to while it works: not one that an earlier leader started."""

    @property
    def worked_at(self) -> datetime:
        """When there was a sign of work, of whatever kind."""
        worked_at = None if self.processes is None else self.processes.worked_at
        seen = (self.heard_at, self.excused_at, self.call_at, self.changed_at, worked_at)
        return max(self.begun_at, *(moment for moment in seen if moment is not None))


@frozen
class Judgement:
    """What an agent is taken to be doing, and what speaks for it."""

    condition: Condition
    since: datetime
    reasons: tuple[str, ...] = ()
    """What was seen, in words."""
    sources: frozenset[Source] = frozenset()
    """Which sources say so."""
    up_to: Grade = Grade.GIVE_UP
    """The highest grade that what was seen allows."""


@frozen
class Standing:
    """How an agent stands: what it was last taken to be doing, and what was done about it. One for each attempt."""

    attempt_id: AttemptId
    agent_id: AgentId
    run_id: RunId
    task_id: TaskId
    condition: Condition = Condition.WORKING
    since: datetime
    reasons: tuple[str, ...] = ()
    grade: Grade = Grade.NONE
    """The last answer to this condition."""
    answered_at: datetime | None = None
    interrupts: int = 0
    """How often its turn was broken off, in the whole attempt."""
    restarts: int = 0
    """How often its program was started anew, in the whole attempt."""
    warned: bool = False
    """Whether it was told that it strays: once is enough."""
    beat_at: datetime
    """When it was last looked at."""
    worked_at: datetime
    """When there was last a sign of work."""
    doing: str = ""
    """The tool that it uses, in a few words."""


def judge(seen: Evidence, now: datetime, patience: Patience) -> Judgement:
    """Say what an agent is doing by *seen*. What is certain goes before what is likely, and work before everything still."""
    return _given(seen, now) or _repeating(seen, patience) or _still(seen, now, patience) or _lively(seen)


def _given(seen: Evidence, now: datetime) -> Judgement | None:
    """Return what needs no guess."""
    if seen.frozen:
        return Judgement(condition=Condition.FROZEN, since=seen.worked_at, reasons=("a person holds it still",))
    if seen.processes is not None and not seen.processes.alive:
        reason = "its process is gone, and it had not ended its turn"
        return Judgement(
            condition=Condition.DEAD, since=seen.processes.measured_at, reasons=(reason,), sources=frozenset({Source.PROCESSES})
        )
    if seen.out_of_memory:
        return Judgement(condition=Condition.OUT_OF_MEMORY, since=now, reasons=(seen.out_of_memory,))
    for condition, why in (
        (Condition.WAITING, seen.question),
        (Condition.USAGE_LIMIT, seen.limited),
        (Condition.EXPIRED_LOGIN, seen.refused),
    ):
        if why:
            return Judgement(condition=condition, since=seen.worked_at, reasons=(why,), sources=frozenset({Source.STORE}))
    return None


def _repeating(seen: Evidence, patience: Patience) -> Judgement | None:
    again = seen.repetition
    if again is None or again.times < patience.repeats:
        return None
    called = f"{again.tool} {again.about}".strip()
    reasons = [f"the same call failed {again.times} times in a row: {called}"]
    sources = {Source.SPOOL}
    if seen.looked_at is not None and seen.looked_at > again.since:
        if seen.changed_at is not None and seen.changed_at > again.since:
            # It changes something between its tries: that is how work looks that is hard.
            return None
        sources.add(Source.WORKSPACE)
        reasons.append("nothing was changed in its workspace in between")
    if again.times >= patience.break_repeats:
        up_to = Grade.GIVE_UP
    else:
        up_to = Grade.NUDGE if again.times >= patience.nudge_repeats else Grade.NOTE
    return Judgement(
        condition=Condition.LOOPING,
        since=again.since,
        reasons=tuple(reasons),
        sources=frozenset(sources),
        up_to=_possible(seen, up_to),
    )


def _still(seen: Evidence, now: datetime, patience: Patience) -> Judgement | None:
    """Return why nothing happens, when nothing has happened for too long."""
    if not seen.in_turn or seen.held:
        return None
    quiet = now - seen.worked_at
    found = _which(seen, quiet, now, patience)
    if found is None:
        return None
    condition, reasons, sources = found
    reasons = [*reasons, f"it has said nothing for {format_duration(now - seen.heard_at)}"]
    # What follows from what was seen already is no second sign: while its model or a tool is at work, an agent says nothing.
    if condition is not Condition.STALLED_STREAM:
        sources = {*sources, Source.SPOOL}
    if seen.sees_calls and condition is Condition.BLOCKED and not seen.calls:
        since = "" if seen.call_at is None else f" for {format_duration(now - seen.call_at)}"
        reasons.append(f"it has made no model call{since}")
        sources.add(Source.GATEWAY)
    if seen.processes is not None and seen.processes.measured_at > seen.processes.worked_at:
        reasons.append(f"its processes have done nothing for {format_duration(now - seen.processes.worked_at)}")
        sources.add(Source.PROCESSES)
    return Judgement(
        condition=condition,
        since=seen.worked_at,
        reasons=tuple(reasons),
        sources=frozenset(sources),
        up_to=_possible(seen, Grade.GIVE_UP),
    )


def _which(
    seen: Evidence, quiet: timedelta, now: datetime, patience: Patience
) -> tuple[Condition, list[str], set[Source]] | None:
    there = seen.processes
    if there is not None and there.stopped and quiet >= patience.stopped:
        which = "a process of it was" if there.stopped == 1 else f"{there.stopped} processes of it were"
        return Condition.BLOCKED, [f"{which} stopped by a signal"], {Source.PROCESSES}
    if seen.calls:
        longest = now - min(seen.calls)
        if longest < patience.stream or quiet < patience.stream:
            return None
        return Condition.STALLED_STREAM, [f"nothing came of a model call for {format_duration(longest)}"], {Source.GATEWAY}
    if seen.tools or not seen.reports_tools:
        if quiet < patience.tool:
            return None
        return Condition.SILENT_TOOL, list(_at_work(seen, now)), set()
    # Without the gateway nobody knows whether a model is at work, which may take its time.
    if quiet < (patience.silence if seen.sees_calls else max(patience.silence, patience.tool)):
        return None
    waiting = [f"{there.waiting} of its processes wait for a disk or a device"] if there is not None and there.waiting else []
    return Condition.BLOCKED, waiting, set()


def _at_work(seen: Evidence, now: datetime) -> Iterator[str]:
    for tool in seen.tools:
        yield f"{tool.tool} {tool.about}".strip() + f" runs for {format_duration(now - tool.since)}"


def _possible(seen: Evidence, up_to: Grade) -> Grade:
    """Return the highest grade that can do any good: what cannot go on where it was is not started anew."""
    return up_to if seen.resumable else min(up_to, Grade.PROBE, key=lambda grade: grade.height)


def _lively(seen: Evidence) -> Judgement:
    if seen.strayed:
        return Judgement(
            condition=Condition.STRAYING,
            since=seen.changed_at or seen.worked_at,
            reasons=(f"it has changed {shown_files(seen.strayed)}, which its task does not name",),
            sources=frozenset({Source.WORKSPACE}),
        )
    return Judgement(condition=Condition.WORKING, since=seen.worked_at)


def settled(standing: Standing, found: Judgement, now: datetime) -> Standing:
    """Return *standing* after an agent was found to be as *found* says; what was done about it is forgotten when it works."""
    if found.condition is standing.condition:
        return replace(standing, reasons=found.reasons, beat_at=now)
    goes_on = {standing.condition, found.condition} <= STILL
    return replace(
        standing,
        condition=found.condition,
        since=found.since,
        reasons=found.reasons,
        grade=standing.grade if goes_on else Grade.NONE,
        answered_at=standing.answered_at if goes_on else None,
        beat_at=now,
    )


def respond(standing: Standing, found: Judgement, now: datetime, patience: Patience, *, hears: bool = True) -> Grade | None:
    """Return what is to be done now about what was found, or None.

    *hears*: whether the agent can be spoken to. *standing* is as ``settled`` returned it.
    """
    if found.condition is Condition.WORKING:
        return None
    # What others look after is noted, too.
    ladder = LADDERS.get(found.condition, (Grade.NOTE,))
    further = [grade for grade in ladder if grade.height > standing.grade.height]
    if not further:
        return None
    grade = _next(further, standing, patience, hears=hears)
    if grade is Grade.NOTE:
        return grade
    if grade is None or patience.hands_off or grade.height > found.up_to.height or (grade is Grade.NUDGE and standing.warned):
        return None
    if standing.answered_at is not None and now < standing.answered_at + _pause(standing, found, patience):
        return None
    if grade in BREAKS_OFF and len(found.sources) < TWO:
        return None
    return grade


TWO = 2
"""Sources that must agree before anything is broken off."""


def _next(further: list[Grade], standing: Standing, patience: Patience, *, hears: bool) -> Grade | None:
    """Return the next of the grades that is of any use."""
    for grade in further:
        deaf = grade in {Grade.NUDGE, Grade.INTERRUPT} and not hears
        spent = (grade is Grade.INTERRUPT and standing.interrupts >= patience.interrupts) or (
            grade is Grade.RESTART and standing.restarts >= patience.restarts
        )
        if not deaf and not spent:
            return grade
    return None


def _pause(standing: Standing, found: Judgement, patience: Patience) -> timedelta:
    # A probe does no harm; and how often a call has failed says by itself when it is time.
    at_once = standing.grade is Grade.NOTE or found.condition is Condition.LOOPING
    if found.condition is Condition.SILENT_TOOL and standing.grade is not Grade.NOTE:
        return max(patience.between, patience.tool / 2)
    return timedelta(0) if at_once and standing.grade is not Grade.INTERRUPT else patience.between


def answered(standing: Standing, grade: Grade, now: datetime) -> Standing:
    """Return *standing* after *grade* was decided on."""
    return replace(
        standing,
        grade=grade,
        answered_at=now,
        interrupts=standing.interrupts + (grade is Grade.INTERRUPT),
        restarts=standing.restarts + (grade is Grade.RESTART),
        warned=standing.warned or (grade is Grade.NUDGE and standing.condition is Condition.STRAYING),
    )


IN_WORDS: dict[Condition, str] = {
    Condition.WORKING: "works",
    Condition.SILENT_TOOL: "its tool says nothing and does nothing",
    Condition.STALLED_STREAM: "its model says nothing more",
    Condition.WAITING: "waits for a person",
    Condition.USAGE_LIMIT: "its account is at its limit",
    Condition.EXPIRED_LOGIN: "its account is refused",
    Condition.OUT_OF_MEMORY: "had no memory left",
    Condition.BLOCKED: "does nothing",
    Condition.LOOPING: "does the same again and again",
    Condition.STRAYING: "changes what its task does not name",
    Condition.FROZEN: "is held still by a person",
    Condition.DEAD: "is gone",
}
"""What people are told of a condition, after the name of the agent's task."""


@frozen
class Repeats:
    """Counts how often one call fails in a row: by what is called with what, until it succeeds or something was changed."""

    failing: tuple[tuple[tuple[str, str], Repetition], ...] = field(default=())

    def failed(self, tool: str, key: str, about: str, now: datetime) -> "Repeats":
        """Return this after a call failed once more; *key* stands for all that it was called with."""
        known = dict(self.failing)
        before = known.pop((tool, key), None)
        times, since = (before.times + 1, before.since) if before is not None else (1, now)
        known[tool, key] = Repetition(tool=tool, about=about, times=times, since=since)
        return Repeats(failing=tuple(known.items())[-DIFFERENT:])

    def succeeded(self, tool: str, key: str, *, changes: bool) -> "Repeats":
        """Return this after a call did what it should; one that *changes* files makes every other try a new one."""
        if changes:
            return Repeats()
        return Repeats(failing=tuple(entry for entry in self.failing if entry[0] != (tool, key)))

    def moved(self, when: Callable[[datetime], datetime]) -> "Repeats":
        """Return this with each time as *when* has it."""
        moved = tuple((called, replace(found, since=when(found.since))) for called, found in self.failing)
        return Repeats(failing=moved)

    @property
    def worst(self) -> Repetition | None:
        """The call that failed most often."""
        return max((found for _, found in self.failing), key=lambda found: found.times, default=None)


def outside(files: Sequence[str], writes: Sequence[str]) -> tuple[str, ...]:
    """Return those of *files* that none of the globs *writes* names; the name of a directory stands for all that is in it."""
    return tuple(
        name
        for name in files
        if not any(glob_matches(glob, name) or name.startswith(f"{glob.rstrip('/')}/") for glob in writes)
    )


DIFFERENT = 8
"""Different failing calls of which it is known how often: a loop goes round in few."""
