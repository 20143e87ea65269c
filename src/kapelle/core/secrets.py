"""Secrets that agents must have: referenced in the configuration, looked up when an agent is deployed, never kept.

A value is in three places only: where its reference says, in the memory of whoever leads, and in files of a private directory
in memory (the *vault*) as long as an agent of this config lives or what it wrote is looked through.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from kapelle.core.frozen import frozen
from kapelle.core.hiding import SHORTEST, Secret
from kapelle.core.ids import AgentId, AttemptId

KINDS = ("env", "file", "keyring")
INSIDE = "/run/kapelle/secrets"
"""Where the files of an agent's secrets are in a sandbox that shows a file system of its own."""
MCP_FILE = "mcp.json"
PLACEHOLDER = re.compile(r"\$\{secret:([^}]*)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


def reference_problem(reference: str) -> str:
    """Return what is wrong with *reference*, in words that do not repeat it; empty when nothing is."""
    kind, colon, rest = reference.partition(":")
    if not colon or kind not in KINDS or not rest:
        return "is no reference (what stands there is not repeated here)"
    if kind == "env" and not _VARIABLE.fullmatch(rest):
        return "names no variable after env:"
    if kind == "file" and not rest.startswith(("/", "~/")):
        return "names no absolute path after file:"
    if kind == "keyring" and not all(rest.partition("/")):
        return "names no service and user after keyring:"
    return ""


def value_problem(value: str) -> str:
    """Return why *value* cannot be a secret, in words that do not repeat it; empty when it can."""
    if not value.strip():
        return "is empty"
    if len(value) < SHORTEST:
        return f"has fewer than {SHORTEST} characters: it could not be told from other text"
    if any(ord(letter) < ord(" ") and letter not in "\n\r\t" for letter in value):
        return "holds characters that are no text"
    return ""


def file_variable(name: str) -> str:
    """Return the variable that names the file with the secret *name*."""
    return f"{name}_FILE"


@frozen
class GitLogin:
    """How git logs in at one host."""

    host: str
    secret: str
    user: str = "x-access-token"


@frozen
class McpServer:
    """An MCP server that an agent's program starts or reaches."""

    name: str
    command: str = ""
    args: tuple[str, ...] = ()
    url: str = ""
    env: tuple[tuple[str, str], ...] = ()
    """Values may hold ``${secret:NAME}``; so may those of ``headers``."""
    headers: tuple[tuple[str, str], ...] = ()


@frozen
class Handed:
    """What an agent was given."""

    folder: str
    """Where its files are on this machine."""
    hide: str
    """A directory with every value that is to be cut out of what it writes."""
    memory: str
    """A directory in memory for what its program keeps of the conversation; it lives as long as the attempt's workspace."""


class Secrets(Protocol):
    """Values behind references, and the vault. All but ``resolve`` return at once.

    What belongs to an agent is for that agent's user to read, everything else for whoever leads. An act may be repeated.
    """

    async def resolve(self, name: str, reference: str) -> str:
        """Return the value of the secret *name*, which *reference* stands for.

        Raises:
            SecretMissing: it is not to be had; the message names the reference, and never a value.
        """
        ...

    def hand_over(
        self, attempt_id: AttemptId, agent_id: AgentId, values: Mapping[str, str], files: Mapping[str, str], *, boxed: bool
    ) -> Handed:
        """Put *values* and further *files* into the vault for one agent; *boxed*: it works in a file system of its own.

        Raises:
            HostFailed: there is no private place for them.
        """
        ...

    def known(self, attempt_id: AttemptId) -> Sequence[Secret]:
        """Return every value that was handed over in this attempt and is not forgotten."""
        ...

    def remember(self, attempt_id: AttemptId, values: Mapping[str, str]) -> str:
        """Keep *values* as known in this attempt, beside those that are; return the directory, as ``Handed.hide``."""
        ...

    def revoke(self, agent_id: AgentId) -> None:
        """Take away what the agent was given; no effect when it was already."""
        ...

    def forget(self, attempt_id: AttemptId) -> None:
        """Remove all that is left of an attempt; no effect when nothing is."""
        ...

    def sweep(self, agents: Collection[AgentId], attempts: Collection[AttemptId], *, remove: bool = True) -> Sequence[str]:
        """Remove what belongs to no agent of *agents* and no attempt of *attempts*; return what it belonged to.

        Without *remove* it is only looked for.
        """
        ...
