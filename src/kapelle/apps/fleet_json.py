"""The fleet for programs: the same that a person sees on the screen."""

from typing import Any

from kapelle.apps.agents import agent_json
from kapelle.apps.fleet import AgentStand, Fleet, RunStand, Waiting, share
from kapelle.apps.health import agent_health_json, alert_json, system_json
from kapelle.apps.inbox import item_json
from kapelle.apps.proving import Queued
from kapelle.apps.usage import line_json, total
from kapelle.apps.views import account_json, spend_json
from kapelle.core.budget import Level


def fleet_json(found: Fleet) -> dict[str, Any]:
    """Return *found* as JSON: stable names, times in ISO 8601, sizes in bytes."""
    lead, sums = found.lead, found.sums
    return {
        "at": found.at.isoformat(),
        "leader": {"pid": lead.holder.pid, "term": lead.term} if lead is not None else None,
        "halted": found.halted.why if found.halted is not None else None,
        "hosts": [_host_json(found)],
        "agents": [_agent_json(stand) for stand in found.agents],
        "spares": [
            {
                "id": spare.agent_id,
                "config": spare.config.name,
                "state": spare.state.value,
                "since": spare.created_at.isoformat(),
            }
            for spare in found.spares
        ],
        "waiting": [_waiting_json(each) for each in found.waiting],
        "checking": [_waiting_json(each) for each in found.checking],
        "merging": [_merging_json(each) for each in found.merging],
        "runs": [_run_json(stand) for stand in sums.runs],
        "spend": {
            "today": spend_json(total(sums.today)),
            "accounts": [line_json(line) for line in sums.today],
            "budgets": [_level_json(level) for level in sums.levels],
        },
        "inbox": [item_json(item) for item in found.items],
        "accounts": [account_json(account) for account in found.accounts],
        "alerts": [alert_json(alert) for alert in found.alerts],
    }


def _host_json(found: Fleet) -> dict[str, Any]:
    return {
        "name": found.host,
        "slots": found.slots,
        "agents": len(found.agents),
        "spares": len(found.spares),
        **system_json(found.system),
    }


def _agent_json(stand: AgentStand) -> dict[str, Any]:
    health = None if stand.health is None else agent_health_json(stand.health)
    kept = ("condition", "evidence", "answer", "doing", "worked_at")
    return {
        **agent_json(stand.report),
        "alive": stand.alive,
        "health": None if health is None else {**{name: health[name] for name in kept}, "since": health["since"]},
    }


def _waiting_json(each: Waiting) -> dict[str, Any]:
    task = each.task
    return {
        "id": task.task_id,
        "name": task.name,
        "run": task.run_id,
        "run_name": each.run.spec.name,
        "priority": task.spec.priority.value,
        "waits_for": task.waits_for.value if task.waits_for is not None else None,
        "why": each.why or None,
        "due_at": task.due_at.isoformat() if task.due_at is not None else None,
        "submitted_at": task.submitted_at.isoformat(),
    }


def _merging_json(each: Queued) -> dict[str, Any]:
    return {
        "id": each.change.change_id,
        "task": each.task.task_id,
        "name": each.task.name,
        "run": each.run.run_id,
        "run_name": each.run.spec.name,
        "target": each.change.target,
        "standing": each.standing,
        "ready_at": each.change.ready_at.isoformat(),
    }


def _run_json(stand: RunStand) -> dict[str, Any]:
    overview = stand.overview
    return {
        "id": overview.run.run_id,
        "name": overview.run.spec.name,
        "state": overview.run.state.value,
        "paused": overview.run.paused,
        "tasks": {state.value: count for state, count in overview.counts},
        "paid": stand.paid,
        **spend_json(overview.spend),
    }


def _level_json(level: Level) -> dict[str, Any]:
    return {
        "name": level.budget.name,
        "resource": level.resource.value,
        "limit": level.limit,
        "spent": round(level.spent, 6),
        "share": round(share(level), 4),
    }
