"""Collisions: what was merged while an agent worked, and who wanted what; told to the agent whose change does not fit it."""

from collections.abc import Sequence

from kapelle.core.merge import Change
from kapelle.core.store import View
from kapelle.core.wording import Other
from kapelle.engine.world import World

LOOKED_AT = 50
"""Commits of the target that are looked at; who works on an older base is told of the newest."""
TOLD = 5
"""How many of the others an agent is told of."""


async def collisions(world: World, change: Change, onto: str, files: Sequence[str] = ()) -> tuple[Other, ...]:
    """Return the changes that came to the target since *change* was begun; only those that touch *files*, when they are given.

    Raises:
        GitFailed: git failed.
    """
    commits = (await world.repositories.since(change.repository, change.base, onto))[:LOOKED_AT]
    merged = await world.store.read(lambda view: [pair for commit in commits for pair in _merged_as(view, commit)])
    told: list[Other] = []
    for other, words in merged:
        if len(told) == TOLD:
            break
        changed = set(await world.repositories.changed(other.repository, other.base, other.head))
        if not files or changed.intersection(files):
            told.append(words)
    return tuple(told)


def _merged_as(view: View, commit: str) -> list[tuple[Change, Other]]:
    found: list[tuple[Change, Other]] = []
    for change in view.changes.merged_as(commit):
        task = view.tasks.get(change.task_id)
        prompts = view.attempts.prompts(change.attempt_id)
        if task is not None:
            prompt = prompts[0].text if prompts else task.spec.prompt
            found.append((change, Other(name=task.name, prompt=prompt, summary=task.summary)))
    return found
