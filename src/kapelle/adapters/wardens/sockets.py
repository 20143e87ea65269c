"""Wardens on this machine: a Unix socket for each agent, in a folder that only that agent's sandbox shows.

Who connects goes to the folder first and names the socket alone.
"""

import asyncio
import hmac
import json
import socket
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from kapelle.adapters.system.ownership import agent, give
from kapelle.adapters.system.sockets import listening
from kapelle.core.errors import HostFailed
from kapelle.core.ids import AgentId
from kapelle.core.rules import Call, Ruling, Verdict
from kapelle.core.warden import SOCKET, Judge, WardenAccess

LONGEST = 1 << 22
"""Bytes of what is asked; whoever asks cuts it long before."""
QUEUE = 64
NOT_UNDERSTOOD = Ruling(verdict=Verdict.DENY, reason="what was asked of the warden cannot be understood")
NOT_YOURS = Ruling(verdict=Verdict.DENY, reason="this is another agent's warden")


class _Asked(BaseModel):
    """What comes on one line."""

    model_config = ConfigDict(extra="ignore")

    token: str
    call_id: str
    tool: str
    command: str | None = None
    paths: list[str] = []
    about: str = ""
    cwd: str = ""
    prompted: bool = False
    cut: bool = False

    def call(self) -> Call:
        """Return it as the core knows it."""
        return Call(**self.model_dump(exclude={"token", "paths"}), paths=tuple(self.paths))


class SocketWarden:
    """See ``core.warden.Warden``."""

    def __init__(self) -> None:
        self._judge: Judge | None = None
        self._group: asyncio.TaskGroup | None = None
        self._listening: dict[AgentId, tuple[Path, asyncio.Task[None]]] = {}
        self._stopping = asyncio.Event()
        self._serving: asyncio.Future[None] | None = None

    async def start(self, judge: Judge) -> None:
        self._judge, self._stopping = judge, asyncio.Event()
        begun = asyncio.Event()
        # It lives as long as the warden, not as long as a scope: it is awaited in stop().
        self._serving = asyncio.ensure_future(self._serve(begun))
        await begun.wait()

    async def _serve(self, begun: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as self._group:
            begun.set()
            await self._stopping.wait()
        self._group = None

    def admit(self, agent_id: AgentId, access: WardenAccess) -> None:
        if agent_id in self._listening or self._group is None or self._judge is None:
            return
        place = Path(access.folder)
        try:
            listener = _listen(place)
        except OSError as error:
            raise HostFailed(f"the warden in {place} cannot be made: {error.strerror or error}") from error
        task = self._group.create_task(_accept(agent_id, access, listener, self._judge))
        # Not at the end of the task itself: one that is cancelled before it began has none.
        task.add_done_callback(lambda _: listener.close())
        self._listening[agent_id] = (place / SOCKET, task)

    def dismiss(self, agent_id: AgentId) -> None:
        path, task = self._listening.pop(agent_id, (None, None))
        if path is not None and task is not None:
            task.cancel()
            with suppress(OSError):
                path.unlink(missing_ok=True)

    async def stop(self) -> None:
        # Those who wait are told nothing: they ask the next leader.
        for agent_id in list(self._listening):
            self.dismiss(agent_id)
        self._stopping.set()
        if self._serving is not None:
            await self._serving
        self._serving = self._judge = None


def _listen(folder: Path) -> socket.socket:
    """Listen in *folder*, which is made and belongs to the agent from then on."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    listener = listening(folder, SOCKET, QUEUE)
    try:
        (folder / SOCKET).chmod(0o600)
        give(str(folder), agent())
    except BaseException:
        listener.close()
        raise
    return listener


async def _accept(agent_id: AgentId, access: WardenAccess, listener: socket.socket, judge: Judge) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        while True:
            connection, _ = await loop.sock_accept(listener)
            task = group.create_task(_talk(agent_id, access, connection, judge))
            task.add_done_callback(lambda ended, left=connection: left.close() if ended.cancelled() else None)


async def _talk(agent_id: AgentId, access: WardenAccess, connection: socket.socket, judge: Judge) -> None:
    """Hear one thing and answer it; whoever hangs up meanwhile asks again or does not care any more."""
    with suppress(OSError):
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=LONGEST)
        try:
            ruling = await _decided(agent_id, access, reader, judge)
            writer.write(f"{json.dumps({'verdict': ruling.verdict.value, 'reason': ruling.reason})}\n".encode())
            await writer.drain()
        finally:
            writer.close()


async def _decided(agent_id: AgentId, access: WardenAccess, reader: asyncio.StreamReader, judge: Judge) -> Ruling:
    try:
        asked = _Asked.model_validate_json(await reader.readline())
    except (ValidationError, ValueError):
        judge.refused(agent_id, NOT_UNDERSTOOD.reason)
        return NOT_UNDERSTOOD
    if not hmac.compare_digest(asked.token.encode(errors="replace"), access.token.encode()):
        judge.refused(agent_id, "somebody without this agent's token spoke at its warden")
        return NOT_YOURS
    return await judge.judge(agent_id, asked.call())
