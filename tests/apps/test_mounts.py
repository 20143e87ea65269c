"""Directories that agents may write: nobody outside is to rely on what is in them."""

from pathlib import Path

import pytest

from kapelle.testing.places import Place

AGENTS = """\
sandbox: bubblewrap
mounts: {ALL}
agents: {script: {program: command}}
"""


def validated(place: Place, mounts: str, path: str) -> str:
    (place.repository / ".kapelle" / "agents.yml").write_text(AGENTS.replace("ALL", mounts))
    answer = place.run("validate", env={"PATH": path})
    assert answer.code == (2 if answer.err else 0)
    return answer.err


@pytest.mark.usefixtures("bubblewrap")
def test_programs_that_kapelle_starts_cannot_be_given_to_agents(place: Place, tmp_path: Path) -> None:
    (tmp_path / "cargo" / "bin").mkdir(parents=True)
    (tmp_path / "cargo" / "registry").mkdir()
    path = f"{tmp_path}/cargo/bin:{place.environment['PATH']}"
    said = validated(place, f"{tmp_path}/cargo: write", path)
    assert f"{tmp_path}/cargo/bin is on your PATH" in said
    assert validated(place, f"{tmp_path}/cargo/registry: write, {tmp_path}/cargo/bin: read", path) == ""


@pytest.mark.usefixtures("bubblewrap")
def test_nothing_is_mounted_from_where_agents_write(place: Place, tmp_path: Path) -> None:
    (tmp_path / "shared" / "fixed").mkdir(parents=True)
    said = validated(place, f"{tmp_path}/shared: write, {tmp_path}/shared/fixed: read", place.environment["PATH"])
    assert f"{tmp_path}/shared/fixed lies in {tmp_path}/shared, which agents may write" in said
