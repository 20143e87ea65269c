"""The suite of the terminal's port: ``core.terminals.Terminal``."""

import json
import os
import signal
import sys
from abc import ABC, abstractmethod
from asyncio import create_subprocess_exec, sleep, timeout
from asyncio.subprocess import PIPE
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from kapelle.core.agent import ProcessRef
from kapelle.core.ids import AgentId
from kapelle.core.ports import Host, Launch, Screen
from kapelle.core.terminals import Terminal

PATIENCE = 30.0
SHOWN = AgentId("g-shown")
PROGRAM = """\
import os, sys, time
told = sys.argv[1]
os.makedirs(told, exist_ok=True)
def tell(number, text):
    with open(os.path.join(told, ".new"), "w") as stream:
        stream.write(text)
    os.rename(os.path.join(told, ".new"), os.path.join(told, f"{number}"))
tell(1, '{"hook_event_name": "SessionStart"}')
sys.stdout.write("\\x1b[?2004h")
sys.stdout.flush()
import termios, tty
tty.setraw(0)
seen = b""
while not seen.endswith(b"\\r"):
    seen += os.read(0, 65536)
with open(os.path.join(told, "..", "seen"), "wb") as stream:
    stream.write(seen)
tell(2, '{"hook_event_name": "UserPromptSubmit"}')
time.sleep(0.3)
tell(3, '{"hook_event_name": "Stop"}')
while b"\\x1b" not in os.read(0, 65536) or False:
    pass
tell(4, '{"hook_event_name": "Escaped"}')
time.sleep(1000)
"""
"""A program with a screen: it takes one thing that is pasted, says so by its hooks, and then waits for Escape."""


def names(folder: str) -> list[str] | None:
    """Return what is in *folder*, or None when there is no such directory."""
    return [path.name for path in Path(folder).iterdir()] if Path(folder).exists() else None


class TerminalSuite(ABC):
    """Everything that a terminal owes."""

    @abstractmethod
    def terminal(self, shows: Callable[[AgentId], Launch]) -> Terminal:
        """Return the terminal; it shows what *shows* gives for an agent."""

    @abstractmethod
    def host(self) -> Host:
        """Return a host that starts what is in a session."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Where sessions are: far below, where the path of a socket would be too long."""
        return tmp_path / ("far/" * 30) / "below"

    def _shows(self, root: Path, script: str = "cat") -> Terminal:
        root.mkdir(parents=True, exist_ok=True)
        env = (("PATH", os.environ["PATH"]),)
        return self.terminal(lambda _: Launch(argv=("sh", "-c", script), cwd=str(root), env=env))

    async def test_it_says_whether_it_can_be_used(self, root: Path) -> None:
        """Nothing is missing where the suite is run."""
        assert self._shows(root).missing() == ""

    async def test_a_session_is_there_until_it_is_closed(self, root: Path) -> None:
        """Opened again it is the same; closed again it is closed; nothing of it is left."""
        terminal = self._shows(root)
        folder = str(root / "g-1")
        assert not await terminal.there(folder)
        for _ in range(2):
            await terminal.open(SHOWN, folder, "coder-g-1")
            assert await terminal.there(folder)
        assert await terminal.within(str(root)) == ("g-1",)
        for _ in range(2):
            await terminal.close(folder)
            assert not await terminal.there(folder)
        assert await terminal.within(str(root)) == ()
        assert names(folder) is None

    async def test_a_session_ends_with_what_it_shows(self, root: Path) -> None:
        """And can be closed all the same."""
        terminal = self._shows(root, "exit 0")
        folder = str(root / "g-1")
        await terminal.open(SHOWN, folder, "coder-g-1")
        async with timeout(PATIENCE):
            while await terminal.there(folder):  # noqa: ASYNC110  # nobody tells of it
                await sleep(0.05)
        await terminal.close(folder)
        assert names(folder) is None

    async def test_who_attaches_sees_it_and_types_only_where_that_was_asked_for(self, root: Path) -> None:
        """Two look at the same session; one of them may type."""
        terminal = self._shows(root)
        folder = str(root / "g-1")
        await terminal.open(SHOWN, folder, "coder-g-1")
        outer = self._shows(root)
        try:
            reading, writing = (terminal.attaching(folder, write=write) for write in (False, True))
            assert reading.cwd == writing.cwd == folder
            assert reading.argv != writing.argv
        finally:
            await outer.close(folder)

    async def test_a_program_on_a_screen_is_spoken_to_and_heard(self, root: Path, tmp_path: Path) -> None:
        """A prompt is pasted to the letter; what hooks leave is told; Escape interrupts; the end of it is the end of all."""
        host, folder = self.host(), str(root / "g-1")
        told = str(root / "told")
        (tmp_path / "program.py").write_text(PROGRAM)
        argv = (sys.executable, str(tmp_path / "program.py"), told)
        screen = Screen(name="coder-g-1", told=told, conversation=str(root / "none"), conversation_file="none.jsonl")
        store_id = f"suite-{os.getpid()}"
        env = (("PATH", os.environ["PATH"]), ("KAPELLE_STORE", store_id))
        launch = Launch(argv=argv, cwd=str(tmp_path), env=env, stdin=True, screen=screen)
        terminal = self._shows(root)
        process = await host.start(terminal.hosted(launch, folder), folder)
        text = "first line\n\tsecond $HOME `x` \u00e9\u4e2d " + "z" * 200_000 + " end"
        await host.write(process, json.dumps({"prompt": "p-1", "text": text}).encode() + b"\n")
        await self._until(host, process, folder, '"Stop"')
        assert (root / "seen").read_bytes() == b"\x1b[200~" + text.encode() + b"\x1b[201~\r"
        assert await terminal.there(folder)
        await host.write(process, json.dumps({"interrupt": True}).encode() + b"\n")
        said = await self._until(host, process, folder, "Escaped")
        lines = [json.loads(line) for line in said.splitlines()]
        order = [line.get("taken") or line.get("hook", {}).get("hook_event_name") for line in lines]
        assert [entry for entry in order if entry] == ["SessionStart", "p-1", "UserPromptSubmit", "Stop", "Escaped"]
        await host.close_input(process)
        await self._until(host, process, folder, '"ended"')
        await host.end(process, folder, grace=timedelta(seconds=PATIENCE))
        assert not await terminal.there(folder)
        assert "tmux" not in (names(folder) or ())
        async with timeout(PATIENCE):
            while await host.leftovers(store_id):  # noqa: ASYNC110  # nobody tells of the end of tmux
                await sleep(0.05)

    async def test_ending_the_process_by_force_ends_the_program(self, root: Path, tmp_path: Path) -> None:
        """And everything else of the session."""
        host, folder = self.host(), str(root / "g-1")
        lifeline = tmp_path / "lifeline"
        os.mkfifo(lifeline)
        screen = Screen(name="coder-g-1", told=str(root / "told"), conversation=str(root), conversation_file="none.jsonl")
        argv = ("sh", "-c", 'exec 9>"$1"; echo up >&9; sleep 1000', "sh", str(lifeline))
        launch = Launch(argv=argv, cwd=str(tmp_path), env=(("PATH", os.environ["PATH"]),), stdin=True, screen=screen)
        terminal = self._shows(root)
        process = await host.start(terminal.hosted(launch, folder), folder)
        reader = await create_subprocess_exec("cat", str(lifeline), stdout=PIPE)
        assert reader.stdout is not None
        assert await reader.stdout.readline() == b"up\n"
        os.kill(process.pid, signal.SIGKILL)
        # Whoever watches sees the end of the leader of its group, and ends the rest of that.
        offset, ended = 0, None
        async with timeout(PATIENCE):
            while ended is None:
                spool = await host.look(process, folder, offset)
                offset, ended = offset + len(spool.data), spool.ended
                if ended is None:
                    await host.wait(process, folder, offset)
            assert await reader.stdout.read() == b""
        await reader.wait()
        await host.end(process, folder, grace=timedelta(0))
        await terminal.close(folder)
        assert not await terminal.there(folder)

    @staticmethod
    async def _until(host: Host, process: ProcessRef, folder: str, text: str) -> str:
        async with timeout(PATIENCE):
            while True:
                seen = await host.look(process, folder, 0, 1 << 24)
                if text in seen.data.decode():
                    return seen.data.decode()
                assert seen.ended is None, seen.data.decode()
                await host.wait(process, folder, len(seen.data))
