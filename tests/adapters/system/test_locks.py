"""git's locks that were left behind: removed when they are old and nobody holds them."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kapelle.adapters.system.git import Git
from kapelle.adapters.system.locks import COPIED, OLD
from kapelle.core.errors import GitFailed
from kapelle.testing.places import make_repository


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = make_repository(tmp_path / "shop")
    (made / "new.txt").write_text("new", encoding="utf-8")
    return made


def left(repository: Path, *, seconds_ago: float) -> Path:
    lock = repository / ".git" / "index.lock"
    lock.touch()
    then = time.time() - seconds_ago  # noqa: TID251  # the file system's own time is meant
    os.utime(lock, (then, then))
    return lock


async def test_an_old_lock_that_nobody_holds_is_removed_and_git_goes_on(repository: Path) -> None:
    lock = left(repository, seconds_ago=120)
    await Git(str(repository)).do("add", "--all")
    assert not lock.exists()


async def test_a_lock_that_is_almost_old_is_waited_for(repository: Path) -> None:
    """It costs nobody an attempt."""
    lock = left(repository, seconds_ago=OLD - 0.3)
    await Git(str(repository)).do("add", "--all")
    assert not lock.exists()


async def test_a_young_lock_that_goes_in_time_is_waited_for(repository: Path) -> None:
    lock = left(repository, seconds_ago=0)
    asyncio.get_running_loop().call_later(0.2, lock.unlink)
    await Git(str(repository)).do("add", "--all")


async def test_a_young_lock_is_somebodys(repository: Path) -> None:
    """It is not removed, for however little it seems to be held."""
    lock = left(repository, seconds_ago=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await Git(str(repository)).do("add", "--all")
    assert lock.exists()


async def test_what_the_git_of_a_killed_agent_left_in_its_workspace_is_soon_out_of_the_way(repository: Path) -> None:
    """Nobody else is ever at work there."""
    workspace, record = repository.parent / "workspace", repository / ".git" / "worktrees" / "workspace"
    await Git(str(repository)).do("worktree", "add", "--quiet", "--detach", str(workspace))
    (record / COPIED).touch()
    lock = record / "index.lock"
    lock.touch()
    (workspace / "half.txt").write_text("half", encoding="utf-8")
    git = Git(str(workspace), git_dir=str(record))
    async with asyncio.timeout(OLD / 2):
        await git.do("add", "--all")
    assert not lock.exists()


@pytest.fixture
def git_at_work(repository: Path) -> Iterator[None]:
    """Let a git wait in the repository, as it does while a person writes a long message."""
    with subprocess.Popen(["git", "hash-object", "--stdin"], cwd=repository, stdin=subprocess.PIPE) as waiting:
        yield
        assert waiting.stdin is not None
        waiting.stdin.close()


@pytest.mark.usefixtures("git_at_work")
async def test_an_old_lock_stays_while_a_git_is_at_work_there(repository: Path) -> None:
    lock = left(repository, seconds_ago=120)
    with pytest.raises(GitFailed, match=r"index\.lock"):
        await Git(str(repository)).do("add", "--all")
    assert lock.exists()


async def test_what_git_refuses_for_another_reason_is_not_tried_again(repository: Path) -> None:
    with pytest.raises(GitFailed, match="nowhere"):
        await Git(str(repository)).do("checkout", "nowhere")
