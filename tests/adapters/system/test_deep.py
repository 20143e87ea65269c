"""What an agent leaves behind is looked through and removed, however deep it is and whatever is in it."""

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.sandboxes import guard
from kapelle.adapters.system.ownership import give
from kapelle.adapters.system.removal import clear_tree, remove_tree
from kapelle.adapters.system.walking import walk

DEEP = 1_500
"""Deeper than Python's stack and, with names of eight letters, than three paths are long."""


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A directory with a file at the bottom, a link out of it beside that, and what the link leads to."""
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "kept").chmod(0o640)
    top = tmp_path / "deep"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir("dddddddd", dir_fd=here)  # relative to where it is
        below = os.open("dddddddd", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("bottom", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=here))
    os.symlink(tmp_path / "kept", "link", dir_fd=here)
    os.symlink(tmp_path, "out", dir_fd=here)
    os.close(here)
    yield top
    clear_tree(top)


def test_the_deepest_is_removed_and_no_link_is_followed(deep: Path) -> None:
    remove_tree(deep)

    assert not deep.exists()
    kept = deep.parent / "kept"
    assert (kept.read_text(), stat.S_IMODE(kept.stat().st_mode)) == ("kept", 0o640)


def test_the_deepest_is_looked_at_with_few_files_open(deep: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))  # noqa: PTH208
    try:
        names = [name for _, name, _ in walk(str(deep))]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert sorted(names) == ["bottom", *["dddddddd"] * DEEP, "link", "out"]


def test_the_deepest_is_given_away(deep: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    give(str(deep), 59990)
    owners = {facts.st_uid for _, _, facts in walk(str(deep))}
    assert (owners, (deep.parent / "kept").stat().st_uid) == ({59990}, 0)


def test_the_deepest_counts_for_the_guard(deep: Path) -> None:
    assert len(dict(guard._files(str(deep)))) == DEEP + 3


def test_what_its_owner_may_not_write_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "a" / "b" / "c").mkdir(parents=True)
    (top / "a" / "b" / "file").write_text("x")
    for folder in ("a/b/c", "a/b", "a"):
        (top / folder).chmod(0o500 if folder != "a/b/c" else 0)
    (tmp_path / "other").mkdir(mode=0o500)
    (top / "link").symlink_to(tmp_path / "other")
    top.chmod(0o500)

    remove_tree(top)

    assert not top.exists()
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o500


NAMES = st.sampled_from(["a", "b", "c"])


@given(st.sets(st.lists(NAMES, min_size=1, max_size=6).map("/".join), max_size=12))
def test_whatever_there_is_is_walked_and_removed(tmp_path_factory: pytest.TempPathFactory, folders: set[str]) -> None:
    top = tmp_path_factory.mktemp("tree") / "top"
    top.mkdir()
    for folder in folders:
        (top / folder).mkdir(parents=True, exist_ok=True)
        (top / folder / "file").write_text(folder)
    assert len(list(walk(str(top)))) == len(list(top.rglob("*")))
    remove_tree(top)
    assert not top.exists()


def test_clearing_takes_whatever_it_is(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name in ("link", "file", "nothing"):
        clear_tree(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
