"""Which agents of agents.yml a task of a workflow may be given to.

Its own `agent`; or the rule for its `kind`; or the first of the assignment rules that matches it; or, where it says what it
requires, every agent that can do it; or the agent of the workflow's defaults; or the only one there is. What it requires
narrows each of these down.
"""

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from kapelle.apps import models
from kapelle.apps.settings import AGENTS_FILE
from kapelle.core.errors import Mistake, closest

PATTERNS = ("name", "phase", "writes")
"""What an assignment rule may look at, beside the kind of a task: how its key begins."""


def assigned(name: str, task: models.Task, default: str | None, agents: models.Agents) -> tuple[tuple[str, ...], list[Mistake]]:
    """Return the agents that the task *name* may be given to, the preferred first, and what is wrong."""
    wrong: list[Mistake] = []
    found, whence = _named(name, task, agents, wrong)
    known = agents.agents
    usual = (default,) if default is not None else tuple(known)[:1]
    if wrong:
        return usual, wrong
    if not found and task.requires:
        able = [agent for agent, config in known.items() if not _lacks(config, task.requires)]
        # The usual agent goes first, where it is as good as others.
        found = tuple(sorted(able, key=lambda agent: agent != default))
        return (found, []) if found else (usual, [_nobody(name, task.requires, "no agent has", agents, tuple(known))])
    if not found:
        return ((default,) if default is not None else tuple(known) if len(known) == 1 else ()), []
    # An agent that does not exist is told elsewhere.
    able = [agent for agent in found if agent not in known or not _lacks(known[agent], task.requires)]
    return tuple(able) or found, [] if able else [_nobody(name, task.requires, whence, agents, found)]


def _named(name: str, task: models.Task, agents: models.Agents, wrong: list[Mistake]) -> tuple[tuple[str, ...], str]:
    """Return the agents that are named for a task, and how to say that none of them will do; nothing where nothing does."""
    rules, known = agents.assignment_rules, agents.agents
    if task.agent is not None:
        return (task.agent,), "its agent has not"
    if task.kind is not None:
        if by_kind := tuple(agent for agent in rules.get(task.kind, ()) if agent in known):
            return by_kind, f"no agent of the assignment rule {task.kind} has"
        if able := tuple(agent for agent, config in known.items() if task.kind in config.capabilities):
            return able, f"no agent with the capability {task.kind} has"
        message = f"no agent is assigned to tasks of the kind {task.kind}"
        advice = f"{closest(task.kind, rules)}; or add it to assignment_rules in {AGENTS_FILE}"
        wrong.append(Mistake(message=message, advice=advice, path=("tasks", name, "kind")))
        return (), ""
    for key, chosen in rules.items():
        if _matches(key, name, task):
            return tuple(agent for agent in chosen if agent in known), f"no agent of the assignment rule {key} has"
    return (), ""


def _matches(key: str, name: str, task: models.Task) -> bool:
    what, colon, glob = key.partition(":")
    if not colon:
        return False
    match what:
        case "name":
            return fnmatchcase(name, glob)
        case "phase":
            return task.phase is not None and fnmatchcase(task.phase, glob)
        case "writes":
            # All of it: an agent for the docs is none for what changes docs and code.
            return bool(task.writes) and all(fnmatchcase(each, glob) for each in task.writes)
        case _:
            return False


def _lacks(config: models.Agent, required: Collection[str]) -> list[str]:
    has = {*config.capabilities, *config.technologies}
    return [each for each in dict.fromkeys(required) if each not in has]


def _nobody(name: str, required: Sequence[str], whence: str, agents: models.Agents, found: Sequence[str]) -> Mistake:
    """Return the mistake that none of *found* can do what *name* requires, with what each of them lacks."""
    lacking = {agent: _lacks(agents.agents[agent], required) for agent in found if agent in agents.agents}
    told = "; ".join(
        f"{agent} lacks {', '.join(lacks)}" for agent, lacks in sorted(lacking.items(), key=lambda each: len(each[1]))
    )
    message = f"{name} requires {', '.join(required)}, and {whence} all of it: {told or 'there is none'}"
    has = {each for config in agents.agents.values() for each in (*config.capabilities, *config.technologies)}
    unknown = [each for each in required if each not in has]
    # Most likely a word is misspelt that nobody has.
    meant = f"{closest(unknown[0], has)}; or " if unknown and has else ""
    advice = f"{meant}add what is missing to the capabilities of an agent in {AGENTS_FILE}"
    return Mistake(message=message, advice=advice, path=("tasks", name, "requires"))


def misassigned(agents: models.Agents) -> list[Mistake]:
    """Return what is wrong with the assignment rules of agents.yml, each with its path there."""
    wrong: list[Mistake] = []
    for key, chosen in agents.assignment_rules.items():
        here = ("assignment_rules", key)
        what, colon, glob = key.partition(":")
        if colon and (what not in PATTERNS or not glob):
            message = f"{key} is no assignment rule"
            advice = "write a kind of task, or name:GLOB, phase:GLOB or writes:GLOB"
            wrong.append(Mistake(message=message, advice=advice, path=here))
        for agent in chosen:
            if agent not in agents.agents:
                message = f"the assignment rule {key} names {agent}, which is no agent here"
                wrong.append(Mistake(message=message, advice=closest(agent, agents.agents), path=here))
        if not chosen:
            wrong.append(Mistake(message=f"the assignment rule {key} names no agent", advice="name one", path=here))
    return wrong
