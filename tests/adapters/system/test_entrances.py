"""Entrances, by their sockets: full ones, failing guests, a machine that lacks files, a socket that breaks."""

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kapelle.adapters.system.entrances import Entrance, Room, Streams
from kapelle.adapters.system.sockets import listening

FULL = "too many are inside"


class Hall:
    """An entrance whose guests say what is done with them."""

    def __init__(self, folder: Path, most: int = 2) -> None:
        self.folder = folder
        self.told: list[str] = []
        self.something = asyncio.Event()
        self.entered = asyncio.Event()
        self.remade = asyncio.Event()
        self.room = Room(most)
        self.made: list[socket.socket] = []
        enter = Streams(self.room, self._serve, self._hear, full=(FULL, b"full\n"))
        self.entrance = Entrance(self._make, enter, self._hear)

    def _make(self) -> socket.socket:
        self.made.append(listening(self.folder, "in", 8))
        if len(self.made) > 1:
            self.remade.set()
        return self.made[-1]

    def _hear(self, reason: str) -> None:
        self.told.append(reason)
        self.something.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.entered.set()
        word = await reader.readline()
        if word == b"fail\n":
            raise RecursionError("too deep")
        writer.write(b"heard " + word)

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
