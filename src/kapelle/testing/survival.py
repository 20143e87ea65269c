"""An ordeal: a real run that is killed, stopped, starved and robbed in many ways, and what must hold afterwards.

Everything in it is real but the model, which is rehearsed: the command line, git, the ``claude`` program, its tools. A *blow*
is one way to harm it at a certain moment (`blows`). ``Ordeal.damage`` is the checker.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from kapelle.core.frozen import frozen
from kapelle.testing.places import Place, git
from kapelle.testing.set_clock import SetClock

T = TypeVar("T")

PATIENCE = 90.0
"""Seconds after which something that was waited for is taken for lost."""
LOOK = 0.01
STALE = "3s"
"""How long a leader may show no sign of life in an ordeal: a follower ends it sooner than in real life."""

TASKS = {"one": (), "two": (), "three": ("one", "two"), "four": (), "five": ("three",)}
CHECK = """\
import os, pathlib, sys, time
time.sleep(0.3)
task = os.environ.get("KAPELLE_TASK")
wanted = [pathlib.Path(f"{task}.txt")] if task else []
wrong = [str(path) for path in [*pathlib.Path().glob("*.txt"), *wanted] if not path.exists() or path.read_text() != "x\\n"]
sys.exit(f"wrong: {wrong}" if wrong else 0)
"""
REHEARSAL = """\
rules:
  # Told by the gate that its file is not there: a tool failed (the disk was full), and the script went on regardless.
  - when: {prompt: "wrong:"}
    turns:
      - tools: [{Write: {file_path: "{{ cwd }}/{{ task }}.txt", content: "x\\n"}}]
      - {say: "Wrote {{ task }}.txt."}
  - when: {task: two}
    turns:
      - {cut: true}
      - tools: [{Write: {file_path: "{{ cwd }}/{{ task }}.txt", content: "x\\n"}}]
      - tools: [{Bash: {command: "python3 -c 'import time; time.sleep(1)'"}}]
      - {say: "Wrote {{ task }}.txt.", delay: 200ms}
  - when: {task: four}
    turns:
      - tools: [{Write: {file_path: "{{ cwd }}/{{ task }}.txt", content: "x\\n"}}]
      - {stall: 1s}
      - tools: [{Bash: {command: "python3 -c 'import time; time.sleep(1)'"}}]
      - {say: "Wrote {{ task }}.txt.", delay: 200ms}
  - when: {task: "*"}
    turns:
      - tools: [{Write: {file_path: "{{ cwd }}/{{ task }}.txt", content: "x\\n"}}]
      - tools: [{Bash: {command: "python3 -c 'import time; time.sleep(1)'"}}]
        delay: 200ms
      - {say: "Wrote {{ task }}.txt.", delay: 200ms}
"""


@frozen
class Told:
    """One event of the log."""

    seq: int
    kind: str
    run_id: str | None
    task_id: str | None
    body: dict[str, object]


@dataclass(kw_only=True, slots=True)
class Damage:
    """What did not survive; all of it empty when everything did."""

    lost: list[str] = field(default_factory=list[str])
    twice: list[str] = field(default_factory=list[str])
    left: list[str] = field(default_factory=list[str])

    @property
    def all(self) -> list[str]:
        """Everything, in words."""
        return [*self.lost, *self.twice, *self.left]


class Over(Exception):
    """What was waited for did not come, since the run had ended before."""


class Ordeal:
    """One run at a place of its own."""

    def __init__(self, place: Place, *, sandbox: str = "process", network: str = "open") -> None:
        self.place = place
        self._network = network
        self.leader: subprocess.Popen[bytes] | None = None
        self.others: list[subprocess.Popen[bytes]] = []
        self.clock: SetClock | None = None
        """What those see that are started from now on, in place of the machine's."""
        self.said = place.home.parent / "said.txt"
        self._env = {**place.environment, "KAPELLE_LEAD_TIMEOUT": STALE, "KAPELLE_SLOTS": "3", "KAPELLE_BACKUP_EVERY": "1s"}
        self._env["KAPELLE_SANDBOX"] = sandbox

    # --- Beginning and going on ---

    def begin(self) -> None:
        """Write the files and start the run."""
        place = self.place
        (place.repository / "check.py").write_text(CHECK, encoding="utf-8")
        project = place.repository / ".kapelle" / "agents.yml"
        text = project.read_text(encoding="utf-8")
        gate = '  ordeal: {checks: [{name: holds, run: "python3 check.py", timeout: 1m}]}\n'
        text = f"network: {self._network}\n" + text.replace("gates:\n", f"gates:\n{gate}", 1)
        project.write_text(text, encoding="utf-8")
        git(place.repository, "add", "-A")
        git(place.repository, "commit", "-q", "-m", "a check for ordeals")
        tasks = "".join(
            f'  {name}: {{needs: [{", ".join(needs)}], prompt: "Write {name}.txt"}}\n' for name, needs in TASKS.items()
        )
        place.write("ordeal.yml", f"name: ordeal\ndefaults: {{agent: coder, gate: ordeal}}\ntasks:\n{tasks}")
        place.write("rehearsal.yml", REHEARSAL)
        self.leader = self.start("run", "../ordeal.yml", "--rehearse", "../rehearsal.yml")

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start a command; what it says goes to a file."""
        clock = self.clock.environment if self.clock is not None else {}
        with self.said.open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "kapelle", *arguments],
                cwd=self.place.repository,
                env={**self._env, **clock},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def resume(self) -> None:
        """Let a new process lead, and go on with the run when that is asked for: whoever leads next accepts it."""
        asked = self.place.asked()
        self.leader = self.start("resume") if asked else self.start("run", "../ordeal.yml", "--rehearse", "../rehearsal.yml")

    def kill(self) -> None:
        """Kill the leader as ``kill -9`` does."""
        if self.leader is not None:
            self.leader.kill()
            self.leader.wait()

    def finish(self) -> None:
        """Let the run come to its end.

        Raises:
            AssertionError: it does not.
        """
        for _ in range(4):
            if self.leader is not None and self.leader.wait(timeout=PATIENCE) == 0:
                break
            self.resume()
        for other in self.others:
            other.wait(timeout=PATIENCE)
        assert self.leader is not None
        assert self.leader.returncode == 0, self.said.read_text(encoding="utf-8", errors="replace")[-4000:]

    def close(self) -> None:
        """End whatever this ordeal started and that still runs."""
        for process in (self.leader, *self.others):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()

    # --- Looking ---

    def told(self, after: int = 0) -> list[Told]:
        """Return the log after a sequence number, read beside whoever leads."""
        path = self.place.home / "store.db"
        if not path.exists():
            return []
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as store:
                rows = store.execute(
                    "select seq, kind, run_id, task_id, body from events where seq > ? order by seq", (after,)
                ).fetchall()
        except sqlite3.DatabaseError:
            return []
        return [Told(seq=row[0], kind=row[1], run_id=row[2], task_id=row[3], body=json.loads(row[4])) for row in rows]

    def last(self) -> int:
        """Return the number of the newest event."""
        return max((entry.seq for entry in self.told()), default=0)

    def await_(self, kinds: set[str], after: int) -> Told:
        """Return the first event of one of *kinds* after a sequence number, as soon as it is there.

        Raises:
            Over: the leader ended before.
            AssertionError: neither came.
        """
        return self.until(lambda: next((entry for entry in self.told(after) if entry.kind in kinds), None))

    def until(self, look: Callable[[], T | None]) -> T:
        """Return what *look* gives as soon as it gives anything.

        Raises:
            Over: the leader ended before.
            AssertionError: neither came.
        """
        deadline, rest = time.monotonic() + PATIENCE, threading.Event()
        while time.monotonic() < deadline:
            ended = self.leader is not None and self.leader.poll() is not None
            found = look()
            if found is not None:
                return found
            if ended:
                raise Over(self.said.read_text(encoding="utf-8", errors="replace")[-2000:])
            rest.wait(LOOK)
        raise AssertionError(f"it never came:\n{self.said.read_text(encoding='utf-8', errors='replace')[-4000:]}")

    def processes(self) -> Iterator[psutil.Process]:
        """Yield what runs on behalf of this state directory, but for its leaders."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("KAPELLE_WORKSPACE", "").startswith(str(self.place.home)):
                    yield process

    def process(self, *words: str) -> psutil.Process | None:
        """Return a process of the run with one of *words* in its command line, and no shell round it."""
        for process in self.processes():
            with suppress(psutil.Error):
                line = process.cmdline()
                if line and "sh" not in Path(line[0]).name and any(word in " ".join(line) for word in words):
                    return process
        return None

    def spools(self) -> list[Path]:
        """Return the spools of agents that are live by the store."""
        with closing(sqlite3.connect(self.place.home / "store.db", timeout=5)) as store:
            rows = store.execute("select folder from agents where state != 'stopped'").fetchall()
        return [path for (folder,) in rows for path in [Path(folder, "spool")] if path.exists()]

    # --- Judging ---

    def damage(self) -> Damage:
        """Say what did not survive; to be asked when the run has ended."""
        found = Damage()
        log = self.told()
        self._tasks(found, log)
        self._target(found)
        self._left(found)
        return found

    def _tasks(self, found: Damage, log: list[Told]) -> None:
        report = self.place.run("list", "--json").json
        if [entry["state"] for entry in report] != ["completed"]:
            found.lost.append(f"the runs are {[entry['state'] for entry in report]}")
        with closing(sqlite3.connect(self.place.home / "store.db")) as store:
            names = dict(store.execute("select task_id, name from tasks").fetchall())
        if sorted(names.values()) != sorted(TASKS):
            found.lost.append(f"the tasks are {sorted(names.values())}")
        counts = Counter((entry.kind, entry.task_id) for entry in log)
        for task_id, name in names.items():
            for kind in ("task.completed", "change.merged"):
                if counts[kind, task_id] == 0:
                    found.lost.append(f"{name} has no {kind}")
                elif counts[kind, task_id] > 1:
                    found.twice.append(f"{name} has {counts[kind, task_id]} {kind}")
            answers = [entry for entry in log if entry.kind == "agent.answered" and entry.task_id == task_id]
            well = sum(entry.body.get("trouble") is None for entry in answers)
            returned = counts["task.started", task_id] - counts["attempt.started", task_id]
            if well > counts["attempt.started", task_id] + max(returned, 0):
                found.twice.append(f"{name} was answered {well} times")

    def _target(self, found: Damage) -> None:
        repository = self.place.repository
        files = set(git(repository, "ls-tree", "--name-only", "main").splitlines())
        found.lost += [f"{name}.txt is not on the target" for name in TASKS if f"{name}.txt" not in files]
        subjects = Counter(git(repository, "log", "--first-parent", "--format=%s", "main").splitlines())
        found.twice += [f"{count} times on the target: {subject}" for subject, count in subjects.items() if count > 1]
        for commit in git(repository, "rev-list", "--first-parent", "main").splitlines()[:-2]:
            with tempfile.TemporaryDirectory() as folder:
                archive = subprocess.run(
                    ["git", "-C", str(repository), "archive", commit], check=True, capture_output=True
                ).stdout
                subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
                checked = subprocess.run([sys.executable, "check.py"], cwd=folder, check=False, capture_output=True, text=True)
                if checked.returncode != 0:
                    found.lost.append(f"{commit} on the target does not pass its gate: {checked.stderr}")

    def _left(self, found: Damage) -> None:
        place = self.place
        found.left += [f"a process is left: {line}" for line in place.processes()]
        workspaces = place.home / "workspaces"
        found.left += [f"{path} is left" for path in (workspaces.iterdir() if workspaces.is_dir() else ())]
        trees = git(place.repository, "worktree", "list", "--porcelain").split("\n\n")
        if len(trees) > 1:
            found.left.append(f"{len(trees)} worktrees are known to git")
        found.left += [f"{path} is left" for path in (place.repository / ".git").rglob("*.lock")]
        dirty = git(place.repository, "status", "--porcelain")
        if dirty:
            found.left.append(f"the checkout is dirty: {dirty}")
        found.left += [f"{path} is left" for path in place.home.rglob("*") if path.is_socket() and path.parent.name == "ways"]
        with closing(sqlite3.connect(place.home / "store.db")) as store:
            (store_id,) = store.execute("select value from about where name = 'store_id'").fetchone()
            found.left += [f"{path} is left" for path in Path("/sys/fs/cgroup").rglob(f"kapelle-{store_id}")]
            if store.execute("select count(*) from agents where state != 'stopped'").fetchone()[0]:
                found.left.append("an agent is live by the store")
            if store.execute("select count(*) from workspaces").fetchone()[0]:
                found.left.append("a workspace is in the store")
            if store.execute("pragma integrity_check").fetchone()[0] != "ok":
                found.left.append("the store is damaged")


def room_for(folder: Path, size: str) -> bool:
    """Mount a small disk at *folder*; say whether that was possible (it needs root)."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        return False
    done = subprocess.run([mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False, capture_output=True)
    return done.returncode == 0


def unmount(folder: Path) -> None:
    """Take a small disk away again."""
    subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)
