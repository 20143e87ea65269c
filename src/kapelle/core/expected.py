"""What a value must be, in our words: from the kind of mistake that whoever checks values names, never in its own words."""

from collections.abc import Mapping
from typing import Any

LONGEST = 60
"""Characters of a value that are told."""
SMALL = 0.001
"""A bound below it stands for zero, of which there may not be none."""
NUMBER, WHOLE, TEXT, SWITCH = "a number", "a whole number", "text", "true or false"
LIST, MAPPING, DURATION = "a list", "a mapping of names to values", "a duration with its unit, for example 30s or 10m"

_KINDS = {
    "int_type": WHOLE,
    "int_parsing": WHOLE,
    "int_parsing_size": WHOLE,
    "int_from_float": WHOLE,
    "float_type": NUMBER,
    "float_parsing": NUMBER,
    "finite_number": "a number that is not infinite",
    "bool_type": SWITCH,
    "bool_parsing": SWITCH,
    "string_type": TEXT,
    "list_type": LIST,
    "tuple_type": LIST,
    "dict_type": MAPPING,
    "model_type": MAPPING,
    "model_attributes_type": MAPPING,
    "time_delta_type": DURATION,
    "time_delta_parsing": DURATION,
    "path_type": "a path",
    "string_unicode": "text in UTF-8",
}
_BOUNDS = {
    "greater_than": ("gt", "more than {}"),
    "greater_than_equal": ("ge", "{} or more"),
    "less_than": ("lt", "less than {}"),
    "less_than_equal": ("le", "{} or less"),
    "string_too_short": ("min_length", "text of at least {} characters"),
    "string_too_long": ("max_length", "text of at most {} characters"),
    "too_short": ("min_length", "at least {} of them"),
    "too_long": ("max_length", "at most {} of them"),
    "enum": ("expected", "one of: {}"),
    "literal_error": ("expected", "one of: {}"),
}


def expected(kind: str, context: Mapping[str, Any]) -> str:
    """Return what is allowed where a mistake of the *kind* was made, such as ``a whole number`` or ``100 or less``."""
    if kind in _KINDS:
        return _KINDS[kind]
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        bound = context.get(name, "what is allowed")
        if isinstance(bound, float) and 0 < bound < SMALL and kind == "greater_than_equal":
            return "more than 0"
        text = f"{bound:g}" if isinstance(bound, float) else str(bound)
        return words.format(text.replace("'", "").replace(" or ", ", "))
    return "something else; see the reference"


def given(value: object) -> str:
    """Return what was given, in few words."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return MAPPING
    if isinstance(value, list | tuple):
        return LIST if value else "an empty list"
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
