"""Prompts and conditions as templates: what they see, and what of them needs no computation at all.

What a template computes may take for ever. So whoever renders one goes through the port ``core.evaluating.Evaluator``, which
has ``core.rendering`` do it under limits.

A template sees ``inputs``, ``tasks`` (what the task needs, by name), ``item`` (of ``foreach``), ``run`` and ``task``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

from kapelle.core.frozen import frozen
from kapelle.core.limits import LONGEST_CODE, LONGEST_PROMPT

KNOWN = ("inputs", "tasks", "item", "run", "task")


@frozen
class NeedView:
    """What a template sees of a task that has ended: ``{{ tasks.NAME.summary }}``, ``{{ tasks.NAME.result.x }}``."""

    name: str
    state: str
    summary: str
    result: Any
    commit: str | None
    failure: str = ""
    """Why it failed; empty when it did not."""
    item: Any = None


NEED_FIELDS = tuple(field.name for field in fields(NeedView))


@frozen
class Scope:
    """Everything that a template may see."""

    inputs: Mapping[str, Any]
    tasks: Mapping[str, NeedView | Sequence[NeedView]]
    run: str
    task: str
    item: Any = None

    def names(self) -> dict[str, Any]:
        """Return everything by the name a template knows it by."""
        return {
            "inputs": self.inputs,
            "tasks": self.tasks,
            "run": self.run,
            "task": self.task,
            "item": self.item,
        }


def is_plain(text: str) -> bool:
    """Say whether *text* has nothing in it that would be filled in."""
    return "{" not in text or not any(mark in text for mark in ("{{", "{%", "{#"))


_NEWLINE = re.compile(r"\r\n?")
_LOOKUP = re.compile(r"\{\{ *([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*) *\}\}", re.ASCII)


def plain(text: str) -> str:
    """Return the template *text*, which is plain, as it is rendered."""
    return _NEWLINE.sub("\n", text) if "\r" in text else text


def looked_up(text: str, names: Mapping[str, Any]) -> str | None:
    """Return *text* filled in, where that takes no more than looking up texts and whole numbers; None where it takes more.

    Most templates are like that, and need nobody to watch over them.
    """
    if is_plain(text):
        return plain(text)
    pieces: list[str] = []
    size = end = 0
    for found in _LOOKUP.finditer(text):
        value = _look_up(found.group(1), names)
        if value is None:
            return None
        pieces += [plain(text[end : found.start()]), value]
        size += len(pieces[-1]) + len(pieces[-2])
        if size > LONGEST_PROMPT:
            return None
        end = found.end()
    pieces.append(plain(text[end:]))
    # What stands between may not open anything either, not even together with the lookup behind it.
    between = pieces[::2]
    return "".join(pieces) if all(is_plain(piece) and not piece.endswith("{") for piece in between) else None


# Words that mean something by themselves to a template.
_RESERVED = frozenset({"true", "false", "none", "True", "False", "None", "not"})


def _look_up(path: str, names: Mapping[str, Any]) -> str | None:
    value: Any = names
    first, *rest = path.split(".")
    if first in _RESERVED or first not in names:
        return None
    value = names[first]
    for name in rest:
        if isinstance(value, Mapping) and name in value:
            value = cast("Mapping[str, Any]", value)[name]
        elif isinstance(value, NeedView) and name in NEED_FIELDS:
            value = getattr(value, name)
        else:
            return None
    if isinstance(value, str):
        return value
    return str(value) if type(value) is int and abs(value) < MANY else None


MANY = 10**15
"""Whole numbers below it are written in no time."""


@frozen
class References:
    """What a template names."""

    tasks: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    """Names that no template sees."""
    fields: tuple[tuple[str, str], ...] = ()
    """(task, field) of every ``tasks.NAME.FIELD``."""
    item: bool = False
    """Whether it uses ``item``."""


# Names that mean something to a template wherever they stand.
_OWN = _RESERVED | {"range", "dict", "lipsum", "cycler", "joiner", "namespace", "self", "super", "loop", "caller"}


def lookups(text: str) -> References | None:
    """Return what the template *text* names, where all it does is to look things up; None where it does more."""
    if is_plain(text):
        return References()
    if len(text) > LONGEST_CODE:
        # Whether that is too much is told where templates are read.
        return None
    paths = [found.group(1).split(".") for found in _LOOKUP.finditer(text)]
    between = _LOOKUP.split(text)[::2]
    if any(path[0] in _OWN for path in paths) or any(not is_plain(piece) or piece.endswith("{") for piece in between):
        return None

    def second(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(path[1] for path in paths if path[0] == name and len(path) > 1))

    fields_ = [(path[1], path[2]) for path in paths if path[0] == "tasks" and len(path) > 2]  # noqa: PLR2004  # tasks.NAME.FIELD
    return References(
        tasks=second("tasks"),
        inputs=second("inputs"),
        unknown=tuple(dict.fromkeys(path[0] for path in paths if path[0] not in KNOWN)),
        fields=tuple(dict.fromkeys(fields_)),
        item=any(path[0] == "item" for path in paths),
    )
