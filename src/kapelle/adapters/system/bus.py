"""The few words of D-Bus that a service manager is asked in: one call over a socket, and its answer.

A service manager listens at a socket of its own and at the bus of its user. Only at the bus one has to say hello first.
Everything is little-endian, and aligned as its kind wants it.
"""

import os
import socket
import struct
from pathlib import Path

MANAGER = "org.freedesktop.systemd1"
OBJECT = "/org/freedesktop/systemd1"
INTERFACE = "org.freedesktop.systemd1.Manager"
BUS, BUS_OBJECT = "org.freedesktop.DBus", "/org/freedesktop/DBus"
CALL, ANSWER, ERROR = 1, 2, 3
PATH, INTERFACE_FIELD, MEMBER, ERROR_NAME, ANSWER_TO, DESTINATION, SIGNATURE = 1, 2, 3, 4, 5, 6, 8
"""Fields of a header, by the number that each has."""
FIXED = 16
"""Bytes of a header before its fields."""
LONGEST = 1 << 20
"""Bytes of an answer; the longest of a service manager's own is a line."""
LINE = 512
"""Bytes of what is said before the first message."""


class Refused(Exception):
    """The answer is no; the message says why."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message or name)
        self.name = name


class Writer:
    """Bytes as D-Bus wants them, from the beginning of a header or of a body."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, to: int) -> None:
        """Go to the next multiple of *to*."""
        self.data += bytes(-len(self.data) % to)

    def byte(self, value: int) -> None:
        """Write one byte."""
        self.data.append(value)

    def boolean(self, *, value: bool) -> None:
        """Write ``b``."""
        self.uint32(int(value))

    def uint32(self, value: int) -> None:
        """Write ``u``."""
        self.align(4)
        self.data += struct.pack("<I", value)

    def uint64(self, value: int) -> None:
        """Write ``t``."""
        self.align(8)
        self.data += struct.pack("<Q", value)

    def text(self, value: str) -> None:
        """Write ``s`` or ``o``."""
        raw = value.encode()
        self.uint32(len(raw))
        self.data += raw + b"\0"

    def signature(self, value: str) -> None:
        """Write ``g``."""
        raw = value.encode()
        self.byte(len(raw))
        self.data += raw + b"\0"

    def begin(self, align: int) -> int:
        """Begin an array of what is aligned to *align*; return what ``end`` wants."""
        self.uint32(0)
        at = len(self.data)
        self.align(align)
        return at

    def end(self, at: int, align: int) -> None:
        """End it: its length does not count what comes before its first."""
        first = at + -at % align
        struct.pack_into("<I", self.data, at - 4, len(self.data) - first)


def message(serial: int, destination: str, path: str, interface: str, member: str, signature: str, body: bytes) -> bytes:
    """Return a call, as it is sent."""
    head = Writer()
    head.data += b"l" + bytes((CALL, 0, 1))
    head.uint32(len(body))
    head.uint32(serial)
    fields = head.begin(8)
    texts = [(PATH, "o", path), (INTERFACE_FIELD, "s", interface), (MEMBER, "s", member), (DESTINATION, "s", destination)]
    for number, kind, value in texts:
        head.align(8)
        head.byte(number)
        head.signature(kind)
        head.text(value)
    if signature:
        head.align(8)
        head.byte(SIGNATURE)
        head.signature("g")
        head.signature(signature)
    head.end(fields, 8)
    head.align(8)
    return bytes(head.data) + body


def fields_of(data: bytes) -> dict[int, str | int]:
    """Return the fields of a header, given as what follows its fixed part.

    Raises:
        ValueError: they are not understood.
    """
    try:
        return _fields(data)
    except (IndexError, struct.error) as error:
        raise ValueError(data) from error


def _fields(data: bytes) -> dict[int, str | int]:
    found: dict[int, str | int] = {}
    at = 0
    while at < len(data):
        at += -at % 8
        number, length = data[at], data[at + 1]
        kind = data[at + 2 : at + 2 + length].decode()
        at += 2 + length + 1
        if kind in {"s", "o"}:
            at += -at % 4
            size = struct.unpack_from("<I", data, at)[0]
            found[number] = data[at + 4 : at + 4 + size].decode()
            at += 4 + size + 1
        elif kind == "g":
            found[number] = data[at + 1 : at + 1 + data[at]].decode()
            at += 1 + data[at] + 1
        elif kind == "u":
            at += -at % 4
            found[number] = struct.unpack_from("<I", data, at)[0]
            at += 4
        else:
            raise ValueError(kind)
    return found


def call(path: Path, member: str, signature: str, body: bytes, *, greet: bool, patience: float) -> None:
    """Ask the service manager at the socket *path* for something, and wait for its yes; *greet* where a bus is between.

    Raises:
        Refused: it said no.
        OSError: it cannot be reached, or does not answer within *patience* seconds.
        ValueError: what it says is not understood.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patience)
        connection.connect(str(path))
        who = str(os.geteuid()).encode().hex()
        connection.sendall(f"\0AUTH EXTERNAL {who}\r\n".encode())
        line = b""
        while not line.endswith(b"\r\n"):
            line += _exactly(connection, 1)
            if len(line) > LINE:
                raise ValueError(line)
        if not line.startswith(b"OK "):
            raise Refused("", line.decode(errors="replace").strip())
        connection.sendall(b"BEGIN\r\n")
        if greet:
            connection.sendall(message(1, BUS, BUS_OBJECT, BUS, "Hello", "", b""))
            _answered(connection, 1)
        connection.sendall(message(2, MANAGER, OBJECT, INTERFACE, member, signature, body))
        _answered(connection, 2)


def _answered(connection: socket.socket, serial: int) -> None:
    """Wait for the answer to the call *serial*; whatever else is said meanwhile is not for us."""
    while True:
        fixed = _exactly(connection, FIXED)
        order = "<" if fixed[:1] == b"l" else ">"
        if order == ">":
            raise ValueError(fixed)
        length, _, size = struct.unpack_from("<III", fixed, 4)
        if length > LONGEST or size > LONGEST:
            raise ValueError(fixed)
        fields = fields_of(_exactly(connection, size))
        _exactly(connection, -size % 8)
        body = _exactly(connection, length)
        if fields.get(ANSWER_TO) != serial:
            continue
        if fixed[1] == ERROR:
            raise Refused(str(fields.get(ERROR_NAME, "")), _text(body) if fields.get(SIGNATURE) == "s" else "")
        return


def _text(body: bytes) -> str:
    """Return the text that is all of *body*: its length, itself, and a zero."""
    return body[4:-1].decode(errors="replace")


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionResetError
        data += more
    return data
