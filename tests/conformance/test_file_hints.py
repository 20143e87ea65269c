import asyncio
import socket
from pathlib import Path

import pytest

from kapelle.adapters.hints.files import FileHints
from kapelle.core.ports import Hints
from kapelle.testing.conformance.hints import HintsSuite


class TestFileHints(HintsSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "hints"

    def hints(self) -> Hints:
        return FileHints(self.folder)


async def test_what_a_killed_listener_left_goes_when_the_next_one_listens(tmp_path: Path) -> None:
    left = tmp_path / "99999999"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as killed:
        killed.bind(str(left))

    async def listen() -> None:
        async for _ in FileHints(tmp_path).listen():
            pass

    async with asyncio.TaskGroup() as group:
        listening = group.create_task(listen())
        # It begins, and waits for a hint.
        await asyncio.sleep(0)
        there = left.exists()
        listening.cancel()
    assert not there
