"""Files that grow wake whoever waits for them."""

import asyncio
import sys
from pathlib import Path

import pytest

from kapelle.adapters.system.growth import Growth

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has inotify; elsewhere files are looked at")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_everybody_who_waits_for_a_file_is_woken_when_it_is_written_to(tmp_path: Path) -> None:
    path, other = tmp_path / "spool", tmp_path / "other"
    path.touch()
    other.touch()
    growth, first, second, third = Growth(), asyncio.Event(), asyncio.Event(), asyncio.Event()
    with growth.watched(path, first) as one, growth.watched(path, second) as two, growth.watched(other, third) as three:
        assert (one, two, three) == (True, True, True)
        with path.open("ab") as stream:
            stream.write(b"more")
        await first.wait()
        await second.wait()
        assert not third.is_set()


async def test_one_handle_serves_all_and_is_given_back_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.touch()
    before, growth = descriptors(), Growth()
    for _ in range(3):
        with growth.watched(path, asyncio.Event()), growth.watched(path, asyncio.Event()):
            assert descriptors() == before + 1
    del growth
    assert descriptors() == before


async def test_a_file_that_is_not_there_is_not_watched(tmp_path: Path) -> None:
    growth, path = Growth(), tmp_path / "spool"
    with growth.watched(path, asyncio.Event()) as told:
        assert not told
    path.touch()
    woken = asyncio.Event()
    with growth.watched(path, woken) as told:
        assert told
        path.write_bytes(b"more")
        await woken.wait()
