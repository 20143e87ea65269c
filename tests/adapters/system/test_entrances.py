"""Entrances, by their sockets: full ones, failing guests, a machine that lacks files, a socket that breaks."""

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from kapelle.adapters.system.entrances import REST_S, WORD_S, Entrance, Room, Streams
from kapelle.adapters.system.sockets import listening

FULL = "too many are inside"
MUCH = 8_000_000
"""Bytes that no socket holds until somebody reads them."""


class Hall:
    """An entrance whose guests say what is done with them."""

    def __init__(self, folder: Path, most: int = 2, kind: type[socket.socket] = socket.socket) -> None:
        self.folder = folder
        self.kind = kind
        self.crowd = 0
        self.told: list[str] = []
        self.something = asyncio.Event()
        self.entered = asyncio.Event()
        self.remade = asyncio.Event()
        self.room = Room(most)
        self.made: list[socket.socket] = []
        enter = Streams(self.room, self._serve, self._hear, full=(FULL, b"full\n"))
        self.entrance = Entrance(self._make, enter, self._hear)

    def _make(self) -> socket.socket:
        made = listening(self.folder, "in", 32)
        self.made.append(made if self.made else self.kind(fileno=made.detach()))
        if len(self.made) > 1:
            self.remade.set()
        return self.made[-1]

    def _hear(self, reason: str) -> None:
        self.told.append(reason)
        self.crowd = max(self.crowd, len(self.room.outside))
        self.something.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.entered.set()
        word = await reader.readline()
        if word == b"fail\n":
            raise RecursionError("too deep")
        writer.write(b"much" * (MUCH // 4) if word == b"much\n" else b"heard " + word)

    async def enter(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.folder / "in"))

    async def say(self, word: str, guest: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None) -> str:
        reader, writer = guest or await self.enter()
        writer.write(f"{word}\n".encode())
        async with asyncio.timeout(20):
            said = await reader.read()
        writer.close()
        return said.decode()


@pytest.fixture
async def hall(tmp_path: Path) -> AsyncIterator[Hall]:
    found = Hall(tmp_path)
    yield found
    found.entrance.close()
    await found.room.cleared()


@contextmanager
def no_more_files() -> Generator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))  # noqa: PTH208
    held: list[int] = []
    try:
        # Those in between, too.
        while True:
            try:
                held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in held:
            os.close(each)


async def test_a_guest_who_fails_is_told_of_and_the_next_is_served(hall: Hall) -> None:
    assert await hall.say("fail") == ""
    assert await hall.say("you") == "heard you\n"
    assert hall.told == ["somebody could not be served (RecursionError: too deep)"]


async def test_who_finds_no_room_is_told_so_and_who_is_inside_stays(hall: Hall) -> None:
    inside = [await hall.enter() for _ in range(2)]
    third = await hall.enter()
    assert await third[0].read() == b"full\n"
    third[1].close()
    assert [await hall.say("still", guest) for guest in inside] == ["heard still\n"] * 2
    assert await hall.say("again") == "heard again\n"
    assert hall.told == [FULL]


async def test_a_machine_without_files_left_is_waited_for(hall: Hall) -> None:
    outside = socket.socket(socket.AF_UNIX)
    outside.setblocking(False)
    with no_more_files():
        outside.connect(str(hall.folder / "in"))
        await hall.something.wait()
    assert await hall.say("patient", await asyncio.open_unix_connection(sock=outside)) == "heard patient\n"
    assert hall.told == ["somebody could not be let in (Too many open files)"]


async def test_a_socket_that_breaks_is_made_again(hall: Hall) -> None:
    hall.made[0].shutdown(socket.SHUT_RDWR)
    await hall.remade.wait()
    assert await hall.say("you") == "heard you\n"
    # Which error a system has for it is its own affair.
    assert len(hall.told) == 1
    assert hall.told[0].startswith("nobody could be let in any more (")


async def test_one_that_cannot_be_made_again_is_told_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    hall = Hall(tmp_path / "there")
    (tmp_path / "there" / "in").unlink()
    (tmp_path / "there").rename(tmp_path / "gone")
    hall.made[0].shutdown(socket.SHUT_RDWR)
    while len(hall.told) < 2:
        hall.something.clear()
        await hall.something.wait()
    (tmp_path / "gone").rename(tmp_path / "there")
    await hall.remade.wait()
    assert await hall.say("you") == "heard you\n"
    assert hall.told[1] == "nobody can be let in (No such file or directory)"
    hall.entrance.close()
    await hall.room.cleared()


async def test_a_closed_one_lets_nobody_in_and_breaks_nobody_off(hall: Hall) -> None:
    inside = await hall.enter()
    await hall.entered.wait()
    hall.entrance.close()
    with pytest.raises(ConnectionRefusedError):
        await hall.enter()
    assert await hall.say("still", inside) == "heard still\n"


# --- How long somebody may take, and how many they may be ---


async def emptied(room: Room) -> None:
    async with asyncio.timeout(20):
        while everybody := room.everybody:
            await asyncio.wait(everybody)


async def test_who_reads_hears_everything_before_the_door_is_closed(hall: Hall) -> None:
    assert len(await hall.say("much")) == MUCH


async def test_who_reads_nothing_is_broken_off_and_makes_room(hall: Hall) -> None:
    reader, writer = await hall.enter()
    # Its own end takes in no more than there is space for.
    writer.transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue]
    writer.write(b"much\n")
    await hall.entered.wait()
    await emptied(hall.room)
    writer.transport.resume_reading()  # pyright: ignore[reportAttributeAccessIssue]
    heard = b""
    with suppress(ConnectionResetError):
        async with asyncio.timeout(20):
            heard = await reader.read()
    assert len(heard) < MUCH
    writer.close()
    assert await hall.say("you") == "heard you\n"
    assert hall.told == []


async def test_who_is_turned_away_and_stays_is_gone_all_the_same(hall: Hall) -> None:
    inside = [await hall.enter() for _ in range(2)]
    reader, writer = await hall.enter()
    await hall.something.wait()
    (outside,) = hall.room.outside
    async with asyncio.timeout(20):
        await asyncio.wait({outside})
    writer.write(b"still there\n")
    assert await reader.read() == b"full\n"
    with pytest.raises(ConnectionError):
        await broken(writer)
    for _, each in inside:
        each.close()


async def broken(writer: asyncio.StreamWriter) -> None:
    """Write until somebody says that nobody reads."""
    async with asyncio.timeout(20):
        while True:
            writer.write(b"more\n")
            await writer.drain()
            await asyncio.sleep(0)


async def test_a_crowd_is_turned_away_a_few_at_a_time(hall: Hall) -> None:
    inside = [await hall.enter() for _ in range(2)]
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(16)]
    for each in crowd:
        # The system lets so many wait.
        each.connect(str(hall.folder / "in"))
    while len(hall.told) < len(crowd):
        hall.something.clear()
        await hall.something.wait()
    assert hall.crowd <= WORD_S / REST_S + 2
    for each in crowd:
        each.close()
    assert [await hall.say("still", guest) for guest in inside] == ["heard still\n"] * 2


async def test_whoever_is_broken_off_before_anything_began_is_closed(hall: Hall) -> None:
    enter = Streams(hall.room, lambda *_: asyncio.sleep(0), hall.told.append, full=(FULL, b""))
    ours, theirs = socket.socketpair()
    with theirs:
        assert enter(ours)
        await hall.room.cleared()
        assert ours.fileno() == -1
        assert hall.room.everybody == set()


class Deserted(socket.socket):
    """One that says that somebody is there, and nobody is."""

    def accept(self) -> tuple[socket.socket, object]:
        raise BlockingIOError


@pytest.fixture
async def deserted(tmp_path: Path) -> AsyncIterator[Hall]:
    found = Hall(tmp_path, kind=Deserted)
    yield found
    found.entrance.close()
    await found.room.cleared()


async def test_a_socket_at_which_nobody_is_too_often_is_made_again(deserted: Hall) -> None:
    with socket.socket(socket.AF_UNIX) as guest:
        guest.connect(str(deserted.folder / "in"))
        async with asyncio.timeout(20):
            await deserted.remade.wait()
    assert await deserted.say("you") == "heard you\n"
    assert len(deserted.told) == 1
    assert deserted.told[0].startswith("nobody could be let in any more (")
