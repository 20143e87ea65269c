"""Columns that are computed: by functions with names, so that a layout can be written down."""

from typing import Any

from kapelle.core.account import account_of
from kapelle.core.run import Run
from kapelle.core.task import Task


def zero(_: Any) -> int:
    """Return nothing, as a number."""
    return 0


def run_project(run: Run) -> str:
    """Return the name of the run's project."""
    return run.spec.project


def run_account(run: Run) -> str:
    """Return the id of the account that the run's calls are booked to."""
    return account_of(run.spec.upstream).account_id


def task_name(task: Task) -> str:
    """Return the task's name, to be found by."""
    return task.spec.name


def unapproved(task: Task) -> int:
    """Say whether a person has yet to approve the task, or to let it go on."""
    return int((task.spec.approval and not task.approved) or task.paused)
