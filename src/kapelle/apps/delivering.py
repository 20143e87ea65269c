"""Targets that could not be moved: why, and what a person can do, the same for every door."""

from collections.abc import Iterable
from typing import Any

from kapelle.core.frozen import frozen
from kapelle.core.ids import RunId
from kapelle.core.merge import Integration
from kapelle.core.plain_text import shown
from kapelle.core.run import Run
from kapelle.core.store import View


@frozen
class HeldUp:
    """A target that could not be moved to what was merged for it."""

    target: str
    why: str
    remedy: str
    run_ids: tuple[RunId, ...]
    """The runs that wait for it."""

    @property
    def lines(self) -> tuple[str, ...]:
        """What is to be told: why, and what to do."""
        then = [f"  → then: kapelle resume {run_id}" for run_id in self.run_ids]
        return (
            f"{self.target} was not moved: {shown(self.why)}",
            *([f"  → {shown(self.remedy)}"] if self.remedy else []),
            *then,
        )


def held_up(view: View, runs: Iterable[Run]) -> list[HeldUp]:
    """Return the targets of *runs* that could not be moved, each once."""
    found: dict[Integration, list[RunId]] = {}
    for run in runs:
        integration = integration_of(view, run)
        if integration is not None and integration.held_up:
            found.setdefault(integration, []).append(run.run_id)
    return [held_up_line(integration, run_ids) for integration, run_ids in found.items()]


def held_up_line(integration: Integration, run_ids: Iterable[RunId]) -> HeldUp:
    """Return *integration*, which is held up, and the runs that wait for it."""
    return HeldUp(target=integration.target, why=integration.why, remedy=integration.remedy, run_ids=tuple(run_ids))


def integration_of(view: View, run: Run) -> Integration | None:
    """Return how far the line of the target has come that the work of *run* goes onto, or None when nothing has."""
    if run.spec.repository is None or run.spec.target is None:
        return None
    return view.changes.integration(run.spec.repository, run.spec.target, run.line)


def held_up_json(entry: HeldUp) -> dict[str, Any]:
    """Return a target that could not be moved as JSON."""
    return {"target": entry.target, "why": entry.why, "what_to_do": entry.remedy or None, "runs": list(entry.run_ids)}
