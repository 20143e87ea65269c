"""Counting tokens while a reply passes: server-sent events, cut anywhere, sans-I/O."""

import json
from dataclasses import replace
from typing import Any, cast

from kapelle.core.budget import Usage

LONGEST = 8 << 20


class UsageCounter:
    """Reads a streamed reply as it passes and remembers what it used. Never raises, whatever passes."""

    def __init__(self) -> None:
        self._rest = b""
        self.usage = Usage()
        self.model = ""
        self.error = ""
        self.stopped = False
        """Whether the reply came to its end."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            self._rest = b""
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:])

    def whole(self, body: bytes) -> None:
        """Take a reply that was not streamed."""
        content = _json(body)
        if content.get("type") == "error":
            self._failed(content)
            return
        self.model = str(content.get("model", "")) or self.model
        self._use(content.get("usage"))
        self.stopped = True

    def _event(self, line: bytes) -> None:
        content = _json(line)
        kind = content.get("type")
        if kind == "message_start":
            message = _mapping(content.get("message"))
            self.model = str(message.get("model", ""))
            self._use(message.get("usage"))
        elif kind == "message_delta":
            self._use(content.get("usage"))
        elif kind == "message_stop":
            self.stopped = True
        elif kind == "error":
            self._failed(content)

    def _failed(self, content: dict[str, Any]) -> None:
        self.error = str(_mapping(content.get("error")).get("type", "error"))

    def _use(self, usage: object) -> None:
        # Later counts replace earlier ones: they are sums over the message, not differences.
        given = _mapping(usage)
        names = {
            "input_tokens": "input_tokens",
            "output_tokens": "output_tokens",
            "cache_read_input_tokens": "cache_read_tokens",
            "cache_creation_input_tokens": "cache_write_tokens",
        }
        for theirs, ours in names.items():
            value = given.get(theirs)
            if isinstance(value, int):
                self.usage = replace(self.usage, **{ours: value})


def _json(data: bytes) -> dict[str, Any]:
    try:
        return _mapping(json.loads(data))
    except (ValueError, RecursionError):
        return {}


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
