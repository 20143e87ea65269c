"""What agents.yml asks of a sandbox that it does not hold here, and why it is that sandbox: told once, in its place."""

import re
from pathlib import Path

import pytest

from kapelle.apps.isolating import unisolated
from kapelle.apps.settings import load
from kapelle.apps.workflows import Workshop, agent_configs
from kapelle.core.agent import AgentConfig
from kapelle.core.isolation import Limit, SandboxCapabilities
from kapelle.core.ports import DriverCapabilities
from kapelle.core.run import WorkspaceRules
from kapelle.core.task import WorkspaceKind
from kapelle.testing.drivers import LineDriver
from kapelle.testing.evaluating import PlainEvaluator
from kapelle.testing.factories import run_spec, task
from kapelle.testing.fakes import PlainSandbox
from kapelle.testing.places import Place

NOTHING = "test -d /proc"
"""A command that changes nothing."""


class Box(PlainSandbox):
    """A sandbox that isolates and holds what it is told."""

    def __init__(self, name: str, **can: object) -> None:
        super().__init__()
        self.name = name
        self.capabilities = SandboxCapabilities(**can)  # type: ignore[arg-type]


def told(
    folder: Path, agents: str, *boxes: Box, used: set[str] | None = None, why_open: str = ""
) -> list[tuple[int, int, str]]:
    """Return the mistakes in *agents* where there are *boxes*: line, column, message."""
    (folder / ".kapelle").mkdir()
    (folder / ".kapelle" / "agents.yml").write_text(agents)
    shop = Workshop(
        configuration=load(folder, environment={}),
        drivers={"line": LineDriver()},
        sandboxes={box.name: box for box in boxes},
        repository=None,
        evaluator=PlainEvaluator(),
        why_open=why_open,
    )
    return [(mistake.line, mistake.column, mistake.message) for mistake in agent_configs(shop, used)[1]]


def test_a_limit_that_nobody_holds_here_is_told_once_in_its_place(tmp_path: Path) -> None:
    agents = """\
sandbox: process
limits:
  memory: 2GB
  cpus: 1
agents:
  one: {program: line, network: open}
  two: {program: line, limits: {pids: 5, cpus: 2}}
"""
    box = Box("process", limits=frozenset({Limit.MEMORY}))
    assert told(tmp_path, agents, box) == [
        (4, 3, "the sandbox process cannot hold a limit of cpus here"),
        (7, 42, "the sandbox process cannot hold a limit of cpus here"),
        (7, 33, "the sandbox process cannot hold a limit of pids here"),
    ]


def test_what_one_agent_s_own_sandbox_does_not_hold_is_told_where_it_is_named(tmp_path: Path) -> None:
    agents = "limits: {cpus: 1}\nsandbox: good\nagents:\n  one: {program: line, sandbox: process}\n"
    boxes = Box("good", limits=frozenset(Limit)), Box("process")
    assert told(tmp_path, agents, *boxes) == [(4, 24, "the sandbox process cannot hold a limit of cpus here")]


def test_why_nothing_is_isolated_is_told_with_what_that_makes_impossible(tmp_path: Path) -> None:
    agents = "agents:\n  one: {program: line, network: model-only}\n"
    boxes = Box("bubblewrap", network=True), Box("process")
    (mistake,) = told(tmp_path, agents, *boxes, why_open="you are root")
    assert mistake[2] == "the sandbox process keeps nobody from the network (it is taken since you are root)"


@pytest.mark.parametrize("path", ["/", "/usr", "/bin", "/usr/bin", "/lib", "/lib64", "/proc", "/dev"])
def test_what_no_program_starts_without_cannot_be_hidden(tmp_path: Path, path: str) -> None:
    agents = f"mounts:\n  {path}: hide\nagents:\n  one: {{program: line, mounts: {{/usr/share: hide, /usr: read}}}}\n"
    (mistake,) = told(tmp_path, agents, Box("bubblewrap", files=True), Box("process"))
    assert mistake == (2, 3, f"{path} cannot be hidden: programs of the system need it")


def test_agents_that_are_not_used_are_not_judged_by_what_is_held_here(tmp_path: Path) -> None:
    agents = (
        "sandbox: process\nagents:\n  one: {program: line, network: model-only}\n  two: {program: line, sandbox: nowhere}\n"
    )
    assert told(tmp_path, agents, Box("process"), used={"three"}) == []


def test_a_login_that_no_agent_uses_is_no_reason() -> None:
    spec = run_spec(task(workspace=WorkspaceKind.SCRATCH), configs=(AgentConfig(name="coder", program="line"),))
    spec = run_spec(*spec.tasks, configs=spec.configs, workspace=WorkspaceRules(sandbox="process"))
    boxes = {"process": Box("process"), "bubblewrap": Box("bubblewrap")}
    assert unisolated(spec, boxes, {"line": LineDriver("line", DriverCapabilities())}, "auto") == ""


AGENTS = "sandbox: {sandbox}\nagents:\n  script: {{program: command}}\n  coder: {{program: claude{more}}}\n"


def agents(place: Place, sandbox: str, more: str = "") -> None:
    (place.repository / ".kapelle" / "agents.yml").write_text(AGENTS.format(sandbox=sandbox, more=more))


@pytest.mark.usefixtures("bubblewrap", "as_root")
def test_as_root_work_in_a_directory_of_yours_is_no_login_of_claude(place: Place) -> None:
    agents(place, "auto", ", network: model-only")
    tasks = f"{{one: {{agent: script, workspace: path, path: .., prompt: '{NOTHING}'}}}}"
    place.write("flow.yml", f"name: flow\ntasks: {tasks}\n")

    answer = place.run("run", "../flow.yml")

    assert answer.code == 0, answer.out + answer.err
    assert "(a task works in a directory of yours, and you are root)" in answer.err


@pytest.mark.usefixtures("bubblewrap", "as_root")
def test_as_root_a_sandbox_that_is_named_for_a_directory_of_yours_is_a_mistake_of_the_file(place: Place) -> None:
    agents(place, "bubblewrap")
    tasks = f"{{one: {{agent: script, workspace: path, path: .., prompt: '{NOTHING}'}}}}"
    place.write("flow.yml", f"name: flow\ntasks: {tasks}\n")

    answer = place.run("run", "../flow.yml")

    assert answer.code == 2
    assert "flow.yml:2:30: agents that root starts in the sandbox bubblewrap own nothing of yours" in answer.err
    assert place.runs() == 0


def test_what_was_used_is_named_wherever_a_run_is_shown(place: Place) -> None:
    agents(place, "process")
    place.write("flow.yml", "name: flow\ntasks: {one: {agent: script, prompt: 'true'}}\n")

    told = place.run("run", "../flow.yml").out

    assert re.match(r"run r-\w+: flow, 1 task, sandbox: process\n", told)
    (task_id,) = (entry["id"] for entry in place.run("show", "flow", "--json").json["tasks"])
    assert "sandbox: process" in place.run("show", "flow").out
    assert "sandbox: process" in place.run("show", task_id).out
    assert place.run("show", task_id, "--json").json["sandbox"] == "process"
    assert place.run("show", "flow", "--json").json["sandboxes"] == ["process"]


@pytest.mark.usefixtures("bubblewrap")
def test_who_validates_needs_no_login_and_who_runs_without_one_is_told_of_rehearsals(place: Place) -> None:
    agents(place, "bubblewrap")
    place.write("flow.yml", "name: flow\ntasks: {one: {agent: coder, prompt: Work}}\n")

    checked = place.run("validate", "../flow.yml")
    answer = place.run("run", "../flow.yml")

    assert checked.code == 0, checked.err
    assert answer.code == 2
    assert "claude is not logged in" in answer.err
    assert "kapelle run --rehearse FILE" in answer.err


@pytest.mark.usefixtures("bubblewrap")
def test_a_login_that_a_sandbox_hides_is_told_when_it_is_needed(place: Place) -> None:
    agents(place, "bubblewrap")
    place.write("flow.yml", "name: flow\ntasks: {one: {agent: coder, prompt: Work}}\n")

    answer = place.run("run", "../flow.yml", env={"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat-something"})

    assert answer.code == 2
    assert "the login of claude is in your own home, which agents in a sandbox do not see: coder" in answer.err
