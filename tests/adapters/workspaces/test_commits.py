"""Commits read from files are what git says they are; where they may not be, git is asked."""

import hashlib
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from kapelle.adapters.workspaces.commits import read_commit
from kapelle.adapters.workspaces.own_files import NotKnown
from kapelle.adapters.workspaces.repositories import GitRepositories
from kapelle.core.git import Signature

SOMEBODY = Signature(author="You", email="you@example.org", message="Together\n")


@pytest.fixture
def git(tmp_path: Path) -> Callable[..., str]:
    """Run git in a repository with one file on main, and a branch on which another one was added."""

    def run(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(tmp_path / "r"), *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    (tmp_path / "r").mkdir()
    run("init", "-q", "-b", "main")
    run("config", "user.name", "You")
    run("config", "user.email", "you@example.org")
    (tmp_path / "r" / "one.txt").write_text("one\n", encoding="utf-8")
    run("add", "-A")
    run("commit", "-q", "-m", "one")
    run("checkout", "-q", "-b", "side")
    (tmp_path / "r" / "two.txt").write_text("two\n", encoding="utf-8")
    run("add", "-A")
    run("commit", "-q", "-m", "two")
    return run


@pytest.fixture
def there(tmp_path: Path) -> str:
    return str(tmp_path / "r")


def loose(there: str, commit: str) -> Path:
    return Path(there, ".git", "objects", commit[:2], commit[2:])


def test_commits_are_what_git_says(git: Callable[..., str], there: str) -> None:
    git("checkout", "-q", "main")
    git("merge", "-q", "--no-ff", "-m", "both\n\nparent 0000000000000000000000000000000000000000", "side")
    for name, parents in (("main", ("main^1", "main^2")), ("side", ("main^1",)), ("main^1", ())):
        found = read_commit(there, git("rev-parse", name))
        assert found.tree == git("rev-parse", f"{name}^{{tree}}")
        assert found.parents == tuple(git("rev-parse", parent) for parent in parents)


@pytest.mark.parametrize("objects", ["sha1", "sha256"])
def test_whatever_they_are_named_by(tmp_path: Path, objects: str) -> None:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q", f"--object-format={objects}")
    git("-c", "user.name=You", "-c", "user.email=you@example.org", "commit", "-q", "--allow-empty", "-m", "one")
    assert read_commit(str(tmp_path), git("rev-parse", "HEAD")).tree == git("rev-parse", "HEAD^{tree}")


def test_what_is_no_name_of_a_commit_is_for_git(git: Callable[..., str], there: str) -> None:
    for name in ("main", "HEAD", git("rev-parse", "main")[:10], "0" * 40, git("rev-parse", "main^{tree}")):
        with pytest.raises(NotKnown):
            read_commit(there, name)


@pytest.mark.parametrize("how", ["packed", "replaced", "shallow", "grafted", "in tables"])
def test_what_may_be_seen_otherwise_is_for_git(git: Callable[..., str], there: str, how: str) -> None:
    commit, other = git("rev-parse", "side"), git("rev-parse", "main")
    own = Path(there, ".git")
    if how == "packed":
        git("gc", "-q", "--prune=now")
    elif how == "replaced":
        git("replace", commit, other)
        git("pack-refs", "--all")
        (own / "refs" / "replace").rmdir()
    elif how == "shallow":
        (own / "shallow").write_text(f"{commit}\n", encoding="utf-8")
    elif how == "grafted":
        (own / "info" / "grafts").write_text(f"{commit}\n", encoding="utf-8")
    else:
        (own / "reftable").mkdir()
    with pytest.raises(NotKnown):
        read_commit(there, commit)


@pytest.mark.parametrize("what", ["another commit", "cut off", "nothing", "no zlib", "a link"])
def test_what_its_name_does_not_vouch_for_is_not_believed(git: Callable[..., str], there: str, what: str) -> None:
    commit, other = git("rev-parse", "side"), git("rev-parse", "main")
    path = loose(there, commit)
    whole = path.read_bytes()
    path.unlink()
    if what == "another commit":
        path.write_bytes(loose(there, other).read_bytes())
    elif what == "cut off":
        path.write_bytes(zlib.compress(zlib.decompress(whole)[:-5]))
    elif what == "a link":
        path.symlink_to(loose(there, other))
    else:
        path.write_bytes(b"" if what == "nothing" else b"commit")
    with pytest.raises(NotKnown):
        read_commit(there, commit)


async def test_where_nothing_was_merged_meanwhile_both_together_are_the_change_itself(
    git: Callable[..., str], there: str
) -> None:
    """As git merges them, though it is not asked to."""
    base, head = git("rev-parse", "main"), git("rev-parse", "side")
    merged = await GitRepositories().merge(there, base, head, SOMEBODY)
    assert merged.commit is not None
    assert not merged.unchanged
    assert merged.commit.tree == git("merge-tree", "--write-tree", base, head) == git("rev-parse", "side^{tree}")
    assert git("rev-parse", f"{merged.commit.commit}^@").split() == [base, head]


async def test_a_history_of_its_own_is_merged_as_git_merges_it(git: Callable[..., str], there: str) -> None:
    """Its tree lacks a file of the target's, which it never removed."""
    base = git("rev-parse", "main")
    git("checkout", "-q", "--orphan", "alone")
    git("rm", "-q", "-r", "--cached", ".")
    git("add", "two.txt")
    git("commit", "-q", "-m", "alone")
    merged = await GitRepositories().merge(there, base, git("rev-parse", "alone"), SOMEBODY)
    assert merged.commit is not None
    assert git("ls-tree", "--name-only", merged.commit.commit).split() == ["one.txt", "two.txt"]


async def test_what_changed_is_asked_for_once(git: Callable[..., str], there: str) -> None:
    """And known of a merge that holds the same."""
    repositories = GitRepositories()
    base, head = git("rev-parse", "main"), git("rev-parse", "side")
    merged = await repositories.merge(there, base, head, SOMEBODY)
    assert merged.commit is not None
    assert await repositories.changed(there, base, head) == ["two.txt"]
    # Git could not say it any more.
    loose(there, git("rev-parse", "side^{tree}")).unlink()
    assert await repositories.changed(there, base, merged.commit.commit) == ["two.txt"]


async def test_files_are_those_between_these_two_and_no_others(git: Callable[..., str], there: str) -> None:
    repositories = GitRepositories()
    base, head = git("rev-parse", "main"), git("rev-parse", "side")
    assert await repositories.changed(there, base, head) == ["two.txt"]
    assert await repositories.changed(there, head, head) == []
    assert await repositories.changed(there, head, base) == ["two.txt"]
    assert await repositories.changed(there, "main", "side") == ["two.txt"]


@pytest.mark.parametrize("parent", ["0123456789", "A" * 40, "0" * 64])
def test_a_parent_that_is_not_named_as_git_names_it_is_for_git(git: Callable[..., str], there: str, parent: str) -> None:
    """The name of the commit vouches for it: without that line it would be taken for a commit that comes from nothing."""
    text = f"tree {git('rev-parse', 'side^{tree}')}\nparent {parent}\nauthor You <you@example.org> 0 +0000\n\nx\n".encode()
    whole = b"commit %d\x00" % len(text) + text
    commit = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
    loose(there, commit).parent.mkdir(exist_ok=True)
    loose(there, commit).write_bytes(zlib.compress(whole))
    with pytest.raises(NotKnown):
        read_commit(there, commit)


LOOKS = """
import os, sys
from kapelle.adapters.workspaces.commits import read_commit
from kapelle.adapters.workspaces.own_files import NotKnown
if os.getuid() == 0:
    os.setuid(65534)
try:
    print(read_commit(".", sys.argv[1]))
except NotKnown:
    print("git has to be asked")
"""


@pytest.mark.parametrize("folder", ["info", "refs", "."])
def test_where_nobody_may_look_git_is_asked(git: Callable[..., str], there: str, folder: str) -> None:
    closed = Path(there, ".git", folder)
    commit, before = git("rev-parse", "side"), closed.stat().st_mode
    closed.chmod(0)
    try:
        found = subprocess.run([sys.executable, "-c", LOOKS, commit], check=False, capture_output=True, text=True, cwd=there)
    finally:
        closed.chmod(before)
    assert (found.stdout, found.stderr) == ("git has to be asked\n", "")
