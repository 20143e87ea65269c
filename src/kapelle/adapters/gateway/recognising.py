"""What an error of the model API means: read from its status, its headers and its words. Sans-I/O; never raises."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from kapelle.adapters.gateway.asking import as_object, json_object
from kapelle.core.account import BAD_CREDENTIALS, shuts
from kapelle.core.calls import Refusal
from kapelle.core.conversation import Trouble
from kapelle.core.frozen import frozen
from kapelle.core.trouble import (
    BUDGET_WORD,
    CREDENTIALS_WORD,
    FURTHEST,
    HALT_WORD,
    LIMIT_WORD,
    PATIENCE,
    WORDS,
    believable,
    reset_in,
    trouble_of_status,
    trouble_of_text,
)

BAD_REQUEST, UNAUTHORISED, TOO_MANY = 400, 401, 429
NO_RETRY = {"x-should-retry": "false"}
"""What lets the CLI give up at once and not ask ten times more (measured)."""


@frozen
class Recognised:
    """An error of the API, understood."""

    trouble: Trouble
    kind: str
    """The API's own word for it, such as ``overloaded_error``."""
    message: str = ""
    resets_at: datetime | None = None
    of_account: bool = False
    """Whether it is the whole account's and not this call's."""


def recognise(status: int, headers: Mapping[str, str], body: bytes, now: datetime, *, own_login: bool = False) -> Recognised:
    """Return what an answer with an error *status* means.

    With its *own_login* the agent's program answers a 401 by renewing it and asking again; whether that helped, only its
    stream will tell.
    """
    error = as_object(json_object(body).get("error"))
    kind, message = str(error.get("type") or "error")[:100], str(error.get("message") or "")[:WORDS]
    trouble = trouble_of_status(status)
    if trouble in {Trouble.RATE_LIMITED, Trouble.INVALID_KEY, Trouble.INVALID_REQUEST}:
        # Only where the status leaves it open: words of a prompt may be quoted in the message of another error.
        trouble = _by_words(trouble, message)
    resets_at = _reset(headers, message, now) if status == TOO_MANY else None
    if status == TOO_MANY and headers.get("anthropic-ratelimit-unified-status") == "rejected":
        trouble = Trouble.USAGE_LIMIT
    of_account = shuts(trouble, resets_at) and not (own_login and trouble in BAD_CREDENTIALS)
    return Recognised(trouble=trouble, kind=kind, message=message, resets_at=resets_at, of_account=of_account)


def _by_words(trouble: Trouble, message: str) -> Trouble:
    allowed = {
        Trouble.RATE_LIMITED: {Trouble.USAGE_LIMIT},
        Trouble.INVALID_KEY: {Trouble.LOGIN_EXPIRED},
        Trouble.INVALID_REQUEST: {Trouble.CONTEXT_OVERFLOW, Trouble.USAGE_LIMIT, Trouble.REFUSED},
    }[trouble]
    found = trouble_of_text(message)
    return found if found is not None and found in allowed else trouble


def _reset(headers: Mapping[str, str], message: str, now: datetime) -> datetime | None:
    """Return when the limit ends, or None when that is not said, or so soon that the agent's program waits by itself."""
    if headers.get("anthropic-ratelimit-unified-status") == "rejected":
        said = _moment(headers.get("anthropic-ratelimit-unified-reset", ""))
        if believable(said, now) is not None:
            return said
    if (said := believable(reset_in(message), now)) is not None:
        return said
    pause = _pause(headers.get("retry-after", ""))
    return now + pause if pause is not None and pause > PATIENCE else None


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError, OSError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _pause(text: str) -> timedelta | None:
    try:
        return min(timedelta(seconds=float(text)), FURTHEST)
    except (ValueError, OverflowError):
        return None


def answer_to(refusal: Refusal) -> tuple[int, str, str]:
    """Return status, kind and message with which the gateway itself refuses a call."""
    if refusal.trouble is Trouble.BUDGET:
        return BAD_REQUEST, "invalid_request_error", f"{BUDGET_WORD} {refusal.message}"
    if refusal.trouble is Trouble.HALTED:
        return BAD_REQUEST, "invalid_request_error", f"{HALT_WORD} {refusal.message}"
    if refusal.trouble in BAD_CREDENTIALS:
        return UNAUTHORISED, "authentication_error", f"{CREDENTIALS_WORD} {refusal.message}"
    return TOO_MANY, "rate_limit_error", f"{LIMIT_WORD} {refusal.message}"
