"""The Messages API's replies, as Anthropic's own server gives them: JSON, server-sent events, errors."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from kapelle.core.budget import Usage
from kapelle.core.frozen import frozen

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


@frozen
class ToolUse:
    """A tool that the model calls."""

    name: str
    arguments: str
    """JSON text."""


@frozen
class Reply:
    """What the model says in one reply."""

    message_id: str
    model: str
    text: str
    tools: Sequence[ToolUse]
    usage: Usage
    refused: bool = False

    @property
    def stop_reason(self) -> str:
        """Why the model stopped."""
        if self.refused:
            return "refusal"
        return "tool_use" if self.tools else "end_turn"


def error_body(status: int, message: str, kind: str | None = None) -> bytes:
    """Return the body of an error."""
    found = kind or ERROR_TYPES.get(status, "api_error")
    return json.dumps({"type": "error", "error": {"type": found, "message": message}}).encode()


def _blocks(reply: Reply) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if reply.text:
        blocks.append({"type": "text", "text": reply.text})
    for index, tool in enumerate(reply.tools):
        identity = f"toolu_{reply.message_id.removeprefix('msg_')}{index:02d}"
        blocks.append({"type": "tool_use", "id": identity, "name": tool.name, "input": json.loads(tool.arguments)})
    return blocks or [{"type": "text", "text": ""}]


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
    }


def whole(reply: Reply) -> bytes:
    """Return the reply as one JSON body."""
    content = {
        "id": reply.message_id,
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": _blocks(reply),
        "stop_reason": reply.stop_reason,
        "stop_sequence": None,
        "usage": _usage(reply.usage),
    }
    return json.dumps(content).encode()


def _event(kind: str, content: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **content})}\n\n".encode()


def streamed(reply: Reply, piece: int = 40) -> Iterator[bytes]:
    """Yield the reply as server-sent events; text in pieces of *piece* characters."""
    begun = _usage(Usage(input_tokens=reply.usage.input_tokens, output_tokens=1)) | {
        "cache_read_input_tokens": reply.usage.cache_read_tokens,
        "cache_creation_input_tokens": reply.usage.cache_write_tokens,
    }
    message: dict[str, Any] = {
        "id": reply.message_id,
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": begun,
    }
    yield _event("message_start", {"message": message})
    for index, block in enumerate(_blocks(reply)):
        if block["type"] == "text":
            yield _event("content_block_start", {"index": index, "content_block": {"type": "text", "text": ""}})
            text = block["text"]
            for start in range(0, len(text), piece):
                delta = {"type": "text_delta", "text": text[start : start + piece]}
                yield _event("content_block_delta", {"index": index, "delta": delta})
        else:
            empty: dict[str, Any] = {"type": "tool_use", "id": block["id"], "name": block["name"], "input": {}}
            yield _event("content_block_start", {"index": index, "content_block": empty})
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            yield _event("content_block_delta", {"index": index, "delta": delta})
        yield _event("content_block_stop", {"index": index})
    ended = {"stop_reason": reply.stop_reason, "stop_sequence": None}
    yield _event("message_delta", {"delta": ended, "usage": {"output_tokens": reply.usage.output_tokens}})
    yield _event("message_stop", {})
