"""What persons ask of the pool: so many agents of a config, or that config for a task."""

from kapelle.core.agent import AgentConfig
from kapelle.core.errors import NotFound, NotPossibleNow
from kapelle.core.frozen import replace
from kapelle.core.pool import Assignment, SpareState, StandingPool, key_of, make_of
from kapelle.core.pool_events import PoolScaled, TaskAssigned
from kapelle.core.ports import Driver
from kapelle.core.requests import Deploy, Scale
from kapelle.core.run import RunSpec
from kapelle.core.store import Tx
from kapelle.core.task import TERMINAL, TaskState, how_it_ended
from kapelle.engine.world import World

NONE_BEFOREHAND = (
    "no agents are started beforehand outside of a repository, where files are copied into workspaces, or with secrets:"
    " those have to be as they are when a task begins"
)


def not_beforehand(config: AgentConfig, driver: Driver, make: RunSpec | None) -> NotPossibleNow | None:
    """Return why no agents of *config* are started beforehand; None when they can be. *make* is what settles them."""
    why = NONE_BEFOREHAND if make is None else ""
    if not driver.capabilities.warm:
        why = f"agents of {config.name} are not started beforehand: {config.program} is told its task when it starts"
    return NotPossibleNow(why, remedy="`limit` in agents.yml says how many of them may be at work at once.") if why else None


def scale(world: World, tx: Tx, body: Scale, principal: str) -> None:
    """Have so many agents of a config.

    Raises:
        NotPossibleNow: there can be none beforehand.
    """
    key = key_of(body.project, body.config)
    if body.wanted is None or body.spec is None:
        tx.spares.drop_standing(key)
        tx.log(PoolScaled(project=body.project, config=body.config, wanted=None, principal=principal))
        return
    config = body.spec.config(body.config)
    if why := not_beforehand(config, world.driver(config.program), make_of(body.spec, config.name)):
        raise why
    wanted = body.wanted + (_now(tx, body) if body.more else 0)
    spec = replace(body.spec, tasks=())
    tx.spares.put_standing(
        StandingPool(
            key=key, project=body.project, config=body.config, wanted=wanted, spec=spec, principal=principal, at=tx.now
        )
    )
    tx.log(PoolScaled(project=body.project, config=body.config, wanted=wanted, principal=principal))


def _now(tx: Tx, body: Scale) -> int:
    """Return how many agents of the config are wanted, or, where nobody has said that, how many there are."""
    for pool in tx.spares.standing():
        if (pool.project, pool.config) == (body.project, body.config):
            return pool.wanted
    there = [spare for spare in tx.spares.all() if spare.state is not SpareState.ENDING]
    spares = sum((spare.make.project, spare.config.name) == (body.project, body.config) for spare in there)
    runs = [(tx.runs.get(agent.run_id), agent) for agent in tx.agents.live()]
    return spares + sum(
        run is not None and (run.spec.project, agent.config) == (body.project, body.config) for run, agent in runs
    )


def deploy(tx: Tx, body: Deploy, principal: str) -> None:
    """Give a task that waits to a config, before all others.

    Raises:
        NotFound: there is no such task, or its run has no such config.
        NotPossibleNow: it has an agent, or is given to one already, or has ended.
    """
    task, run = tx.tasks.get(body.task_id), tx.runs.get(body.run_id)
    if task is None or run is None:
        raise NotFound(f"there is no task {body.task_id}")
    names = [config.name for config in run.spec.configs]
    if body.config not in names:
        raise NotFound(
            f"the run of {task.name} was submitted without {body.config}: it has {', '.join(names)}",
            remedy="A run has the agents that its tasks name, as they were configured when it was submitted.",
        )
    if task.state in TERMINAL:
        raise NotPossibleNow(f"task {task.name} has ended already: it {how_it_ended(task.state)}")
    if task.state is not TaskState.PENDING:
        live = [agent for agent in tx.agents.live() if agent.task_id == task.task_id]
        whose = f"it has the agent {live[0].agent_id} ({live[0].config})" if live else f"it is {task.state}"
        raise NotPossibleNow(f"task {task.name} is assigned already: {whose}")
    before = next((given for given in tx.spares.assignments() if given.task_id == task.task_id), None)
    if before is not None and not body.force:
        raise NotPossibleNow(
            f"task {task.name} was given to {before.config} already, by {before.principal}",
            remedy="--force gives it to another.",
        )
    able = run.spec.config(body.config).abilities
    missing = sorted(set(task.spec.requires) - able)
    if missing and not body.force:
        raise NotPossibleNow(
            f"task {task.name} requires {', '.join(missing)}, which {body.config} does not have",
            remedy="Give it to another agent, or use --force.",
        )
    tx.spares.assign(Assignment(task_id=task.task_id, config=body.config, forced=body.force, principal=principal, at=tx.now))
    about = TaskAssigned(run_id=run.run_id, task_id=task.task_id, config=body.config, forced=body.force, principal=principal)
    tx.log(about)
