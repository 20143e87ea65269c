"""A small world for every test: the real store, fakes of everything else, and nothing that sleeps."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kapelle.testing.worlds import SmallWorld, world


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[SmallWorld]:
    async with world(tmp_path) as made:
        yield made
