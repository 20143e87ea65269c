"""Why a turn ended without an answer: the CLI's results, sorted by what has to be done about them.

``subtype`` is "success" even for errors of the API, and the exit code says nothing: ``is_error``, ``terminal_reason`` and
``api_error_status`` decide, and where they are silent the text does.
"""

import re

from kapelle.adapters.drivers.claude.messages import Result
from kapelle.core.conversation import Trouble

BY_STATUS = {
    429: Trouble.RATE_LIMITED,
    500: Trouble.API_ERROR,
    502: Trouble.UNREACHABLE,
    503: Trouble.OVERLOADED,
    504: Trouble.UNREACHABLE,
    529: Trouble.OVERLOADED,
}
# Asked again, the same comes back: an unknown model, a request that the API does not take.
PERMANENT = frozenset({400, 404, 405, 413, 422})
BY_TEXT: tuple[tuple[str, Trouble], ...] = (
    (r"kapelle budget:", Trouble.BUDGET),
    (r"no conversation found", Trouble.CONVERSATION_LOST),
    (r"prompt is too long|context (window|length|limit)|input length and `max_tokens`", Trouble.CONTEXT_OVERFLOW),
    (
        r"usage limit|(?<!rate )(?<!rate-)limit reached|out of (extra )?usage|limit will reset|hit your limit",
        Trouble.USAGE_LIMIT,
    ),
    (r"oauth token (has )?expired|please run /login|not logged in|login expired|session expired", Trouble.LOGIN_EXPIRED),
    (r"invalid api key|invalid x-api-key|authentication_error|invalid bearer", Trouble.INVALID_KEY),
    (r"credit balance is too low", Trouble.USAGE_LIMIT),
    (r"overloaded", Trouble.OVERLOADED),
    (r"rate.?limit|too many requests", Trouble.RATE_LIMITED),
    (r"unable to connect|connection (error|refused)|econnrefused|econnreset|enotfound|fetch failed", Trouble.UNREACHABLE),
    (r"usage policy|refus(ed|al)", Trouble.REFUSED),
)
BY_SUBTYPE = {
    "error_max_turns": Trouble.MAX_TURNS,
    "error_max_budget_usd": Trouble.BUDGET,
    # The model was asked again and again for a result that fits its schema: its own doing, not the API's.
    "error_max_structured_output_retries": Trouble.MAX_TURNS,
}


def trouble_of(result: Result) -> Trouble | None:
    """Return what went wrong in the turn that *result* ends, or None when nothing did."""
    if result.subtype in BY_SUBTYPE:
        return BY_SUBTYPE[result.subtype]
    text = f"{result.result or ''} {' '.join(result.errors or ())}"
    if result.subtype == "error_during_execution" and result.api_error_status is None and not result.is_error:
        return Trouble.INTERRUPTED
    if not result.is_error:
        return Trouble.REFUSED if result.terminal_reason == "refusal" else None
    for pattern, trouble in BY_TEXT:
        if re.search(pattern, text, re.IGNORECASE):
            return trouble
    if result.api_error_status is not None:
        if result.api_error_status in {401, 403}:
            return Trouble.INVALID_KEY
        permanent = Trouble.INVALID_REQUEST if result.api_error_status in PERMANENT else Trouble.API_ERROR
        return BY_STATUS.get(result.api_error_status, permanent)
    if result.subtype == "error_during_execution":
        return Trouble.INTERRUPTED
    return Trouble.API_ERROR
