"""The pages say what is so: links lead somewhere, examples are valid, commands exist, generated parts are up to date."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import kapelle
from kapelle.adapters.gateway.rehearsal_file import Rehearsal
from kapelle.apps import models
from kapelle.apps.cli.commands import app
from kapelle.core.errors import all_errors
from kapelle.core.limits import LONGEST_NAME
from kapelle.core.names import name_problem
from kapelle.core.workflow import LONGEST_TASK_NAME, NAME
from kapelle.documents import Document

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md"), *(ROOT / "changes").glob("*.md")]
)
MODELS: dict[str, type[Any]] = {
    "workflow.yml": models.Workflow,
    "rehearsal.yml": Rehearsal,
    ".kapelle/project.yml": models.Project,
    ".kapelle/agents.yml": models.Agents,
}


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Yield (page, text) of every fenced block in *language*."""
    for page in PAGES:
        for found in re.finditer(
            rf"^( *)```{language}\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            indent = len(found.group(1))
            yield str(page.relative_to(ROOT)), "\n".join(line[indent:] for line in found.group(2).splitlines()) + "\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize(("page", "text"), list(blocks("yaml")))
def test_every_yaml_example_says_what_it_is_and_is_valid(page: str, text: str) -> None:
    name = text.splitlines()[0].removeprefix("# ")
    assert name in MODELS, f"{page}: the first line of an example names its file"

    found, mistakes = Document.parse(text, page).fit(MODELS[name])

    assert not mistakes, "\n".join(map(str, mistakes))
    assert found is not None


def test_the_workflow_of_the_reference_fits_the_agents_and_gates_of_the_reference() -> None:
    known = {
        text.splitlines()[0].removeprefix("# "): text for page, text in blocks("yaml") if page.startswith("docs/reference/")
    }
    agents, _ = Document.parse(known[".kapelle/agents.yml"], "agents").fit(models.Agents)
    workflow, _ = Document.parse(known["workflow.yml"], "workflow").fit(models.Workflow)
    assert agents is not None
    assert workflow is not None
    parts = [workflow.defaults, *workflow.tasks.values()]
    assert {part.agent for part in parts} - {None} <= set(agents.agents)
    assert {part.gate for part in parts} - {None, "none"} <= set(agents.gates)


def test_the_gate_of_the_examples_is_the_one_that_init_writes() -> None:
    for page, text in blocks("yaml"):
        if text.startswith("# workflow.yml"):
            workflow, _ = Document.parse(text, page).fit(models.Workflow)
            assert workflow is not None
            used = {part.gate for part in (workflow.defaults, *workflow.tasks.values())}
            assert used <= {None, "none", "default"}, page


def test_the_limits_of_names_are_those_of_the_code() -> None:
    page = (ROOT / "docs/reference/limits.md").read_text(encoding="utf-8")
    assert (
        f"| the name of a task | {LONGEST_TASK_NAME} characters: letters (A to Z), digits, `-` and `_`, beginning with" in page
    )
    assert f"with its item | {LONGEST_NAME} characters, one line, letters that can be shown |" in page
    assert NAME.fullmatch("a" * LONGEST_TASK_NAME)
    assert not any(NAME.fullmatch(name) for name in ("a" * (LONGEST_TASK_NAME + 1), "1a", "-a", "a b", "ä", "", "a.b"))
    assert name_problem("ä b." * 50) == ""
    assert name_problem("x" * (LONGEST_NAME + 1))


@pytest.mark.parametrize(("page", "text"), list(blocks("python")))
def test_every_python_example_compiles_and_uses_what_there_is(page: str, text: str) -> None:
    compile(text, page, "exec")
    for names in re.findall(r"from kapelle import (.+)", text):
        assert {name.strip() for name in names.split(",")} <= set(kapelle.__all__)
    for name in re.findall(r"orchestra\.(\w+)\(", text):
        assert hasattr(kapelle.Orchestrator, name), name


def test_every_command_that_a_page_names_exists_with_its_options() -> None:
    commands: Any = typer.main.get_command(app)
    known = {name: command for name, command in commands.commands.items() if not hasattr(command, "commands")}
    known |= {f"rehearse {name}": command for name, command in commands.commands["rehearse"].commands.items()}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for said in re.findall(r"^kapelle ([^\n`]+)|`kapelle ([a-z][^`\n]*)`", text, re.MULTILINE):
            words = (said[0] or said[1]).split()
            name = " ".join(words[:2]) if words[0] == "rehearse" and len(words) > 1 else words[0]
            assert name in known or name == "rehearse", f"{page.name}: kapelle {' '.join(words)}"
            options = {option for parameter in known[name].params for option in [*parameter.opts, *parameter.secondary_opts]}
            used = {word.split("=")[0].strip("[],") for word in words if word.startswith(("-", "[--"))}
            assert used <= options | {"--help"}, f"{page.name}: {used - options} of kapelle {name}"


def test_every_make_verb_that_a_page_names_exists() -> None:
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        for verb in re.findall(r"`make ([a-z]+)`|^make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert (verb[0] or verb[1]) in verbs, f"{page.name}: make {verb}"


def test_generated_pages_and_schemas_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "write-reference"), "--check"], check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr


def test_every_error_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")

    assert all(f"`{kind.code}`" in page for kind in all_errors())


def test_no_page_holds_an_address_of_a_registry_or_a_path_of_a_machine() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in tracked:
        path = ROOT / name
        if not path.is_file() or path.suffix == ".jsonl":
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        assert "files.pythonhosted" + ".org" not in text, name
        assert "/work" + "/main" not in text, name
