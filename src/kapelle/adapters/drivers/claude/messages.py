"""The CLI's stream-json, as far as it is used; whatever else a message holds is ignored."""

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

MOST = 1 << 53
"""Beyond it no count is believed; what a store or a sum makes of it is nobody's problem then."""


def _count(value: object) -> object:
    if not isinstance(value, int | float):
        return value
    return int(value) if 0 <= value < MOST else 0


def _amount(value: object) -> object:
    # A number that cannot be says nothing, and must not cost a turn its end.
    return None if isinstance(value, int | float) and not 0 <= value < MOST else value


Count = Annotated[int, BeforeValidator(_count)]
Amount = Annotated[float | None, BeforeValidator(_amount)]


class _Tolerant(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


class Usage(_Tolerant):
    """Tokens."""

    input_tokens: Count = 0
    output_tokens: Count = 0
    cache_read_input_tokens: Count | None = 0
    cache_creation_input_tokens: Count | None = 0


class Block(_Tolerant):
    """A piece of a message."""

    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: Any = None
    tool_use_id: str = ""
    is_error: bool | None = False
    content: Any = None


class Content(_Tolerant):
    """The inner message of the model's API."""

    role: str = ""
    content: str | list[Block] = ""


class BackgroundTask(_Tolerant):
    """Something that the CLI runs beside the conversation: a subagent, a shell."""

    task_type: str = ""


class System(_Tolerant):
    """``system/init``, ``system/api_retry`` and many more."""

    type: Literal["system"]
    subtype: str = ""
    session_id: str = ""
    model: str = ""
    tools: list[str] = Field(default_factory=list)
    claude_code_version: str = ""
    attempt: Count = 0
    retry_delay_ms: Amount = 0
    error_status: Count | None = None
    tasks: list[BackgroundTask] = Field(default_factory=list["BackgroundTask"])


class Assistant(_Tolerant):
    """What the model said; one message per block."""

    type: Literal["assistant"]
    message: Content
    parent_tool_use_id: str | None = None


class User(_Tolerant):
    """Results of tools, and prompts that are echoed with their uuid."""

    type: Literal["user"]
    message: Content
    uuid: str = ""
    isReplay: bool = False  # noqa: N815  # the CLI's name
    parent_tool_use_id: str | None = None


class Denial(_Tolerant):
    """A tool that was refused."""

    tool_name: str = ""


class Result(_Tolerant):
    """The end of a turn."""

    type: Literal["result"]
    subtype: str = ""
    is_error: bool = False
    result: str | None = ""
    session_id: str = ""
    num_turns: Count = 0
    total_cost_usd: Amount = None
    usage: Usage | None = None
    permission_denials: list[Denial] | None = None
    terminal_reason: str | None = None
    stop_reason: str | None = None
    api_error_status: Count | None = None
    structured_output: Any = None
    errors: list[str] | None = None


class RateLimitInfo(_Tolerant):
    """What the CLI knows of its account's limit."""

    status: str = ""
    resetsAt: Amount = None  # noqa: N815  # the CLI's name


class RateLimit(_Tolerant):
    """``rate_limit_event``: only with a login, not with a key."""

    type: Literal["rate_limit_event"]
    rate_limit_info: RateLimitInfo = RateLimitInfo()


Message = Annotated[System | Assistant | User | Result | RateLimit, Field(discriminator="type")]
KNOWN = frozenset({"system", "assistant", "user", "result", "rate_limit_event"})
EXPECTED = frozenset(
    {"stream_event", "control_response", "control_request", "keep_alive", "command_lifecycle", "conversation_reset"}
)
"""Kinds that are known to come and say nothing that is needed."""


@cache
def _codec() -> TypeAdapter[System | Assistant | User | Result | RateLimit]:
    return TypeAdapter(Message)


def message_in(content: object) -> System | Assistant | User | Result | RateLimit:
    """Return the message of the CLI that *content* is.

    Raises:
        pydantic.ValidationError: it is none that is known.
    """
    return _codec().validate_python(content)
