"""tmux: a server of its own for each session, with a socket in the session's folder and none of the user's configuration.

A socket's path may be no longer than a hundred letters, and a state directory may lie deep: so every command is run in the
folder, where the socket is called ``tmux``.
"""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from kapelle.adapters.terminals import screen
from kapelle.core.errors import HostFailed, ProgramMissing
from kapelle.core.frozen import replace
from kapelle.core.ids import AgentId
from kapelle.core.ports import Launch
from kapelle.core.terminals import Attaching

SOCKET = screen.SOCKET
PATIENCE = 10.0
"""Seconds that a command of tmux may take."""
SETTINGS = "screen.json"


class Tmux:
    """See ``core.terminals.Terminal``."""

    name = "tmux"

    def __init__(self, shows: Callable[[AgentId], Launch]) -> None:
        """Show an agent by what *shows* gives for it."""
        self._shows = shows

    def missing(self) -> str:
        if shutil.which("tmux") is None:
            return "tmux is not installed. Install it with your system's package manager."
        return ""

    def _program(self) -> str:
        found = shutil.which("tmux")
        if found is None:
            raise ProgramMissing("tmux is not installed", remedy="Install it with your system's package manager.")
        return os.path.realpath(found)

    def hosted(self, launch: Launch, folder: str) -> Launch:
        shown = launch.screen
        if shown is None:
            raise HostFailed(f"{launch.argv[0]} has no screen")
        asked = {
            "tmux": self._program(),
            "folder": folder,
            "name": shown.name,
            "label": f"{shown.name} · Ctrl-b d leaves",
            "told": shown.told,
            "conversation": shown.conversation,
            "conversation_file": shown.conversation_file,
            "by_hand": shown.by_hand,
            "resumed": shown.resumed,
        }
        files = (*launch.files, (SETTINGS, json.dumps(asked)))
        runner = (os.path.realpath(sys.executable), "-I", "-S", screen.__file__, str(Path(folder) / SETTINGS))
        return replace(launch, argv=(*runner, *launch.argv), files=files)

    async def open(self, agent_id: AgentId, folder: str, name: str) -> None:
        program, launch = self._program(), self._shows(agent_id)
        if await self.there(folder):
            return
        try:
            Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
            (Path(folder) / SOCKET).unlink(missing_ok=True)
        except OSError as error:
            raise HostFailed(f"{folder} cannot be made: {error.strerror}") from error
        size = ("-x", "160", "-y", "45")
        argv = (program, "-S", SOCKET, "-f", os.devnull, "new-session", "-d", "-s", name, *size, "-c", launch.cwd, *launch.argv)
        code, said = await self._run(argv, folder, dict(launch.env))
        if code != 0:
            raise HostFailed(f"tmux opens no session in {folder}: {said}")
        await self._ask(folder, "set-option", "-g", "status-left", f" {name} · Ctrl-b d leaves ")
        await self._ask(folder, "set-option", "-g", "status-left-length", "150")
        await self._ask(folder, "set-option", "-g", "status-right", "")

    async def close(self, folder: str) -> None:
        if (Path(folder) / SOCKET).exists():
            await self._ask(folder, "kill-server")
        with suppress(OSError):
            (Path(folder) / SOCKET).unlink(missing_ok=True)
            # One of our own, with nothing else in it.
            Path(folder).rmdir()

    async def there(self, folder: str) -> bool:
        if not (Path(folder) / SOCKET).exists() or shutil.which("tmux") is None:
            return False
        code, _ = await self._ask(folder, "has-session")
        return code == 0

    async def within(self, root: str) -> tuple[str, ...]:
        try:
            names = sorted(path.name for path in Path(root).iterdir())
        except OSError:
            return ()
        return tuple([name for name in names if await self.there(f"{root}/{name}")])

    def attaching(self, folder: str, *, write: bool) -> Attaching:
        reading = () if write else ("-r",)
        return Attaching(argv=(self._program(), "-S", SOCKET, "attach-session", *reading), cwd=folder)

    async def _ask(self, folder: str, *arguments: str) -> tuple[int, str]:
        return await self._run((self._program(), "-S", SOCKET, *arguments), folder, None)

    @staticmethod
    async def _run(argv: Sequence[str], folder: str, env: dict[str, str] | None) -> tuple[int, str]:
        try:
            async with asyncio.timeout(PATIENCE):
                child = await asyncio.create_subprocess_exec(
                    *argv,
                    cwd=folder,
                    env=env,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                )
                said, _ = await child.communicate()
        except (OSError, TimeoutError) as error:
            return 1, str(error) or "it does not answer"
        return child.returncode or 0, said.decode(errors="replace").strip()
