"""Which trouble a result of the CLI is. What it really says in the commonest cases is in the transcripts as well."""

from typing import Any

import pytest

from kapelle.adapters.drivers.claude.messages import Result
from kapelle.adapters.drivers.claude.trouble import trouble_of
from kapelle.core.conversation import NOT_THE_AGENTS_FAULT, Trouble


def trouble(text: str | None = "", status: int | None = None, **rest: Any) -> Trouble | None:
    fields = {"subtype": "success", "is_error": True, "result": text, "api_error_status": status, **rest}
    return trouble_of(Result.model_validate({"type": "result", **fields}))


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        ("API Error: 529 Overloaded. This is a server-side issue", 529, Trouble.OVERLOADED),
        ("No conversation found with session ID: d88d0005-a3bf-46c0-b598-34de7777722a", None, Trouble.CONVERSATION_LOST),
        ("", 529, Trouble.OVERLOADED),
        ("", 503, Trouble.OVERLOADED),
        (
            "API Error: Request rejected (429) · This request would exceed your organization's rate limit",
            429,
            Trouble.RATE_LIMITED,
        ),
        ("API Error: Request rejected (429) · rate limit reached (rehearsed)", 429, Trouble.RATE_LIMITED),
        ("Rate-limit reached", 429, Trouble.RATE_LIMITED),
        ("Too many requests", None, Trouble.RATE_LIMITED),
        ("", 429, Trouble.RATE_LIMITED),
        ("API Error: Request rejected (429) · You've hit your usage limit. It resets at 3pm.", 429, Trouble.USAGE_LIMIT),
        ("Claude AI usage limit reached|1767225600", 429, Trouble.USAGE_LIMIT),
        ("5-hour limit reached ∙ resets 3pm", 429, Trouble.USAGE_LIMIT),
        ("Weekly limit reached", None, Trouble.USAGE_LIMIT),
        ("You've hit your limit · resets 3pm", None, Trouble.USAGE_LIMIT),
        ("You're out of extra usage", None, Trouble.USAGE_LIMIT),
        ("Credit balance is too low", 400, Trouble.USAGE_LIMIT),
        ("You've hit your 5-hour limit · resets 11:41am (UTC)", 429, Trouble.USAGE_LIMIT),
        (
            "API Error: Server is temporarily limiting requests (not your usage limit) · rate limit reached",
            429,
            Trouble.RATE_LIMITED,
        ),
        (
            "API Error: Server is temporarily limiting requests (not your usage limit) · kapelle limit: until 12:00",
            429,
            Trouble.USAGE_LIMIT,
        ),
        ("Failed to authenticate. API Error: 401 kapelle credentials: the login has expired", 401, Trouble.LOGIN_EXPIRED),
        ("Failed to authenticate. API Error: 401 kapelle credentials: the key is not valid", 401, Trouble.INVALID_KEY),
        ("Failed to authenticate. API Error: 401 OAuth token has expired. Please obtain", 401, Trouble.LOGIN_EXPIRED),
        ("Request too large (max 32MB).", 413, Trouble.CONTEXT_OVERFLOW),
        ("API Error: Opus's safeguards flagged this message (https://example.org/aup).", None, Trouble.REFUSED),
        ("Invalid API key · Fix external API key", 401, Trouble.INVALID_KEY),
        ("", 401, Trouble.INVALID_KEY),
        ("", 403, Trouble.INVALID_KEY),
        ("API Error: 401 OAuth token has expired · Please run /login", 401, Trouble.LOGIN_EXPIRED),
        ("Not logged in · Please run /login", None, Trouble.LOGIN_EXPIRED),
        ("Prompt is too long", 400, Trouble.CONTEXT_OVERFLOW),
        ("input length and `max_tokens` exceed context limit: 199000 + 32000 > 200000", 400, Trouble.CONTEXT_OVERFLOW),
        ("API Error: 400 kapelle budget: the budget of task api is spent ($1.00 of $1.00)", 400, Trouble.BUDGET),
        ("API Error: Unable to connect to API (ECONNREFUSED)", None, Trouble.UNREACHABLE),
        ("API Error: Connection to the API was lost (ECONNRESET).", None, Trouble.UNREACHABLE),
        ("API Error: Connection error.", None, Trouble.UNREACHABLE),
        ("", 502, Trouble.UNREACHABLE),
        ("", 504, Trouble.UNREACHABLE),
        ("API Error: Claude Code is unable to respond: it appears to violate our Usage Policy", None, Trouble.REFUSED),
        ("API Error: 500 internal", 500, Trouble.API_ERROR),
        ("API Error: 418 teapot", 418, Trouble.API_ERROR),
        ("something new", None, Trouble.UNKNOWN),
        (None, None, Trouble.UNKNOWN),
    ],
)
def test_what_an_error_says_decides_what_it_is(text: str | None, status: int | None, expected: Trouble) -> None:
    assert trouble(text, status) is expected


@pytest.mark.parametrize(
    ("subtype", "is_error", "expected"),
    [
        ("error_max_turns", True, Trouble.MAX_TURNS),
        ("error_max_turns", False, Trouble.MAX_TURNS),
        ("error_max_budget_usd", True, Trouble.BUDGET),
        ("error_max_structured_output_retries", True, Trouble.MAX_TURNS),
        ("error_during_execution", True, Trouble.INTERRUPTED),
        ("error_during_execution", False, Trouble.INTERRUPTED),
        ("error_brand_new", True, Trouble.UNKNOWN),
    ],
)
def test_where_the_kind_of_a_result_says_it_the_kind_decides(subtype: str, is_error: bool, expected: Trouble) -> None:
    assert trouble(subtype=subtype, is_error=is_error, errors=["[diagnostic] stopped"]) is expected


def test_the_errors_of_a_result_are_read_where_it_has_no_text() -> None:
    found = trouble(None, subtype="error_during_execution", errors=["API Error: 529 Overloaded"])
    assert found is Trouble.OVERLOADED


@pytest.mark.parametrize("text", ["I fixed the rate limit.", "Prompt is too long was the bug.", "kapelle budget: done", ""])
def test_words_of_an_answer_are_no_trouble(text: str) -> None:
    assert trouble(text, is_error=False) is None


def test_what_the_cli_could_not_shorten_is_too_long() -> None:
    assert trouble("whatever", 400, terminal_reason="prompt_too_long") is Trouble.CONTEXT_OVERFLOW


def test_a_refusal_that_ends_in_an_error_is_known_by_its_reason_to_stop() -> None:
    assert trouble("API Error: whatever it says", stop_reason="refusal") is Trouble.REFUSED


def test_a_refusal_of_the_model_is_one_though_it_is_no_error() -> None:
    assert trouble("I can't help with that.", is_error=False, terminal_reason="refusal") is Trouble.REFUSED


def test_a_result_that_never_fits_its_schema_is_the_agents_own_fault() -> None:
    # Taken for an error of the API it would be tried again for ever, and free of charge.
    found = trouble("Failed to provide valid structured output", subtype="error_max_structured_output_retries")
    assert found not in NOT_THE_AGENTS_FAULT
