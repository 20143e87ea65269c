"""What the end of a turn means for its attempt."""

from typing import Any

import pytest

from kapelle.core.attempt import COUNTS, TRIES_AGAIN_FREELY, Outcome, claims_without_work, outcome_of
from kapelle.core.conversation import NOT_THE_AGENTS_FAULT, Trouble, TurnEnded


@pytest.mark.parametrize(
    ("trouble", "outcome"),
    [
        (Trouble.USAGE_LIMIT, Outcome.LIMITED),
        (Trouble.RATE_LIMITED, Outcome.LIMITED),
        (Trouble.LOGIN_EXPIRED, Outcome.CREDENTIALS),
        (Trouble.INVALID_KEY, Outcome.CREDENTIALS),
        (Trouble.BUDGET, Outcome.BUDGET),
        (Trouble.OVERLOADED, Outcome.UNREACHABLE),
        (Trouble.UNREACHABLE, Outcome.UNREACHABLE),
        (Trouble.API_ERROR, Outcome.UNREACHABLE),
        (Trouble.INTERRUPTED, Outcome.UNREACHABLE),
        (Trouble.UNKNOWN, Outcome.UNREACHABLE),
        (Trouble.REFUSED, Outcome.REFUSED),
        (Trouble.CONTEXT_OVERFLOW, Outcome.CONTEXT_OVERFLOW),
        (Trouble.MAX_TURNS, Outcome.AGENT_FAILED),
        (Trouble.CRASHED, Outcome.AGENT_FAILED),
    ],
)
def test_each_trouble_has_its_outcome(trouble: Trouble, outcome: Outcome) -> None:
    assert outcome_of(trouble) is outcome


@pytest.mark.parametrize("trouble", list(Trouble))
def test_a_trouble_costs_an_attempt_exactly_when_it_is_the_agents_fault(trouble: Trouble) -> None:
    outcome = outcome_of(trouble)
    assert (outcome in TRIES_AGAIN_FREELY) is (trouble in {*NOT_THE_AGENTS_FAULT, Trouble.HALTED})
    of_its_own = {Trouble.BUDGET, Trouble.REFUSED, Trouble.CONTEXT_OVERFLOW}
    assert (outcome in COUNTS) is (trouble not in {*NOT_THE_AGENTS_FAULT, Trouble.HALTED} | of_its_own)


def test_an_outcome_never_both_counts_and_is_free() -> None:
    assert not COUNTS & TRIES_AGAIN_FREELY


def test_success_and_what_a_person_decided_are_not_tried_again() -> None:
    final = set(Outcome) - COUNTS - TRIES_AGAIN_FREELY
    decided = {Outcome.SUCCEEDED, Outcome.CANCELLED, Outcome.REJECTED}
    assert final == decided | {Outcome.BUDGET, Outcome.REFUSED, Outcome.CONTEXT_OVERFLOW}


def test_a_claim_with_no_tool_call_and_no_change_has_nothing_behind_it() -> None:
    assert claims_without_work(TurnEnded(text="done"), tool_calls=0, changed=False, reads_only=False, reports=True)


@pytest.mark.parametrize(
    "facts",
    [
        {"tool_calls": 1},
        {"changed": True},
        {"reads_only": True},
        {"reports": False},
        {"turn": TurnEnded(trouble=Trouble.CRASHED)},
    ],
    ids=lambda facts: next(iter(facts)),
)
def test_one_fact_is_enough_to_take_a_claim_seriously(facts: dict[str, Any]) -> None:
    without: dict[str, Any] = {
        "turn": TurnEnded(text="done"),
        "tool_calls": 0,
        "changed": False,
        "reads_only": False,
        "reports": True,
    }
    assert not claims_without_work(**{**without, **facts})
