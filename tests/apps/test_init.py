"""`kapelle init`: looks, asks, writes all or nothing, and never overwrites unasked."""

import json
import re
from pathlib import Path

import pytest

from kapelle.apps import models
from kapelle.apps.initialise import plan_for, write
from kapelle.core.errors import UsageError, WouldOverwrite
from kapelle.documents import Document
from kapelle.testing.places import Place, make_repository


@pytest.fixture
def bare(tmp_path: Path) -> Place:
    folder = tmp_path / "fresh"
    folder.mkdir()
    return Place(repository=folder, home=tmp_path / "state")


@pytest.mark.parametrize(
    ("name", "content", "looks_like", "test"),
    [
        ("pyproject.toml", "[tool.pytest.ini_options]\n", "python", "python3 -m pytest -q"),
        ("pyproject.toml", "[project]\nname = 'x'\n", "python", "python3 -m unittest -q"),
        ("pyproject.toml", "not = toml = at all", "python", "python3 -m unittest -q"),
        ("package.json", json.dumps({"scripts": {"test": "x"}}), "node", "npm test"),
        ("package.json", "{", "node", None),
        ("Cargo.toml", "", "rust", "cargo test --quiet"),
        ("go.mod", "", "go", "go test ./..."),
        ("Makefile", "test:\n\ttrue\n", "make", "make test"),
        ("Makefile", "all:\n\ttrue\n", "make", None),
        ("main.py", "", "python", "python3 -m unittest -q"),
        ("README", "", "other", None),
    ],
)
def test_it_sees_what_a_repository_is(tmp_path: Path, name: str, content: str, looks_like: str, test: str | None) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")

    plan = plan_for(tmp_path)

    assert plan.kind.name == looks_like
    assert plan.test == test


def test_what_it_writes_is_valid_and_can_be_run(bare: Place) -> None:
    (bare.repository / "main.py").write_text("", encoding="utf-8")
    answer = bare.run("init", "--yes", "--json")
    make_repository(bare.repository)

    assert answer.code == 0, answer.err
    assert answer.json["looks_like"] == "python"
    prompts = [path for path in answer.json["written"] if "prompts/" in path]
    assert len(prompts) == 6
    assert bare.run("validate").code == 0
    assert bare.run("run", "--prompt", "echo hello > hello.txt", "--agent", "script").code == 0
    assert "hello.txt" in bare.git("ls-tree", "--name-only", "main")


def test_what_it_hints_at_is_valid_when_it_is_taken_in(bare: Place) -> None:
    assert bare.run("init", "--yes").code == 0
    written = (bare.repository / ".kapelle" / "agents.yml").read_text()

    taken = re.sub(r"(?m)^( *)# (?=\w+:)", r"\1", written)
    found, wrong = Document.parse(taken, "agents.yml").fit(models.Agents)

    assert wrong == []
    assert found is not None
    assert found.model_fields_set >= {"sandbox", "limits", "network", "rules"}
    assert any(agent.secrets for agent in found.agents.values())


def test_it_does_not_overwrite_unless_forced(place: Place) -> None:
    before = (place.repository / ".kapelle" / "agents.yml").read_text()

    refused = place.run("init", "--yes")

    assert refused.code == 2
    assert (place.repository / ".kapelle" / "agents.yml").read_text() == before
    assert place.run("init", "--yes", "--force").code == 0
    assert (place.repository / ".kapelle" / "agents.yml").read_text() != before


def test_a_failure_in_the_middle_undoes_all_of_it(tmp_path: Path) -> None:
    (tmp_path / ".kapelle").mkdir()
    (tmp_path / ".kapelle" / "prompts").touch()

    with pytest.raises(UsageError, match="everything was undone"):
        write(plan_for(tmp_path), verify=lambda: None)

    assert [path.name for path in (tmp_path / ".kapelle").iterdir()] == ["prompts"]


def test_what_does_not_verify_is_undone(tmp_path: Path) -> None:
    def refuse() -> None:
        raise WouldOverwrite("no")

    with pytest.raises(WouldOverwrite):
        write(plan_for(tmp_path), verify=refuse)

    assert list(tmp_path.iterdir()) == []


def test_what_was_there_is_put_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / ".kapelle").mkdir()
    mine = tmp_path / ".kapelle" / "project.yml"
    mine.write_bytes(b"name: mine\r\n")

    def refuse() -> None:
        raise WouldOverwrite("no")

    with pytest.raises(WouldOverwrite):
        write(plan_for(tmp_path), verify=refuse)

    assert mine.read_bytes() == b"name: mine\r\n"
