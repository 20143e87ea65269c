"""Secrets as people write them and ask for them: references in agents.yml, `kapelle secrets`, `kapelle doctor`."""

import json
from pathlib import Path

import pytest

from kapelle.apps.python import AgentConfig
from kapelle.testing.places import Place

VALUE = "npm" + "_" + "x" * 36
FLOW = "name: f\ndefaults: {agent: one, gate: none}\ntasks: {a: {prompt: 'echo 1 > a.txt'}}\n"


def written(place: Place, agent: str) -> Place:
    (place.repository / ".kapelle" / "agents.yml").write_text(f"agents:\n  one: {{program: command, {agent}}}\n")
    return place


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        (f"secrets: {{TOKEN: {VALUE}}}", "secrets.TOKEN|TOKEN: it is no reference"),
        (f"secrets: {{TOKEN: 'vault:{VALUE}'}}", "no reference"),
        (f"secrets: {{TOKEN: 'env:{VALUE}-'}}", "names no variable"),
        (f"secrets: {{TOKEN: ['{VALUE}']}}", "no reference"),
        (f"secrets: {VALUE}", "no mapping of names to references"),
        (f"secrets: {{'{VALUE}!': env:TOKEN}}", "no name of a variable"),
        ("git: {github.com: {secret: TOKEN}}", "git: github.com needs the secret TOKEN"),
        ("secrets: {TOKEN: env:T}, git: {'https://github.com': {secret: TOKEN}}", "no name of a host"),
        ("secrets: {TOKEN: env:T}, git: {github.com: {secret: TOKEN, user: 'a b'}}", "user"),
        ("mcp: {m: {command: x, env: {A: '${secret:TOKEN}'}}}", "mcp: m needs the secret TOKEN"),
        ("secrets: {TOKEN: env:T}, mcp: {m: {command: x, args: ['${secret:TOKEN}']}}", "cannot stand here"),
        ("secrets: {TOKEN: env:T}, mcp: {m: {url: 'https://x/${secret:TOKEN}'}}", "cannot stand here"),
        ("mcp: {m: {}}", "either command or url"),
        ("mcp: {m: {command: x, url: y}}", "either command or url"),
        ("mcp: {m: {url: y, env: {A: b}}}", "args and env are for a command"),
        ("mcp: {m: {command: x, headers: {A: b}}}", "headers are for a url"),
        ("mcp: {m: {command: x}}", "mcp means nothing for program: command"),
    ],
)
def test_what_is_no_reference_is_refused_and_not_repeated(place: Place, agent: str, said: str) -> None:
    for command in (["validate"], ["validate", "--json"], ["secrets"], ["config"], ["doctor"]):
        answer = written(place, agent).run(*command)
        assert VALUE not in answer.out + answer.err
    answer = place.run("validate")
    assert answer.code == 2
    assert any(part in answer.err for part in said.split("|")), answer.err


def test_the_python_api_does_not_repeat_it_either() -> None:
    with pytest.raises(ValueError, match="no reference") as told:
        AgentConfig(name="one", secrets={"TOKEN": VALUE})
    assert VALUE not in str(told.value)


def test_each_is_listed_by_reference_with_whether_it_is_to_be_had(place: Place, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(VALUE)
    key.chmod(0o644)
    written(place, f"secrets: {{A: env:HERE, B: env:NOWHERE, C: 'file:{key}'}}")
    answer = place.run("secrets", "--json", env={"HERE": VALUE})
    assert answer.code == 1
    assert [(entry["name"], entry["reference"], entry["to_be_had"]) for entry in answer.json] == [
        ("A", "env:HERE", True),
        ("B", "env:NOWHERE", False),
        ("C", f"file:{key}", False),
    ]
    assert answer.json[2]["remedy"] == f"chmod 600 {key}"
    people = place.run("secrets", env={"HERE": VALUE})
    assert "NOWHERE is not set where Kapelle leads" in people.out
    assert VALUE not in answer.out + people.out + people.err
    key.chmod(0o600)
    assert place.run("secrets", env={"HERE": VALUE, "NOWHERE": VALUE}).code == 0


def test_a_variable_of_dotenv_is_found(place: Place) -> None:
    written(place, "secrets: {A: env:HERE}")
    (place.repository / ".env").write_text(f"HERE={VALUE}\n")
    assert place.run("secrets").code == 0


def test_each_that_is_missing_is_told_with_what_to_do_about_it(place: Place, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("x")
    (tmp_path / "short").chmod(0o600)
    written(place, f"secrets: {{A: env:ONE, B: env:TWO, C: 'file:{tmp_path}/none', D: 'file:{tmp_path}/short'}}")
    place.write("flow.yml", FLOW)
    said, answer = place.run("secrets"), place.run("run", "../flow.yml")
    assert "kapelle secrets" not in said.out
    for told in (said.out, answer.err):
        flat = " ".join(told.split())
        for remedy in (
            "Set ONE in",
            "Set TWO in",
            f"Let {tmp_path}/none be a file",
            f"Give file:{tmp_path}/short another",
        ):
            assert remedy in flat


def test_where_there_are_none_it_is_said(place: Place) -> None:
    answer = written(place, "").run("secrets")
    assert (answer.code, "No agent has secrets" in answer.out) == (0, True)


def test_doctor_says_what_is_missing_and_where_they_are_kept(place: Place) -> None:
    written(place, "secrets: {A: env:HERE, B: env:NOWHERE}")
    findings = place.run("doctor", "--json", env={"HERE": VALUE}).json["findings"]
    said = [(entry["standing"], entry["what"]) for entry in findings if entry["area"] == "secrets"]
    assert said[0] == ("problem", "one: the secret B (env:NOWHERE) is missing: NOWHERE is not set where Kapelle leads")
    assert said[1][1].startswith("1 of 2 are to be had; while agents use them they are in /")
    assert VALUE not in json.dumps(findings)


def test_a_run_whose_secret_is_missing_is_refused_before_anything_is_written(place: Place) -> None:
    written(place, "secrets: {A: env:NOWHERE}")
    place.write("flow.yml", FLOW)
    answer = place.run("run", "../flow.yml")
    assert answer.code == 2
    assert "the secret A (env:NOWHERE) is missing" in answer.err
    assert "Set NOWHERE" in answer.err
    assert place.runs() == 0
