"""What a driver's codec says about a conversation: typed events out of an agent's bytes.

They are not facts of the log (see events.py): one line of a spool may become several facts, or none.
"""

from datetime import datetime
from enum import StrEnum

from kapelle.core.budget import Usage
from kapelle.core.frozen import frozen
from kapelle.core.ids import PromptId


@frozen
class Prompt:
    """Something to say to an agent, known by its id before it is sent."""

    prompt_id: PromptId
    text: str


class Trouble(StrEnum):
    """Why a turn ended without an answer, in words that decide what is done next."""

    OVERLOADED = "overloaded"
    RATE_LIMITED = "rate_limited"
    USAGE_LIMIT = "usage_limit"
    LOGIN_EXPIRED = "login_expired"
    INVALID_KEY = "invalid_key"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    INVALID_REQUEST = "invalid_request"
    CONTEXT_OVERFLOW = "context_overflow"
    MAX_TURNS = "max_turns"
    BUDGET = "budget"
    HALTED = "halted"
    """A person has halted everything, or it is outside of the working hours."""
    INTERRUPTED = "interrupted"
    API_ERROR = "api_error"
    UNKNOWN = "unknown"
    CRASHED = "crashed"
    CONVERSATION_LOST = "conversation_lost"
    """It cannot be gone on with: the program was ended before it had written any of it down, or the file is gone."""


# Troubles of the way to the model: the agent did nothing wrong, so the attempt is not counted as one that failed.
NOT_THE_AGENTS_FAULT = frozenset(
    {
        Trouble.OVERLOADED,
        Trouble.RATE_LIMITED,
        Trouble.USAGE_LIMIT,
        Trouble.LOGIN_EXPIRED,
        Trouble.INVALID_KEY,
        Trouble.UNREACHABLE,
        Trouble.API_ERROR,
        Trouble.INTERRUPTED,
        Trouble.UNKNOWN,
    }
)
# The API answers nobody, or too many ask at once: it passes by itself, if need be after hours.
OUTAGE = frozenset({Trouble.OVERLOADED, Trouble.RATE_LIMITED, Trouble.UNREACHABLE, Trouble.API_ERROR})


@frozen
class ConversationStarted:
    """The program is up and has opened (or resumed) the conversation."""

    conversation_id: str
    model: str = ""
    tools: tuple[str, ...] = ()
    version: str = ""


@frozen
class PromptTaken:
    """The program has read the prompt; a turn has started or will."""

    prompt_id: PromptId


@frozen
class Said:
    """A piece of the agent's text."""

    text: str


@frozen
class Typed:
    """A person said something on the program's own screen."""

    text: str


@frozen
class ToolCalled:
    """The agent called a tool."""

    call_id: str
    tool: str
    about: str = ""
    """What it is called with, in one short line: a file, a command."""
    key: str = ""
    """Stands for all that it is called with: the same call again has the same key."""


@frozen
class ToolReturned:
    """A tool answered."""

    call_id: str
    failed: bool
    about: str = ""


@frozen
class ModelRetried:
    """The program's own client tries a model call again."""

    attempt: int
    delay_s: float
    status: int | None = None


@frozen
class TurnEnded:
    """The program has nothing more to do until it is prompted again."""

    text: str = ""
    trouble: Trouble | None = None
    message: str = ""
    """What the program said about the trouble."""
    result: str | None = None
    """The structured result, as JSON text, if one was asked for and given."""
    turns: int = 0
    cost_usd: float | None = None
    """The conversation's cost so far by the program's own count; None when it does not count."""
    usage: Usage | None = None
    """The tokens of this turn by the program's own count."""
    resets_at: datetime | None = None
    """When the account's limit ends, if the program said so."""
    denied: tuple[str, ...] = ()
    """Tools that were refused for want of permission."""


@frozen
class Unrecognised:
    """Something the codec does not know: kept, never fatal."""

    kind: str
    raw: str
    """At most the first 2,000 characters."""


ConversationEvent = (
    ConversationStarted | PromptTaken | Said | Typed | ToolCalled | ToolReturned | ModelRetried | TurnEnded | Unrecognised
)

WAITED_FOR = (ConversationStarted, TurnEnded)
"""What something else begins with; all the rest is only written down."""
