"""Where values lie is private, or nothing is put there."""

import os
from pathlib import Path

import pytest

from kapelle.adapters.system.private import is_in_memory, made, private_place
from kapelle.core.errors import HostFailed


def test_it_is_made_for_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    place = private_place()
    assert place.parent == tmp_path
    assert place.stat().st_mode & 0o777 == 0o700
    assert private_place() == place


def test_that_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/" if os.geteuid() != 0 else str(tmp_path / "theirs"))
    if os.geteuid() == 0:
        (tmp_path / "theirs").mkdir()
        os.chown(tmp_path / "theirs", 12345, 12345)
    assert private_place().parent != Path(os.environ["XDG_RUNTIME_DIR"])


def test_what_others_can_look_into_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(HostFailed, match="not private"):
        made(tmp_path / "open")


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(HostFailed, match="not private"):
        made(tmp_path / "link")


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="this system has no shared memory")  # noqa: S108
def test_memory_is_told_from_a_disk() -> None:
    assert is_in_memory(Path("/dev/shm"))  # noqa: S108
    assert not is_in_memory(Path("/usr"))
