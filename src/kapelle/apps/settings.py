"""Settings: each has one name, and comes from the first place that gives it a value.

command line > environment (KAPELLE_*, also from .env) > .kapelle/project.yml > .kapelle/agents.yml > default
"""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from platformdirs import user_state_path
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from kapelle.apps import models
from kapelle.core.errors import FileInvalid, Mistake, UsageError
from kapelle.core.expected import given
from kapelle.core.frozen import frozen
from kapelle.core.merge import PROTECTED, DeliveryMode
from kapelle.core.spent import OnSpent
from kapelle.documents import Document
from kapelle.mistaken import wrong as said_of

FOLDER = ".kapelle"
PROJECT_FILE = f"{FOLDER}/project.yml"
AGENTS_FILE = f"{FOLDER}/agents.yml"


class Settings(BaseModel):
    """All settings, resolved."""

    model_config = ConfigDict(frozen=True)

    home: Path
    target: models.Branch | None
    delivery: DeliveryMode
    slots: int = Field(ge=1)
    agents: int | None = Field(ge=1)
    project_agents: int | None = Field(ge=1)
    account_agents: int | None = Field(ge=1)
    keep_free: models.Size
    budget_usd: float | None = Field(gt=0)
    on_spent: OnSpent
    answer_within: models.Duration | None
    merge_returns: int = Field(ge=0)
    merge_batch: int = Field(ge=1, le=100)
    merge_wait: models.Duration
    protect: tuple[str, ...]
    gateway: bool
    gateway_port: int | None = Field(ge=1, le=65535)
    base_url: str
    credential: str
    copy_files: tuple[models.Copied, ...]
    setup: tuple[str, ...]
    ports: int = Field(ge=0, le=1000)
    sandbox: str
    lead_timeout: models.Duration = Field(ge=timedelta(seconds=1))
    heartbeat: models.Duration = Field(ge=timedelta(0))
    backup_every: models.Duration = Field(ge=timedelta(seconds=1))


@frozen
class Setting:
    """One setting: what it is called, where it may be given, and what it is otherwise."""

    name: str
    about: str
    variable: str
    project: tuple[str, ...] = ()
    """Keys that lead to it in project.yml."""
    agents: tuple[str, ...] = ()
    """Keys that lead to it in agents.yml."""
    default: Any = None


def _slots() -> int:
    # An agent waits for its model most of the time, and its tools need a core while they run.
    return max(2, 2 * (os.cpu_count() or 1))


AUTO = "auto"
"""The sandbox that is chosen by what works here."""

ALL: tuple[Setting, ...] = (
    Setting(name="home", about="where state and workspaces are kept", variable="KAPELLE_HOME"),
    Setting(name="target", about="branch that changes go to", variable="KAPELLE_TARGET", project=("target",)),
    Setting(
        name="delivery",
        about="when merged work goes to the target: each, end or never",
        variable="KAPELLE_DELIVERY",
        project=("delivery",),
        default="each",
    ),
    Setting(
        name="slots",
        about="agents that may be live at once on this machine",
        variable="KAPELLE_SLOTS",
        project=("limits", "slots"),
    ),
    Setting(
        name="agents",
        about="agents that may be live at once for one run",
        variable="KAPELLE_AGENTS",
        project=("limits", "agents"),
    ),
    Setting(
        name="project_agents",
        about="agents that may be live at once for all runs of the project",
        variable="KAPELLE_PROJECT_AGENTS",
        project=("limits", "project"),
    ),
    Setting(
        name="account_agents",
        about="agents that may be live at once with one account, whatever they work for",
        variable="KAPELLE_ACCOUNT_AGENTS",
        project=("limits", "account"),
    ),
    Setting(
        name="keep_free",
        about="memory of this machine that agents never get",
        variable="KAPELLE_KEEP_FREE",
        project=("limits", "keep_free"),
        default="256MB",
    ),
    Setting(
        name="budget_usd",
        about="what one run may spend, in US dollars",
        variable="KAPELLE_BUDGET_USD",
        project=("limits", "budget_usd"),
    ),
    Setting(
        name="on_spent",
        about="what becomes of tasks whose budget is spent: ask (they wait, and you are asked) or stop (they fail)",
        variable="KAPELLE_ON_SPENT",
        project=("budgets", "on_spent"),
        default="ask",
    ),
    Setting(
        name="answer_within",
        about="how long you have to answer when a budget is spent, before it counts as stop; otherwise for ever",
        variable="KAPELLE_ANSWER_WITHIN",
        project=("budgets", "answer_within"),
    ),
    Setting(
        name="merge_returns",
        about="how often the merge queue sends a change back to its agent",
        variable="KAPELLE_MERGE_RETURNS",
        project=("limits", "merge_returns"),
        default=3,
    ),
    Setting(
        name="merge_batch",
        about="how many changes of the merge queue are gated together at most",
        variable="KAPELLE_MERGE_BATCH",
        project=("merge", "batch"),
        default=16,
    ),
    Setting(
        name="merge_wait",
        about="how long a batch that is not full waits for more changes",
        variable="KAPELLE_MERGE_WAIT",
        project=("merge", "wait"),
        default="0s",
    ),
    Setting(
        name="protect",
        about="globs of files whose change waits for a person",
        variable="KAPELLE_PROTECT",
        project=("merge", "protect"),
        default=PROTECTED,
    ),
    Setting(
        name="gateway",
        about="whether agents reach the model through the gateway",
        variable="KAPELLE_GATEWAY",
        project=("gateway",),
        default=True,
    ),
    Setting(name="gateway_port", about="port of the gateway; any free one when not set", variable="KAPELLE_GATEWAY_PORT"),
    Setting(
        name="base_url",
        about="address of the model API",
        variable="ANTHROPIC_BASE_URL",
        default="https://api.anthropic.com",
    ),
    Setting(
        name="credential",
        about="reference to the API key, never the key itself",
        variable="KAPELLE_CREDENTIAL",
        default="env:ANTHROPIC_API_KEY",
    ),
    Setting(
        name="sandbox",
        about="what set-up commands, checks, and agents that name no other run in; auto: bubblewrap where it works",
        variable="KAPELLE_SANDBOX",
        agents=("sandbox",),
        default=AUTO,
    ),
    Setting(
        name="copy_files",
        about="files copied into each workspace although git ignores them",
        variable="KAPELLE_COPY",
        agents=("workspace", "copy"),
        default=(),
    ),
    Setting(
        name="setup",
        about="commands run once in each new workspace",
        variable="KAPELLE_SETUP",
        agents=("workspace", "setup"),
        default=(),
    ),
    Setting(
        name="ports",
        about="TCP ports for each workspace",
        variable="KAPELLE_PORTS",
        agents=("workspace", "ports"),
        default=0,
    ),
    Setting(
        name="lead_timeout",
        about="how long a leader may show no sign of life before another process ends it and takes over",
        variable="KAPELLE_LEAD_TIMEOUT",
        default=timedelta(seconds=30),
    ),
    Setting(
        name="heartbeat",
        about="how often it is looked whether each agent does something; 0s: never",
        variable="KAPELLE_HEARTBEAT",
        default=timedelta(seconds=30),
    ),
    Setting(
        name="backup_every",
        about="how often the store is backed up while a process leads",
        variable="KAPELLE_BACKUP_EVERY",
        default=timedelta(minutes=5),
    ),
)


@frozen
class Origin:
    """Where the value of a setting came from."""

    setting: Setting
    value: Any
    source: str


@frozen
class Configuration:
    """Everything that was read: settings with their origins, and the two files."""

    root: Path
    """The directory that holds .kapelle, or would."""
    settings: Settings
    origins: tuple[Origin, ...]
    project: models.Project
    agents: models.Agents
    environment: Mapping[str, str]
    """The environment together with .env."""

    def origin(self, name: str) -> Origin:
        """Return where the setting *name* came from."""
        return next(entry for entry in self.origins if entry.setting.name == name)


def find_root(start: Path) -> Path:
    """Return the nearest directory from *start* upwards that holds .kapelle or .git, or *start* itself."""
    for folder in (start, *start.parents):
        if (folder / FOLDER).is_dir() or (folder / ".git").exists():
            return folder
    return start


def load(
    start: Path,
    *,
    given: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    wrong: list[Mistake] | None = None,
) -> Configuration:
    """Read the configuration for the directory *start*; *given* are values from the command line.

    With a list *wrong*, mistakes in files are added to it instead of being raised, and a file with mistakes counts for nothing.

    Raises:
        FileInvalid: project.yml or agents.yml has mistakes; all of them are told together.
        UsageError: a variable or a flag has a value that is not possible.
    """
    root = find_root(start.resolve())
    process = dict(os.environ if environment is None else environment)
    variables = {**_dotenv(root / ".env"), **process}
    mistakes: list[Mistake] = []
    project = _read(root / PROJECT_FILE, models.Project, mistakes) or models.Project()
    agents = _read(root / AGENTS_FILE, models.Agents, mistakes) or models.Agents()
    if wrong is not None:
        wrong += mistakes
    elif mistakes:
        raise FileInvalid(mistakes)
    dotenv_only = {name for name in variables if name not in process}
    origins = tuple(_origin(setting, given or {}, variables, dotenv_only, project, agents) for setting in ALL)
    settings = _settings(origins)
    return Configuration(root=root, settings=settings, origins=origins, project=project, agents=agents, environment=variables)


def _dotenv(path: Path) -> dict[str, str]:
    if not (path.is_file() or path.is_fifo()):
        return {}
    from dotenv import dotenv_values

    return {name: value for name, value in dotenv_values(path).items() if value is not None}


T = TypeVar("T", bound=models.Model)


def _read(path: Path, model: type[T], mistakes: list[Mistake]) -> T | None:
    if not path.exists():
        return None
    try:
        document = Document.read(path)
    except FileInvalid as error:
        mistakes.extend(error.mistakes)
        return None
    found, wrong = document.fit(model)
    mistakes.extend(wrong)
    return found if not wrong else None


def _origin(
    setting: Setting,
    given: Mapping[str, Any],
    variables: Mapping[str, str],
    dotenv_only: set[str],
    project: models.Project,
    agents: models.Agents,
) -> Origin:
    if given.get(setting.name) is not None:
        return Origin(setting=setting, value=given[setting.name], source="command line")
    if variables.get(setting.variable):
        source = ".env" if setting.variable in dotenv_only else "environment"
        return Origin(
            setting=setting, value=_from_text(setting, variables[setting.variable]), source=f"{source} {setting.variable}"
        )
    for keys, model, file in ((setting.project, project, PROJECT_FILE), (setting.agents, agents, AGENTS_FILE)):
        found = _dig(model, keys) if keys else None
        if found is not None and (keys[-1] not in {"copy", "setup", "ports"} or _is_set(model, keys)):
            return Origin(setting=setting, value=found, source=file)
    default = setting.default
    if setting.name == "home":
        default = user_state_path("kapelle", appauthor=False)
    if setting.name == "slots":
        default = _slots()
    return Origin(setting=setting, value=default, source="default")


def _from_text(setting: Setting, text: str) -> Any:
    if setting.name in {"copy_files", "setup", "protect"}:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _dig(model: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        model = getattr(model, "copy_" if key == "copy" else key)
    return model


def _is_set(model: Any, keys: tuple[str, ...]) -> bool:
    for key in keys[:-1]:
        model = getattr(model, key)
    return ("copy_" if keys[-1] == "copy" else keys[-1]) in model.model_fields_set


def _settings(origins: tuple[Origin, ...]) -> Settings:
    values = {origin.setting.name: origin.value for origin in origins}
    if values["gateway"] in {"on", "off"}:
        values["gateway"] = values["gateway"] == "on"
    try:
        return TypeAdapter(Settings).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        origin = next(entry for entry in origins if entry.setting.name == first["loc"][0])
        said, advice = said_of(first)
        why = said.removeprefix(":") if said.startswith(":") else f" {advice}"
        raise UsageError(
            f"{origin.setting.name} cannot be {given(origin.value)} (from {origin.source}):{why}",
            remedy=f"It is {origin.setting.about}. `kapelle config --explain` shows all settings.",
        ) from error
