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

from kapelle.adapters.system.entrances import Entrance, Room, Streams
from kapelle.adapters.system.files import share
from kapelle.adapters.system.ownership import agent, give
from kapelle.adapters.system.sockets import listening
from kapelle.core.errors import HostFailed
from kapelle.core.ids import AgentId
from kapelle.core.rules import Call, Ruling, Verdict
from kapelle.core.warden import SOCKET, Judge, WardenAccess

LONGEST = 1 << 21
"""Bytes of what is asked; whoever asks cuts it before."""
QUEUE = 64
MOST = 32
"""Connections of one agent at once: several tools, each asked about twice, and each may wait for a person."""
ASKED_S = 30.0
"""Seconds that something may take to be asked."""
NOT_UNDERSTOOD = Ruling(verdict=Verdict.DENY, reason="what was asked of the warden cannot be understood")
NOT_ASKED = Ruling(verdict=Verdict.DENY, reason=f"nothing was asked of the warden within {ASKED_S:.0f} seconds")
TOO_MANY = Ruling(verdict=Verdict.DENY, reason="too many things were asked of the warden at once")
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
        self._listening: dict[AgentId, tuple[Path, Entrance, Room]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        """What is being broken off, of agents that were dismissed."""

    async def start(self, judge: Judge) -> None:
        self._judge = judge

    def admit(self, agent_id: AgentId, access: WardenAccess) -> None:
        if agent_id in self._listening or self._judge is None:
            return
        judge, place, room = self._judge, Path(access.folder), Room(share(MOST))

        def told(reason: str) -> None:
            judge.refused(agent_id, reason)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _talk(agent_id, access, reader, writer, judge)

        enter = Streams(room, talk, told, full=(TOO_MANY.reason, _line(TOO_MANY)), limit=LONGEST)
        try:
            entrance = Entrance(lambda: _listen(place), enter, told)
        except OSError as error:
            raise HostFailed(f"the warden in {place} cannot be made: {error.strerror or error}") from error
        self._listening[agent_id] = (place / SOCKET, entrance, room)

    def dismiss(self, agent_id: AgentId) -> None:
        found = self._listening.pop(agent_id, None)
        if found is None:
            return
        path, entrance, room = found
        entrance.close()
        room.clear()
        for guest in room.everybody:
            self._leaving.add(guest)
            guest.add_done_callback(self._leaving.discard)
        with suppress(OSError):
            path.unlink(missing_ok=True)

    async def stop(self) -> None:
        # Those who wait are told nothing: they ask the next leader.
        for agent_id in list(self._listening):
            self.dismiss(agent_id)
        if self._leaving:
            await asyncio.wait(self._leaving)
        self._judge = None


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


async def _talk(
    agent_id: AgentId, access: WardenAccess, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, judge: Judge
) -> None:
    """Hear one thing and answer it; whoever hangs up meanwhile asks again or does not care any more."""
    try:
        async with asyncio.timeout(ASKED_S):
            line = await reader.readline()
    except TimeoutError:
        line = None
    except ValueError:
        line = b""
    ruling, refusal = await _decided(agent_id, access, line, judge)
    # Before it is told: whoever is told may fail, too.
    writer.write(_line(ruling))
    if refusal:
        judge.refused(agent_id, refusal)
    await writer.drain()


def _line(ruling: Ruling) -> bytes:
    return f"{json.dumps({'verdict': ruling.verdict.value, 'reason': ruling.reason})}\n".encode()


async def _decided(agent_id: AgentId, access: WardenAccess, line: bytes | None, judge: Judge) -> tuple[Ruling, str]:
    """Return what is answered to *line* (None: nothing came), and what is to be told of whoever spoke, if anything."""
    if line is None:
        return NOT_ASKED, NOT_ASKED.reason
    try:
        asked = _Asked.model_validate_json(line)
    except (ValidationError, ValueError):
        return NOT_UNDERSTOOD, NOT_UNDERSTOOD.reason
    if not hmac.compare_digest(asked.token.encode(errors="replace"), access.token.encode()):
        return NOT_YOURS, "somebody without this agent's token spoke at its warden"
    try:
        return await judge.judge(agent_id, asked.call()), ""
    except Exception as error:  # noqa: BLE001  # whatever failed: what was asked does not go through for it
        reason = f"what was asked of the warden could not be decided ({type(error).__name__}: {error})"
        return Ruling(verdict=Verdict.DENY, reason=reason), reason
