"""Structured results: does what an agent gave fit the JSON Schema that was asked for?"""

import json
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema_specifications import REGISTRY  # pyright: ignore[reportMissingTypeStubs]
from referencing import Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012


def schema_problem(schema: str) -> str:
    """Return what is wrong with *schema* (JSON text) as a JSON Schema, or nothing."""
    try:
        Draft202012Validator.check_schema(json.loads(schema))
    except SchemaError as error:
        return f"{'/'.join(str(part) for part in error.path) or 'the schema'}: {error.message}"
    root = DRAFT202012.create_resource(json.loads(schema))
    todo: list[tuple[Any, Resource[Any]]] = [(REGISTRY.resolver_with_root(root), root)]
    while todo:
        resolver, part = todo.pop()
        contents: Any = part.contents
        if isinstance(contents, dict) and "$ref" in contents:
            try:
                resolver.lookup(contents["$ref"])
            except Unresolvable as error:
                return f"$ref: {error.ref} is not in the schema"
        todo.extend((resolver.in_subresource(below), below) for below in part.subresources())
    return ""


def result_problem(schema: str, result: str | None) -> str:
    """Return what is wrong with a structured *result* (JSON text) by its *schema*, or nothing."""
    if result is None:
        return "there was none. End by giving a result that fits the schema."
    try:
        value = json.loads(result)
    except (ValueError, RecursionError) as error:
        return f"it is not JSON: {error}"
    # With a registry of its own it refers to itself and to the drafts of JSON Schema; nothing is ever fetched.
    validator: Any = Draft202012Validator(json.loads(schema), registry=REGISTRY)
    try:
        errors: list[ValidationError] = sorted(validator.iter_errors(value), key=lambda error: str(list(error.path)))
    except (Unresolvable, RecursionError) as error:
        return f"its schema cannot be used: {error}"
    return "; ".join(f"{'/'.join(str(part) for part in error.path) or 'the result'}: {error.message}" for error in errors[:5])
