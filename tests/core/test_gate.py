"""Verdicts over checks, and the key under which their proof is found."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.gate import Check, CheckResult, CheckState, Gate, judge, receipt_key

quick = settings(max_examples=100, deadline=None)
LINT = Check(name="lint", run="ruff check", required=False)
TEST = Check(name="test", run="pytest")
TYPES = Check(name="types", run="pyright")
GATE = Gate(name="python", checks=(LINT, TEST, TYPES))
words = st.text(max_size=12)
checks = st.builds(Check, name=words, run=words, required=st.booleans())
gates = st.builds(Gate, name=words, checks=st.lists(checks, max_size=4).map(tuple))


def _result(check: Check, state: CheckState) -> CheckResult:
    return CheckResult(name=check.name, run=check.run, state=state, required=check.required)


PASSED, FAILED, TIMED_OUT, NOT_RUN = CheckState.PASSED, CheckState.FAILED, CheckState.TIMED_OUT, CheckState.NOT_RUN


@pytest.mark.parametrize(
    ("lint", "test", "types", "passed", "failing"),
    [
        (PASSED, PASSED, PASSED, True, None),
        (FAILED, PASSED, PASSED, True, None),
        (TIMED_OUT, PASSED, PASSED, True, None),
        (NOT_RUN, PASSED, PASSED, True, None),
        (PASSED, FAILED, NOT_RUN, False, "test"),
        (PASSED, TIMED_OUT, NOT_RUN, False, "test"),
        (FAILED, PASSED, FAILED, False, "types"),
        (PASSED, PASSED, NOT_RUN, False, None),
    ],
)
def test_a_gate_passes_when_every_required_check_ran_and_passed(
    lint: CheckState, test: CheckState, types: CheckState, failing: str | None, *, passed: bool
) -> None:
    verdict = judge(GATE, [_result(LINT, lint), _result(TEST, test), _result(TYPES, types)])
    assert verdict.passed is passed
    assert (verdict.failing.name if verdict.failing else None) == failing


def test_a_check_that_was_not_reached_was_not_run_and_did_not_pass() -> None:
    verdict = judge(GATE, [_result(LINT, PASSED), _result(TEST, FAILED)])
    assert [check.state for check in verdict.checks] == [PASSED, FAILED, NOT_RUN]
    assert not verdict.passed


def test_nothing_run_is_not_passed() -> None:
    assert not judge(GATE, []).passed


def test_results_are_kept_in_the_order_of_the_gate_and_strangers_are_not() -> None:
    stranger = Check(name="stranger", run="true")
    verdict = judge(GATE, [_result(check, PASSED) for check in (TYPES, stranger, TEST, LINT)])
    assert [check.name for check in verdict.checks] == ["lint", "test", "types"]


@quick
@given(states=st.lists(st.sampled_from(CheckState), min_size=3, max_size=3))
def test_a_verdict_never_passes_with_a_failing_check(states: list[CheckState]) -> None:
    verdict = judge(GATE, [_result(check, state) for check, state in zip(GATE.checks, states, strict=True)])
    assert not (verdict.passed and verdict.failing)


@quick
@given(gate=gates, tree=words, environment=words)
def test_the_same_tree_gate_and_environment_have_the_same_key(gate: Gate, tree: str, environment: str) -> None:
    assert receipt_key(tree, gate, environment) == receipt_key(tree, replace(gate), environment)


@quick
@given(one=st.tuples(words, gates, words), other=st.tuples(words, gates, words))
def test_a_key_is_shared_only_by_what_is_the_same(one: tuple[str, Gate, str], other: tuple[str, Gate, str]) -> None:
    def facts(tree: str, gate: Gate, environment: str) -> object:
        return tree, environment, [(check.name, check.run, check.required) for check in gate.checks]

    assert (receipt_key(*one) == receipt_key(*other)) is (facts(*one) == facts(*other))


KEY = receipt_key("tree", GATE, "here")
OTHER_COMMAND = replace(GATE, checks=(LINT, replace(TEST, run="pytest -x"), TYPES))
NOT_REQUIRED = replace(GATE, checks=(LINT, replace(TEST, required=False), TYPES))
LESS = replace(GATE, checks=(LINT, TEST))
OTHER_ORDER = replace(GATE, checks=(TEST, LINT, TYPES))


@pytest.mark.parametrize(
    "key",
    [
        receipt_key("other tree", GATE, "here"),
        receipt_key("tree", GATE, "elsewhere"),
        receipt_key("here", GATE, "tree"),
        receipt_key("treehe", GATE, "re"),
        receipt_key("tree", OTHER_COMMAND, "here"),
        receipt_key("tree", NOT_REQUIRED, "here"),
        receipt_key("tree", LESS, "here"),
        receipt_key("tree", OTHER_ORDER, "here"),
    ],
    ids=["tree", "environment", "both swapped", "another border", "command", "required", "fewer checks", "order"],
)
def test_another_tree_gate_or_environment_has_another_key(key: str) -> None:
    assert key != KEY


@pytest.mark.parametrize(
    "gate",
    [
        replace(GATE, name="renamed"),
        replace(GATE, rounds=9),
        replace(GATE, checks=tuple(replace(check, timeout=timedelta(hours=3)) for check in GATE.checks)),
    ],
    ids=["name", "rounds", "timeout"],
)
def test_what_does_not_change_the_answer_does_not_change_the_key(gate: Gate) -> None:
    assert receipt_key("tree", gate, "here") == KEY
