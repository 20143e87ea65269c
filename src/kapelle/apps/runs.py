"""From what a person wants to a run that was accepted: the same for every door. Everything is checked before it is written."""

import shutil
from asyncio import to_thread
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from kapelle.apps import compose, models
from kapelle.apps.desk import Desk
from kapelle.apps.secrets import look
from kapelle.apps.settings import Configuration
from kapelle.apps.upstream import choose_upstream
from kapelle.apps.workflows import Workshop, check_login, to_run
from kapelle.core.account import AccountState, account_of
from kapelle.core.errors import ProgramMissing, SecretMissing, UsageError
from kapelle.core.frozen import replace
from kapelle.core.gateway import Upstream
from kapelle.core.git import RepositoryFacts
from kapelle.core.ids import AccountId, RunId
from kapelle.core.requests import Submit
from kapelle.core.run import Run, RunSpec
from kapelle.core.store import View
from kapelle.documents import Document

# What the top of a bare repository holds.
_BARE = ("HEAD", "objects", "refs")


REHEARSED = Upstream(rehearsal="any")
"""In the place of what answers the model calls of a run that is only looked at."""


async def repository_of(found: Configuration) -> RepositoryFacts | None:
    """Return the repository that the configuration was read in, or None outside of one.

    Raises:
        RepositoryRefused: it is one that Kapelle cannot work in.
    """
    inside = any((folder / ".git").exists() for folder in (found.root, *found.root.parents))
    if not inside and not all((found.root / name).exists() for name in _BARE):
        return None
    return await compose.repositories().inspect(str(found.root))


async def workshop(found: Configuration) -> Workshop:
    """Return what workflows are made into runs with, here.

    Raises:
        RepositoryRefused: the repository is one that Kapelle cannot work in.
    """
    return Workshop(
        configuration=found,
        drivers=compose.drivers(),
        sandboxes=compose.sandboxes(),
        repository=await repository_of(found),
        evaluator=compose.evaluator(),
    )


async def prepare(
    found: Configuration,
    document: Document,
    workflow: models.Workflow,
    *,
    inputs: Mapping[str, str],
    rehearse: Path | None = None,
    record: Path | None = None,
    check_only: bool = False,
) -> RunSpec:
    """Check everything and return the run; nothing is written. *check_only* asks for no way to reach a model.

    Raises:
        FileInvalid: the workflow, the configuration or the rehearsal has mistakes.
        RepositoryRefused: the repository is one that Kapelle cannot work in.
        CredentialsMissing: the run needs a model and there is no way to reach one.
        SecretMissing: a secret that an agent of the run must have is not to be had.
        ProgramMissing: a program that an agent of the run needs is not installed.
        UsageError: an input or the target is not possible, or an agent's sandbox keeps its login from it.
    """
    shop = await workshop(found)
    if shop.repository is not None and found.settings.home.resolve().is_relative_to(shop.repository.root):
        raise UsageError(
            f"the state directory {found.settings.home} lies inside the repository",
            remedy="Agents' workspaces would be in their own way. Name another place in KAPELLE_HOME.",
        )
    if rehearse is not None:
        compose.load_rehearsal(rehearse)
    # Who only checks is told of no login: with a rehearsal there need be none.
    upstream = REHEARSED if check_only else choose_upstream(found, rehearse=rehearse, record=record)
    try:
        # In a thread: what a template computes may take a while.
        spec = await to_thread(to_run, document, workflow, shop, inputs=inputs, upstream=upstream)
    finally:
        shop.evaluator.close()
    if spec.repository is not None and spec.target is not None:
        branch = await compose.repositories().resolve(spec.repository, f"refs/heads/{spec.target}")
        if branch is None:
            source = found.origin("target").source
            of = f" (from {source})" if source.startswith(("environment", ".env")) else ""
            raise UsageError(
                f"the repository {spec.repository} has no branch {spec.target}{of}",
                remedy=f"Make it (git branch {spec.target}) or name another with --target.",
            )
    if check_only:
        return spec
    for program in dict.fromkeys(config.program for config in spec.configs):
        if lacking := compose.drivers()[program].missing():
            message, _, remedy = lacking.partition("\n")
            raise ProgramMissing(message, remedy=remedy or None)
    await require_secrets(found, spec, {task.agent for task in spec.tasks})
    if rehearse is not None:
        return spec
    models_needed = any(compose.drivers()[config.program].capabilities.uses_gateway for config in spec.configs)
    spec = replace(spec, upstream=choose_upstream(found, rehearse=None, record=record, needs_model=models_needed))
    check_login(shop, spec)
    return spec


async def require_secrets(found: Configuration, spec: RunSpec, used: Collection[str]) -> None:
    """Look whether every secret is to be had that the agents *used* of a run must have.

    Raises:
        SecretMissing: one is not.
    """
    looked = await look(found, [config for config in spec.configs if config.name in used])
    missing = [entry for entry in looked if entry.problem]
    if missing:
        # What is wrong with several in the same way is mended in the same way, too.
        remedies = dict.fromkeys(entry.remedy for entry in missing)
        raise SecretMissing("\n".join(entry.problem for entry in missing), remedy="\n    ".join(remedies))


def held_by_account(view: View, runs: Sequence[Run], *, named: bool) -> frozenset[RunId]:
    """Return the runs for which a person who resumes them says that their account may try again: one for each account.

    Refused credentials are worth a try whenever somebody resumes; a limit ends by itself, unless the run was *named*.
    """
    shut = {account.account_id: account for account in view.accounts.not_open() if account.shut}
    found: dict[AccountId, RunId] = {}
    for run in runs:
        account = shut.get(account_of(run.spec.upstream).account_id)
        if account is not None and (named or account.state is AccountState.REFUSED):
            found.setdefault(account.account_id, run.run_id)
    return frozenset(found.values())


async def submit(desk: Desk, found: Configuration, spec: RunSpec, principal: str) -> RunId:
    """Submit *spec* and return the id of its run once it was accepted."""
    run_id = RunId(desk.world.new_id("r"))
    if spec.upstream.rehearsal is not None:
        # The run keeps a copy of its own: what is edited later does not change a run that was accepted.
        folder = found.settings.home / "rehearsals"
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / f"{run_id}.yml"
        shutil.copyfile(spec.upstream.rehearsal, copy)
        spec = replace(spec, upstream=replace(spec.upstream, rehearsal=str(copy), log=str(folder / f"{run_id}.log")))
    await desk.ask(Submit(run_id=run_id, spec=spec), principal)
    return run_id
