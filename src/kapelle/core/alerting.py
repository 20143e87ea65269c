"""Alerts: bounds of a project that were passed by, judged by what was measured; each is raised once, and cleared once."""

from collections.abc import Iterator
from datetime import timedelta

from kapelle.core.durations import format_duration
from kapelle.core.frozen import frozen
from kapelle.core.sizes import format_size
from kapelle.core.standings import AlertLimits

FEW = 5
"""Tasks that must have ended before a share of them means anything."""


@frozen
class Measured:
    """What was measured of one project, and of the machine that it runs on. None: it was not measured."""

    failed: int = 0
    ended: int = 0
    """Tasks of its open runs: how many have failed, of how many that have ended."""
    queue_age: timedelta = timedelta(0)
    """How long the oldest task waits that could run."""
    disk_free: int | None = None
    memory_free: int | None = None
    spent_in_an_hour: float = 0.0


@frozen
class Bound:
    """One bound, and how it stands."""

    name: str
    limit: float
    value: float
    passed: bool
    told: str
    """What it says when it was passed by, in words for people."""


def bounds(limits: AlertLimits, found: Measured) -> Iterator[Bound]:
    """Yield how each of the bounds that are given stands."""
    if limits.failures is not None:
        share = found.failed / found.ended if found.ended else 0.0
        told = f"{found.failed} of {found.ended} tasks that have ended failed ({share:.0%}, the bound is {limits.failures:.0%})"
        passed = found.ended >= FEW and share > limits.failures
        yield Bound(name="failures", limit=limits.failures, value=share, passed=passed, told=told)
    if limits.queue_age is not None:
        waits, most = format_duration(found.queue_age), format_duration(limits.queue_age)
        yield Bound(
            name="queue_age",
            limit=limits.queue_age.total_seconds(),
            value=found.queue_age.total_seconds(),
            passed=found.queue_age > limits.queue_age,
            told=f"a task that could run waits for {waits} already (the bound is {most})",
        )
    for name, least, free, where in (
        ("disk_free", limits.disk_free, found.disk_free, "on the disk of state and workspaces"),
        ("memory_free", limits.memory_free, found.memory_free, "of this machine's memory"),
    ):
        if least is not None and free is not None:
            told = f"{format_size(free)} {where} are free (the bound is {format_size(least)})"
            yield Bound(name=name, limit=least, value=free, passed=free < least, told=told)
    if limits.spend_per_hour is not None:
        spent = found.spent_in_an_hour
        told = f"${spent:.2f} were spent in the last hour (the bound is ${limits.spend_per_hour:.2f})"
        passed = spent > limits.spend_per_hour
        yield Bound(name="spend_per_hour", limit=limits.spend_per_hour, value=spent, passed=passed, told=told)


def not_measured(limits: AlertLimits, found: Measured) -> Iterator[str]:
    """Yield the names of the bounds that are given and of which nobody knows how they stand."""
    if limits.disk_free is not None and found.disk_free is None:
        yield "disk_free"
    if limits.memory_free is not None and found.memory_free is None:
        yield "memory_free"
