"""Columns that are computed: by functions with names, so that a layout can be written down."""

from typing import Any

from kapelle.core.task import Task


def zero(_: Any) -> int:
    """Return nothing, as a number."""
    return 0


def task_name(task: Task) -> str:
    """Return the task's name, to be found by."""
    return task.spec.name


def unapproved(task: Task) -> int:
    """Say whether a person has yet to approve the task, or to let it go on."""
    return int((task.spec.approval and not task.approved) or task.paused)
