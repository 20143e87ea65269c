"""Tasks, runs and workflows with everything that a small world needs, and nothing more to say than what a test is about."""

from collections.abc import Sequence
from typing import Any

from kapelle.core.agent import AgentConfig
from kapelle.core.gate import Check, Gate
from kapelle.core.run import RunSpec
from kapelle.core.task import TaskSpec
from kapelle.core.workflow import WorkflowTask, expand

PROJECT = "/project"
"""Where the repository of a small world is."""
CODER = AgentConfig(name="coder", program="line")
ONCE = AgentConfig(name="once", program="once")
NOBODY = AgentConfig(name="nobody", program="noop")
GATE = Gate(name="check", checks=(Check(name="test", run="make test"),))


def task(name: str = "api", **changes: Any) -> TaskSpec:
    """Return a task for a conversing agent whose work is gated."""
    values: dict[str, Any] = {"name": name, "prompt": f"do {name}", "agent": CODER.name, "gate": GATE.name}
    return TaskSpec(**(values | changes))


def run_spec(*tasks: TaskSpec, **changes: Any) -> RunSpec:
    """Return a run of *tasks* on the world's repository, delivered to main change by change."""
    values: dict[str, Any] = {
        "name": "run",
        "repository": PROJECT,
        "target": "main",
        "tasks": tasks or (task(),),
        "configs": (CODER, ONCE, NOBODY),
        "gates": (GATE,),
    }
    return RunSpec(**(values | changes))


def workflow(*tasks: TaskSpec | WorkflowTask, phases: Sequence[str] = (), **changes: Any) -> RunSpec:
    """Return the run that a workflow becomes: ``foreach`` made several tasks, phases made needs."""
    written = [entry if isinstance(entry, WorkflowTask) else WorkflowTask(spec=entry) for entry in tasks]
    return run_spec(*expand(written, phases), phases=tuple(phases), **changes)
