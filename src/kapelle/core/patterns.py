"""Regular expressions as people write them: those of Python's re module. They are searched for by ``core.evaluating`` only."""

import re

from kapelle.core.limits import LONGEST_PATTERN

WORDS = 200
"""Characters of a pattern that an error tells."""


def pattern_problem(pattern: str) -> str:
    """Return what is wrong with *pattern* as a regular expression, or nothing."""
    if len(pattern) > LONGEST_PATTERN:
        return f"a regular expression of {len(pattern)} characters; {LONGEST_PATTERN} are the most"
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"{pattern[:WORDS]!r} is no regular expression: {str(error) or 'it is nested too deeply'}"
    return ""
