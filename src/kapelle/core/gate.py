"""Gates: named lists of checks, what they answered, and the proof that is kept."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from kapelle.core.frozen import frozen


@frozen
class Check:
    """One command of a gate."""

    name: str
    run: str
    """A command line for the shell."""
    timeout: timedelta = timedelta(minutes=10)
    required: bool = True
    """When false, a failure is reported and changes nothing."""


@frozen
class Gate:
    """A named list of checks, run in order until a required one fails."""

    name: str
    checks: tuple[Check, ...]
    rounds: int = 2
    """How often a failed check goes back to the agent."""


class CheckState(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    NOT_RUN = "not_run"


@frozen
class CheckResult:
    """What one check answered."""

    name: str
    run: str
    state: CheckState
    required: bool = True
    exit_code: int | None = None
    seconds: float = 0.0
    log_hash: str = ""
    """SHA-256 of the whole output."""
    log_path: str = ""
    """Where the whole output is kept on the host."""
    tail: str = ""
    """The end of the output, as much as a person or an agent wants to read."""
    limit: str = ""
    """The limit that it met, in words for people."""

    @property
    def how(self) -> str:
        """How it failed, in words for people."""
        how = "ran out of time" if self.state is CheckState.TIMED_OUT else f"failed (exit code {self.exit_code})"
        return f"{how}: {self.limit}" if self.limit else how


@frozen
class Verdict:
    """A gate's answer."""

    passed: bool
    checks: tuple[CheckResult, ...]

    @property
    def failing(self) -> CheckResult | None:
        """The required check that failed, if one did."""
        for check in self.checks:
            if check.required and check.state in {CheckState.FAILED, CheckState.TIMED_OUT}:
                return check
        return None


def judge(gate: Gate, results: Sequence[CheckResult]) -> Verdict:
    """Return the verdict over *results*, which may be fewer than the gate's checks when one failed.

    A gate passes when every required check was run and passed.
    """
    by_name = {result.name: result for result in results}
    checks = tuple(
        by_name.get(
            check.name,
            CheckResult(name=check.name, run=check.run, state=CheckState.NOT_RUN, required=check.required),
        )
        for check in gate.checks
    )
    passed = all(result.state is CheckState.PASSED for result in checks if result.required)
    return Verdict(passed=passed, checks=checks)


@frozen
class Receipt:
    """The proof that a tree passed a gate."""

    key: str
    tree: str
    gate: str
    commit: str
    checks: tuple[CheckResult, ...]
    tool_calls: int = 0
    declared: tuple[str, ...] = ()
    """Globs of what the task said it would change."""
    changed: tuple[str, ...] = ()
    """Files that it changed."""
    made_at: datetime


def receipt_key(tree: str, gate: Gate, environment: str) -> str:
    """Return the key under which a receipt is found: same tree, same gate, same environment, same answer.

    *environment* names everything else that a check's answer may depend on (set-up commands, copied files, host, task).
    """
    parts = [tree, environment, [[check.name, check.run, check.required] for check in gate.checks]]
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()
