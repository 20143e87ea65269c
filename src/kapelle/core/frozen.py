"""Objects that never change: dataclasses that are frozen, slotted, and made by keyword only.

``dataclass`` writes and compiles six methods for each class, which was a third of what it took to load the command line. What
is the same for all of them stands here once: a class still has an ``__init__`` of its own, and refuses to be changed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def frozen(kind: type[T]) -> type[T]:
    """Make a frozen, slotted dataclass of *kind*, whose objects are made by keyword and are equal when all their fields are.

    What it has of its own (``__eq__``, ``__hash__``, ``__repr__``) stays.
    """
    for name, method in (("__eq__", _equal), ("__hash__", _hash), ("__repr__", _shown)):
        if name not in vars(kind):
            setattr(kind, name, method)
    return dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)(kind)


def _equal(self: Any, other: object) -> bool:
    if self is other:
        return True
    kind = self.__class__
    if other.__class__ is not kind:
        return NotImplemented
    values = _values(kind)
    return values(self) == values(other)


def _hash(self: Any) -> int:
    kind = self.__class__
    return hash((kind, _values(kind)(self)))


def _shown(self: Any) -> str:
    shown = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
    return f"{self.__class__.__qualname__}({shown})"


@cache
def _values(kind: type[Any]) -> Callable[[Any], Any]:
    """Return what reads all fields of an object of *kind* at once."""
    names = [each.name for each in fields(kind)]
    return attrgetter(*names) if names else bool
