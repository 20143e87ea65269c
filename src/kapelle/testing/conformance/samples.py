"""Things to put into a store: any value of a dataclass of the core, and plain ones to begin from."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from itertools import count
from types import EllipsisType, NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kapelle.core.agent import Agent
from kapelle.core.attempt import Attempt
from kapelle.core.calls import ModelCall
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import AgentId, AttemptId, ChangeId, RequestId, RunId, TaskId
from kapelle.core.merge import Change
from kapelle.core.requests import Pause, Request
from kapelle.core.run import Run, RunSpec
from kapelle.core.task import Task, TaskSpec

R = TypeVar("R")

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EXAMPLES = 30
PATIENT = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)

_numbers = count(1)

_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    # Any text but halves of surrogate pairs, which are no text.
    str: st.text(st.characters(exclude_categories=("Cs",)), max_size=30),
    int: st.integers(-(2**31), 2**31 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    NoneType: st.none(),
    datetime: st.datetimes(datetime(1970, 1, 1), datetime(2300, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  # the zone is added
    timedelta: st.timedeltas(timedelta(0), timedelta(days=1000)),
}


@frozen
class StillClock:
    """A clock that stands still."""

    time: datetime = NOON

    def now(self) -> datetime:
        """See ``core.ports.Clock``."""
        return self.time


def _values(hint: Any) -> st.SearchStrategy[Any]:
    bare = getattr(hint, "__supertype__", hint)
    parts = get_args(bare)
    if get_origin(bare) in {Union, UnionType}:
        return st.one_of(*[_values(part) for part in parts])
    if get_origin(bare) is tuple:
        if isinstance(parts[-1], EllipsisType):
            return st.lists(_values(parts[0]), max_size=2).map(tuple)
        return st.tuples(*[_values(part) for part in parts])
    if is_dataclass(bare):
        return anything(cast("type[Any]", bare))
    if isinstance(bare, type) and issubclass(bare, Enum):
        return st.sampled_from(list(bare))
    return _PLAIN[bare]


@cache
def anything(kind: type[R]) -> st.SearchStrategy[R]:
    """Return a strategy for any value of the dataclass *kind*: every field is chosen, none is left at its default."""
    hints = get_type_hints(kind)
    return st.builds(kind, **{field.name: _values(hints[field.name]) for field in fields(cast("Any", kind))})


def for_all(kind: type[R], check: Callable[[R], None], *, examples: int = EXAMPLES) -> None:
    """Call *check* with many values of the dataclass *kind*; one that fails is made as small as it can be."""

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=PATIENT)
    @given(anything(kind))
    def run(thing: R) -> None:
        check(thing)

    run()


def some(kind: type[R], *, examples: int = EXAMPLES) -> list[R]:
    """Return many values of the dataclass *kind*."""
    found: list[R] = []
    for_all(kind, found.append, examples=examples)
    return found


def new_id(prefix: str) -> str:
    """Return an id that was not given before."""
    return f"{prefix}-{next(_numbers):012d}"


def a_run(**changes: Any) -> Run:
    """Return a run that has just been submitted."""
    run = Run(run_id=RunId(new_id("r")), spec=RunSpec(name="some run", tasks=()), submitted_at=NOON, unfinished=1)
    return replace(run, **changes)


def a_task(run: Run, *, name: str = "some task", approval: bool = False, **changes: Any) -> Task:
    """Return a task of *run* that could run now."""
    spec = TaskSpec(name=name, approval=approval)
    task = Task(task_id=TaskId(new_id("t")), run_id=run.run_id, spec=spec, rank=1.0, submitted_at=NOON)
    return replace(task, **changes)


def an_attempt(task: Task, **changes: Any) -> Attempt:
    """Return the first attempt of *task*."""
    attempt = Attempt(
        attempt_id=AttemptId(new_id("a")),
        task_id=task.task_id,
        run_id=task.run_id,
        number=1,
        term=1,
        config="coder",
        conversation_id="c-1",
        started_at=NOON,
    )
    return replace(attempt, **changes)


def an_agent(attempt: Attempt, **changes: Any) -> Agent:
    """Return a live agent that works on *attempt*."""
    agent = Agent(
        agent_id=AgentId(new_id("g")),
        run_id=attempt.run_id,
        task_id=attempt.task_id,
        attempt_id=attempt.attempt_id,
        term=attempt.term,
        config=attempt.config,
        host="local",
        deadline_at=NOON + timedelta(minutes=30),
        created_at=NOON,
    )
    return replace(agent, **changes)


def a_change(attempt: Attempt, **changes: Any) -> Change:
    """Return a queued change of *attempt*."""
    change = Change(
        change_id=ChangeId(new_id("c")),
        run_id=attempt.run_id,
        task_id=attempt.task_id,
        attempt_id=attempt.attempt_id,
        repository="/home/somebody/project",
        target="main",
        base="b" * 40,
        head="c" * 40,
        tree="d" * 40,
        rank=1.0,
        ready_at=NOON,
    )
    return replace(change, **changes)


def a_call(attempt: Attempt, **changes: Any) -> ModelCall:
    """Return a model call of *attempt* that went well."""
    call = some(ModelCall, examples=1)[0]
    return replace(
        call,
        call_id=new_id("m"),
        run_id=attempt.run_id,
        task_id=attempt.task_id,
        attempt_id=attempt.attempt_id,
        **changes,
    )


def a_request(**changes: Any) -> Request:
    """Return a request that nobody has looked at yet."""
    request_id = RequestId(new_id("q"))
    return replace(Request(request_id=request_id, body=Pause(run_id=RunId("r-1")), principal="me", asked_at=NOON), **changes)
