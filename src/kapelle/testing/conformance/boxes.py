"""What the suites of sandboxes have in common: a sandbox, a host, and the directories of an agent."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kapelle.core.isolation import Place
from kapelle.core.ports import Ended, Host, Launch, Sandbox
from kapelle.testing.conformance.processes import Stage, Started, read_to_end


class BoxCase:
    """A sandbox to be tested. Give it in ``sandbox``, and the host that starts processes for it in ``host``."""

    def sandbox(self) -> Sandbox:
        """Return the sandbox."""
        raise NotImplementedError

    def host(self) -> Host:
        """Return a host."""
        raise NotImplementedError

    @pytest.fixture
    async def stage(self, tmp_path: Path) -> AsyncIterator[Stage]:
        """Give a host and room for what it starts."""
        (tmp_path / "workspace").mkdir()
        stage = Stage(host=self.host(), folder=tmp_path / "workspace")
        yield stage
        await stage.clear()

    @pytest.fixture
    async def place(self, tmp_path: Path) -> AsyncIterator[Place]:
        """Give the directories of an agent; only the workspace is made already."""
        place = place_in(tmp_path)
        yield place
        await self.sandbox().clear(place)
        await self.sandbox().sweep(place.store_id, ())

    async def _start(self, stage: Stage, place: Place, launch: Launch) -> Started:
        return await stage.start_launch(await self.sandbox().wrap(launch, place), Path(place.folder))

    async def _said(self, stage: Stage, place: Place, launch: Launch) -> str:
        found = await self._start(stage, place, launch)
        data, ended = await read_to_end(stage.host, found)
        assert ended == Ended(exit_code=0)
        return data.decode()


def place_in(folder: Path) -> Place:
    """Return the directories of an agent in *folder*."""
    return Place(
        workspace=str(folder / "workspace"),
        folder=str(folder / "folder"),
        home=str(folder / "home"),
        store_id=f"suite-{os.getpid()}",
        key="a-1",
    )
