"""Blows: one way each to harm an ordeal at a certain moment; each returns how long it took until the work went on."""

import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import IO

import psutil

from kapelle.testing.set_clock import SetClock
from kapelle.testing.survival import PATIENCE, Ordeal, Over

Blow = Callable[[Ordeal, random.Random], float]
"""Harms an ordeal at a moment of its own; returns the seconds until the work went on. Raises Over if the moment never came."""


GOES_ON = {"agent.deployed", "agent.used_tool", "agent.said", "agent.answered", "task.failed"}


def _taken_over(ordeal: Ordeal, since: int, begun: float) -> float:
    ordeal.await_({"lead.taken"}, since)
    return time.monotonic() - begun


def _killed(ordeal: Ordeal) -> float:
    """Kill the leader, let another lead, and return how long that took."""
    ordeal.kill()
    since, begun = ordeal.last(), time.monotonic()
    ordeal.resume()
    return _taken_over(ordeal, since, begun)


def leader_in_a_turn(ordeal: Ordeal, _: random.Random) -> float:
    """Kill the leader while an agent is in its turn."""
    ordeal.await_({"agent.used_tool"}, ordeal.last())
    return _killed(ordeal)


def leader_at_any_moment(ordeal: Ordeal, chance: random.Random) -> float:
    """Kill the leader at no particular moment."""
    with suppress(subprocess.TimeoutExpired):
        if ordeal.leader is not None:
            ordeal.leader.wait(timeout=chance.random() * 3)
            raise Over
    return _killed(ordeal)


def leader_in_a_gate(ordeal: Ordeal, _: random.Random) -> float:
    """Kill the leader while a check runs."""
    ordeal.until(lambda: ordeal.process("check.py"))
    return _killed(ordeal)


def leader_before_delivery(ordeal: Ordeal, _: random.Random) -> float:
    """Kill the leader when something is merged and not delivered: git's lock on the checkout is in the way."""
    lock = ordeal.place.repository / ".git" / "index.lock"
    since = ordeal.last()
    # git's own stands there for moments.
    ordeal.until(lambda: _made(lock))
    try:
        ordeal.await_({"target.held_up"}, since)
        ordeal.kill()
    finally:
        lock.unlink(missing_ok=True)
    return _killed(ordeal)


def _made(lock: Path) -> Path | None:
    try:
        lock.touch(exist_ok=False)
    except FileExistsError:
        return None
    return lock


def leader_at_its_start(ordeal: Ordeal, chance: random.Random) -> float:
    """Kill a leader, and the next one while it starts."""
    ordeal.await_({"agent.deployed"}, 0)
    ordeal.kill()
    ordeal.resume()
    with suppress(subprocess.TimeoutExpired):
        if ordeal.leader is not None:
            ordeal.leader.wait(timeout=chance.random())
    return _killed(ordeal)


def leader_in_recovery(ordeal: Ordeal, _: random.Random) -> float:
    """Kill a leader, and the next one as soon as it leads."""
    ordeal.await_({"agent.deployed"}, 0)
    _killed(ordeal)
    return _killed(ordeal)


def _kill_and_go_on(ordeal: Ordeal, process: psutil.Process) -> float:
    """Kill something of an agent and return how long it took until its task went on."""
    since, begun = ordeal.last(), time.monotonic()
    try:
        name = process.environ()["KAPELLE_TASK"]
        process.kill()
    except psutil.Error as error:
        raise Over("it had ended before") from error
    with closing(sqlite3.connect(ordeal.place.home / "store.db", timeout=5)) as store:
        task_id = store.execute("select task_id from tasks where name = ?", (name,)).fetchone()[0]
    ordeal.until(lambda: next((e for e in ordeal.told(since) if e.kind in GOES_ON and e.task_id == task_id), None))
    return time.monotonic() - begun


def agent_killed(ordeal: Ordeal, _: random.Random) -> float:
    """Kill an agent's program in its turn."""
    ordeal.await_({"agent.used_tool"}, ordeal.last())
    return _kill_and_go_on(ordeal, ordeal.until(lambda: ordeal.process("claude")))


def shim_killed(ordeal: Ordeal, _: random.Random) -> float:
    """Kill the shell round an agent's program: nobody records its end any more."""
    told = ordeal.await_({"agent.deployed"}, ordeal.last())
    ordeal.await_({"agent.used_tool"}, told.seq)
    try:
        shim = psutil.Process(int(str(told.body["pid"])))
    except psutil.NoSuchProcess as error:
        # Another agent used the tool, and this one has ended meanwhile.
        raise Over("it had ended before") from error
    return _kill_and_go_on(ordeal, shim)


def tool_killed(ordeal: Ordeal, _: random.Random) -> float:
    """Kill what an agent's tool has started."""
    return _kill_and_go_on(ordeal, ordeal.until(lambda: ordeal.process("time.sleep(1)")))


def leader_stopped(ordeal: Ordeal, _: random.Random) -> float:
    """Stop the leader as Ctrl-Z does, while another process follows."""
    ordeal.await_({"agent.used_tool"}, ordeal.last())
    old = ordeal.leader
    assert old is not None
    since, begun = ordeal.last(), time.monotonic()
    old.send_signal(signal.SIGSTOP)
    ordeal.resume()
    try:
        return _taken_over(ordeal, since, begun)
    finally:
        old.kill()
        old.wait()


def _spool(ordeal: Ordeal, harm: Callable[[Path], None]) -> float:
    ordeal.await_({"agent.used_tool"}, ordeal.last())
    ordeal.kill()
    for spool in ordeal.spools()[:1]:
        harm(spool)
    return _killed(ordeal)


def spool_damaged(ordeal: Ordeal, _: random.Random) -> float:
    """Kill the leader and write garbage into a spool."""

    def harm(spool: Path) -> None:
        with spool.open("ab") as stream:
            stream.write(b'\n\xff\xfe{"type": "resu\x00\n')

    return _spool(ordeal, harm)


def spool_truncated(ordeal: Ordeal, _: random.Random) -> float:
    """Kill the leader and cut a spool in half."""
    return _spool(ordeal, lambda spool: os.truncate(spool, spool.stat().st_size // 2))


def spool_missing(ordeal: Ordeal, _: random.Random) -> float:
    """Kill the leader and delete a spool."""
    return _spool(ordeal, lambda spool: spool.unlink())


def locks_left(ordeal: Ordeal, _: random.Random) -> float:
    """Kill the leader and leave git's locks behind, as a git that was killed does."""
    ordeal.await_({"agent.used_tool"}, ordeal.last())
    ordeal.kill()
    common = ordeal.place.repository / ".git"
    for folder in (common, *(common / "worktrees").glob("*")):
        lock = folder / "index.lock"
        lock.touch()
        hour_ago = time.time() - 3600  # noqa: TID251  # the file system's own time is meant
        os.utime(lock, (hour_ago, hour_ago))
    return _killed(ordeal)


def disk_full(ordeal: Ordeal, _: random.Random) -> float:
    """Fill the disk of the state directory until the leader ends of it, and free it again."""
    ordeal.await_({"agent.used_tool"}, ordeal.last())
    filler = ordeal.place.home / "filler"
    try:
        with filler.open("wb", buffering=0) as stream, suppress(OSError):
            _fill(stream)
        with suppress(Over):
            ordeal.until(lambda: None)
    finally:
        filler.unlink(missing_ok=True)
    return _killed(ordeal)


def _fill(stream: IO[bytes]) -> None:
    piece = b"\0" * (1 << 20)
    while True:
        try:
            stream.write(piece)
        except OSError:
            if len(piece) == 1:
                raise
            piece = piece[: len(piece) // 2]


def store_damaged(ordeal: Ordeal, _: random.Random) -> float:
    """Kill the leader and overwrite the middle of the store."""
    ordeal.await_({"agent.used_tool"}, ordeal.last())
    backups = set((ordeal.place.home / "backups").glob("*.db"))
    ordeal.until(lambda: (set((ordeal.place.home / "backups").glob("*.db")) - backups) or None)
    ordeal.kill()
    path = ordeal.place.home / "store.db"
    for beside in ("-wal", "-shm"):
        Path(f"{path}{beside}").unlink(missing_ok=True)
    with path.open("r+b") as stream:
        stream.seek(4096)
        stream.write(os.urandom(max(path.stat().st_size - 4096, 4096)))
    begun = time.monotonic()
    assert ordeal.start("resume").wait(timeout=PATIENCE) == 1
    assert "kapelle restore" in ordeal.said.read_text(encoding="utf-8")
    restored = ordeal.place.run("restore", "--json")
    assert restored.code == 0, restored.err
    since = ordeal.last()
    ordeal.resume()
    _taken_over(ordeal, since, begun)
    return time.monotonic() - begun


def clock_set(ordeal: Ordeal, chance: random.Random) -> float:
    """Set the clock by hours under a leader that has agents at work, forward or back, and back again under the next."""
    ordeal.await_({"agent.used_tool"}, ordeal.last())
    ordeal.kill()
    clock = ordeal.clock = SetClock(ordeal.place.home.parent / "clock")
    try:
        since = ordeal.last()
        ordeal.resume()
        ordeal.await_({"lead.taken"}, since)
        hours = chance.choice((-26, -2, 2, 26))
        since, begun = ordeal.last(), time.monotonic()
        clock.set(hours * 3600)
        ordeal.await_(GOES_ON, since)
        seconds = time.monotonic() - begun
        ordeal.kill()
    finally:
        # What the next leader finds in the store is hours before its time, or after it.
        ordeal.clock = None
    return max(seconds, _killed(ordeal))


BLOWS: dict[str, Blow] = {
    "leader, at any moment": leader_at_any_moment,
    "leader, agents in their turn": leader_in_a_turn,
    "leader, while a gate runs": leader_in_a_gate,
    "leader, merged and not delivered": leader_before_delivery,
    "leader, while it starts": leader_at_its_start,
    "leader, while it recovers": leader_in_recovery,
    "leader stopped, another follows": leader_stopped,
    "agent": agent_killed,
    "the shell round an agent": shim_killed,
    "tool of an agent": tool_killed,
    "leader, spool damaged": spool_damaged,
    "leader, spool truncated": spool_truncated,
    "leader, spool missing": spool_missing,
    "leader, git's locks left": locks_left,
    "leader, store damaged": store_damaged,
    "clock set, forward or back": clock_set,
}
"""The ways to harm a run that need nothing but a run."""
