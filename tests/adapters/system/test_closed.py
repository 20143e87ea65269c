"""What is closed to its own owner: looked through, opened and removed, by root, and by an owner without root's rights."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from kapelle.adapters.system.ownership import AGENT
from kapelle.adapters.system.removal import remove_tree
from kapelle.adapters.system.walking import open_up, taken, walk

MODES = {"nothing": 0, "only-listed": 0o400, "only-passed": 0o100, "read-only": 0o500}


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A directory of others that are closed in each way, each with a file, a link and a directory in it."""
    top = tmp_path / "top"
    (tmp_path / "outside").mkdir(mode=0o500)
    for name, mode in MODES.items():
        (top / name / "inner").mkdir(parents=True)
        (top / name / "inner" / "deep").write_text("deep")
        (top / name / "file").write_text("file")
        (top / name / "file").chmod(0)
        (top / name / "link").symlink_to(tmp_path / "outside")
        (top / name / "inner").chmod(mode)
        (top / name).chmod(mode)
    if os.geteuid() == 0:
        for path in (top, *top.rglob("*")):
            os.chown(path, AGENT, AGENT, follow_symlinks=False)
    return top


WHOLE = sorted([*MODES, *["deep", "file", "inner", "link"] * len(MODES)])


def test_what_may_be_looked_at_is_and_the_rest_is_left_out_or_told(closed: Path) -> None:
    seen = sorted(name for _, name, _ in walk(str(closed), closed=True))
    if os.geteuid() == 0:
        assert seen == WHOLE == sorted(name for _, name, _ in walk(str(closed)))
        return
    # What is in it is known by its name alone, or not even by that.
    assert seen == sorted([*MODES, "deep", "file", "inner", "link"])
    assert taken(str(closed))[0] > 0
    with pytest.raises(PermissionError):
        list(walk(str(closed)))


def test_all_of_it_can_be_looked_at_once_it_was_opened(closed: Path) -> None:
    closed.chmod(0)
    changed = open_up(str(closed))
    assert changed is (os.geteuid() != 0)
    assert not open_up(str(closed))
    assert sorted(name for _, name, _ in walk(str(closed))) == WHOLE
    assert (closed / "nothing" / "file").read_text() == "file"
    # No link was followed, and no file was made a program.
    assert stat.S_IMODE((closed.parent / "outside").stat().st_mode) == 0o500
    assert (closed / "nothing" / "file").stat().st_mode & 0o111 == 0


def test_all_of_it_is_removed(closed: Path) -> None:
    closed.chmod(0)
    remove_tree(closed)
    assert not closed.exists()
    assert stat.S_IMODE((closed.parent / "outside").stat().st_mode) == 0o500


def test_so_it_is_for_an_owner_without_roots_rights(without_root: Callable[[str], None]) -> None:
    without_root(__file__)
