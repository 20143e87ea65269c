"""Evaluating in the very process of a test: for whoever only wants what is right to come out, at once."""

import re
from collections.abc import Mapping
from typing import Any

from kapelle.core import rendering
from kapelle.core import result as results
from kapelle.core.errors import PatternFailed
from kapelle.core.template import Scope


class PlainEvaluator:
    """See ``core.evaluating.Evaluator``: without limits, so not for what nobody has looked at."""

    def __init__(self) -> None:
        self.evaluated = 0
        """How often something had to be computed."""

    def render(self, text: str, scope: Scope) -> str:
        """See the port."""
        self.evaluated += 1
        return rendering.render(text, scope)

    def holds(self, expression: str, scope: Scope) -> bool:
        """See the port."""
        self.evaluated += 1
        return rendering.holds(expression, scope)

    def fill(self, text: str, names: Mapping[str, Any]) -> str:
        """See the port."""
        self.evaluated += 1
        return rendering.fill(text, names)

    def finds(self, pattern: str, text: str) -> bool:
        """See the port."""
        self.evaluated += 1
        try:
            return re.search(pattern, text) is not None
        except re.error as error:
            raise PatternFailed(f"{pattern!r} is no regular expression: {error}") from error

    def result_problem(self, schema: str, result: str | None) -> str:
        """See the port."""
        self.evaluated += 1
        return results.result_problem(schema, result)

    def close(self) -> None:
        """See the port."""
