"""Structured results: does what an agent gave fit the JSON Schema that was asked for?

A schema is a person's, a result an agent's; together they may take for ever (a pattern that backtracks). So
``result_problem`` is asked through the port ``core.evaluating.Evaluator``.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema_specifications import REGISTRY  # pyright: ignore[reportMissingTypeStubs]
from referencing import Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from kapelle.core.limits import LONGEST_RESULT
from kapelle.core.patterns import pattern_problem


def schema_problem(schema: str) -> str:
    """Return what is wrong with *schema* (JSON text) as a JSON Schema, or nothing."""
    if len(schema) > LONGEST_RESULT:
        return f"it is {len(schema)} characters long; {LONGEST_RESULT} are the most"
    try:
        Draft202012Validator.check_schema(json.loads(schema))
    except SchemaError as error:
        return f"{'/'.join(str(part) for part in error.path) or 'the schema'}: {error.message[:WORDS]}"
    except (RecursionError, OverflowError) as error:
        return str(error) if isinstance(error, OverflowError) else "it is nested too deeply"
    root = DRAFT202012.create_resource(json.loads(schema))
    todo: list[tuple[Any, Resource[Any]]] = [(REGISTRY.resolver_with_root(root), root)]
    while todo:
        resolver, part = todo.pop()
        contents: Any = part.contents
        if problem := _wrong_pattern(contents):
            return problem
        if isinstance(contents, dict) and "$ref" in contents:
            try:
                resolver.lookup(contents["$ref"])
            except Unresolvable as error:
                return f"$ref: {error.ref} is not in the schema"
        todo.extend((resolver.in_subresource(below), below) for below in part.subresources())
    return ""


def _wrong_pattern(contents: Any) -> str:
    if not isinstance(contents, dict):
        return ""
    given = cast("dict[str, Any]", contents)
    keyed: Any = given.get("patternProperties")
    patterns = [given.get("pattern"), *(cast("Mapping[str, Any]", keyed) if isinstance(keyed, Mapping) else ())]
    for pattern in patterns:
        if isinstance(pattern, str) and (problem := pattern_problem(pattern)):
            return f"pattern: {problem}"
    return ""


WORDS = 500
"""Characters of what is wrong that are told: it may quote all of a result."""


def result_problem(schema: str, result: str | None) -> str:
    """Return what is wrong with a structured *result* (JSON text) by its *schema*, or nothing."""
    if result is None:
        most = f"JSON of at most {LONGEST_RESULT} characters"
        return f"there was none that could be kept: {most}. End by giving a result that fits the schema."
    try:
        value = json.loads(result)
    except (ValueError, RecursionError) as error:
        return f"it is not JSON: {error}"
    # With a registry of its own it refers to itself and to the drafts of JSON Schema; nothing is ever fetched.
    validator: Any = Draft202012Validator(json.loads(schema), registry=REGISTRY)
    try:
        errors: list[ValidationError] = sorted(validator.iter_errors(value), key=lambda error: str(list(error.path)))
    except (Unresolvable, RecursionError, re.error, ArithmeticError) as error:
        return f"its schema cannot be used: {error}"
    return "; ".join(f"{'/'.join(str(part) for part in error.path) or 'the result'}: {_told(error)}" for error in errors[:5])


def _told(error: ValidationError) -> str:
    return error.message if len(error.message) <= WORDS else f"{error.message[:WORDS]}..."
