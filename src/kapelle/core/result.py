"""Structured results: does what an agent gave fit the JSON Schema that was asked for?"""

import json
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError


def schema_problem(schema: str) -> str:
    """Return what is wrong with *schema* (JSON text) as a JSON Schema, or nothing."""
    try:
        Draft202012Validator.check_schema(json.loads(schema))
    except SchemaError as error:
        return f"{'/'.join(str(part) for part in error.path) or 'the schema'}: {error.message}"
    return ""


def result_problem(schema: str, result: str | None) -> str:
    """Return what is wrong with a structured *result* (JSON text) by its *schema*, or nothing."""
    if result is None:
        return "there was none. End by giving a result that fits the schema."
    try:
        value = json.loads(result)
    except ValueError as error:
        return f"it is not JSON: {error}"
    validator: Any = Draft202012Validator(json.loads(schema))
    errors: list[ValidationError] = sorted(validator.iter_errors(value), key=lambda error: str(list(error.path)))
    return "; ".join(f"{'/'.join(str(part) for part in error.path) or 'the result'}: {error.message}" for error in errors[:5])
