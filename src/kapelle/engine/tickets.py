"""How an agent reaches its model, and what the gateway knows of it."""

from kapelle.core.agent import Agent
from kapelle.core.attempt import Attempt
from kapelle.core.gateway import Ticket, Upstream
from kapelle.core.ports import ModelAccess
from kapelle.core.run import Run
from kapelle.core.store import WorkspaceRow
from kapelle.core.task import Task

TOKEN_HEADER = "X-Kapelle-Token"  # noqa: S105  # the name of a header, not a token


def ticket_of(agent: Agent, task: Task, attempt: Attempt, run: Run, workspace: WorkspaceRow) -> Ticket:
    """Return what the agent's token stands for just now."""
    return Ticket(
        token=agent.token,
        agent_id=agent.agent_id,
        run_id=run.run_id,
        task_id=task.task_id,
        attempt_id=attempt.attempt_id,
        task=task.name,
        attempt=attempt.number,
        round=attempt.round,
        cwd=workspace.path,
        upstream=run.spec.upstream,
    )


def model_access(agent: Agent, run: Run, base_url: str) -> ModelAccess:
    """Return how the agent's program is told to reach its model."""
    upstream = run.spec.upstream
    if upstream.bypass:
        elsewhere = upstream.base_url if upstream.base_url != Upstream().base_url else None
        return ModelAccess(base_url=None, own_login=True, direct_url=elsewhere)
    if upstream.rehearsal is None and upstream.credential is None:
        return ModelAccess(base_url=base_url, own_login=True, headers=((TOKEN_HEADER, agent.token),))
    return ModelAccess(base_url=base_url, api_key=agent.token)
