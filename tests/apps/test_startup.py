"""What a command loads: only what it needs."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from kapelle.apps.cli.commands import COMMANDS, app

LOADED = """
import atexit, sys
sys.argv = ["kapelle", *{arguments}]
from kapelle.apps.cli.main import main
atexit.register(lambda: print("loaded:", *sorted(sys.modules), flush=True))
main()
"""


def loaded(folder: Path, *arguments: str) -> tuple[str, set[str]]:
    """Run a command; return what it printed and the modules that it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(arguments=arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"KAPELLE_HOME": str(folder / "home"), "PATH": "/usr/bin:/bin"},
    )
    printed, _, modules = done.stdout.rpartition("loaded:")
    return printed, set(modules.split())


def test_the_version_is_told_without_loading_any_command(tmp_path: Path) -> None:
    printed, modules = loaded(tmp_path, "--version")
    assert printed == f"kapelle {version('kapelle')}\n"
    assert modules.isdisjoint({"typer", "rich", "pydantic", "sqlalchemy", "asyncio"})


@pytest.mark.parametrize("command", [["-m", "kapelle", "--version"], ["-m", "kapelle", "--version", "status"]])
def test_the_version_is_the_same_whichever_way_it_is_asked_for(command: list[str]) -> None:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
    assert done.stdout == f"kapelle {version('kapelle')}\n"


@pytest.mark.parametrize(("command", "said"), [("status", "nobody leads"), ("queue", "Nothing is in a merge queue.")])
def test_looking_at_what_runs_loads_no_engine(tmp_path: Path, command: str, said: str) -> None:
    (tmp_path / ".kapelle").mkdir()
    (tmp_path / ".kapelle" / "agents.yml").write_text("agents: {script: {program: command}}\n", encoding="utf-8")
    loaded(tmp_path, "submit", "-p", "true", "--agent", "script")  # makes the store
    printed, modules = loaded(tmp_path, command)
    assert said in printed
    assert modules.isdisjoint(
        {"textual", "kapelle.engine", "kapelle.adapters.gateway", "sqlalchemy", "jinja2", "jsonschema", "uvicorn", "dotenv"}
    )


def test_only_the_live_screen_loads_what_draws_it(tmp_path: Path) -> None:
    printed, modules = loaded(tmp_path, "top", "--once")
    assert "no agent is at work" in printed
    assert "textual" not in modules


def test_running_a_plain_task_loads_nothing_that_only_others_need(tmp_path: Path) -> None:
    project = tmp_path / ".kapelle" / "agents.yml"
    project.parent.mkdir()
    project.write_text("agents: {script: {program: command}}\n", encoding="utf-8")
    printed, modules = loaded(tmp_path, "run", "-p", "true", "--agent", "script")
    assert "1 completed" in printed
    assert "kapelle.engine.leader" in modules
    assert modules.isdisjoint({"sqlalchemy", "alembic", "jinja2", "jsonschema", "httpx2"})


def test_every_command_is_where_it_is_said_to_be() -> None:
    commands = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    assert list(commands) == [name for _, name, _ in COMMANDS]
    assert all(command.name == name for name, command in commands.items())
    assert all(command.help for command in commands.values())


def test_a_command_that_does_not_exist_is_named_with_what_may_be_meant(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kapelle", "statsu"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "statsu" in done.stderr
