"""The pool as people look at it: how many agents of each config are at work and spare, and how many there should be."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kapelle.core.agent import PoolRules
from kapelle.core.durations import format_duration
from kapelle.core.frozen import frozen
from kapelle.core.pool import Spare, SpareState, StandingPool
from kapelle.core.store import View
from kapelle.core.task import Wait

MOST = 500
"""Tasks of a run that are looked at to see what waits."""


@frozen
class Stand:
    """Agents of one config of a project."""

    project: str
    config: str
    rules: PoolRules
    at_work: int
    spares: tuple[Spare, ...]
    waiting: int
    """Tasks that wait for an agent of it."""
    standing: StandingPool | None

    @property
    def ready(self) -> int:
        """Spares that could be given a task now."""
        return sum(spare.state is SpareState.READY for spare in self.spares)


def stands(view: View) -> list[Stand]:
    """Return every config of which there are agents, or should be."""
    standing = {(pool.project, pool.config): pool for pool in view.spares.standing()}
    rules: dict[tuple[str, str], PoolRules] = {key: pool.spec.configs[0].pool for key, pool in standing.items()}
    for run in view.runs.open():
        used = {name for task in run.spec.tasks for name in task.choices}
        rules |= {(run.spec.project, config.name): config.pool for config in run.spec.configs if config.name in used}
    spares: dict[tuple[str, str], list[Spare]] = {}
    for spare in view.spares.all():
        key = (spare.make.project, spare.config.name)
        spares.setdefault(key, []).append(spare)
        rules.setdefault(key, spare.config.pool)
    at_work = _at_work(view)
    waiting = _waiting(view)
    return [
        Stand(
            project=key[0],
            config=key[1],
            rules=rules[key],
            at_work=at_work.get(key, 0),
            spares=tuple(spares.get(key, ())),
            waiting=waiting.get(key, 0),
            standing=standing.get(key),
        )
        for key in sorted(rules)
    ]


def _at_work(view: View) -> Mapping[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for agent in view.agents.live():
        run = view.runs.get(agent.run_id)
        if run is not None:
            key = (run.spec.project, agent.config)
            found[key] = found.get(key, 0) + 1
    return found


def _waiting(view: View) -> Mapping[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for run in view.runs.open():
        for task in view.tasks.waiting(run.run_id, Wait.CAPACITY, MOST):
            key = (run.spec.project, task.spec.choices[0])
            found[key] = found.get(key, 0) + 1
    return found


def wanted_text(stand: Stand) -> str:
    """Return how many there should be, in words."""
    if stand.standing is not None:
        return f"{stand.standing.wanted} ({stand.standing.principal})"
    rules = stand.rules
    parts = [f"{name} {value}" for name, value in (("warm", rules.warm), ("min", rules.least)) if value]
    parts += [f"max {rules.most}"] if rules.most is not None else []
    return ", ".join(parts) or "as tasks come"


def stand_json(stand: Stand, now: datetime) -> dict[str, Any]:
    """Return *stand* for programs."""
    return {
        "project": stand.project,
        "config": stand.config,
        "at_work": stand.at_work,
        "spares": [
            {
                "id": spare.agent_id,
                "state": spare.state.value,
                "pid": spare.process.pid if spare.process is not None else None,
                "workspace": spare.path,
                "age": format_duration(now - spare.created_at),
                "created_at": spare.created_at.isoformat(),
            }
            for spare in stand.spares
        ],
        "ready": stand.ready,
        "waiting": stand.waiting,
        "wanted": stand.standing.wanted if stand.standing is not None else None,
        "wanted_by": stand.standing.principal if stand.standing is not None else None,
        "pool": {
            "warm": stand.rules.warm,
            "min": stand.rules.least,
            "max": stand.rules.most,
            "idle_s": stand.rules.idle.total_seconds(),
        },
    }
