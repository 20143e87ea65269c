"""Templates rendered by Jinja2, in its sandboxed environment: computation only, no way out.

A module of its own, since Jinja2 takes a while to load and most prompts need none of it.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from jinja2 import StrictUndefined, TemplateSyntaxError, meta, nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kapelle.core.errors import TemplateFailed
from kapelle.core.limits import LONGEST_CODE, LONGEST_PROMPT
from kapelle.core.template import KNOWN, References, Scope

_CODE = re.compile(r"\{[{%].*?(?:[}%]\}|\Z)", re.DOTALL)


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


def _why(error: Exception) -> str:
    return str(error)[:WORDS] or type(error).__name__


WORDS = 1_000
"""Characters of an error's own words that are told: it may quote all that it was about."""


def _bare(expression: str) -> str:
    text = expression.strip()
    if text.startswith("{{") and text.endswith("}}"):
        return text[2:-2].strip()
    return text


def parsed(text: str, *, expression: bool = False) -> References:
    """Return what the template (or condition) *text* names, as Jinja reads it.

    Raises:
        TemplateFailed: it is not a template at all; the message says in which of its lines.
    """
    source = "{{ " + _bare(text) + " }}" if expression else text
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
