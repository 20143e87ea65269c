"""Kapelle: run many coding agents in parallel, safely.

    from kapelle import Orchestrator, Task

    async with Orchestrator("path/to/repository") as orchestra:
        result = await orchestra.result(await orchestra.submit_task(Task(prompt="Add a health check")))

Names are imported when they are first used: importing this package costs nothing and has no effects.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kapelle.apps.inbox import Item as Item
    from kapelle.apps.models import Check as Check
    from kapelle.apps.models import Gate as Gate
    from kapelle.apps.models import Retry as Retry
    from kapelle.apps.python import AgentConfig as AgentConfig
    from kapelle.apps.python import Orchestrator as Orchestrator
    from kapelle.apps.python import Task as Task
    from kapelle.apps.python import Workflow as Workflow
    from kapelle.apps.results import RunResult as RunResult
    from kapelle.apps.results import Status as Status
    from kapelle.apps.results import SubmittedTask as SubmittedTask
    from kapelle.apps.results import TaskResult as TaskResult
    from kapelle.core.errors import KapelleError as KapelleError

_PLACES = {
    "AgentConfig": "kapelle.apps.python",
    "Check": "kapelle.apps.models",
    "Gate": "kapelle.apps.models",
    "Item": "kapelle.apps.inbox",
    "KapelleError": "kapelle.core.errors",
    "Orchestrator": "kapelle.apps.python",
    "Retry": "kapelle.apps.models",
    "RunResult": "kapelle.apps.results",
    "Status": "kapelle.apps.results",
    "SubmittedTask": "kapelle.apps.results",
    "Task": "kapelle.apps.python",
    "TaskResult": "kapelle.apps.results",
    "Workflow": "kapelle.apps.python",
}

__all__ = [
    "AgentConfig",
    "Check",
    "Gate",
    "Item",
    "KapelleError",
    "Orchestrator",
    "Retry",
    "RunResult",
    "Status",
    "SubmittedTask",
    "Task",
    "TaskResult",
    "Workflow",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
