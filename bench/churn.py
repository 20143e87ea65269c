"""What is left behind by 200 short tasks with a leader killed (SIGKILL) in the middle of them: nothing, and how much disk.

Two hundred tasks in worktrees of one repository, each committed, gated and merged: a tenth of them by real ``claude`` processes
(rehearsed), the others by a shell. One claude always stands ready. What is looked for at the end is listed in ``leftovers``;
everything found counts, whoever made it, as long as it was not there before. The disk is what the state directory and the
repository have grown by, with all logs and spools, before anything is cleaned.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil

from bench.machine import Figures
from bench.places import environment, git, kapelle, repository

TASKS = 200
EVERY = 10
"""One task in so many is claude's."""
PATIENCE = 900.0
AGENTS = """\
agents:
  coder: {program: claude, tools: {allow: [Write]}, pool: {warm: 1}}
  shell: {program: command}
gates: {check: {checks: [{name: "true", run: "true"}]}}
"""
REHEARSAL = """\
rules:
  - when: {prompt: "Write it down"}
    turns:
      - tools: [{Write: {file_path: "{{ cwd }}/{{ task }}.txt", content: "of {{ task }}"}}]
      - {say: "Written down."}
"""
COMPLETED = "SELECT count(*) FROM tasks WHERE state = 'completed'"
TEMPORARY = ("/tmp", "/dev/shm", "/var/tmp")  # noqa: S108  # only looked into
MB = 1 << 20


async def measure(*, small: bool = False) -> Figures:
    """Measure once."""
    tasks = EVERY if small else TASKS
    before = _outside()
    with tempfile.TemporaryDirectory(prefix="kapelle-bench-") as place:
        folder = Path(place)
        root = repository(folder / "repository", {"notes.txt": "A sample.\n", ".kapelle/agents.yml": AGENTS})
        (folder / "rehearsal.yml").write_text(REHEARSAL)
        (folder / "churn.yml").write_text(_workflow(tasks))
        home = folder / "home"
        env = environment(home, KAPELLE_SLOTS="4")
        started = _size(root / ".git")
        begun = time.perf_counter()
        _killed_half_way(root, home, env, tasks)
        kapelle(root, env, ["resume"])
        took = time.perf_counter() - begun
        done = _ask(home, COMPLETED)
        found = leftovers(root, home) + sorted(_outside() - before - {place})
        size = _size(home) + _size(root / ".git") - started
    for line in found:
        print(f"left over: {line}", file=sys.stderr)
    return {
        "leftovers": float(len(found)),
        "not_completed": float(tasks - done),
        "disk_mb": size / MB,
        "tasks": float(tasks),
        "seconds": took,
    }


def _workflow(tasks: int) -> str:
    lines = ["name: churn", "defaults: {agent: shell, gate: check}", "tasks:"]
    for number in range(tasks):
        if number % EVERY:
            lines.append(f"  t{number}: {{prompt: 'echo of t{number} > t{number}.txt'}}")
        else:
            lines.append(f"  t{number}: {{prompt: Write it down., agent: coder}}")
    return "\n".join(lines) + "\n"


def _killed_half_way(root: Path, home: Path, env: dict[str, str], tasks: int) -> None:
    """Begin, and kill whoever leads when half of the tasks are through."""
    arguments = [sys.executable, "-m", "kapelle", "run", "../churn.yml", "--rehearse", "../rehearsal.yml"]
    leader = subprocess.Popen(arguments, cwd=root, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: leader.poll() is not None or _ask(home, COMPLETED) >= tasks // 2)
    finally:
        leader.send_signal(signal.SIGKILL)
        leader.wait()


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise TimeoutError("the tasks do not get on")
        time.sleep(0.05)


def _ask(home: Path, query: str) -> int:
    path = home / "store.db"
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        try:
            return int(store.execute(query).fetchone()[0])
        except sqlite3.OperationalError:
            # It is just being made.
            return 0


# --- What may be left -------------------------------------------------------------------------------------------------


def leftovers(root: Path, home: Path) -> list[str]:
    """Return what is left of tasks that have all ended: each thing with its name."""
    found = [f"process {line}" for line in _processes(home)]
    found += [f"control group {path}" for path in _groups(home)]
    worktrees = [line for line in git(root, "worktree", "list", "--porcelain").splitlines() if line.startswith("worktree ")]
    found += worktrees[1:]
    refs = git(root, "for-each-ref", "--format=%(refname)", "refs/kapelle").splitlines()
    found += [f"ref {name}" for name in refs if "/kept/" not in name and "/integration/" not in name]
    for name in ("workspaces", "homes", "checks", "setup", "orphan", "reaped"):
        folder = home / name
        found += [f"{name}/{entry.name}" for entry in folder.iterdir()] if folder.is_dir() else []
    found += [f"socket {path.relative_to(home)}" for path in home.rglob("*") if path.is_socket()]
    found += [f"table {name}" for name in ("agents", "spares", "workspaces") if _rows(home, name)]
    return found


def _rows(home: Path, table: str) -> int:
    live = " WHERE stopped_at IS NULL" if table == "agents" else ""
    return _ask(home, f"SELECT count(*) FROM {table}{live}")  # noqa: S608  # one of three names


def _processes(home: Path) -> list[str]:
    found: list[str] = []
    for process in psutil.process_iter():
        try:
            names = process.environ()
            if names.get("KAPELLE_WORKSPACE", "").startswith(str(home)) or names.get("KAPELLE_HOME") == str(home):
                found.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
        except (psutil.Error, OSError):
            continue
    return found


def _groups(home: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{home / 'store.db'}?mode=ro", uri=True)) as store:
        store_id = str(store.execute("SELECT value FROM about WHERE name = 'store_id'").fetchone()[0])
    return [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/kapelle-{store_id}*/*") if path.is_dir()]


def _outside() -> set[str]:
    """Return what of Kapelle's or of the CLI's lies where temporary files do, tmux sessions among it."""
    found: set[str] = set()
    for place in TEMPORARY:
        names = [path.name for path in Path(place).iterdir()] if Path(place).is_dir() else []
        found |= {f"{place}/{name}" for name in names if "kapelle" in name or name.startswith(("claude", "tmux"))}
    vault = Path(f"/dev/shm/kapelle-{os.getuid()}")  # noqa: S108  # as above
    found |= {str(path) for path in vault.rglob("*") if path.is_file()} if vault.is_dir() else set()
    return found


def _size(folder: Path) -> int:
    if shutil.which("du") is None:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    said = subprocess.run(["du", "-sk", str(folder)], check=True, capture_output=True, text=True)
    return int(said.stdout.split()[0]) * 1024
