"""Worktrees that were moved without git: what an agent wrote into one has nothing else written anywhere."""

from pathlib import Path

import pytest

from kapelle.adapters.workspaces.moved import how_to_repair, repoint


@pytest.fixture
def worktree(tmp_path: Path) -> Path:
    record = tmp_path / "repo" / ".git" / "worktrees" / "w"
    record.mkdir(parents=True)
    (record / "kapelle-copied").touch()
    (record / "gitdir").write_text(f"{tmp_path}/old/.git\n")
    place = tmp_path / "new"
    place.mkdir()
    (place / ".git").write_text(f"gitdir: {record}\n")
    return place


def record(worktree: Path) -> Path:
    return worktree.parent / "repo" / ".git" / "worktrees" / "w"


def test_the_record_is_told_where_its_worktree_is_now(worktree: Path) -> None:
    before = str(worktree.parent / "old")
    assert how_to_repair(worktree) == f"git -C {worktree.parent}/repo worktree repair {worktree}"
    assert repoint(worktree, before)
    assert (record(worktree) / "gitdir").read_text() == f"{worktree}/.git\n"
    assert how_to_repair(worktree) is None
    assert not repoint(worktree, before)


@pytest.mark.parametrize(
    "says", ["", "gitdir: /etc/passwd", "gitdir: ../..", "gitdir: \0", "gitdir: /nowhere/worktrees/w", "x" * 99]
)
def test_a_git_file_that_names_no_record_changes_nothing(worktree: Path, says: str) -> None:
    (worktree / ".git").write_text(says)
    assert not repoint(worktree, str(worktree.parent / "old"))


def test_a_record_of_another_worktree_is_left_alone(worktree: Path) -> None:
    (record(worktree) / "gitdir").write_text(f"{worktree.parent}/another/.git\n")
    assert not repoint(worktree, str(worktree.parent / "old"))
    assert (record(worktree) / "gitdir").read_text() == f"{worktree.parent}/another/.git\n"


@pytest.mark.parametrize("name", ["gitdir", ""])
def test_a_link_in_the_place_of_a_record_is_not_followed(worktree: Path, name: str) -> None:
    real = record(worktree) / name
    elsewhere = real.rename(worktree.parent / "elsewhere")
    real.symlink_to(elsewhere)
    assert not repoint(worktree, str(worktree.parent / "old"))


def test_a_worktree_of_somebody_else_is_left_alone(worktree: Path) -> None:
    (record(worktree) / "kapelle-copied").unlink()
    assert not repoint(worktree, str(worktree.parent / "old"))
