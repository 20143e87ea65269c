"""Which task goes to which agent now: filter, then score, then place.

Pure: the stage reads the due rows, this module plans, and the plan is committed before anything is started.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from fnmatch import fnmatchcase

from kapelle.core.frozen import frozen
from kapelle.core.ids import RunId, TaskId
from kapelle.core.task import Wait


@frozen
class Demand:
    """A task that could run now, if there is room."""

    task_id: TaskId
    run_id: RunId
    rank: float
    config: str
    config_limit: int | None = None
    writes: tuple[str, ...] = ()
    returning: bool = False
    """It has a workspace and a conversation already and only needs its agent back."""
    account: str = ""
    """The account whose model calls it makes; empty where it makes none."""
    slotless: bool = False
    """It takes no room at all (no process)."""


@frozen
class Room:
    """What is live now and how much more may be."""

    host: str
    slots: int
    """Agents that may be live at once on this host."""
    live: int = 0
    live_by_run: Counter[RunId] = field(default_factory=Counter[RunId])
    live_by_config: Counter[str] = field(default_factory=Counter[str])
    run_limits: Mapping[RunId, int] = field(default_factory=dict[RunId, int])
    """Agents that may be live at once for one run, where that is bounded."""
    starts_by_account: Mapping[str, int] = field(default_factory=dict[str, int])
    """Agents that may be started now for one account, where that is bounded."""
    why_by_account: Mapping[str, str] = field(default_factory=dict[str, str])
    """Why it is."""
    writing: tuple[str, ...] = ()
    """Globs of what live agents say they change."""


@frozen
class Placement:
    """A task gets an agent on a host."""

    task_id: TaskId
    host: str


@frozen
class Waiting:
    """A task that could run gets no agent yet."""

    task_id: TaskId
    wait: Wait
    detail: str


def overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    """Say whether two lists of globs are likely to name the same file.

    Exact for globs that differ in their fixed beginnings; a guess otherwise, which is good enough for a preference.
    """
    return any(fnmatchcase(a, b) or fnmatchcase(b, a) or _stem(a) == _stem(b) != "" for a in one for b in other)


def _stem(glob: str) -> str:
    fixed = glob
    for wild in "*?[":
        fixed = fixed.split(wild, 1)[0]
    return fixed if fixed != glob else ""


def place(demands: Iterable[Demand], room: Room) -> tuple[list[Placement], list[Waiting]]:
    """Plan who goes next: a placement or a reason for each of *demands*.

    Those who return come first, since their work is nearly done and holds up the merge queue; then by rank. Of two that
    are otherwise equally near their turn (within a minute), the one that touches nothing a live agent touches goes first.
    """
    by_turn = sorted(demands, key=lambda demand: (not demand.returning, demand.rank, demand.task_id))
    live = room.live
    by_run = Counter(room.live_by_run)
    by_config = Counter(room.live_by_config)
    by_account = Counter[str]()
    writing = list(room.writing)
    placed: list[Placement] = []
    waiting: list[Waiting] = []
    while by_turn:
        demand = _next(by_turn, writing)
        by_turn.remove(demand)
        if demand.slotless:
            placed.append(Placement(task_id=demand.task_id, host=room.host))
            continue
        refusal = _refusal(demand, room, live, by_run, by_config) or _of_account(demand, room, by_account)
        if refusal is not None:
            waiting.append(refusal)
            continue
        live += 1
        by_account[demand.account] += 1
        by_run[demand.run_id] += 1
        by_config[demand.config] += 1
        writing.extend(demand.writes)
        placed.append(Placement(task_id=demand.task_id, host=room.host))
    return placed, waiting


WINDOW = 60.0
"""Seconds of rank within which a task that touches other files may go first."""


def _next(by_turn: Sequence[Demand], writing: Sequence[str]) -> Demand:
    first = by_turn[0]
    if not first.writes or not writing or not overlap(first.writes, writing):
        return first
    for other in by_turn[1:]:
        if other.rank > first.rank + WINDOW:
            break
        if other.returning == first.returning and not overlap(other.writes, writing):
            return other
    return first


def _of_account(demand: Demand, room: Room, started: Counter[str]) -> Waiting | None:
    bound = room.starts_by_account.get(demand.account)
    if bound is None or started[demand.account] < bound:
        return None
    return Waiting(task_id=demand.task_id, wait=Wait.LIMIT, detail=room.why_by_account.get(demand.account, ""))


def _refusal(demand: Demand, room: Room, live: int, by_run: Counter[RunId], by_config: Counter[str]) -> Waiting | None:
    if live >= room.slots:
        detail = f"all {room.slots} slots of {room.host} are taken"
        return Waiting(task_id=demand.task_id, wait=Wait.CAPACITY, detail=detail)
    run_limit = room.run_limits.get(demand.run_id)
    if run_limit is not None and by_run[demand.run_id] >= run_limit:
        detail = f"{run_limit} agents of this run are live, its limit"
        return Waiting(task_id=demand.task_id, wait=Wait.CAPACITY, detail=detail)
    if demand.config_limit is not None and by_config[demand.config] >= demand.config_limit:
        detail = f"{demand.config_limit} agents of the kind {demand.config} are live, its limit"
        return Waiting(task_id=demand.task_id, wait=Wait.CAPACITY, detail=detail)
    return None
