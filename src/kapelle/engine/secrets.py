"""Secrets of agents, as the engine handles them: looked up at deployment, handed over, taken back, and hidden in what is kept.

A value never leaves this module but into the vault (``core.secrets``): what is kept with a run, an attempt or an agent is the
reference.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress

from kapelle.core.agent import Agent, AgentConfig
from kapelle.core.errors import HostFailed, SecretMissing
from kapelle.core.frozen import frozen
from kapelle.core.git import Commit
from kapelle.core.hiding import NOTHING, Hiding, Secret
from kapelle.core.ids import AgentId, AttemptId
from kapelle.core.isolation import Mount, MountKind
from kapelle.core.secret_events import SecretFound, SecretSuspected
from kapelle.core.secrets import INSIDE, MCP_FILE, PLACEHOLDER, GitLogin, Handed, McpServer, file_variable
from kapelle.core.store import Tx, View
from kapelle.core.task import Task
from kapelle.engine.world import World

TEMPORARY = "tmp"
"""What sandboxes call the directory for temporary files in an agent's folder."""


@frozen
class Outfit:
    """What an agent is started with, for its secrets."""

    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    memory: str = ""
    mcp_config: str = ""
    hide: str = ""


async def hand_over(world: World, config: AgentConfig, attempt_id: AttemptId, agent_id: AgentId, *, boxed: bool) -> Outfit:
    """Look up what agents of *config* must have and hand it to one; *boxed*: it works in a file system of its own.

    Raises:
        SecretMissing: a reference stands for nothing.
        HostFailed: there is no private place.
    """
    if not config.secrets and not config.mcp:
        return Outfit()
    values = await _resolved(world, config)
    files = {MCP_FILE: _mcp_config(config.mcp, values)} if config.mcp else {}
    handed = world.secrets.hand_over(attempt_id, agent_id, values, files, boxed=boxed)
    folder = INSIDE if boxed else handed.folder
    return Outfit(
        env=_environment(config, folder),
        mounts=_mounts(handed) if boxed else (),
        memory=handed.memory,
        mcp_config=f"{folder}/{MCP_FILE}" if config.mcp else "",
        hide=handed.hide if values else "",
    )


async def hiding(world: World, config: AgentConfig, attempt_id: AttemptId) -> Hiding:
    """Return what is to be hidden of what an attempt with *config* has made.

    Raises:
        SecretMissing: neither the vault (it forgets when the machine restarts) nor the reference gives a value any more:
            nothing can be looked through for it.
    """
    if not config.secrets:
        return NOTHING
    known = list(world.secrets.known(attempt_id))
    names = {secret.name for secret in known}
    missing = [(name, reference) for name, reference in config.secrets if name not in names]
    for name, reference in missing:
        known.append(Secret(name=name, value=await world.secrets.resolve(name, reference)))
    if missing:
        world.secrets.remember(attempt_id, {secret.name: secret.value for secret in known if secret.name not in names})
    return Hiding(known)


async def hide_folder(world: World, config: AgentConfig, attempt_id: AttemptId) -> str:
    """Return the directory of values to cut out of what runs on an attempt's work; empty when there are none.

    Raises:
        SecretMissing: as ``hiding``.
    """
    if not config.secrets:
        return ""
    await hiding(world, config, attempt_id)
    return world.secrets.remember(attempt_id, {})


def log_leaks(tx: Tx, task: Task, commit: Commit | None) -> None:
    """Log where values of secrets, and what looks like one, were found in the work of *task*."""
    for leak in commit.leaks if commit is not None else ():
        if leak.secret:
            tx.log(SecretFound(run_id=task.run_id, task_id=task.task_id, secret=leak.secret, file=leak.file))
        else:
            tx.log(SecretSuspected(run_id=task.run_id, task_id=task.task_id, shape=leak.shape, file=leak.file))


def revoke(world: World, agent_id: AgentId) -> None:
    """Take away what an agent was given, at once; where that fails it is tried again when it has ended."""
    with suppress(HostFailed):
        world.secrets.revoke(agent_id)


async def take_back(world: World, config: AgentConfig, agent: Agent) -> None:
    """Take away what an agent had that has ended, and what it kept for a while beside its workspace."""
    world.secrets.revoke(agent.agent_id)
    if config.secrets:
        await world.workspaces.remove(f"{agent.folder}/{TEMPORARY}", None)


def sweep(world: World, view: View, *, remove: bool = True) -> Sequence[str]:
    """Remove from the vault what belongs to no live agent, and to no attempt that has a workspace; return whose it was."""
    live = (*view.agents.live(), *view.spares.all())
    agents = {agent.agent_id for agent in live}
    attempts: set[AttemptId] = {agent.attempt_id for agent in live}
    for row in view.agents.workspaces():
        if row.task_id is not None:
            attempts |= {attempt.attempt_id for attempt in view.attempts.of_task(row.task_id)}
    return world.secrets.sweep(agents, attempts, remove=remove)


async def text_of(world: World, config: AgentConfig, attempt_id: AttemptId, text: str) -> str:
    """Return *text*, which an attempt's work has a part in (names of files, for example), without values."""
    try:
        found = await hiding(world, config, attempt_id)
    except SecretMissing as error:
        return error.in_full
    return found.hide_text(text)


async def _resolved(world: World, config: AgentConfig) -> dict[str, str]:
    return {name: await world.secrets.resolve(name, reference) for name, reference in config.secrets}


def _mounts(handed: Handed) -> tuple[Mount, ...]:
    return (
        Mount(kind=MountKind.READ, path=INSIDE, source=handed.folder),
        Mount(kind=MountKind.WRITE, path=handed.memory),
    )


def _environment(config: AgentConfig, folder: str) -> tuple[tuple[str, str], ...]:
    """Return what the agent is told: where its files are, and for git how to log in with them. No secret is among it."""
    files = [(file_variable(name), f"{folder}/{name}") for name, _ in config.secrets]
    return (*files, *_git(config.git, folder, dict(config.env).get("GIT_CONFIG_COUNT", "0")))


def _git(logins: tuple[GitLogin, ...], folder: str, there: str) -> tuple[tuple[str, str], ...]:
    """Return git's settings for *logins*, behind the *there* that the config gives itself."""
    if not logins:
        return ()
    settings: list[tuple[str, str]] = []
    for login in logins:
        key = f"credential.https://{login.host}.helper"
        # An empty one first: no other helper is asked, and none is given the token to keep.
        settings += [(key, ""), (key, _helper(login, folder))]
    count = int(there) if there.isdecimal() else 0
    numbered = enumerate(settings, start=count)
    return (
        ("GIT_CONFIG_COUNT", str(count + len(settings))),
        *[entry for n, (key, value) in numbered for entry in ((f"GIT_CONFIG_KEY_{n}", key), (f"GIT_CONFIG_VALUE_{n}", value))],
    )


def _helper(login: GitLogin, folder: str) -> str:
    """Return a credential helper that reads the file when it is asked: a value is in no argument and in no variable."""
    path = f"{folder}/{login.secret}".replace("'", "'\\''")
    user = login.user.replace("'", "'\\''")
    asked = f"printf 'username=%s\\npassword=' '{user}'; cat '{path}'; echo"
    return f'!f() {{ if test "$1" = get; then {asked}; fi; }}; f'


def _mcp_config(servers: tuple[McpServer, ...], values: Mapping[str, str]) -> str:
    """Return the file that names MCP servers as programs read it (JSON), with the values of secrets in it."""

    def filled(texts: tuple[tuple[str, str], ...]) -> dict[str, str]:
        return {name: PLACEHOLDER.sub(lambda found: values[found.group(1)], text) for name, text in texts}

    named: dict[str, dict[str, object]] = {}
    for server in servers:
        if server.url:
            named[server.name] = {"type": "http", "url": server.url, "headers": filled(server.headers)}
        else:
            named[server.name] = {
                "type": "stdio",
                "command": server.command,
                "args": list(server.args),
                "env": filled(server.env),
            }
    return json.dumps({"mcpServers": named})
