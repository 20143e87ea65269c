"""Prompts and conditions as Jinja2 templates, in its sandboxed environment: computation only, no way out.

What a template computes may take for ever. So whoever renders one goes through the port ``core.evaluating.Evaluator``, which
does it under limits; here is what is rendered, and what needs no computation at all.

A template sees ``inputs``, ``tasks`` (what the task needs, by name), ``item`` (of ``foreach``), ``run`` and ``task``.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

from jinja2 import StrictUndefined, TemplateSyntaxError, meta, nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kapelle.core.errors import TemplateFailed
from kapelle.core.limits import LONGEST_CODE, LONGEST_PROMPT

KNOWN = ("inputs", "tasks", "item", "run", "task")


class _Environment(ImmutableSandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        # A task called `update`, or a field called `items`, is meant before the method of that name.
        if isinstance(obj, Mapping) and attribute in obj:
            return cast("Mapping[str, Any]", obj)[attribute]
        return super().getattr(obj, attribute)


def _environment() -> _Environment:
    # Prompts are text for a model, not HTML: nothing is escaped.
    environment = _Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "sort_keys": False}
    return environment


_ENVIRONMENT = _environment()


@dataclass(frozen=True, kw_only=True, slots=True)
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


@dataclass(frozen=True, kw_only=True, slots=True)
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


def render(text: str, scope: Scope) -> str:
    """Return the template *text* filled in.

    Raises:
        TemplateFailed: it names something that is not there, does something that is not allowed, or becomes too long.
    """
    return fill(text, scope.names(), f"the prompt of task {scope.task}")


def fill(text: str, names: Mapping[str, Any], what: str = "the template") -> str:
    """Return the template *text* filled in with *names*; *what* says in an error which it is.

    Raises:
        TemplateFailed: as for ``render``.
    """
    size, pieces = 0, list[str]()
    try:
        for piece in _ENVIRONMENT.from_string(text).generate(names):
            size += len(piece)
            pieces.append(piece)
            if size > LONGEST_PROMPT:
                break
    except Exception as error:  # filters and methods raise whatever they like
        raise TemplateFailed(f"{what} cannot be rendered: {_why(error)}") from error
    if size > LONGEST_PROMPT:
        raise TemplateFailed(f"{what} becomes longer than {LONGEST_PROMPT} characters")
    return "".join(pieces)


def holds(expression: str, scope: Scope) -> bool:
    """Say whether the condition *expression* (with or without braces) is true.

    Raises:
        TemplateFailed: as for ``render``.
    """
    bare = _bare(expression)
    try:
        compiled = _ENVIRONMENT.compile_expression(bare, undefined_to_none=False)
        return bool(compiled(scope.names()))
    except Exception as error:  # as in render
        raise TemplateFailed(f"the condition of task {scope.task} cannot be decided: {_why(error)}") from error


def is_plain(text: str) -> bool:
    """Say whether *text* has nothing in it that would be filled in."""
    return "{" not in text or not any(mark in text for mark in ("{{", "{%", "{#"))


_CODE = re.compile(r"\{[{%].*?(?:[}%]\}|\Z)", re.DOTALL)
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


def _why(error: Exception) -> str:
    return str(error)[:WORDS] or type(error).__name__


WORDS = 1_000
"""Characters of an error's own words that are told: it may quote all that it was about."""


def _bare(expression: str) -> str:
    text = expression.strip()
    if text.startswith("{{") and text.endswith("}}"):
        return text[2:-2].strip()
    return text


@dataclass(frozen=True, kw_only=True, slots=True)
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


def references(text: str, *, expression: bool = False) -> References:
    """Return what the template (or condition) *text* names.

    Raises:
        TemplateFailed: it is not a template at all; the message says in which of its lines.
    """
    source = "{{ " + _bare(text) + " }}" if expression else text
    if not expression and is_plain(text):
        return References()
    if (size := sum(len(found) for found in _CODE.findall(source))) > LONGEST_CODE:
        raise TemplateFailed(f"what it computes is {size} characters long; {LONGEST_CODE} are the most")
    try:
        if expression:
            _one_expression(_bare(text))
        # Parsed, never compiled: that computes whatever is constant, however long it takes.
        tree = _ENVIRONMENT.parse(source)
        free = _Names(_ENVIRONMENT).free(tree)
    except TemplateSyntaxError as error:
        raise TemplateFailed(f"{error.message} (line {error.lineno} of the template)") from error
    except Exception as error:  # nested too deeply, a number with too many digits
        raise TemplateFailed(_why(error)) from error
    names = [name.name for name in tree.find_all(nodes.Name)]
    return References(
        tasks=tuple(dict.fromkeys(_members(tree, "tasks"))),
        inputs=tuple(dict.fromkeys(_members(tree, "inputs"))),
        unknown=tuple(dict.fromkeys(name for name in names if name in free and name not in KNOWN)),
        fields=tuple(dict.fromkeys(_fields(tree))),
        item="item" in free,
    )


class _Names(meta.TrackingCodeGenerator):
    """Finds the names that a template expects to be given, without computing anything that is constant."""

    def __init__(self, environment: _Environment) -> None:
        super().__init__(environment)
        self.optimizer = None

    def free(self, tree: nodes.Template) -> set[str]:
        self.visit(tree)
        return self.undeclared_identifiers

    def _output_child_to_const(self, node: nodes.Expr, frame: Any, finalize: Any) -> str:  # noqa: ARG002
        raise nodes.Impossible

    def visit_EvalContextModifier(self, node: nodes.EvalContextModifier, frame: Any) -> None:  # noqa: N802
        """Let no ``autoescape`` compute what it is set to."""


def _one_expression(text: str) -> None:
    parser = Parser(_ENVIRONMENT, text, state="variable")
    parser.parse_expression()
    if not parser.stream.eos:
        parser.fail("there is more than one expression", parser.stream.current.lineno)


def _fields(tree: nodes.Template) -> Iterator[tuple[str, str]]:
    """Yield (task, field) of every ``tasks.NAME.FIELD``."""
    for node in tree.find_all(nodes.Getattr):
        task = node.node
        if not isinstance(task, nodes.Getattr | nodes.Getitem) or not isinstance(task.node, nodes.Name):
            continue
        if task.node.name != "tasks":
            continue
        name = task.attr if isinstance(task, nodes.Getattr) else getattr(task.arg, "value", None)
        if isinstance(name, str):
            yield name, node.attr


def _members(tree: nodes.Template, of: str) -> Iterator[str]:
    called = [call.node for call in tree.find_all(nodes.Call)]
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        if any(node is method for method in called):
            continue  # tasks.items() and inputs.get("x") name no task and no input
        if not (isinstance(node.node, nodes.Name) and node.node.name == of):
            continue
        if isinstance(node, nodes.Getattr):
            yield node.attr
        elif isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            yield node.arg.value
