"""A leader killed (SIGKILL) with tasks in flight: what is lost, what is done twice, how long until all of them run again.

Each task is a shell (``program: command``) that notes that it was started and then waits to be let go. So a task that was
started twice is seen, and so is one that a new leader does not know of. They are let go when the new leader has every one.
"""

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bench.machine import Figures

TASKS = 100
PATIENCE = 120.0
AGENTS = "agents:\n  waits: {program: command}\n"
ADOPTED = "SELECT count(DISTINCT task_id) FROM events WHERE kind = 'agent.adopted'"
RUNNING = "SELECT count(*) FROM tasks WHERE state = 'running'"
COMPLETED = "SELECT count(*) FROM tasks WHERE state = 'completed'"
ATTEMPTS = "SELECT count(*) FROM attempts"


class Place:
    """A folder with a workflow, and a home."""

    def __init__(self, folder: Path, tasks: int) -> None:
        self.folder = folder
        self.tasks = tasks
        self.started, self.gate = folder / "started", folder / "gate"
        self.started.touch()
        os.mkfifo(self.gate)
        (folder / ".kapelle").mkdir()
        (folder / ".kapelle" / "agents.yml").write_text(AGENTS)
        command = f"echo $KAPELLE_TASK >> '{self.started}'; read x < '{self.gate}' || true"
        lines = [f"  t{number}: {{prompt: {json.dumps(command)}}}" for number in range(tasks)]
        head = "name: flight\ndefaults: {agent: waits, workspace: scratch}\ntasks:\n"
        (folder / "flight.yml").write_text(head + "\n".join(lines) + "\n")

    async def start(self, *command: str) -> asyncio.subprocess.Process:
        """Start a command of Kapelle."""
        home = {"KAPELLE_HOME": str(self.folder / "home"), "KAPELLE_SLOTS": str(self.tasks), "KAPELLE_SANDBOX": "process"}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kapelle", *command, cwd=self.folder, env={**os.environ, **home},
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip

    def ask(self, query: str) -> int:
        """Return the number that *query* finds in the store; 0 while there is none."""
        path = self.folder / "home" / "store.db"
        if not path.exists():
            return 0
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return int(connection.execute(query).fetchone()[0])
        except sqlite3.OperationalError:
            # It is just being made.
            return 0
        finally:
            connection.close()

    def starts(self) -> Counter[str]:
        """Return how often each task was started."""
        return Counter(self.started.read_text().split())


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.005)


async def measure(*, small: bool = False) -> Figures:
    """Measure once."""
    with tempfile.TemporaryDirectory(prefix="kapelle-bench-") as folder:
        place = Place(Path(folder), 3 if small else TASKS)
        leaders = [await place.start("run", "flight.yml")]
        try:
            await _until(lambda: len(place.starts()) == place.tasks == place.ask(RUNNING))
            leaders[0].kill()
            await leaders[0].wait()
            begun = time.perf_counter()
            leaders.append(await place.start("resume"))
            await _until(lambda: place.ask(ADOPTED) == place.tasks)
            resumed = time.perf_counter() - begun
            await _let_go(place, leaders[1])
        finally:
            for leader in leaders:
                if leader.returncode is None:
                    leader.kill()
                    await leader.wait()
            # Whatever went wrong, nobody is left waiting at the gate.
            _open(place.gate)
        return {
            "lost": place.tasks - place.ask(COMPLETED),
            "duplicated": sum(count - 1 for count in place.starts().values()) + place.ask(ATTEMPTS) - place.tasks,
            "resume_s": resumed,
            "tasks_in_flight": place.tasks,
        }


async def _let_go(place: Place, leader: asyncio.subprocess.Process) -> None:
    """Open the gate until the last task is through, and wait for the leader to end."""
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        group.create_task(leader.wait())
        while place.ask(COMPLETED) < place.tasks and leader.returncode is None:
            _open(place.gate)
            await asyncio.sleep(0.05)


def _open(gate: Path) -> None:
    """Let those go that wait at *gate*: who reads from it sees its end once it was opened and closed."""
    with contextlib.suppress(OSError):  # nobody waits
        os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
