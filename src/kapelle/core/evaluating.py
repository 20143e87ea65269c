"""What users and agents wrote that must be computed: templates, conditions, patterns, schemas. Under limits.

A template may loop for ever, a pattern backtrack for ever, a schema refer to itself. None of that can be told by looking at it,
and none can be stopped within a thread. So all of it goes through one port, whose adapter computes in a process that is
killed when it takes too long or too much. What needs no computing is done before (``core.template.looked_up``).
"""

from collections.abc import Mapping
from typing import Any, Protocol

from kapelle.core.template import Scope

LIMIT_S = 1.0
"""Seconds that one evaluation may take."""
MEMORY = 512 << 20
"""Bytes of address space that an evaluation may have, its interpreter included."""


class Evaluator(Protocol):
    """Evaluates under limits. Any thread may call it; a call blocks for little more than ``LIMIT_S`` at most.

    Every method raises ``HostFailed`` when no process can be started.
    """

    def render(self, text: str, scope: Scope) -> str:
        """Return the template *text* filled in.

        Raises:
            TemplateFailed: it cannot be rendered, or not within the limits.
        """
        ...

    def holds(self, expression: str, scope: Scope) -> bool:
        """Say whether a condition is true.

        Raises:
            TemplateFailed: it cannot be decided, or not within the limits.
        """
        ...

    def fill(self, text: str, names: Mapping[str, Any]) -> str:
        """Return the template *text* filled in with *names*, which are JSON.

        Raises:
            TemplateFailed: as for ``render``.
        """
        ...

    def finds(self, pattern: str, text: str) -> bool:
        """Say whether the regular expression *pattern* is found in *text*.

        Raises:
            PatternFailed: it is none, or does not come to an end within the limits.
        """
        ...

    def result_problem(self, schema: str, result: str | None) -> str:
        """Return what is wrong with a structured *result* by its *schema* (both JSON text), or nothing.

        That it cannot be told within the limits is wrong with it too.
        """
        ...

    def close(self) -> None:
        """End whatever was started; a later call starts it again."""
        ...
