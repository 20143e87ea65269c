"""Ways out of sandboxes of this machine; see ``opened``."""

from asyncio import to_thread
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kapelle.core.errors import HostFailed
from kapelle.core.isolation import Way
from kapelle.core.network import Decision, Pass

if TYPE_CHECKING:
    from kapelle.adapters.network.opened import Opened
    from kapelle.adapters.network.proxy import Resolving

FOLDER = "ways"
"""What a directory of sockets is called, in the folder of whoever they are for."""
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host."""


class LocalWays:
    """See ``core.ports.Ways``."""

    def __init__(self, resolver: Resolver | None = None) -> None:
        self._resolver = resolver
        self._resolving: Resolving | None = None
        self._told: Callable[[Decision], None] = lambda _: None
        self._open: dict[str, Opened] = {}

    def listen(self, told: Callable[[Decision], None]) -> None:
        self._told = told

    async def open(self, holder: Pass, folder: str) -> Way:
        # The proxy is loaded where it is needed: most runs need none.
        from kapelle.adapters.network.opened import Opened
        from kapelle.adapters.network.proxy import Resolving

        found = self._open.get(holder.key)
        if found is None:
            if self._resolver is None and self._resolving is None:
                self._resolving = Resolving()
            # Whoever listens may come later, or be another by then.
            found = Opened(holder, folder, lambda decision: self._told(decision), self._look_up)  # noqa: PLW0108
            self._open[holder.key] = found
            try:
                found.begin()
            except OSError as error:
                await self.close(holder.key)
                raise HostFailed(f"the way to the network cannot be made in {folder}: {error.strerror}") from error
        else:
            try:
                found.hand_to(holder)
            except OSError as error:
                raise HostFailed(f"the way to the model cannot be made in {found.folder}: {error.strerror}") from error
        return Way(folder=found.folder, model=holder.model)

    async def close(self, key: str) -> None:
        found = self._open.pop(key, None)
        if found is not None:
            await found.end()

    async def sweep(self, root: str, keep: Collection[str]) -> None:
        kept = {*keep, *(found.folder for found in self._open.values())}
        for path in await to_thread(_sockets, root):
            if str(path.parent) not in kept:
                path.unlink(missing_ok=True)

    async def stop(self) -> None:
        for key in list(self._open):
            await self.close(key)
        if self._resolving is not None:
            self._resolving.close()
            self._resolving = None

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        look_up = self._resolver or self._resolving
        if look_up is None:
            raise OSError("nobody looks up names any more")
        return await look_up(host, port)


def _sockets(root: str) -> list[Path]:
    return [path for path in Path(root).glob(f"*/*/{FOLDER}/*") if path.is_socket()]
