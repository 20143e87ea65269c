"""Objects that never change: dataclasses that are frozen, slotted, and made by keyword only.

``dataclass`` writes and compiles six methods for each class as it is loaded, and that was a quarter of what a short command
took. Here all classes share what is the same for all, and the one method that is not (``__init__``) is written when the first
object is made: most commands make objects of a few classes only.
"""

from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from functools import cache
from operator import attrgetter
from sys import modules
from typing import Any, NoReturn, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def frozen(kind: type[T]) -> type[T]:
    """Make a frozen, slotted dataclass of *kind*, whose objects are made by keyword and are equal when all their fields are.

    What it has of its own (``__eq__``, ``__hash__``, ``__repr__``) stays.

    Raises:
        TypeError: it has an ``__init__`` or a ``__post_init__``: objects that are copied do not go through either.
    """
    for name in ("__init__", "__post_init__"):
        if name in vars(kind):
            raise TypeError(f"{kind.__qualname__} is frozen and has {name}; make its objects in a function instead")
    for name, method in (("__eq__", _equal), ("__hash__", _hash), ("__repr__", _shown)):
        if name not in vars(kind):
            setattr(kind, name, method)
    made = dataclass(init=False, repr=False, eq=False, kw_only=True, slots=True)(kind)
    for name, method in _SAME.items():
        setattr(made, name, method)
    return made


def replace(it: T, /, **changes: Any) -> T:
    """Return a frozen object like *it*, but for *changes*: what ``dataclasses.replace`` does, in a third of the time.

    Raises:
        TypeError: it has no such field.
    """
    kind = it.__class__
    copied, setters = _copying(kind)
    new = copied(it)
    for name, value in changes.items():
        if name not in setters:
            raise TypeError(f"{kind.__qualname__} has no field {name!r}")
        setters[name](new, value)
    return new


class _Unwritten:
    """An ``__init__`` that is written, for the class it is asked of, when it is asked for."""

    def __get__(self, it: object | None, kind: type[Any]) -> Any:
        # Whoever asks may have inherited it, and have an `__init__` of its own.
        owner = next((each for each in kind.__mro__ if vars(each).get("__init__") is self), None)
        if owner is None:
            # Another thread was faster.
            return getattr(kind if it is None else it, "__init__")  # noqa: B009
        owner.__init__ = written = _init(owner)
        return written.__get__(it, kind)


def _init(kind: type[Any]) -> Callable[..., None]:
    """Write the ``__init__`` of *kind*: each field is set by its slot, since the class itself refuses to."""
    known: dict[str, object] = {"_FACTORY": _FACTORY}
    parameters, lines = ["self"], list[str]()
    each: Field[Any]
    for each in fields(kind):
        name, value, default = each.name, each.name, ""
        known[f"_set_{name}"] = getattr(kind, name).__set__
        if each.default_factory is not MISSING:
            known[f"_make_{name}"] = each.default_factory
            value, default = f"_make_{name}() if {name} is _FACTORY else {name}", " = _FACTORY"
        elif each.default is not MISSING:
            known[f"_default_{name}"] = each.default
            default = f" = _default_{name}"
        parameters.append(f"{name}{default}")
        lines.append(f"  _set_{name}(self, {value})")
    if lines:
        parameters.insert(1, "*")
    init = _written(kind, "__init__", ", ".join(parameters), lines or ["  pass"], known)
    init.__annotations__ = {**{each.name: each.type for each in fields(kind)}, "return": None}
    return init


@cache
def _copying(kind: type[Any]) -> tuple[Callable[[Any], Any], dict[str, Callable[[Any, Any], None]]]:
    """Return what copies an object of *kind*, and what sets each field of a copy."""
    setters = {each.name: getattr(kind, each.name).__set__ for each in fields(kind)}
    known: dict[str, object] = {"_new": object.__new__, "_kind": kind, **{f"_set_{name}": by for name, by in setters.items()}}
    lines = ["  new = _new(_kind)", *(f"  _set_{name}(new, it.{name})" for name in setters), "  return new"]
    return _written(kind, "_copied", "it", lines, known), setters


def _written(kind: type[Any], name: str, parameters: str, lines: list[str], known: dict[str, object]) -> Callable[..., Any]:
    """Compile a method of *kind* from names of fields; everything else is handed in as *known*."""
    text = "\n".join((f"def write({', '.join(known)}):", f" def {name}({parameters}):", *lines, f" return {name}"))
    made: dict[str, Any] = {}
    exec(text, vars(modules[kind.__module__]), made)  # noqa: S102 as dataclasses does it; only names of fields are in it
    method: Callable[..., Any] = made["write"](**known)
    method.__qualname__ = f"{kind.__qualname__}.{name}"
    return method


def _refuse_to_set(self: Any, name: str, _value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to {name!r} of a frozen {self.__class__.__qualname__}")


def _refuse_to_delete(self: Any, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete {name!r} of a frozen {self.__class__.__qualname__}")


def _state(self: Any) -> list[Any]:
    """Return what a copy or a pickle of it holds."""
    return [getattr(self, each.name) for each in fields(self)]


def _restore(self: Any, state: list[Any]) -> None:
    for each, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)


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


class _Factory:
    """The default of a field whose default is made for each object."""

    def __repr__(self) -> str:
        return "<made for each>"


_FACTORY = _Factory()
_SAME: dict[str, object] = {
    "__init__": _Unwritten(),
    "__setattr__": _refuse_to_set,
    "__delattr__": _refuse_to_delete,
    "__getstate__": _state,
    "__setstate__": _restore,
}
"""What each frozen class has, set on the class that is left when slots are made: that is another one."""
