"""What a leader does with its sandbox, done as somebody who has logged in: one line of JSON asks, one answers."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from kapelle.adapters.hosts.local import LocalHost
from kapelle.adapters.sandboxes.process import ProcessSandbox
from kapelle.adapters.system import cgroups, hierarchies, scopes
from kapelle.core.errors import HostFailed
from kapelle.core.isolation import Isolation, Place, ProcessLimits
from kapelle.core.ports import Launch


class Leader:
    """One, in a folder, for a store."""

    def __init__(self, folder: Path, store_id: str) -> None:
        self.folder = folder
        self.store_id = store_id
        self.sandbox = ProcessSandbox()
        self.host = LocalHost()

    def place(self, key: str, **limits: Any) -> Place:
        own = self.folder / key
        for name in ("workspace", "folder", "home"):
            (own / name).mkdir(parents=True, exist_ok=True)
        return Place(
            workspace=str(own / "workspace"),
            folder=str(own / "folder"),
            home=str(own / "home"),
            store_id=self.store_id,
            key=key,
            isolation=Isolation(limits=ProcessLimits(**limits)),
        )

    async def where(self) -> dict[str, Any]:
        manager = scopes.manager()
        can = self.sandbox.capabilities
        return {
            "group": hierarchies.second_of("self"),
            "manager": None if manager is None else str(manager.folder),
            "ends_all": can.ends_all,
            "limits": sorted(can.limits),
            "refused": cgroups.refused(),
            "pid": os.getpid(),
        }

    async def start(self, key: str, script: str, **limits: Any) -> dict[str, Any]:
        place = self.place(key, **limits)
        launch = Launch(argv=("/bin/sh", "-c", script), cwd=place.workspace)
        process = await self.host.start(await self.sandbox.wrap(launch, place), place.folder)
        return {"pid": process.pid}

    async def freeze(self, key: str) -> None:
        await self.sandbox.freeze(self.place(key), None)

    async def thaw(self, key: str) -> None:
        await self.sandbox.thaw(self.place(key), None)

    async def clear(self, key: str) -> dict[str, Any]:
        remains = await self.sandbox.clear(self.place(key))
        return {"out_of_memory": remains.out_of_memory}

    async def sweep(self, *keep: str) -> list[str]:
        return list(await self.sandbox.sweep(self.store_id, keep))

    async def inside(self, key: str) -> list[int]:
        return [process.pid for process in await self.sandbox.inside(self.store_id, [key])]


async def main() -> None:
    leader = Leader(Path(sys.argv[1]), sys.argv[2])
    for line in sys.stdin:
        what, args, options = json.loads(line)
        try:
            answer = await getattr(leader, what)(*args, **options)
        except HostFailed as error:
            answer = {"error": error.message}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


asyncio.run(main())
