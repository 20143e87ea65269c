"""What is asked of a service manager, and what comes of it when that is not what it should be."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.system import bus, scopes
from kapelle.adapters.system.bus import ANSWER, ERROR, Refused, Writer, call, fields_of, message
from kapelle.adapters.system.scopes import Manager, enter, listener, managers_group

Answers = Callable[[socket.socket, list[str]], None]
TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]))


def said(kind: int, to: int, name: str = "", text: str | None = None, *, order: bytes = b"l") -> bytes:
    """Return a message as a service manager sends it."""
    body = Writer()
    if text is not None:
        body.text(text)
    head = Writer()
    head.data += order + bytes((kind, 0, 1))
    head.uint32(len(body.data))
    head.uint32(7)
    at = head.begin(8)
    for number, sort, value in (
        (bus.ANSWER_TO, "u", to),
        (bus.ERROR_NAME, "s", name),
        (bus.SIGNATURE, "g", "s" if text else ""),
    ):
        if value:
            head.align(8)
            head.byte(number)
            head.signature(sort)
            {"u": head.uint32, "s": head.text, "g": head.signature}[sort](value)  # type: ignore[operator]
    head.end(at, 8)
    head.align(8)
    return bytes(head.data + body.data)


@pytest.fixture
def stands_in(tmp_path: Path) -> Iterator[Callable[[Answers], tuple[Path, list[str]]]]:
    """Give what stands in for a service manager: it takes calls, and *answers* as it is told."""
    threads: list[threading.Thread] = []

    def begin(answers: Answers) -> tuple[Path, list[str]]:
        path, heard = tmp_path / "private", list[str]()
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            with server, server.accept()[0] as connection:
                connection.settimeout(10)
                line = connection.recv(100)
                assert line.startswith(b"\0AUTH EXTERNAL ")
                connection.sendall(b"OK 0123456789abcdef\r\n")
                assert connection.recv(7, socket.MSG_WAITALL) == b"BEGIN\r\n"
                answers(connection, heard)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return path, heard

    yield begin
    for thread in threads:
        thread.join()


def hears(connection: socket.socket) -> str:
    """Return which method is called."""
    fixed = connection.recv(16, socket.MSG_WAITALL)
    length, _, size = struct.unpack_from("<III", fixed, 4)
    fields = fields_of(connection.recv(size, socket.MSG_WAITALL))
    connection.recv(-size % 8 + length, socket.MSG_WAITALL)
    return str(fields[bus.MEMBER])


@given(path=TEXT, member=TEXT, signature=st.text("sau()", max_size=20), body=st.binary(max_size=50))
def test_what_is_written_can_be_read(path: str, member: str, signature: str, body: bytes) -> None:
    data = message(5, "to", path, "face", member, signature, body)
    length, serial, size = struct.unpack_from("<III", data, 4)
    assert (length, serial) == (len(body), 5)
    expected = {bus.PATH: path, bus.INTERFACE_FIELD: "face", bus.MEMBER: member, bus.DESTINATION: "to"}
    assert fields_of(data[16 : 16 + size]) == expected | ({bus.SIGNATURE: signature} if signature else {})
    assert data[16 + size + -size % 8 :] == body


def test_arrays_begin_where_their_first_does() -> None:
    body = Writer()
    body.byte(1)
    at = body.begin(8)
    body.uint64(2)
    body.end(at, 8)
    assert bytes(body.data) == b"\x01\0\0\0" + b"\x08\0\0\0" + b"\x02" + bytes(7)


def test_what_is_refused_says_why(stands_in: Callable[[Answers], tuple[Path, list[str]]]) -> None:
    def refuses(connection: socket.socket, heard: list[str]) -> None:
        heard.append(hears(connection))
        connection.sendall(said(ERROR, 2, "org.example.No", "you may not"))

    path, heard = stands_in(refuses)
    with pytest.raises(Refused, match="you may not") as refused:
        call(path, "Do", "", b"", greet=False, patience=10)
    assert refused.value.name == "org.example.No"
    assert heard == ["Do"]


def test_at_a_bus_one_says_hello_and_hears_what_is_for_others(
    stands_in: Callable[[Answers], tuple[Path, list[str]]],
) -> None:
    def passes_on(connection: socket.socket, heard: list[str]) -> None:
        heard.append(hears(connection))
        connection.sendall(said(ANSWER, 1, text=":1.7") + said(4, 0, text=":1.7"))
        heard.append(hears(connection))
        connection.sendall(said(4, 0) + said(ANSWER, 2, text="/job/1"))

    path, heard = stands_in(passes_on)
    call(path, "Do", "", b"", greet=True, patience=10)
    assert heard == ["Hello", "Do"]


def test_who_does_not_answer_is_not_waited_for(stands_in: Callable[[Answers], tuple[Path, list[str]]]) -> None:
    gone = threading.Event()

    def waits(_: socket.socket, __: list[str]) -> None:
        gone.wait(10)

    path, _ = stands_in(waits)
    with pytest.raises(TimeoutError):
        call(path, "Do", "", b"", greet=False, patience=0.05)
    gone.set()


@pytest.mark.parametrize(
    "answer",
    [said(ANSWER, 2, order=b"B"), b"l\2\0\1" + b"\xff" * 12, b"l\2\0\1" + bytes(4) + bytes(4) + b"\4\0\0\0" + b"\1\1x\0" * 2],
)
def test_what_is_not_understood_is_an_error(stands_in: Callable[[Answers], tuple[Path, list[str]]], answer: bytes) -> None:
    path, _ = stands_in(lambda connection, heard: heard.append(hears(connection)) or connection.sendall(answer))
    with pytest.raises(ValueError, match=r".*"):
        call(path, "Do", "", b"", greet=False, patience=10)


def test_where_nothing_is_given_everything_stays_as_it_is(
    stands_in: Callable[[Answers], tuple[Path, list[str]]], tmp_path: Path
) -> None:
    before = Path("/proc/self/cgroup").read_text()
    answer = said(ERROR, 2, "org.example.No", "you may not")
    path, _ = stands_in(lambda connection, heard: heard.append(hears(connection)) or connection.sendall(answer))
    manager = Manager(sockets=((path, False),), folder=tmp_path, controllers=frozenset())
    assert enter(manager) == "the service manager of the user gives no scope: you may not"
    assert Path("/proc/self/cgroup").read_text() == before


def test_who_listens_is_known_by_the_socket(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert listener(tmp_path / "none") is None
    assert listener(tmp_path / "file") is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "socket"))
        assert listener(tmp_path / "socket") is None
        server.listen()
        assert listener(tmp_path / "socket") == scopes.os.getpid()


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("/user.slice/user-7.slice/user@7.service/init.scope", "/user.slice/user-7.slice/user@7.service"),
        ("/user.slice/user-7.slice/user@7.service", "/user.slice/user-7.slice/user@7.service"),
        ("/lxc/a/user.slice/user@7.service/app.slice/x.service", "/lxc/a/user.slice/user@7.service"),
        ("/user.slice/user-77.slice/user@77.service/init.scope", None),
        ("/user.slice/user-7.slice/session-1.scope", None),
        ("/", None),
    ],
)
def test_the_group_of_a_service_manager_is_above_its_process(path: str, group: str | None) -> None:
    assert managers_group(path, 7) == group
