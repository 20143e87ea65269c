"""Refs read from files are what git says they are; where they may not be, git is asked."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kapelle.adapters.workspaces.own_files import LONGEST, NotKnown
from kapelle.adapters.workspaces.refs import read_branch, read_ref
from kapelle.adapters.workspaces.repositories import GitRepositories

MAIN, DEEP, OURS = "refs/heads/main", "refs/heads/a/b.c", "refs/kapelle/store/integration/main"


@pytest.fixture
def git(tmp_path: Path) -> Callable[..., str]:
    """Run git in a repository with a commit on main."""

    def run(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(tmp_path / "r"), *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    (tmp_path / "r").mkdir()
    run("init", "-q", "-b", "main")
    run("config", "user.name", "You")
    run("config", "user.email", "you@example.org")
    for _ in range(2):
        run("commit", "-q", "--allow-empty", "-m", "one")
    for name in (DEEP, OURS):
        run("update-ref", name, "HEAD^")
    return run


@pytest.fixture
def there(tmp_path: Path) -> str:
    return str(tmp_path / "r")


def test_refs_are_what_git_says(git: Callable[..., str], there: str) -> None:
    def same() -> bool:
        return all(read_ref(there, name) == git("rev-parse", name) for name in (MAIN, DEEP, OURS))

    assert same()
    git("pack-refs", "--all")
    assert not Path(there, ".git", MAIN).exists()
    assert same()
    git("commit", "-q", "--allow-empty", "-m", "two")
    assert same()
    git("tag", "-a", "-m", "noted", "v1")
    git("pack-refs", "--all")
    assert same()


def test_a_ref_that_is_not_there_is_none(git: Callable[..., str], there: str) -> None:
    assert read_ref(there, "refs/heads/other") is None
    assert read_ref(there, "refs/heads/a") is None
    assert read_ref(there, f"{MAIN}/more") is None
    git("pack-refs", "--all")
    git("update-ref", "-d", DEEP)
    assert read_ref(there, DEEP) is None


def test_what_is_checked_out_is_known(git: Callable[..., str], there: str) -> None:
    assert read_branch(there) == MAIN
    git("checkout", "-q", "--detach")
    assert read_branch(there) is None


OTHERS = [
    "main",
    "HEAD",
    "refs/tags/v1",
    "refs/heads/../../HEAD",
    "refs/heads/main.lock",
    "refs/heads/a b",
    "refs/heads/",
    f"{MAIN}^",
]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.usefixtures("git")
def test_other_names_are_for_git(name: str, there: str) -> None:
    with pytest.raises(NotKnown):
        read_ref(there, name)


def _symbolic(_: Path, git: Callable[..., str]) -> None:
    git("symbolic-ref", MAIN, DEEP)


def _link(there: Path, _: Callable[..., str]) -> None:
    (there / ".git" / MAIN).unlink()
    (there / ".git" / MAIN).symlink_to(there / ".git" / DEEP)


def _pipe(there: Path, _: Callable[..., str]) -> None:
    (there / ".git" / MAIN).unlink()
    os.mkfifo(there / ".git" / MAIN)


def _garbage(there: Path, _: Callable[..., str]) -> None:
    (there / ".git" / MAIN).write_bytes(b"\xff\xfe")


def _much(there: Path, git: Callable[..., str]) -> None:
    git("pack-refs", "--all")
    with (there / ".git" / "packed-refs").open("a") as stream:
        stream.write("#" * LONGEST)


def _table(there: Path, _: Callable[..., str]) -> None:
    (there / ".git" / "reftable").mkdir()


def _elsewhere(there: Path, _: Callable[..., str]) -> None:
    (there / ".git").rename(there.parent / "elsewhere")
    (there / ".git").write_text(f"gitdir: {there.parent / 'elsewhere'}\n")


@pytest.mark.parametrize("changed", [_symbolic, _link, _pipe, _garbage, _much, _table, _elsewhere])
def test_where_refs_are_kept_otherwise_git_is_asked(
    changed: Callable[[Path, Callable[..., str]], None], git: Callable[..., str], there: str
) -> None:
    changed(Path(there), git)
    with pytest.raises(NotKnown):
        read_ref(there, MAIN)


@pytest.mark.parametrize("changed", [_symbolic, _elsewhere])
async def test_a_repository_knows_them_in_any_case(
    changed: Callable[[Path, Callable[..., str]], None], git: Callable[..., str], there: str
) -> None:
    changed(Path(there), git)
    assert await GitRepositories().resolve(there, MAIN) == git("rev-parse", MAIN)
    assert await GitRepositories().resolve(there, "refs/heads/other") is None
