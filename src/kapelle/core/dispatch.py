"""Which task goes to which agent now: whose turn is it, does it fit, where does it fit best.

Pure: the stage reads the due rows, this module plans, and the plan is committed before anything is started.

Whose turn it is: those who return come first, since their work is nearly done and holds up the merge queue. Then the task with
the smallest rank names a priority. Of all projects with tasks of that priority, the turn is that of the one with the fewest
live agents, and in it that of such a run; of equals, that of the oldest task. The run uses its turn for its own first task by
rank. So no run gets a second agent while another of the same priority waits for its first one, a run without agents waits for
nobody who came later, and within a run nobody is passed by more than ``NEAR`` of rank: nobody starves.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from fnmatch import fnmatchcase

from kapelle.core.frozen import frozen
from kapelle.core.ids import RunId, TaskId
from kapelle.core.placing import Begun, Choice, Considered, Group, Limits, Of, Refusal, Strategy, Tally
from kapelle.core.task import NEAR, Priority, Wait


@frozen
class Demand:
    """A task that could run now, if there is room."""

    task_id: TaskId
    run_id: RunId
    project: str = ""
    rank: float
    priority: Priority = Priority.NORMAL
    choices: tuple[Choice, ...]
    """The agent configs that it may be given to, the preferred first."""
    strategy: Strategy = Strategy.LEAST_LOADED
    limits: Limits = ()
    """Of its run and its project."""
    writes: tuple[str, ...] = ()
    returning: bool = False
    """It has a workspace and a conversation already and only needs its agent back."""
    at: str | None = None
    """The only host that it can go to, since its workspace is there."""
    slotless: bool = False
    """It takes no room at all (no process)."""
    forced: bool = False
    """A person gave it to its one config, room or no room."""

    @property
    def its_run(self) -> Group:
        """Its run, as what is counted."""
        return Group(Of.RUN, self.run_id)

    @property
    def its_project(self) -> Group:
        """Its project, as what is counted."""
        return Group(Of.PROJECT, self.project)

    @property
    def groups(self) -> tuple[Group, ...]:
        """Where its agent is counted, whatever the config."""
        return (self.its_run, self.its_project)


@frozen
class Room(Begun):
    """What is live now and how much more may be."""

    writing: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Globs of what live agents say they change, by project."""


@frozen
class Placement:
    """A task gets an agent on a host."""

    task_id: TaskId
    host: str
    config: str
    considered: tuple[Considered, ...] = ()
    """What there was to choose from, the best first."""


@frozen
class Waiting:
    """A task that could run gets no agent yet."""

    task_id: TaskId
    wait: Wait
    detail: str
    rule: str = ""
    """Which rule says so, in a word."""


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
    """Plan who goes next: a placement or a reason for each of *demands*."""
    rest = sorted(demands, key=lambda demand: (not demand.returning, demand.rank, demand.task_id))
    tally = Tally(room)
    writing = {project: list(globs) for project, globs in room.writing.items()}
    placed = [_at_once(demand, room) for demand in rest if demand.slotless]
    waiting: list[Waiting] = []
    for demand in rest:
        if demand.forced and not demand.slotless:
            placed.append(_at_once(demand, room))
            tally.take(demand.choices[0], room.hosts[0].name, demand.groups)
    rest = [demand for demand in rest if not demand.slotless and not demand.forced]
    while rest:
        # Room only ever becomes less while a plan is made: who is refused once is refused for good.
        refused = [(demand, refusal_of(demand, tally)) for demand in rest]
        waiting += [_waits(demand, refusal) for demand, refusal in refused if refusal is not None]
        rest = [demand for demand, refusal in refused if refusal is None]
        if not rest:
            break
        demand = next_of(rest, tally, writing)
        rest.remove(demand)
        placed.append(take(demand, tally))
        writing.setdefault(demand.project, []).extend(demand.writes)
    return placed, waiting


def _at_once(demand: Demand, room: Room) -> Placement:
    return Placement(task_id=demand.task_id, host=room.hosts[0].name, config=demand.choices[0].config)


def _waits(demand: Demand, refusal: Refusal) -> Waiting:
    return Waiting(task_id=demand.task_id, wait=refusal.wait, detail=refusal.detail, rule=refusal.rule)


def take(demand: Demand, tally: Tally) -> Placement:
    """Return where *demand*, which fits, goes, and count it."""
    considered = tally.consider(demand.choices, demand.at, demand.strategy)
    best, choice = considered[0]
    tally.take(choice, best.host, demand.groups)
    looked = tuple(each for each, _ in considered)
    return Placement(task_id=demand.task_id, host=best.host, config=best.config, considered=looked)


# --- Does it fit? -----------------------------------------------------------------------------------------------------


def refusal_of(demand: Demand, tally: Tally) -> Refusal | None:
    """Return why *demand* gets no agent now, or None when it could have one."""
    first: Refusal | None = None
    for choice in demand.choices:
        for host in tally.hosts:
            if demand.at is not None and host.name != demand.at:
                continue
            refusal = next(tally.against(choice, host), None)
            if refusal is None:
                return next(tally.in_the_way(demand.limits), None)
            first = first or refusal
    return first or Refusal(wait=Wait.CAPACITY, rule="host", detail=f"its workspace is on {demand.at}, which is not here")


def hindrances(demand: Demand, tally: Tally) -> Iterator[Refusal]:
    """Yield everything that keeps *demand* from an agent now, each once."""
    told: set[str] = set()
    named = [(choice, host) for choice in demand.choices for host in tally.hosts if demand.at in {None, host.name}]
    for refusal in (
        *tally.in_the_way(demand.limits),
        *(refusal for choice, host in named for refusal in tally.against(choice, host)),
    ):
        if refusal.detail not in told:
            told.add(refusal.detail)
            yield refusal


# --- Whose turn is it? ------------------------------------------------------------------------------------------------


def next_of(demands: Sequence[Demand], tally: Tally, writing: Mapping[str, Sequence[str]]) -> Demand:
    """Return whose turn it is; *demands* are in the order of rank, those who return first, and all of them fit."""
    of_project = _turn(demands, lambda demand: demand.its_project, tally)
    of_run = _turn(of_project, lambda demand: demand.its_run, tally)
    first = of_run[0]
    touched = writing.get(first.project, ())
    if not first.writes or not touched or not overlap(first.writes, touched):
        return first
    for other in of_run[1:]:
        if other.rank > first.rank + NEAR:
            break
        if other.returning == first.returning and not overlap(other.writes, touched):
            return other
    return first


def _turn(demands: Sequence[Demand], group: Callable[[Demand], Group], tally: Tally) -> Sequence[Demand]:
    """Return the demands of the group whose turn it is, in their order."""
    first = demands[0]
    rivals = {
        group(demand): None for demand in demands if demand.returning == first.returning and demand.priority is first.priority
    }
    # In the order of their oldest tasks: of equals the first is taken.
    chosen = min(rivals, key=lambda rival: tally.live_by[rival])
    return [demand for demand in demands if group(demand) == chosen]
