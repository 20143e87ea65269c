"""The tree of errors: each with a code that stays, a cause and a remedy."""

import inspect
import re

import pytest

from kapelle.core import errors
from kapelle.core.errors import (
    Defect,
    FileInvalid,
    FileMissing,
    IllegalTransition,
    KapelleError,
    LeadLost,
    Mistake,
    NotFound,
    UsageError,
    WorldError,
    all_errors,
)

# People search for these, and scripts compare them: a code is never given to another error.
CODES = {
    "KAP-0": "KapelleError",
    "KAP-100": "UsageError",
    "KAP-101": "FileInvalid",
    "KAP-102": "FileMissing",
    "KAP-103": "NotFound",
    "KAP-104": "Ambiguous",
    "KAP-105": "RepositoryRefused",
    "KAP-106": "CredentialsMissing",
    "KAP-107": "NotPossibleNow",
    "KAP-108": "ProgramMissing",
    "KAP-109": "WouldOverwrite",
    "KAP-110": "TemplateFailed",
    "KAP-200": "WorldError",
    "KAP-201": "GitFailed",
    "KAP-202": "StoreFailed",
    "KAP-203": "HostFailed",
    "KAP-204": "WorkspaceFailed",
    "KAP-205": "GatewayFailed",
    "KAP-300": "LeadLost",
    "KAP-301": "NotLeading",
    "KAP-900": "Defect",
    "KAP-901": "IllegalTransition",
}
# Tests of other folders may make errors of their own: only those of the package count.
ERRORS = [kind for kind in all_errors() if kind.__module__.startswith("kapelle.")]
each_error = pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)


def test_codes_stay_with_their_errors() -> None:
    found = {kind.code: kind.__name__ for kind in ERRORS}
    assert {code: found.get(code) for code in CODES} == CODES


def test_no_two_errors_have_the_same_code() -> None:
    codes = [kind.code for kind in ERRORS]
    assert sorted(set(codes)) == sorted(codes)


def test_all_errors_are_on_one_page_so_that_none_is_missing_from_the_list() -> None:
    on_page = {value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, KapelleError)}
    assert on_page == set(ERRORS)


def test_all_errors_come_in_the_order_of_their_codes() -> None:
    codes = [kind.code for kind in all_errors()]
    assert codes == sorted(codes)


@each_error
def test_an_error_has_a_code_a_cause_a_remedy_and_says_what_it_is(kind: type[KapelleError]) -> None:
    assert re.fullmatch(r"KAP-\d{1,3}", kind.code)
    assert "code" in vars(kind), "a code is never inherited"
    assert kind.cause
    assert kind.remedy
    assert kind.__doc__
    assert kind.exit_code in {1, 2}


@each_error
def test_the_hundreds_of_a_code_say_who_must_act(kind: type[KapelleError]) -> None:
    family = {"1": UsageError, "2": WorldError, "3": LeadLost, "9": Defect, "0": KapelleError}[kind.code[4]]
    assert issubclass(kind, family)


def test_what_a_person_gave_wrong_ends_with_two_and_all_else_with_one() -> None:
    assert {kind.exit_code for kind in ERRORS if issubclass(kind, UsageError)} == {2}
    assert {kind.exit_code for kind in ERRORS if not issubclass(kind, UsageError)} == {1}


def test_an_error_reads_as_its_message_and_advises_its_remedy() -> None:
    error = NotFound("there is no run r-1")
    assert str(error) == error.message == "there is no run r-1"
    assert error.advice == NotFound.remedy


def test_a_remedy_may_be_given_where_the_facts_are() -> None:
    assert FileMissing("no x.yml", remedy="Make x.yml.").advice == "Make x.yml."


def test_an_illegal_transition_names_the_thing_and_both_states() -> None:
    assert str(IllegalTransition("task", "t-1", "completed", "running")) == "task t-1 cannot go from completed to running"


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        (Mistake(message="wrong", advice="x", file="w.yml", line=3, column=5), "w.yml:3:5: wrong"),
        (Mistake(message="wrong", advice="x", file="w.yml"), "w.yml: wrong"),
        (Mistake(message="wrong", advice="x"), "wrong"),
    ],
)
def test_a_mistake_begins_with_its_place_as_far_as_it_is_known(mistake: Mistake, expected: str) -> None:
    assert str(mistake) == expected


def test_an_invalid_file_lists_all_its_mistakes() -> None:
    mistakes = [Mistake(message=f"wrong {number}", advice="x", file="w.yml", line=number) for number in (1, 2)]
    error = FileInvalid(iter(mistakes))
    assert str(error) == "w.yml:1: wrong 1\nw.yml:2: wrong 2"
    assert error.mistakes == tuple(mistakes)
