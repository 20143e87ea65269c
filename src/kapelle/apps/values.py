"""What stands in the files of a user, value by value: durations, sizes, counts, names, and the model that all others are."""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from kapelle.core.counts import HOW as HOW_COUNTS
from kapelle.core.counts import PATTERN as PATTERN_OF_COUNT
from kapelle.core.counts import parse_count
from kapelle.core.durations import PATTERN, parse_duration
from kapelle.core.names import branch_problem, copy_problem, name_problem
from kapelle.core.sizes import HOW as HOW_SIZES
from kapelle.core.sizes import PATTERN as PATTERN_OF_SIZE
from kapelle.core.sizes import format_size, parse_size


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError(f"{value!r} is no duration; write it with its unit, for example 30s, 10m or 1h30m")


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(lambda value: f"{value.total_seconds():g}s"),
    WithJsonSchema({"type": "string", "pattern": PATTERN, "examples": ["30s", "10m", "1h30m"]}),
]


def _size(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        return parse_size(value)
    raise ValueError(f"{value!r} is no size; {HOW_SIZES}")


def _enough(value: int) -> int:
    if 0 < value < LEAST:
        raise ValueError(f"{format_size(value)} is too little for any process; write {format_size(LEAST)} or more")
    return value


NO_TIME = timedelta(0)
LEAST = 1_000_000
"""Bytes of memory, and of disk, below which nothing starts."""
Size = Annotated[
    int,
    BeforeValidator(_size),
    Field(gt=0),
    AfterValidator(_enough),
    PlainSerializer(format_size),
    WithJsonSchema({"type": "string", "pattern": PATTERN_OF_SIZE, "examples": ["500MB", "2GB"]}),
]


def listed(value: object) -> object:
    """Return *value*, or a list of it: one name may stand for a list of one."""
    return [value] if isinstance(value, str) else value


def _count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        return parse_count(value)
    raise ValueError(f"{value!r} is no number; {HOW_COUNTS}")


Count = Annotated[
    int,
    BeforeValidator(_count),
    Field(gt=0),
    WithJsonSchema(
        {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": PATTERN_OF_COUNT}], "examples": [500000, "2M"]}
    ),
]
Names = Annotated[list[str], BeforeValidator(listed)]
Positive = Annotated[float, Field(gt=0)]


def once(names: Sequence[str], what: str) -> None:
    """See that no name is there twice.

    Raises:
        ValueError: one is.
    """
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValueError(f"two {what} are called {twice[0]}; give each a name of its own")


def without(problem: str) -> None:
    """See that there is no *problem*.

    Raises:
        ValueError: there is.
    """
    if problem:
        raise ValueError(f"{problem}; write another")


def named(value: str) -> str:
    """Return *value*, which can be the name of something.

    Raises:
        ValueError: it cannot.
    """
    without(name_problem(value))
    return value


def _branch(value: str) -> str:
    without(branch_problem(value))
    return value


def _copied(value: str) -> str:
    without(copy_problem(value))
    return value


def variable(value: str) -> str:
    """Return *value*, which can be the name of an environment variable.

    Raises:
        ValueError: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError(f"{value[:100]!r} is no name of a variable; letters, digits and _")
    return value


Named = Annotated[str, AfterValidator(named)]
Copied = Annotated[str, AfterValidator(_copied)]
Branch = Annotated[str, AfterValidator(_branch)]


def _phases(value: list[str]) -> list[str]:
    once(value, "phases")
    return value


Phases = Annotated[list[Named], AfterValidator(_phases)]


class Model(BaseModel):
    """What is not known is a mistake, not ignored."""

    # What does not fit is not shown by the library that checks: it may be a secret in the wrong place.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, hide_input_in_errors=True)

    @classmethod
    def usual(cls) -> Self:
        """Return what it is when nothing is said of it; as a default it has no checks built as it is loaded."""
        return cls.model_construct()
