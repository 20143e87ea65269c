"""Structured results against their JSON Schema."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.result import result_problem, schema_problem

quick = settings(max_examples=100, deadline=None)
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "risk": {"enum": ["low", "high"]},
            "files": {"type": "array", "items": {"type": "string"}},
            "lines": {"type": "integer", "minimum": 0},
        },
        "required": ["risk"],
        "additionalProperties": False,
    }
)
TREE: dict[str, Any] = {
    "$defs": {"node": {"type": "object", "properties": {"below": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}},
    "$ref": "#/$defs/node",
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "result", [{"risk": "low"}, {"risk": "high", "files": [], "lines": 0}, {"risk": "low", "files": ["a.py"], "lines": 3}]
)
def test_a_result_that_fits_has_no_problem(result: dict[str, Any]) -> None:
    assert result_problem(SCHEMA, json.dumps(result)) == ""


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ({}, "the result: 'risk' is a required property"),
        ({"risk": "unknown"}, "risk: 'unknown' is not one of ['low', 'high']"),
        ({"risk": "low", "files": ["a", 3]}, "files/1: 3 is not of type 'string'"),
        ({"risk": "low", "lines": -1}, "lines: -1 is less than the minimum of 0"),
        ({"risk": "low", "more": 1}, "the result: Additional properties are not allowed ('more' was unexpected)"),
        ([], "the result: [] is not of type 'object'"),
    ],
)
def test_a_problem_names_the_place_and_what_is_wrong(result: object, problem: str) -> None:
    assert result_problem(SCHEMA, json.dumps(result)) == problem


def test_several_problems_are_told_together_but_not_without_end() -> None:
    problem = result_problem(SCHEMA, json.dumps({"files": list(range(20)), "lines": "many"}))
    assert problem.count(" is not of type ") == 5
    assert problem.count("; ") == 4


def test_no_result_is_a_problem() -> None:
    assert result_problem(SCHEMA, None).startswith("there was none")


@pytest.mark.parametrize("result", ["", "{", "risk: low", "[" * 100_000], ids=["empty", "open", "yaml", "bottomless"])
def test_what_is_not_json_is_a_problem_and_no_crash(result: str) -> None:
    assert result_problem(SCHEMA, result).startswith("it is not JSON: ")


@quick
@given(value=json_values)
def test_whatever_an_agent_gives_is_judged(value: object) -> None:
    problem = result_problem(SCHEMA, json.dumps(value))
    assert bool(problem) or (isinstance(value, dict) and value["risk"] in {"low", "high"})


@quick
@given(value=json_values)
def test_a_schema_that_allows_all_allows_all(value: object) -> None:
    assert result_problem("{}", json.dumps(value)) == ""
    assert result_problem(json.dumps({"const": value}), json.dumps(value)) == ""


@pytest.mark.parametrize("schema", [json.loads(SCHEMA), TREE, {}, True, {"properties": {"$ref": {"type": "string"}}}])
def test_a_schema_that_makes_sense_has_no_problem(schema: object) -> None:
    assert schema_problem(json.dumps(schema)) == ""


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "objekt"}, "type: 'objekt' is not valid"),
        ({"properties": {"a": {"minimum": "x"}}}, "properties/a/minimum: 'x' is not of type 'number'"),
        ({"pattern": "["}, "pattern: '[' is not a 'regex'"),
        ([], "the schema: [] is not of type"),
        ({"properties": {"a": {"$ref": "#/$defs/gone"}}}, "$ref: /$defs/gone is not in the schema"),
        ({"items": {"$ref": "http://127.0.0.1:9/x.json"}}, "$ref: http://127.0.0.1:9/x.json is not in the schema"),
    ],
)
def test_a_schema_that_cannot_be_used_is_told_before_anything_runs(schema: object, problem: str) -> None:
    assert schema_problem(json.dumps(schema)).startswith(problem)


def test_a_schema_may_refer_to_itself() -> None:
    assert result_problem(json.dumps(TREE), '{"below": [{"below": []}]}') == ""
    assert result_problem(json.dumps(TREE), '{"below": [{"below": 3}]}') == "below/0/below: 3 is not of type 'array'"


@pytest.mark.parametrize("reference", ["#", "#/$defs/gone", "#gone"])
def test_a_reference_that_leads_nowhere_is_a_problem_and_no_crash(reference: str) -> None:
    assert result_problem(json.dumps({"$ref": reference}), "1").startswith("its schema cannot be used: ")


def test_a_schema_is_never_fetched_from_anywhere() -> None:
    asked: list[str] = []

    class Tempting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as the library calls it
            """Write nothing."""

    with HTTPServer(("127.0.0.1", 0), Tempting) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            schema = json.dumps({"$ref": f"http://127.0.0.1:{server.server_port}/schema.json"})
            assert schema_problem(schema).endswith("is not in the schema")
            assert result_problem(schema, "1").startswith("its schema cannot be used: ")
        finally:
            server.shutdown()
            serving.join()
    assert asked == []


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "object", "properties": {"a": {"pattern": "("}}}, "'(' is not a 'regex'"),
        ({"patternProperties": {"[": {}}}, "'[' is not a 'regex'"),
        ({"pattern": "x{99999999999}"}, "too large"),
        ({"pattern": "x" * 20_000}, "characters"),
        ({"description": "x" * 2_000_000}, "characters long"),
    ],
)
def test_a_schema_with_a_pattern_that_is_none_is_wrong(schema: dict[str, Any], said: str) -> None:
    assert said in schema_problem(json.dumps(schema))


def test_a_schema_that_is_nested_too_deeply_is_wrong() -> None:
    assert schema_problem('{"not": ' * 3000 + "{}" + "}" * 3000)
