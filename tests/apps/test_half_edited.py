"""Files of the configuration that somebody is just editing: who only looks or steers goes on, who begins something does not."""

import json
from pathlib import Path

import pytest

from kapelle.apps.cli.common import valid_configuration
from kapelle.testing.places import Place

TYPO = 'working_hours: ["Mon-Fry 8-18"]\n'
LOOKING = (
    *(["status"], ["inbox"], ["list"], ["show", "work"], ["events"], ["logs", "work"], ["agents"], ["pool"], ["usage"]),
    *(["report"], ["queue"], ["explain", "one"], ["top", "--once"], ["recover"]),
)
STEERING = (["halt"], ["unhalt"], ["stop-all", "--yes"], ["pause", "work"], ["cancel", "work"])


@pytest.fixture(params=[".kapelle/project.yml", ".kapelle/agents.yml"])
def broken(place: Place, request: pytest.FixtureRequest) -> Path:
    place.write("flow.yml", "name: work\ntasks: {one: {agent: script, gate: none, prompt: 'true'}}\n")
    assert place.run("submit", "../flow.yml").code == 0
    file = place.repository / request.param
    file.write_text(TYPO if request.param.endswith("project.yml") else "oops: [\n")
    return file


def test_who_looks_sees_and_is_told_which_file_counts_for_nothing(place: Place, broken: Path) -> None:
    for words in LOOKING:
        said = place.run(*words)
        assert said.code == 0, (words, said.out + said.err)
        assert f"{broken}:" in said.err, words
        assert f"Until that is mended, {broken.name} counts for nothing here." in said.err, words
        assert "counts for nothing" not in said.out, words
    # What is read by programs is nothing else than before.
    assert json.loads(place.run("status", "--json").out)["leader"] is None


def test_who_comes_by_the_files_twice_is_told_once(
    place: Place, broken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAPELLE_HOME", str(place.home))
    valid_configuration(place.repository)
    valid_configuration(place.repository)
    assert capsys.readouterr().err.count(f"{broken.name} counts for nothing here.") == 1


def test_who_steers_is_heard(place: Place, broken: Path) -> None:
    for words in STEERING:
        said = place.run(*words)
        assert said.code == 0, (words, said.out + said.err)
        assert f"{broken.name} counts for nothing here." in said.err, words
    assert place.run("list", "--json").json[0]["state"] == "cancelled"


@pytest.mark.usefixtures("broken")
def test_who_begins_something_is_told_to_mend_it_first(place: Place) -> None:
    for words in (["run", "../flow.yml"], ["submit", "../flow.yml"], ["resume"], ["retry", "work"], ["scale", "coder", "1"]):
        said = place.run(*words)
        assert (said.code, said.out) == (2, ""), words
        assert "1 mistake; nothing was done. [KAP-101]" in said.err, words
    assert place.runs() == 1
