"""What the engine is compared with: the limit that the machine sets, and a peer."""

import asyncio
import json
import sqlite3
import sys
import time
from pathlib import Path

from bench.machine import Figures

STATES = 4
"""Rows that the bare loop writes for each task: submitted, assigned, started, completed."""


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    connection.execute("create table event (seq integer primary key, task text, state integer)")
    return connection


async def bare(folder: Path, many: int) -> float:
    """Return tasks per second of an asyncio loop that only commits rows, in batches of 100: the limit."""
    connection = _open(folder / "bare.db")
    begun = time.perf_counter()
    for first in range(0, many, 100):
        for state in range(STATES):
            connection.execute("begin immediate")
            rows = [(f"task-{number}", state) for number in range(first, min(first + 100, many))]
            connection.executemany("insert into event (task, state) values (?, ?)", rows)
            connection.execute("commit")
            await asyncio.sleep(0)
    seconds = time.perf_counter() - begun
    connection.close()
    return many / seconds


async def bare_commit_ms(folder: Path, times: int) -> list[float]:
    """Return the milliseconds of *times* commits of one row, with nothing else to do: what a dispatch cannot go below."""
    connection = _open(folder / "single.db")
    found: list[float] = []
    for number in range(times):
        begun = time.perf_counter()
        connection.execute("begin immediate")
        connection.execute("insert into event (task, state) values (?, ?)", (f"task-{number}", 0))
        connection.execute("commit")
        found.append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(0.01)
    connection.close()
    return found


async def dbos(folder: Path, many: int) -> Figures:
    """Return what the peer does in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.dbos_peer", str(folder), str(many), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"bench.dbos_peer ended with exit code {process.returncode}")
    return json.loads(said.splitlines()[-1])
