"""What the model API says when it says no: one table for all who hear it, so that gateway and agent's stream never disagree.

A status alone says little (429 is a busy minute as well as an account that is empty until Monday), so the words go first.
"""

import re
from datetime import UTC, datetime, timedelta

from kapelle.core.conversation import Trouble

LIMIT_WORD, CREDENTIALS_WORD, BUDGET_WORD = "kapelle limit:", "kapelle credentials:", "kapelle budget:"
HALT_WORD = "kapelle halt:"
"""How the gateway's own refusals begin; whoever reads one knows that the gateway knows already."""

OF_A_SPENT_BUDGET = "the budget of"
"""In the refusal of a call whose budget is spent; others have a budget that nobody can keep."""

BY_STATUS = {
    401: Trouble.INVALID_KEY,
    403: Trouble.INVALID_KEY,
    413: Trouble.CONTEXT_OVERFLOW,
    429: Trouble.RATE_LIMITED,
    500: Trouble.API_ERROR,
    502: Trouble.UNREACHABLE,
    503: Trouble.OVERLOADED,
    504: Trouble.UNREACHABLE,
    529: Trouble.OVERLOADED,
}
# Asked again, the same comes back: an unknown model, a request that the API does not take.
PERMANENT = frozenset({400, 404, 405, 422})
BY_TEXT: tuple[tuple[str, Trouble], ...] = (
    (BUDGET_WORD, Trouble.BUDGET),
    (HALT_WORD, Trouble.HALTED),
    (LIMIT_WORD, Trouble.USAGE_LIMIT),
    (rf"{CREDENTIALS_WORD}.*(login|log in)", Trouble.LOGIN_EXPIRED),
    (CREDENTIALS_WORD, Trouble.INVALID_KEY),
    (r"no conversation found", Trouble.CONVERSATION_LOST),
    (r"prompt is too long|context (window|length|limit)|input length and `max_tokens`", Trouble.CONTEXT_OVERFLOW),
    (r"(?<!not your )usage limit|(?<!rate )(?<!rate-)limit reached|limit will reset", Trouble.USAGE_LIMIT),
    (r"out of (extra )?usage|hit your ([\w-]+ ){0,3}limit", Trouble.USAGE_LIMIT),
    (
        r"oauth token|please run /login|not logged in|login (has )?expired|session (has )?expired|token has been revoked",
        Trouble.LOGIN_EXPIRED,
    ),
    (r"invalid api key|invalid x-api-key|authentication_error|invalid bearer", Trouble.INVALID_KEY),
    (r"credit balance is too low", Trouble.USAGE_LIMIT),
    (r"overloaded", Trouble.OVERLOADED),
    (r"rate.?limit|too many requests", Trouble.RATE_LIMITED),
    (r"unable to connect|connection (error|refused)|econnrefused|econnreset|enotfound|fetch failed", Trouble.UNREACHABLE),
    (r"usage policy|refus(ed|al)|safeguards (flagged|stopped)", Trouble.REFUSED),
)

PATIENCE = timedelta(seconds=60)
"""Up to this long an agent's program waits by itself before it asks again; a longer pause is the whole account's."""
FURTHEST = timedelta(days=8)
"""A limit that is said to last longer is not believed: the longest there is lasts a week."""


WORDS = 10_000
"""Characters of an error that are looked at: it may quote all that it was about."""


def trouble_of_text(text: str) -> Trouble | None:
    """Return the trouble that *text* of an error tells of, or None when its words say nothing."""
    text = text[:WORDS]
    for pattern, trouble in BY_TEXT:
        if re.search(pattern, text, re.IGNORECASE | re.DOTALL):
            return trouble
    return None


def trouble_of_status(status: int) -> Trouble:
    """Return the trouble that an HTTP *status* means when nothing else is known."""
    return BY_STATUS.get(status, Trouble.INVALID_REQUEST if status in PERMANENT else Trouble.API_ERROR)


def told_by_gateway(text: str) -> bool:
    """Say whether *text* repeats a refusal of the gateway's own: the account it is about is known to be shut."""
    return LIMIT_WORD in text or CREDENTIALS_WORD in text


def reset_in(text: str) -> datetime | None:
    """Return the time at which a limit ends, where *text* says it in a way that leaves no doubt.

    ``usage limit reached|1767225600`` and ISO 8601 with a zone do; "resets 3pm" does not.
    """
    text = text[:WORDS]
    if found := re.search(r"\|(\d{9,11})\b", text):
        return datetime.fromtimestamp(int(found.group(1)), UTC)
    if found := re.search(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)", text):
        try:
            return datetime.fromisoformat(found.group())
        except ValueError:
            return None
    return None


def believable(resets_at: datetime | None, now: datetime) -> datetime | None:
    """Return *resets_at* if it can be waited for: in the future, and not further away than limits last."""
    return resets_at if resets_at is not None and now < resets_at <= now + FURTHEST else None
