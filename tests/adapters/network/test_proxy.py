"""The proxy, by its sockets: who may go where, and what is said to those who may not. All hosts are on loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest

from kapelle.adapters.network.opened import MANY, MOST
from kapelle.adapters.network.ways import LocalWays
from kapelle.adapters.system.files import share
from kapelle.core.errors import HostFailed
from kapelle.core.ids import RunId, TaskId
from kapelle.core.isolation import Network, NetworkKind
from kapelle.core.network import Decision, Pass

NAMES = {"good.example": ["127.0.0.1"], "evil.example": ["169.254.169.254"], "mixed.example": ["127.0.0.1", "10.0.0.1"]}


async def look_up(host: str, port: int) -> Sequence[str]:  # noqa: ARG001  # as resolvers are asked
    if host not in NAMES:
        raise OSError("no such name")
    return NAMES[host]


class Web:
    """A server that says what it was asked."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def start(self) -> "Web":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            rest = await reader.read() if b"echo" in head else b""
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello" + rest)

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    found = await Web().start()
    yield found
    await found.stop()


class Outside:
    def __init__(self, folder: Path, web: Web) -> None:
        self.ways = LocalWays(look_up)
        self.told: list[Decision] = []
        self.ways.listen(self.told.append)
        self.folder, self.web = folder, web

    async def open(self, *hosts: str, model: int | None = None, private: tuple[str, ...] = ("127.0.0.0/8",)) -> None:
        network = Network(kind=NetworkKind.ALLOW, hosts=tuple(f"{host}:{self.web.port}" for host in hosts), private=private)
        holder = Pass(key="g-1", run_id=RunId("r"), task_id=TaskId("t"), network=network, model=model)
        await self.ways.open(holder, str(self.folder))

    async def ask(self, text: str, socket: str = "proxy", *, end: bool = True) -> str:
        reader, writer = await asyncio.open_unix_connection(str(self.folder / socket))
        writer.write(text.replace("\n", "\r\n").replace("PORT", str(self.web.port)).encode())
        if end:
            writer.write_eof()
        async with asyncio.timeout(20):
            said = await reader.read()
        writer.close()
        return said.decode()

    def decided(self) -> list[tuple[str, str, int]]:
        return [(decision.to.host, decision.refusal, decision.times) for decision in self.told]


@pytest.fixture
async def outside(tmp_path: Path, web: Web) -> AsyncIterator[Outside]:
    found = Outside(tmp_path / "ways", web)
    yield found
    await found.ways.stop()
    assert list((tmp_path / "ways").glob("*")) == []


async def test_who_may_gets_a_tunnel(outside: Outside) -> None:
    await outside.open("good.example")
    said = await outside.ask("CONNECT good.example:PORT HTTP/1.1\nHost: good.example\n\nGET /echo HTTP/1.1\n\nmore")
    assert said.startswith("HTTP/1.1 200 ")
    assert said.endswith("hellomore")
    assert outside.decided() == [("good.example", "", 1)]


async def test_who_may_is_passed_on_with_a_request_of_its_own(outside: Outside) -> None:
    await outside.open("good.example")
    said = await outside.ask("GET http://good.example:PORT/a?b#c HTTP/1.1\nHost: x\nProxy-Authorization: secret\nX-Mine: 1\n\n")
    assert said.endswith("hello")
    (head,) = outside.web.heads
    assert head.startswith(b"GET /a?b HTTP/1.1\r\nHost: x\r\n")
    assert b"X-Mine: 1" in head
    assert b"secret" not in head
    assert head.count(b"Connection: close") == 1


async def test_who_may_not_is_told_why_where_programs_show_it(outside: Outside) -> None:
    await outside.open("good.example")
    said = await outside.ask("CONNECT other.example:PORT HTTP/1.1\nHost: x\n\n")
    why = "it is not among the hosts that it may reach"
    status, *_, body = said.splitlines()
    assert status == f"HTTP/1.1 403 {body}"
    assert body == f"Kapelle: other.example:{outside.web.port} may not be reached: {why}"
    assert outside.decided() == [("other.example", why, 1)]


@pytest.mark.parametrize("host", ["evil.example", "mixed.example"])
async def test_a_name_that_leads_to_the_inside_is_refused(outside: Outside, host: str) -> None:
    await outside.open("*", private=("127.0.0.0/8",))
    said = await outside.ask(f"CONNECT {host}:PORT HTTP/1.1\nHost: x\n\n")
    assert said.startswith("HTTP/1.1 403 ")
    assert "which is not public" in said
    assert outside.web.heads == []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "2130706433", "0x7f.1", "localhost"])
async def test_no_way_of_writing_loopback_leads_there(tmp_path: Path, web: Web, host: str) -> None:
    outside = Outside(tmp_path / "ways", web)
    outside.ways = LocalWays()
    await outside.open("*", private=())
    try:
        said = await outside.ask(f"CONNECT {host}:PORT HTTP/1.1\nHost: x\n\n")
    finally:
        await outside.ways.stop()
    assert said.startswith("HTTP/1.1 403 ")
    assert web.heads == []


async def test_a_name_that_leads_nowhere_is_said_to(outside: Outside) -> None:
    await outside.open("*")
    assert "its name leads nowhere" in await outside.ask("CONNECT gone.example:PORT HTTP/1.1\nHost: x\n\n")


async def test_a_host_that_does_not_answer_is_said_to(outside: Outside, web: Web) -> None:
    await outside.open("good.example")
    await web.stop()
    said = await outside.ask("CONNECT good.example:PORT HTTP/1.1\nHost: x\n\n")
    assert said.startswith(f"HTTP/1.1 502 Kapelle: good.example:{web.port} does not answer")


@pytest.mark.parametrize(
    "text",
    [
        "CONNECT good.example HTTP/1.1\nHost: x\n\n",
        "GET / HTTP/1.1\nHost: good.example\n\n",
        "GET ftp://good.example/ HTTP/1.1\nHost: x\n\n",
        "CONNECT good.example:99999 HTTP/1.1\nHost: x\n\n",
        "nonsense\n\n",
        "GET http://good.example/" + "x" * 100_000 + " HTTP/1.1\nHost: x\n\n",
    ],
)
async def test_what_is_no_request_to_a_proxy_is_one_clear_error(outside: Outside, text: str) -> None:
    await outside.open("*")
    assert (await outside.ask(text)).startswith("HTTP/1.1 400 Kapelle: what was asked is no request to a proxy")
    assert outside.told == []


async def test_who_says_nothing_is_answered_with_nothing(outside: Outside) -> None:
    await outside.open("*")
    assert await outside.ask("") == ""
    assert await outside.ask("CONNECT good") == ""


async def test_the_model_is_reached_by_a_socket_of_its_own(outside: Outside) -> None:
    await outside.open("good.example", model=outside.web.port)
    assert (await outside.ask("GET /v1 HTTP/1.1\n\n", "model")).endswith("hello")
    assert outside.told == []


async def test_a_model_that_nobody_serves_is_a_connection_that_ends(outside: Outside, web: Web) -> None:
    await outside.open("good.example", model=web.port)
    await web.stop()
    assert await outside.ask("GET /v1 HTTP/1.1\n\n", "model", end=False) == ""


async def test_who_may_not_call_the_model_has_no_socket_for_it(outside: Outside) -> None:
    await outside.open("good.example")
    assert [path.name for path in outside.folder.iterdir()] == ["proxy"]


async def test_nobody_fills_the_log_by_asking(outside: Outside) -> None:
    await outside.open("good.example")
    for _ in range(3):
        await outside.ask("CONNECT other.example:PORT HTTP/1.1\nHost: x\n\n")
    assert [times for _, _, times in outside.decided()] == [1]
    await outside.ways.close("g-1")
    assert [times for _, _, times in outside.decided()] == [1, 2]


async def test_not_by_asking_for_ever_new_hosts_either(outside: Outside) -> None:
    await outside.open("good.example")
    for number in range(MANY + 3):
        await outside.ask(f"CONNECT {number}.example:PORT HTTP/1.1\nHost: x\n\n")
    await outside.ways.close("g-1")
    assert len(outside.told) == MANY + 1
    assert outside.decided()[-1][0::2] == ("*", 3)


async def test_the_next_leader_opens_the_same_way_again(outside: Outside) -> None:
    """Whatever the first has left there."""
    await outside.open("good.example")
    second = Outside(outside.folder, outside.web)
    await second.open("good.example")
    assert "200" in await second.ask("CONNECT good.example:PORT HTTP/1.1\nHost: x\n\nGET / HTTP/1.1\n\n")
    assert second.decided() == [("good.example", "", 1)]
    await second.ways.stop()


async def test_opened_twice_it_is_one_way(outside: Outside) -> None:
    for _ in range(2):
        await outside.open("good.example")
    assert "200" in await outside.ask("CONNECT good.example:PORT HTTP/1.1\nHost: x\n\nGET / HTTP/1.1\n\n")


async def test_a_way_that_is_closed_breaks_off_what_goes_through_it(outside: Outside) -> None:
    await outside.open("good.example")
    reader, writer = await asyncio.open_unix_connection(str(outside.folder / "proxy"))
    writer.write(f"CONNECT good.example:{outside.web.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    await outside.ways.close("g-1")
    assert await reader.read() == b"\r\n"
    writer.close()


async def test_the_path_of_a_state_directory_may_be_long(web: Web, tmp_path: Path) -> None:
    """Longer than the address of a socket may be."""
    outside = Outside(tmp_path / ("x" * 100) / ("y" * 100), web)
    await outside.open("good.example")
    assert [path.name for path in outside.folder.iterdir()] == ["proxy"]
    await outside.ways.stop()


async def test_a_folder_that_cannot_be_made_is_told(outside: Outside, tmp_path: Path) -> None:
    (tmp_path / "ways").write_text("a file")
    with pytest.raises(HostFailed, match="the way to the network cannot be made"):
        await outside.open("good.example")
    (tmp_path / "ways").unlink()


async def test_what_earlier_leaders_left_is_swept(web: Web, tmp_path: Path) -> None:
    """But for what is open, and what somebody who is live will open again."""
    for name in ("dead", "live"):
        (tmp_path / "agents" / name / "ways").mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(tmp_path / "agents" / name / "ways" / "proxy"))
    mine = Outside(tmp_path / "agents" / "mine" / "ways", web)
    await mine.open("good.example")
    (tmp_path / "agents" / "dead" / "ways" / "note").write_text("no socket")
    await mine.ways.sweep(str(tmp_path), {str(tmp_path / "agents" / "live" / "ways")})
    there = [path for path in (tmp_path / "agents").rglob("*") if not path.is_dir()]
    left = sorted(str(path.relative_to(tmp_path / "agents")) for path in there)
    assert left == ["dead/ways/note", "live/ways/proxy", "mine/ways/proxy"]
    await mine.ways.stop()


async def test_nobody_has_connections_without_end(outside: Outside) -> None:
    """To the model and through the proxy together; what is over is told why, and as one decision."""
    await outside.open("good.example", model=outside.web.port)
    paths = [str(outside.folder / name) for name in ("model", "proxy")]
    most = share(MOST)
    held = [await asyncio.open_unix_connection(paths[number % 2]) for number in range(most)]
    said = [await outside.ask("CONNECT good.example:PORT HTTP/1.1\nHost: x\n\n", end=False) for _ in range(3)]
    why = f"it had {most} connections open at once, and more there may not be"
    assert [lines.splitlines()[0] for lines in said] == [f"HTTP/1.1 503 Kapelle: {why}"] * 3
    for _, writer in held:
        writer.close()
    early = 0
    while "200" not in await outside.ask("CONNECT good.example:PORT HTTP/1.1\nHost: x\n\nGET / HTTP/1.1\n\n"):
        # That they are closed has to be noticed first.
        early += 1
    await outside.ways.close("g-1")
    assert outside.decided() == [("*", why, 1), ("good.example", "", 1), ("*", why, 2 + early)]


async def test_a_connection_that_fails_is_told_and_ends_no_other(tmp_path: Path, web: Web) -> None:
    async def broken(host: str, port: int) -> Sequence[str]:
        raise RecursionError(f"{host}:{port}")

    outside = Outside(tmp_path / "ways", web)
    outside.ways = LocalWays(broken)
    outside.ways.listen(outside.told.append)
    await outside.open("good.example", model=web.port)
    assert await outside.ask("CONNECT good.example:PORT HTTP/1.1\nHost: x\n\n") == ""
    assert (await outside.ask("GET /v1 HTTP/1.1\n\n", "model")).endswith("hello")
    await outside.ways.stop()
    assert [refusal for _, refusal, _ in outside.decided()] == [
        f"somebody could not be served (RecursionError: good.example:{web.port})"
    ]
