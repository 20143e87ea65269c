"""Processes, told apart by more than their pid."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from kapelle.adapters.system import processes

PATIENCE = 30
# Says that it is up, then waits for its input to end.
WAITER = "import sys; print('up', flush=True); sys.stdin.read()"


class Child:
    """A process of this test's own."""

    def __init__(self, **environment: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", WAITER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **environment},
        )
        assert self.popen.stdout is not None
        self.popen.stdout.readline()
        found = processes.reference(self.popen.pid)
        assert found is not None
        self.reference = found

    def close(self) -> None:
        self.popen.kill()
        self.popen.communicate(timeout=PATIENCE)


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.close()


def test_this_process_is_alive_and_the_same_each_time() -> None:
    assert processes.me() == processes.me()
    assert processes.me().pid == os.getpid()
    assert processes.alive(processes.me())


def test_a_process_is_alive_until_it_ends(child: Child) -> None:
    assert processes.alive(child.reference)
    child.popen.communicate(b"", timeout=PATIENCE)
    assert not processes.alive(child.reference)
    assert processes.reference(child.popen.pid) is None


def test_a_process_that_has_ended_but_was_not_waited_for_is_not_alive(child: Child) -> None:
    watch = processes.exit_watch(child.popen.pid)
    if watch is None:
        pytest.skip("this system has no pidfd")
    child.popen.kill()
    assert select.select([watch], [], [], PATIENCE)[0] == [watch]
    os.close(watch)
    assert not processes.alive(child.reference)


@pytest.mark.parametrize("changes", [{"boot_id": "another boot"}, {"started": "0"}, {"started": ""}])
def test_the_same_pid_alone_is_another_process(child: Child, changes: dict[str, str]) -> None:
    mistaken = replace(child.reference, **changes)
    assert not processes.alive(mistaken)
    assert not processes.signal_group(mistaken, signal.SIGKILL)
    processes.end_process(mistaken)
    assert processes.alive(child.reference)


def test_a_process_is_ended_by_force(child: Child) -> None:
    processes.end_process(child.reference)
    assert child.popen.wait(timeout=PATIENCE) == -signal.SIGKILL
    processes.end_process(child.reference)


def test_a_group_gets_a_signal_once_and_then_is_gone(child: Child) -> None:
    assert processes.signal_group(child.reference, signal.SIGTERM)
    assert child.popen.wait(timeout=PATIENCE) == -signal.SIGTERM
    assert not processes.signal_group(child.reference, signal.SIGTERM)


def test_the_group_of_this_very_process_is_never_sent_anything() -> None:
    assert not processes.signal_group(processes.me(), signal.SIGKILL)


def test_processes_are_found_by_the_store_they_carry() -> None:
    mine, other = Child(KAPELLE_STORE=f"mine-{os.getpid()}"), Child(KAPELLE_STORE=f"other-{os.getpid()}")
    try:
        assert processes.carrying(f"mine-{os.getpid()}") == [mine.reference]
        assert processes.carrying(f"mine-{os.getpid()}0") == []
    finally:
        mine.close()
        other.close()


def test_this_process_is_not_a_leftover_of_its_own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes.STORE_VARIABLE, "store")
    assert processes.carrying("store") == []


def test_nothing_can_be_watched_that_is_not_there(child: Child) -> None:
    child.popen.communicate(b"", timeout=PATIENCE)
    assert processes.exit_watch(child.popen.pid) is None
