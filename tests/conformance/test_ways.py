import asyncio
from pathlib import Path

from kapelle.adapters.network.opened import MODEL, PROXY
from kapelle.adapters.network.ways import LocalWays
from kapelle.core.network import Destination
from kapelle.core.ports import Ways
from kapelle.testing.conformance.ways import WaysSuite
from kapelle.testing.fakes import OpenWays


class TestLocalWays(WaysSuite):
    def make(self) -> Ways:
        return LocalWays()

    async def knock(self, ways: Ways, folder: str, to: Destination) -> None:  # noqa: ARG002  # a socket says whose it is
        reader, writer = await asyncio.open_unix_connection(f"{folder}/{PROXY}")
        writer.write(f"CONNECT {to.host}:{to.port} HTTP/1.1\r\nHost: {to.host}\r\n\r\n".encode())
        assert b" 403 " in await reader.read()
        writer.close()
        await writer.wait_closed()

    async def reaches_its_model(self, folder: str) -> None:
        assert Path(folder, MODEL).is_socket()  # noqa: ASYNC240  # of a test's own directory


class TestOpenWays(WaysSuite):
    def make(self) -> Ways:
        return OpenWays()

    async def knock(self, ways: Ways, folder: str, to: Destination) -> None:
        assert isinstance(ways, OpenWays)
        ways.knock(folder, to)

    async def reaches_its_model(self, folder: str) -> None:
        assert folder
