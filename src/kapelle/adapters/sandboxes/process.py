"""The process sandbox: an environment of its own and nothing more. It works everywhere and isolates nothing."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from kapelle.adapters.sandboxes.surroundings import environment, make_folders
from kapelle.core.isolation import Place, Remains, SandboxCapabilities
from kapelle.core.ports import Launch


class ProcessSandbox:
    """See ``core.ports.Sandbox``."""

    name = "process"
    capabilities = SandboxCapabilities()

    def missing(self) -> str:
        return ""

    async def wrap(self, launch: Launch, place: Place) -> Launch:
        make_folders(place)
        return replace(launch, env=tuple(environment(launch, place).items()))

    async def clear(self, place: Place) -> Remains:
        return Remains()

    async def sweep(self, store_id: str, keep: Collection[str]) -> Sequence[str]:
        return ()
