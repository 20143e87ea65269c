"""Arguments of any kind: the exit code is a documented one, and what is wrong is an error of ours."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from kapelle.apps.cli.commands import app
from kapelle.core.errors import Defect, KapelleError

# Those that end by themselves: the others run, serve or follow.
COMMANDS = [
    "list",
    "status",
    "show",
    "logs",
    "queue",
    "receipt",
    "verify",
    "recover",
    "pause",
    "cancel",
    "approve",
    "reject",
    "retry",
    "validate",
    "config",
    "submit",
]
OPTIONS = [
    "--json",
    "--nonsense",
    "--limit",
    "-n",
    "--target",
    "--input",
    "-i",
    "--agents",
    "--agent",
    "--gate",
    "--prompt",
    "--branch",
    "--reason",
    "--attempt",
    "-C",
    "-h",
    "--",
]
STRANGE = ["", ".", "..", "/", "/nowhere", "-1", "0", "1e999", "x" * 5000, "r-1234", "t-", "%", "a=b", "HEAD"]
words = st.sampled_from([*OPTIONS, *STRANGE])
arguments = st.lists(words | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6), max_size=5)


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command=st.sampled_from(COMMANDS), rest=arguments)
def test_no_arguments_bring_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, rest: list[str]) -> None:
    monkeypatch.chdir(tmp_path)

    answer = CliRunner().invoke(app, [command, *rest], env={"KAPELLE_HOME": str(tmp_path / "state")})

    assert not isinstance(answer.exception, Defect)
    if isinstance(answer.exception, KapelleError):
        assert answer.exception.exit_code in {1, 2}
        assert answer.exception.advice
    else:
        assert answer.exception is None or isinstance(answer.exception, SystemExit), repr(answer.exception)
        assert answer.exit_code in {0, 1, 2, 3}
