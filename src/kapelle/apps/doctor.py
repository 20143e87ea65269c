"""What `kapelle doctor` finds: whether machine, project and store are in order, and what to do where they are not."""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from kapelle.apps import compose
from kapelle.apps.desk import Desk
from kapelle.apps.keeping import disk
from kapelle.apps.machine import Machine, Records
from kapelle.apps.secrets import look
from kapelle.apps.settings import AGENTS_FILE, PROJECT_FILE, Configuration
from kapelle.apps.upstream import choose_upstream, claude_command, logged_in
from kapelle.apps.workflows import Workshop, agent_configs, gates
from kapelle.core.account import AccountState, account_of, passed, told
from kapelle.core.errors import (
    CredentialsMissing,
    HostFailed,
    KapelleError,
    Mistake,
    ProgramMissing,
    RepositoryRefused,
    StoreFailed,
)
from kapelle.core.frozen import frozen
from kapelle.core.halt import told as halt_told
from kapelle.core.isolation import Limit, SandboxCapabilities
from kapelle.core.leading import Lead
from kapelle.core.plain_text import counted
from kapelle.engine.accounts import mark
from kapelle.engine.reaping import strays
from kapelle.engine.secrets import sweep
from kapelle.engine.showing import left_over

OLDEST_GIT = (2, 38)
LITTLE, TOO_LITTLE = 5 * 10**9, 500 * 10**6
"""Bytes free on the disk below which a note is made, and below which work will fail soon."""


ANOTHER_PORT = "End what listens there, or give KAPELLE_GATEWAY_PORT another one."


class Standing(StrEnum):
    """How something stands."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@frozen
class Finding:
    """One thing that was looked at."""

    area: str
    standing: Standing
    what: str
    remedy: str = ""
    mended: bool = False


async def examine(
    configuration: Configuration, machine: Machine, *, fix: bool, wrong: Sequence[Mistake] = ()
) -> AsyncIterator[Finding]:
    """Look at everything, and mend what can be mended by itself when *fix* is set.

    *wrong* are the mistakes that were met when the configuration was read.
    """
    yield _git(machine)
    yield _claude(machine)
    yield _credentials(configuration)
    home = configuration.settings.home
    for finding in _disk(machine, home):
        yield finding
    for finding in _sandboxes():
        yield finding
    for finding in await _secrets(configuration):
        yield finding
    async for finding in _repository(configuration, machine, fix=fix):
        yield finding
    for finding in _project(configuration, wrong):
        yield finding
    there = (home / compose.STORE).exists()
    if not there and not compose.backed_up(home):
        yield Finding(area="store", standing=Standing.OK, what=f"there is none yet; it will be {home / compose.STORE}")
        yield _port(configuration, machine, None)
        async for finding in _records(configuration, frozenset(), fix=fix):
            yield finding
        return
    # One that is gone is not opened below either: what is said of it then is what every command says.
    problems = machine.store_problems(str(home / compose.STORE)) if there else ()
    if problems:
        what = f"{home / compose.STORE}: {'; '.join(problems[:3])}"
        yield Finding(area="store", standing=Standing.PROBLEM, what=what, remedy="kapelle restore")
        async for finding in _records(configuration, None, fix=fix):
            yield finding
        return
    try:
        async with compose.open_desk(configuration) as desk:
            async for finding in _store(configuration, machine, desk, fix=fix):
                yield finding
            known = await desk.world.store.read(lambda view: frozenset(row.path for row in view.agents.workspaces()))
            led = await desk.leader() is not None
            async for finding in _records(configuration, None if led else known, fix=fix):
                yield finding
    except StoreFailed as error:
        yield Finding(area="store", standing=Standing.PROBLEM, what=error.message, remedy=error.advice)


def _git(machine: Machine) -> Finding:
    version = machine.version_of("git")
    if version is None:
        return Finding(area="git", standing=Standing.PROBLEM, what="git is not installed", remedy="Install git 2.38 or newer.")
    if _numbers(version) < OLDEST_GIT:
        what = f"git {version} is too old: it cannot merge without a directory"
        return Finding(area="git", standing=Standing.PROBLEM, what=what, remedy="Install git 2.38 or newer.")
    return Finding(area="git", standing=Standing.OK, what=f"git {version}")


def _claude(machine: Machine) -> Finding:
    try:
        path, (oldest, newest) = compose.claude_facts()
    except ProgramMissing as error:
        return Finding(area="claude", standing=Standing.PROBLEM, what=error.message, remedy=error.advice)
    version = machine.version_of(path)
    if version is None:
        remedy = "Start it by hand to see why, or install it anew."
        return Finding(area="claude", standing=Standing.PROBLEM, what=f"{path} cannot be started", remedy=remedy)
    if not _numbers(oldest) <= _numbers(version) <= _numbers(newest):
        tested = oldest if oldest == newest else f"{oldest} to {newest}"
        remedy = "It will most likely do. If agents behave strangely: pip install 'kapelle[claude]' brings the tested one."
        return Finding(area="claude", standing=Standing.NOTE, what=f"{version} ({path}); tested: {tested}", remedy=remedy)
    # Where others write `claude`, this is what has to be run.
    where = (
        f"{path}" if claude_command() == "claude" else f"{path}, which is not on your PATH: log in with `{claude_command()}`"
    )
    return Finding(area="claude", standing=Standing.OK, what=f"{version} ({where})")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _credentials(configuration: Configuration) -> Finding:
    reference = configuration.settings.credential
    kind, _, name = reference.partition(":")
    if kind == "env" and configuration.environment.get(name):
        return Finding(area="credentials", standing=Standing.OK, what=f"{name} is set; the gateway holds it")
    if logged_in(configuration):
        return Finding(area="credentials", standing=Standing.OK, what="claude is logged in, and its login is used")
    remedy = f"Set {name}, or run `{claude_command()}` and log in. Without either: kapelle run WORKFLOW --rehearse FILE"
    what = f"{reference} is not set and claude is not logged in"
    return Finding(area="credentials", standing=Standing.PROBLEM, what=what, remedy=remedy)


def _disk(machine: Machine, home: Path) -> list[Finding]:
    place = next(folder for folder in (home, *home.parents) if folder.is_dir())
    if not machine.writable(str(place)):
        remedy = "Name another folder in KAPELLE_HOME, or mend its permissions; a full disk may be the reason, too."
        return [Finding(area="disk", standing=Standing.PROBLEM, what=f"nothing can be written in {place}", remedy=remedy)]
    free, total = disk(place)
    what = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free for {home}"
    if free < LITTLE:
        standing = Standing.PROBLEM if free < TOO_LITTLE else Standing.NOTE
        return [Finding(area="disk", standing=standing, what=what, remedy="kapelle clean --older-than 1d")]
    return [Finding(area="disk", standing=Standing.OK, what=what)]


def _sandboxes() -> list[Finding]:
    found: list[Finding] = []
    here = dict(sorted(compose.sandboxes().items()))
    problems = {name: sandbox.missing() for name, sandbox in here.items()}
    better = next((name for name, sandbox in here.items() if sandbox.capabilities.files and not problems[name]), None)
    for name, sandbox in here.items():
        if problems[name]:
            what = f"{name} cannot be used: {problems[name]}"
            found.append(Finding(area="sandbox", standing=Standing.NOTE, what=what, remedy=sandbox.remedy()))
            continue
        can = sandbox.capabilities
        parts = {"files": can.files, "network": can.network, "processes": can.pids}
        isolated = [part for part, isolates in parts.items() if isolates]
        open_ = [part for part, isolates in parts.items() if not isolates]
        by = f" ({can.by})" if can.by else ""
        what = f"{name}{by} isolates {', '.join(isolated) or 'nothing'}" + (f" (not: {', '.join(open_)})" if open_ else "")
        what += f"; {_limits(can)}"
        if not can.ends_all:
            what += "; what leaves its process group and drops its environment goes on"
        standing = Standing.NOTE if open_ or len(can.limits) < len(Limit) else Standing.OK
        found.append(Finding(area="sandbox", standing=standing, what=what, remedy=_sandbox_remedy(can, better)))
    return found


def _sandbox_remedy(can: SandboxCapabilities, better: str | None) -> str:
    """Return what to do about what a sandbox does not isolate or hold; *better* is one that isolates here."""
    parts: list[str] = []
    if not (can.files or can.network or can.pids):
        instead = f"{better} works here, and is taken where `sandbox` says nothing else." if better else ""
        parts.append(instead or "Agents can do whatever you can: let them work on what you can restore.")
    if len(can.limits) < len(Limit):
        parts.append(
            "Log in where systemd runs for your user, or run as a service with Delegate=yes: or leave out what is not held."
        )
    return " ".join(parts)


def _limits(can: SandboxCapabilities) -> str:
    held = [limit.value for limit in Limit if limit in can.limits]
    rest = [limit.value for limit in Limit if limit not in can.limits]
    what = f"it holds limits of {', '.join(held) or 'nothing'}" + (f" (not: {', '.join(rest)})" if rest else "")
    return what + (f", by {can.held_by}" if can.held_by else "")


async def _secrets(configuration: Configuration) -> list[Finding]:
    """Say which secrets of agents are not to be had, and where they are while agents use them; nothing where there are none."""
    found = await look(configuration)
    if not found:
        return []
    said = [
        Finding(area="secrets", standing=Standing.PROBLEM, what=f"{entry.agent}: {entry.problem}", remedy=entry.remedy)
        for entry in found
        if entry.problem
    ]
    try:
        place, in_memory = compose.vault_place()
    except HostFailed as error:
        return [*said, Finding(area="secrets", standing=Standing.PROBLEM, what=error.message, remedy=error.advice)]
    had = len(found) - len(said)
    what = f"{had} of {len(found)} are to be had; while agents use them they are in {place}"
    if not in_memory:
        remedy = "Nothing, where the disk is encrypted; otherwise use a system with /dev/shm or set XDG_RUNTIME_DIR to a tmpfs."
        what = f"{what}, which is on a disk (only you can read it)"
        return [*said, Finding(area="secrets", standing=Standing.NOTE, what=what, remedy=remedy)]
    return [*said, Finding(area="secrets", standing=Standing.OK, what=what)]


async def _repository(configuration: Configuration, machine: Machine, *, fix: bool) -> AsyncIterator[Finding]:
    try:
        facts = await compose.repositories().inspect(str(configuration.root))
    except RepositoryRefused as error:
        yield Finding(area="repository", standing=Standing.NOTE, what=error.message, remedy=error.advice)
        return
    except KapelleError as error:
        yield Finding(area="repository", standing=Standing.PROBLEM, what=error.message, remedy=error.advice)
        return
    yield Finding(area="repository", standing=Standing.OK, what=f"{facts.root}, on {facts.branch or 'no branch'}")
    for lock in machine.stale_locks(facts.git_dir):
        if fix:
            machine.remove_lock(lock)
        what = f"{lock} was left behind by a git that is gone"
        yield Finding(area="locks", standing=Standing.PROBLEM, what=what, remedy="kapelle doctor --fix", mended=fix)


async def _records(configuration: Configuration, known: frozenset[str] | None, *, fix: bool) -> AsyncIterator[Finding]:
    """Find what git still records of workspaces that are gone: `git worktree list` would show them for ever.

    *known* are the paths that the store has rows for; None when it cannot be asked, or somebody leads: then all workspaces of
    this state directory are left to whoever leads.
    """
    try:
        facts = await compose.repositories().inspect(str(configuration.root))
    except KapelleError:
        # It was told already.
        return
    records, own = compose.worktree_records(), (configuration.settings.home / "workspaces").resolve()
    moved = records.moved(str(configuration.settings.home / "orphan"))
    for record, path in records.gone(facts.git_dir).items():
        if _is_one_of(path, known) if known is not None else Path(path).is_relative_to(own):
            continue
        if record in moved:
            yield _moved(records, moved[record], path, fix=fix)
            continue
        what = f"git records a worktree of Kapelle at {path}, which is gone"
        if not fix:
            yield Finding(
                area="worktrees", standing=Standing.PROBLEM, what=what, remedy="kapelle doctor --fix removes the record"
            )
            continue
        try:
            ref = await records.forget(facts.root, record, path)
        except KapelleError as error:
            yield Finding(area="worktrees", standing=Standing.PROBLEM, what=f"{what}; {error.message}", remedy=error.advice)
            continue
        kept = f"; its last commit is kept as {ref} (`kapelle recover`)" if ref is not None else ""
        yield Finding(area="worktrees", standing=Standing.PROBLEM, what=what + kept, mended=True)


def _moved(records: Records, path: str, before: str, *, fix: bool) -> Finding:
    what = f"the worktree {path} was set aside, and git takes it to be at {before} still"
    remedy = records.how_to_repair(path) or ""
    try:
        mended = fix and records.repair(path, before)
    except KapelleError as error:
        return Finding(area="worktrees", standing=Standing.PROBLEM, what=f"{what}; {error.message}", remedy=error.advice)
    return Finding(area="worktrees", standing=Standing.PROBLEM, what=what, remedy=remedy, mended=mended)


def _is_one_of(real: str, paths: frozenset[str]) -> bool:
    return any(real == str(Path(path).resolve()) for path in paths)


def _project(configuration: Configuration, wrong: Sequence[Mistake]) -> list[Finding]:
    """Return what `kapelle validate` finds, where there is a configuration."""
    root = configuration.root
    if not any((root / name).exists() for name in (PROJECT_FILE, AGENTS_FILE)):
        return []
    if not wrong and not configuration.agents.agents:
        what, remedy = f"no agent is configured in {root}", "`kapelle init` writes a beginning."
        return [Finding(area="project", standing=Standing.PROBLEM, what=what, remedy=remedy)]
    sandboxes = compose.sandboxes()
    shop = Workshop(
        configuration=configuration,
        drivers=compose.drivers(),
        sandboxes=sandboxes,
        repository=None,
        evaluator=compose.evaluator(),
    )
    agents, mistakes = agent_configs(shop)
    found = [
        Finding(area="project", standing=Standing.PROBLEM, what=str(mistake), remedy=mistake.advice)
        for mistake in (*wrong, *mistakes)
    ]
    what = f"{root}: {counted(len(agents), 'agent')}, {counted(len(gates(configuration)), 'gate')}, no mistakes"
    return found or [Finding(area="project", standing=Standing.OK, what=what)]


def _port(configuration: Configuration, machine: Machine, lead: Lead | None) -> Finding:
    port = configuration.settings.gateway_port
    last = compose.last_port(configuration.settings.home) if lead is not None else None
    if lead is not None and last is not None and not machine.port_is_free(last):
        own = f"process {lead.holder.pid}, which leads, has its gateway on port {last}"
        if port in {None, last}:
            return Finding(area="ports", standing=Standing.OK, what=own)
        what = f"{own}; whoever leads next takes port {port}"
        if machine.port_is_free(port or 0):
            return Finding(area="ports", standing=Standing.OK, what=what)
        return Finding(area="ports", standing=Standing.PROBLEM, what=f"{what}, which is taken", remedy=ANOTHER_PORT)
    if port is None:
        return Finding(area="ports", standing=Standing.OK, what="the gateway takes any free port of this machine")
    if machine.port_is_free(port):
        return Finding(area="ports", standing=Standing.OK, what=f"port {port} of the gateway is free")
    what = f"port {port} of the gateway is taken"
    return Finding(area="ports", standing=Standing.PROBLEM, what=what, remedy=ANOTHER_PORT)


async def _accounts(configuration: Configuration, desk: Desk) -> list[Finding]:
    """Say of the accounts that open runs use, or the next run would, which of them are not let through."""
    used = await desk.world.store.read(lambda view: [run.spec.upstream for run in view.runs.open()])
    with suppress(CredentialsMissing):
        # Where there are no credentials at all, that was told already.
        used.append(choose_upstream(configuration, rehearse=None, record=None, needs_model=True))
    shut = await desk.world.store.read(lambda view: {found.account_id: found for found in view.accounts.not_open()})
    now, found = desk.world.clock.now(), list[Finding]()
    for account_id, upstream in {account_of(upstream).account_id: upstream for upstream in used}.items():
        account = passed(shut.get(account_id) or account_of(upstream), now)
        if account.state in {AccountState.OPEN, AccountState.RESTARTING}:
            continue
        refused = account.state is AccountState.REFUSED
        if refused and mark(desk.world, upstream) not in {"", account.key}:
            what = f"{account.name} was refused with other credentials than now; those are tried next"
            found.append(Finding(area="accounts", standing=Standing.NOTE, what=what))
            continue
        remedy = "Nothing: what uses it goes on then by itself." if account.state is AccountState.LIMITED else ""
        standing = Standing.PROBLEM if refused else Standing.NOTE
        found.append(Finding(area="accounts", standing=standing, what=told(account), remedy=remedy))
    return found


async def _store(configuration: Configuration, machine: Machine, desk: Desk, *, fix: bool) -> AsyncIterator[Finding]:
    world, lead = desk.world, await desk.leader()
    runs = await world.store.read(lambda view: len(view.runs.open()))
    leads = f"process {lead.holder.pid} leads" if lead is not None else "nobody leads"
    what = f"{configuration.settings.home / compose.STORE} is whole; {counted(runs, 'open run')}; {leads}"
    remedy = "kapelle resume" if runs and lead is None else ""
    yield Finding(area="store", standing=Standing.NOTE if remedy else Standing.OK, what=what, remedy=remedy)
    yield _port(configuration, machine, lead)
    for finding in await _accounts(configuration, desk):
        yield finding
    if (halt := await world.store.read(lambda view: view.brakes.halt())) is not None:
        yield Finding(area="halt", standing=Standing.PROBLEM, what=halt_told(halt), remedy="kapelle unhalt")
    if lead is not None:
        yield Finding(area="orphans", standing=Standing.OK, what="whoever leads looks after what belongs to nobody")
        return
    unknown = (await strays(desk.world)).unknown
    if unknown is not None:
        what = f"what is of live agents, and what is of nobody, cannot be told: {unknown.reason}"
        remedy = f"Make the sandbox {unknown.sandbox} usable; then: kapelle resume"
        yield Finding(area="orphans", standing=Standing.NOTE, what=what, remedy=remedy)
        return
    before = await _orphans(desk)
    moved = await desk.tidy() if before and fix else None
    left = await _orphans(desk) if moved is not None else before
    for entry, what in before.items():
        gone = entry not in left
        remedy = "" if gone else "kapelle doctor --fix keeps what is in it as a commit and clears it away, or moves it aside"
        goal = (moved or {}).get(entry)
        told = f"{what}; it could not be kept as a commit and is now {goal}" if goal is not None else what
        repair = compose.worktree_records().how_to_repair(goal) if goal is not None else None
        if repair is not None:
            told += f" (git works in it after `{repair}`, once that repository is at hand)"
        yield Finding(area="orphans", standing=Standing.PROBLEM, what=told, remedy=remedy, mended=gone)
    if not before:
        yield Finding(area="orphans", standing=Standing.OK, what="no process, no terminal and no workspace without an owner")


async def _orphans(desk: Desk) -> dict[str, str]:
    """Return what belongs to nobody, by path or by process id, and what to say of it."""
    world = desk.world
    known = await world.store.read(lambda view: {row.path for row in view.agents.workspaces()})
    processes = (await strays(world)).processes
    present = [path for path in await world.workspaces.present(world.folders.workspaces) if path not in known]
    unowned = await world.store.read(lambda view: sweep(world, view, remove=False))
    agents = await world.store.read(lambda view: {agent.agent_id for agent in view.agents.live()})
    boxes = {name: box for name, box in world.sandboxes.items() if not box.missing()}
    made = [(name, key) for name, box in boxes.items() for key in await box.leftovers(world.store.store_id, agents)]
    return {
        **{name: f"secrets of {name}, which is gone, are in the vault" for name in unowned},
        **{f"{name} {key}": f"the sandbox {name} holds something for {key}, which is over" for name, key in made},
        **{str(found.pid): f"process {found.pid} carries this store's id and belongs to no agent" for found in processes},
        **{name: f"a terminal shows the agent {name}, which is gone" for name in await left_over(world)},
        **{path: f"{path} is a workspace that belongs to no task" for path in present},
    }
