"""Secrets in agents.yml, as models: references, git logins, MCP servers. What is refused is never repeated."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.functional_validators import BeforeValidator

from kapelle.core.secrets import KINDS, PLACEHOLDER, reference_problem

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,250}[A-Za-z0-9])?(:[0-9]{1,5})?")
HOW = "write env:VARIABLE, file:/PATH or keyring:SERVICE/USER; a value itself never stands in this file"


def _reference(value: object) -> str:
    problem = reference_problem(value) if isinstance(value, str) else "is no reference (what stands there is not repeated here)"
    if problem or not isinstance(value, str):
        raise ValueError(f"it {problem}; {HOW}")
    return value


Reference = Annotated[
    str, BeforeValidator(_reference), WithJsonSchema({"type": "string", "pattern": f"^({'|'.join(KINDS)}):.+$"})
]


def _references(value: object) -> object:
    if not isinstance(value, dict):
        said = "it is no mapping of names to references (what stands there is not repeated here); write NAME: env:VARIABLE"
        raise ValueError(said)  # noqa: TRY004  # what pydantic takes for a mistake of the file
    return cast("dict[Any, Any]", value)


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError("this is no name of a variable (it is not repeated here); letters, digits and _")
    return value


References = Annotated[dict[Annotated[str, AfterValidator(_name)], Reference], BeforeValidator(_references)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class GitLogin(_Model):
    """How git logs in at one host."""

    secret: str = Field(description="A name of `secrets`: the password or token.")
    user: str = Field(default="x-access-token", pattern=r"^[^\s=]{1,200}$", description="The user that goes with it.")


def _plain(value: str) -> str:
    if PLACEHOLDER.search(value):
        raise ValueError("a secret cannot stand here, where every process sees it; give it in env or headers")
    return value


Plain = Annotated[str, AfterValidator(_plain)]


class McpServer(_Model):
    """An MCP server: a command that is started beside the agent, or an address (streamable HTTP)."""

    command: Plain | None = Field(default=None, description="The program to start.")
    args: list[Plain] = Field(default_factory=list, description="Its arguments.")
    url: Plain | None = Field(default=None, description="The address of a server, in place of a command.")
    env: dict[str, str] = Field(default_factory=dict, description="Its environment; `${secret:NAME}` stands for a secret.")
    headers: dict[str, str] = Field(
        default_factory=dict, description="Headers of every call to `url`; `${secret:NAME}` stands for a secret."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> "McpServer":
        if (self.command is None) == (self.url is None):
            raise ValueError("it is no server; give either command or url")
        if self.url is not None and (self.args or self.env):
            raise ValueError("args and env are for a command; give headers with a url")
        if self.command is not None and self.headers:
            raise ValueError("headers are for a url; give env with a command")
        return self


def unknown_secrets(secrets: Mapping[str, str], git: Mapping[str, GitLogin], mcp: Mapping[str, McpServer]) -> None:
    """See that what *git* and *mcp* name is among *secrets*.

    Raises:
        ValueError: it is not.
    """
    wanted = [(login.secret, f"git: {host}") for host, login in git.items()]
    for name, server in mcp.items():
        for text in (*server.env.values(), *server.headers.values()):
            wanted += [(found, f"mcp: {name}") for found in PLACEHOLDER.findall(text)]
    for secret, where in wanted:
        if secret not in secrets:
            raise ValueError(f"{where} needs the secret {secret[:100]}; add it to `secrets`")
    for host in git:
        if not HOST.fullmatch(host):
            raise ValueError(f"{host[:100]!r} is no name of a host; write it without https:// and without a path")
