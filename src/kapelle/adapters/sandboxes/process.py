"""The process sandbox: an environment of its own, limits, and nothing more. It works everywhere and isolates nothing."""

from collections.abc import Collection, Sequence

from kapelle.adapters.sandboxes.holding import Holding
from kapelle.adapters.sandboxes.surroundings import environment, make_folders
from kapelle.core.agent import ProcessRef
from kapelle.core.frozen import replace
from kapelle.core.isolation import Place, Remains, SandboxCapabilities
from kapelle.core.ports import Launch


class ProcessSandbox:
    """See ``core.ports.Sandbox``."""

    name = "process"

    def __init__(self, *, groups: bool = True) -> None:
        """Hold limits by control groups where there are some, unless *groups* says no."""
        self._holding = Holding(groups=groups)

    @property
    def capabilities(self) -> SandboxCapabilities:
        """What it isolates on this machine."""
        return SandboxCapabilities(
            screens=True, ends_all=self._holding.groups, limits=self._holding.holds(), held_by=self._holding.by
        )

    def missing(self) -> str:
        return ""

    def remedy(self) -> str:
        return ""

    async def wrap(self, launch: Launch, place: Place) -> Launch:
        make_folders(place)
        return await self._holding.held(replace(launch, env=tuple(environment(launch, place).items())), place)

    async def clear(self, place: Place) -> Remains:
        return await self._holding.cleared(place)

    async def met(self, place: Place) -> Remains:
        return self._holding.met(place)

    async def sweep(self, store_id: str, keep: Collection[str]) -> Sequence[str]:
        return await self._holding.swept(store_id, keep)

    async def leftovers(self, store_id: str, keep: Collection[str]) -> Sequence[str]:
        return self._holding.leftovers(store_id, keep)

    async def freeze(self, place: Place, process: ProcessRef | None) -> None:
        await self._holding.freeze(place, process)

    async def thaw(self, place: Place, process: ProcessRef | None) -> None:
        await self._holding.thaw(place, process)

    async def inside(self, store_id: str, keys: Collection[str]) -> Sequence[ProcessRef]:
        return self._holding.inside(store_id, keys)
