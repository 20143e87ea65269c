"""How the leader and its evaluating process speak: JSON behind its length."""

import struct
from collections.abc import Callable
from typing import Any

HEAD = struct.Struct(">I")
READY = b"ready"
"""What the process says first: starting up is not part of what is limited."""


def framed(data: bytes) -> bytes:
    """Return *data* behind its length."""
    return HEAD.pack(len(data)) + data


def unframe(read: Callable[[int], bytes]) -> bytes | None:
    """Return the next piece that *read* gives, which returns fewer bytes than asked for only at the end; None at the end."""
    head = read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    (size,) = HEAD.unpack(head)
    data = read(size)
    return data if len(data) == size else None


Question = dict[str, Any]
