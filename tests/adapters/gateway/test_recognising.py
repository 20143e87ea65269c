"""What an error of the API means, by its status, its headers and its words."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.gateway.recognising import answer_to, recognise
from kapelle.core.calls import Refusal
from kapelle.core.conversation import Trouble

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
UNIFIED = "anthropic-ratelimit-unified-"


def body(message: str, kind: str = "some_error") -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()


@pytest.mark.parametrize(
    ("status", "message", "trouble", "of_account"),
    [
        (429, "This request would exceed your account's rate limit", Trouble.RATE_LIMITED, False),
        (429, "Claude AI usage limit reached", Trouble.USAGE_LIMIT, True),
        (529, "Overloaded", Trouble.OVERLOADED, False),
        (503, "", Trouble.OVERLOADED, False),
        (500, "Internal server error", Trouble.API_ERROR, False),
        (500, "usage limit reached", Trouble.API_ERROR, False),
        (502, "", Trouble.UNREACHABLE, False),
        (401, "invalid x-api-key", Trouble.INVALID_KEY, True),
        (401, "OAuth token has expired. Please obtain a new token", Trouble.LOGIN_EXPIRED, True),
        (403, "OAuth token has been revoked", Trouble.LOGIN_EXPIRED, True),
        (403, "", Trouble.INVALID_KEY, True),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", Trouble.CONTEXT_OVERFLOW, False),
        (413, "Request exceeds the maximum size", Trouble.CONTEXT_OVERFLOW, False),
        (400, "Your credit balance is too low to access the API", Trouble.USAGE_LIMIT, True),
        (400, "messages: roles must alternate", Trouble.INVALID_REQUEST, False),
        (404, "model: claude-nonsense", Trouble.INVALID_REQUEST, False),
    ],
)
def test_an_error_is_known_for_what_it_is(status: int, message: str, trouble: Trouble, of_account: bool) -> None:
    found = recognise(status, {}, body(message), NOW)
    assert (found.trouble, found.message, found.of_account, found.kind) == (trouble, message, of_account, "some_error")
    assert found.resets_at is None


@pytest.mark.parametrize("reset", [str(int((NOW + HOUR).timestamp())), (NOW + HOUR).isoformat()])
def test_the_end_of_a_limit_is_in_its_headers(reset: str) -> None:
    headers = {f"{UNIFIED}status": "rejected", f"{UNIFIED}reset": reset, "retry-after": "3600"}
    found = recognise(429, headers, body("rate limited"), NOW)
    assert (found.trouble, found.resets_at) == (Trouble.USAGE_LIMIT, NOW + HOUR)


def test_headers_of_an_account_that_is_not_at_its_limit_say_nothing() -> None:
    headers = {f"{UNIFIED}status": "allowed", f"{UNIFIED}reset": str(int((NOW + HOUR).timestamp()))}
    found = recognise(429, headers, body("rate limit"), NOW)
    assert (found.trouble, found.resets_at, found.of_account) == (Trouble.RATE_LIMITED, None, False)


@pytest.mark.parametrize("status", [401, 403])
def test_a_login_of_the_programs_own_is_its_own_to_renew(status: int) -> None:
    found = recognise(status, {}, body("OAuth token has expired"), NOW, own_login=True)
    assert (found.trouble, found.of_account) == (Trouble.LOGIN_EXPIRED, False)
    assert recognise(429, {}, body("usage limit reached"), NOW, own_login=True).of_account


def test_the_end_of_a_limit_may_be_in_its_words() -> None:
    found = recognise(429, {}, body(f"usage limit reached|{int((NOW + HOUR).timestamp())}"), NOW)
    assert found.resets_at == NOW + HOUR


@pytest.mark.parametrize(
    ("pause", "of_account"), [("2", False), ("60", False), ("61", True), ("8e13", True), ("soon", False), ("nan", False)]
)
def test_a_long_pause_is_the_whole_accounts(pause: str, of_account: bool) -> None:
    found = recognise(429, {"retry-after": pause}, body("too many requests"), NOW)
    assert found.trouble is Trouble.RATE_LIMITED
    assert found.of_account is of_account


@given(
    st.integers(400, 599), st.dictionaries(st.sampled_from([f"{UNIFIED}reset", f"{UNIFIED}status", "retry-after"]), st.text())
)
def test_nothing_that_comes_is_fatal(status: int, headers: dict[str, str]) -> None:
    assert recognise(status, {**headers, f"{UNIFIED}status": "rejected"}, b"\xff<html>", NOW).trouble


@pytest.mark.parametrize(
    ("trouble", "status", "word"),
    [
        (Trouble.BUDGET, 400, "kapelle budget: x"),
        (Trouble.USAGE_LIMIT, 429, "kapelle limit: x"),
        (Trouble.RATE_LIMITED, 429, "kapelle limit: x"),
        (Trouble.LOGIN_EXPIRED, 401, "kapelle credentials: x"),
        (Trouble.INVALID_KEY, 401, "kapelle credentials: x"),
    ],
)
def test_the_gateway_refuses_in_words_that_are_known_again(trouble: Trouble, status: int, word: str) -> None:
    assert answer_to(Refusal(trouble=trouble, message="x"))[::2] == (status, word)
