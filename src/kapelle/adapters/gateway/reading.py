"""Reading a reply as it passes: server-sent events cut anywhere, or one JSON body. Sans-I/O; never raises.

The meter needs what the reply used, the recorder what it said; neither may hold it up.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kapelle.adapters.gateway.asking import as_object, json_object, json_objects
from kapelle.core.budget import Usage

LONGEST = 8 << 20
"""Bytes of one event after which it is given up: no event of the API is so long."""
MOST = 64 << 20
"""Bytes of a reply that are read; what comes after them passes unread."""
HIGHEST = 1 << 40
"""Tokens beyond which no count is believed."""
WORDS = 10_000
"""Characters of an error's own words that are kept."""
CHARACTERS_PER_TOKEN = 4


class EventReader:
    """Splits a stream of server-sent events into the data of each."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes, cut anywhere, and yield the data of every event that is complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            self._rest = b""
        for whole in lines:
            line = whole.removesuffix(b"\r")
            if line.startswith(b"data:") and self._size + len(line) <= LONGEST:
                self._size += len(line)
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                yield b"\n".join(self._data)
                self._data, self._size = [], 0


@dataclass(kw_only=True, slots=True)
class _Block:
    kind: str
    name: str = ""
    parts: list[str] = field(default_factory=list[str])


class ReplyReader:
    """Puts a reply together while it passes."""

    def __init__(self, *, streaming: bool) -> None:
        self._events = EventReader() if streaming else None
        self._body: list[bytes] = []
        self._size = 0
        self._blocks: dict[int, _Block] = {}
        self._counts: dict[str, int] = {}
        self._counted_out = False
        self.model = ""
        self.error = ""
        """The API's word for what went wrong, such as ``overloaded_error``."""
        self.message = ""
        """What the API said about it."""
        self.refused = False
        """Whether the model refused to go on."""
        self.complete = False
        """Whether the reply came to its end."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._size += len(data)
        if self._size > MOST:
            return
        if self._events is None:
            self._body.append(data)
            return
        for event in self._events.feed(data):
            self._event(json_object(event))

    def finish(self) -> None:
        """Take the end of what came, whether or not it was the end of the reply."""
        if self._events is not None:
            return
        content = json_object(b"".join(self._body))
        self._body = []
        if content.get("type") == "error":
            self._failed(content)
        elif content:
            self._message(content)
            self._stopped(content)
            for index, block in enumerate(json_objects(content.get("content"))):
                self._open(index, block)
            self._counted_out = self.complete = True

    def _event(self, event: Mapping[str, Any]) -> None:
        kind, index = event.get("type"), event.get("index")
        if kind == "message_start":
            self._message(as_object(event.get("message")))
        elif kind == "content_block_start" and isinstance(index, int):
            self._open(index, as_object(event.get("content_block")))
        elif kind == "content_block_delta" and isinstance(index, int) and index in self._blocks:
            delta = as_object(event.get("delta"))
            part = delta.get("text") or delta.get("partial_json") or delta.get("thinking") or ""
            self._blocks[index].parts.append(str(part))
        elif kind == "message_delta":
            self._counted_out = True
            self._stopped(as_object(event.get("delta")))
            self._use(event.get("usage"))
        elif kind == "message_stop":
            self.complete = True
        elif kind == "error":
            self._failed(event)

    def _message(self, message: Mapping[str, Any]) -> None:
        self.model = str(message.get("model") or "")[:200]
        self._use(message.get("usage"))

    def _stopped(self, content: Mapping[str, Any]) -> None:
        self.refused = self.refused or content.get("stop_reason") == "refusal"

    def _open(self, index: int, block: Mapping[str, Any]) -> None:
        begun = _Block(kind=str(block.get("type")), name=str(block.get("name") or ""))
        if text := block.get("text"):
            begun.parts.append(str(text))
        if given := block.get("input"):
            begun.parts.append(json.dumps(given))
        self._blocks[index] = begun

    def _failed(self, content: Mapping[str, Any]) -> None:
        error = as_object(content.get("error"))
        self.error = str(error.get("type") or "error")[:100]
        self.message = str(error.get("message") or "")[:WORDS]

    def _use(self, usage: object) -> None:
        # Later counts replace earlier ones: they are sums over the message, not differences.
        given = as_object(usage)
        found = {**given, **as_object(given.get("cache_creation"))}
        self._counts |= {name: value for name, value in found.items() if isinstance(value, int) and 0 <= value <= HIGHEST}

    @property
    def usage(self) -> Usage:
        """The tokens of the reply; of one that broke off, what it was counted to have written or seems to have."""
        output = self._counts.get("output_tokens", 0)
        if not self._counted_out:
            written = sum(len(part) for block in self._blocks.values() for part in block.parts)
            output = max(output, written // CHARACTERS_PER_TOKEN)
        return Usage(
            input_tokens=self._counts.get("input_tokens", 0),
            output_tokens=output,
            cache_read_tokens=self._counts.get("cache_read_input_tokens", 0),
            cache_write_tokens=self._counts.get("cache_creation_input_tokens", 0),
        )

    @property
    def hour_writes(self) -> int:
        """How many of the tokens written to the cache were written for an hour, which costs more."""
        return self._counts.get("ephemeral_1h_input_tokens", 0)

    @property
    def text(self) -> str:
        """What the reply said."""
        return "".join("".join(block.parts) for block in self._ordered() if block.kind == "text")

    @property
    def tools(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """The tools that the reply called: name and arguments."""
        return [(block.name, json_object("".join(block.parts))) for block in self._ordered() if block.kind == "tool_use"]

    def _ordered(self) -> list[_Block]:
        return [self._blocks[index] for index in sorted(self._blocks)]
