"""Objects that never change: dataclasses that are frozen, slotted, and made by keyword only.

``dataclass`` writes and compiles six methods for each class as it is loaded, and that was a quarter of what a short command
took. Here all classes share what is the same for all, and the one method that is not (``__init__``) is written only for those
that many objects are made of: most commands make a few objects of a few classes.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from functools import cache, partial
from operator import attrgetter
from sys import modules
from typing import Any, NoReturn, TypeVar, dataclass_transform

T = TypeVar("T")
_Put = Callable[[Any, Any], None]
"""What sets a field of an object."""

SELDOM = 50
"""How many objects of a class are made, and copied, before a method is written for it: writing one takes as long as that."""


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
    copying = _copying(kind)
    new, setters = copying.copied(it), copying.setters
    for name, value in changes.items():
        if name not in setters:
            raise TypeError(f"{kind.__qualname__} has no field {name!r}")
        setters[name](new, value)
    return new


class _Unwritten:
    """An ``__init__`` that is written, for the class it is asked of, when it is asked for once more than ``SELDOM``."""

    def __init__(self) -> None:
        self._made: dict[type[Any], int] = {}

    def __get__(self, it: object | None, kind: type[Any]) -> Any:
        # Whoever asks may have inherited it, and have an `__init__` of its own.
        owner = next((each for each in kind.__mro__ if vars(each).get("__init__") is self), None)
        if owner is None:
            # Another thread was faster.
            return getattr(kind if it is None else it, "__init__")  # noqa: B009
        if it is not None and (made := self._made.get(owner, 0)) < SELDOM:
            self._made[owner] = made + 1
            return partial(_fill, it, owner)
        owner.__init__ = written = _init(owner)
        return written.__get__(it, kind)


@cache
def _filling(kind: type[Any]) -> tuple[Sequence[tuple[Field[Any], _Put]], AbstractSet[str], AbstractSet[str]]:
    """Return the fields of *kind* and what sets them, the names of all of them, and of those without a default."""
    found = tuple((each, getattr(kind, each.name).__set__) for each in fields(kind))
    missing = {each.name for each, _ in found if each.default is MISSING and each.default_factory is MISSING}
    return found, {each.name for each, _ in found}, missing


def _fill(it: Any, kind: type[Any], /, *unnamed: object, **given: Any) -> None:
    """Do what the ``__init__`` of *kind* does, without one."""
    found, names, missing = _filling(kind)
    if unnamed or not missing <= given.keys() <= names:
        # It says what is wrong.
        _init(kind)(it, *unnamed, **given)
    for each, put in found:
        if each.name in given:
            put(it, given[each.name])
        elif each.default_factory is not MISSING:
            put(it, each.default_factory())
        else:
            put(it, each.default)


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


class _Copying:
    """How objects of *kind* are copied."""

    def __init__(self, kind: type[Any]) -> None:
        self._kind = kind
        self._made = 0
        self.setters: dict[str, _Put] = {each.name: put for each, put in _filling(kind)[0]}
        """What sets each field of a copy."""
        self.copied: Callable[[Any], Any] = self._copied
        """What makes a copy."""

    def _copied(self, it: Any) -> Any:
        self._made += 1
        if self._made > SELDOM:
            self.copied = self._write()
            return self.copied(it)
        new = object.__new__(self._kind)
        for name, put in self.setters.items():
            put(new, getattr(it, name))
        return new

    def _write(self) -> Callable[[Any], Any]:
        known: dict[str, object] = {f"_set_{name}": put for name, put in self.setters.items()}
        lines = ["  new = _new(_kind)", *(f"  _set_{name}(new, it.{name})" for name in self.setters), "  return new"]
        return _written(self._kind, "_copied", "it", lines, {"_new": object.__new__, "_kind": self._kind, **known})


_copying = cache(_Copying)


def _written(kind: type[Any], name: str, parameters: str, lines: list[str], known: dict[str, object]) -> Callable[..., Any]:
    """Compile a method of *kind* from names of fields; everything else is handed in as *known*."""
    text = "\n".join((f"def write({', '.join(known)}):", f" def {name}({parameters}):", *lines, f" return {name}"))
    made: dict[str, Any] = {}
    # A class that was loaded from a file, by its path, is in no module that is known.
    known_there = vars(modules[kind.__module__]) if kind.__module__ in modules else {}
    exec(text, known_there, made)  # noqa: S102 as dataclasses does it; only names of fields are in it
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
