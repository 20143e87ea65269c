import os
import sys
from pathlib import Path

import pytest

from kapelle.adapters.sandboxes.programs import needed


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


def path(*folders: Path) -> str:
    return os.pathsep.join(map(str, folders))


@pytest.mark.usefixtures("home")
def test_what_the_system_has_is_there_already() -> None:
    assert needed("/usr/bin:/bin:/usr/local/bin", ("/usr/bin/true",)) == ()


@pytest.mark.usefixtures("home")
def test_a_directory_that_cannot_be_looked_at_is_passed_by(tmp_path: Path) -> None:
    """As one of root's is, which `su` has left in the PATH of somebody else; or one that no system would make."""
    plain = made(tmp_path / "plain", "bin")
    assert needed(path(tmp_path / ("x" * 300), plain / "bin"), ("true",)) == (str(plain / "bin"),)


@pytest.mark.usefixtures("home")
def test_programs_bring_the_libraries_beside_them(tmp_path: Path) -> None:
    tool = made(tmp_path / "tool", "bin", "lib")
    plain = made(tmp_path / "plain", "bin")
    assert needed(path(tool / "bin", plain / "bin"), ("true",)) == tuple(sorted([str(tool), str(plain / "bin")]))


@pytest.mark.usefixtures("home")
def test_a_virtual_environment_brings_the_python_that_it_was_made_from(tmp_path: Path) -> None:
    python = made(tmp_path / "python", "bin", "lib")
    venv = made(tmp_path / "venv", "bin", "lib")
    (venv / "pyvenv.cfg").write_text(f"home = {python / 'bin'}\nversion = 3.11\n")
    assert needed(path(venv / "bin"), ("true",)) == (str(python), str(venv))


def test_shims_bring_what_they_start(home: Path) -> None:
    pyenv = made(home / ".pyenv", "shims", "versions/3.11/bin")
    assert needed(path(pyenv / "shims"), ("true",)) == (str(pyenv),)


def test_a_home_is_never_shown_for_the_programs_in_it(home: Path) -> None:
    made(home, "bin", "lib", ".local/bin", ".local/lib")
    assert needed(path(home / "bin", home / ".local" / "bin"), ("true",)) == (str(home / ".local/bin"), str(home / "bin"))


def test_a_path_that_is_the_home_or_holds_it_is_left_out(home: Path) -> None:
    assert needed(path(home, home.parent), ("true",)) == ()


@pytest.mark.usefixtures("home")
def test_a_link_to_the_home_is_no_way_round(tmp_path: Path, home: Path) -> None:
    (tmp_path / "other-name").symlink_to(home)
    assert needed(path(tmp_path / "other-name"), ("true",)) == ()


@pytest.mark.usefixtures("home")
def test_of_a_checkout_no_more_than_its_programs(tmp_path: Path) -> None:
    """Its files, ``.env`` among them, are the operator's."""
    checkout = made(tmp_path / "checkout", "bin", "lib", ".git/objects")
    private = (str(checkout / ".git"),)
    assert needed(path(checkout / "bin"), ("true",), private) == (str(checkout / "bin"),)
    assert needed(path(checkout / "bin"), ("true",)) == (str(checkout),)


@pytest.mark.usefixtures("home")
def test_where_agents_work_is_never_shown_for_programs(tmp_path: Path) -> None:
    state = made(tmp_path / "state", "agents/a-1", "bin", "lib")
    assert needed(path(state, state / "bin"), ("true",), (str(state / "agents" / "a-1"),)) == (str(state / "bin"),)


@pytest.mark.usefixtures("home")
def test_our_own_python_brings_what_it_runs(tmp_path: Path) -> None:
    found = needed(path(tmp_path), (sys.executable,))
    assert any(Path(root) in Path(sys.executable).parents for root in found)
    assert any(Path(root).name == "kapelle" for root in found)


@pytest.mark.usefixtures("home")
def test_what_is_not_there_or_relative_is_nothing(tmp_path: Path) -> None:
    assert needed(f"bin::{tmp_path / 'gone'}", ("true",)) == ()
