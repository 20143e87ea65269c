"""The files of a user, as models: workflow files, ``.kapelle/project.yml`` and ``.kapelle/agents.yml``.

The JSON Schemas for editors are made from these; a field's description is what the editor shows.
"""

from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from kapelle.apps.secret_models import GitLogin, McpServer, References, unknown_secrets
from kapelle.apps.values import (
    NO_TIME,
    Branch,
    Copied,
    Count,
    Duration,
    Model,
    Named,
    Names,
    Phases,
    Positive,
    Size,
    listed,
    named,
    once,
    variable,
    without,
)
from kapelle.core.budget import Period
from kapelle.core.builtin_rules import BUILTIN
from kapelle.core.errors import closest
from kapelle.core.hours import parse_window
from kapelle.core.isolation import MountKind
from kapelle.core.merge import DeliveryMode
from kapelle.core.network import host_problem, private_problem
from kapelle.core.placing import Strategy
from kapelle.core.rules import Fallback, rule_problem
from kapelle.core.spent import OnSpent
from kapelle.core.task import OnFailure, Priority, WorkspaceKind


def _window(text: str) -> str:
    parse_window(text)
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name[:100]!r} is no time zone that this machine knows; write one such as Europe/Berlin") from error
    return name


class Retry(Model):
    """When a failed attempt is tried again."""

    initial: Duration = Field(default=timedelta(seconds=5), description="Delay after the first failure.")
    factor: float = Field(default=2.0, ge=1, description="What each further delay is multiplied with.")
    maximum: Duration = Field(default=timedelta(minutes=5), description="No delay is longer.")
    jitter: float = Field(default=0.2, ge=0, le=1, description="Share of the delay that chance adds or takes away.")


class Input(Model):
    """A value that may be given when the workflow is run: `--input NAME=VALUE`."""

    description: str = ""
    default: Any = None
    required: bool = False


class Budget(Model):
    """What may be spent, in more than money."""

    usd: Positive | None = Field(default=None, description="US dollars; `budget_usd` is the same.")
    tokens: Count | None = Field(default=None, description="Tokens, those from a cache apart.")
    cached_tokens: Count | None = Field(default=None, description="Tokens that are read from a cache.")
    turns: Count | None = Field(default=None, description="Model calls, those of subagents too.")
    time: Duration | None = Field(default=None, description="For which agents may work, all of them together.")


class Spending(Model):
    """Whatever may spend."""

    budget_usd: Positive | None = None
    budget: Budget | None = None

    @model_validator(mode="after")
    def _once(self) -> Self:
        if self.budget_usd is not None and self.budget is not None and self.budget.usd is not None:
            raise ValueError("budget_usd and budget.usd are the same; write one of them")
        return self


class Task(Spending):
    """One task."""

    prompt: str = Field(
        default="", description="What is to be done; a Jinja2 template. For `program: command` the command line."
    )
    needs: Names = Field(default_factory=list, description="Tasks that must be completed first.")
    agent: str | None = Field(default=None, description="An agent of agents.yml.")
    requires: Names = Field(
        default_factory=list,
        description="Capabilities or technologies that its agent must have; without `agent`, any that has.",
    )
    kind: str | None = Field(default=None, description="Kind of task; `assignment_rules` name the agents for it.")
    priority: Priority | None = Field(default=None, description="Higher goes first; waiting makes up for it.")
    gate: str | None = Field(default=None, description="A gate of agents.yml; `none` for no gate.")
    timeout: Duration | None = Field(default=None, description="How long one attempt may take.")
    max_attempts: int | None = Field(default=None, ge=1, le=100, description="How often it is tried before it fails.")
    retry: Retry | None = Field(default=None, description="When a failed attempt is tried again.")
    budget_usd: Positive | None = Field(default=None, description="What the task may spend on model calls, in US dollars.")
    budget: Budget | None = Field(default=None, description="What else the task may spend.")
    reads_only: bool = Field(default=False, description="It changes nothing; a claim of success without a change is fine.")
    result: dict[str, Any] | None = Field(default=None, description="JSON Schema of the structured result.")
    writes: Names = Field(default_factory=list, description="Globs of what it will change.")
    phase: str | None = Field(default=None, description="It starts when the phase before is completed.")
    estimate: Duration | None = Field(
        default=None, description="How long it will probably take, until similar ones have shown it."
    )
    approval: bool = Field(default=False, description="Waits until a person approves it.")
    when: str | bool | None = Field(default=None, description="A Jinja2 expression; when false the task is skipped.")
    foreach: list[Any] | str | None = Field(default=None, description="One task for each item; `{{ item }}` in the prompt.")
    on_failure: OnFailure = Field(default=OnFailure.STOP, description="Whether those who need it fail with it.")
    workspace: WorkspaceKind | None = Field(default=None, description="worktree (default in a repository), scratch or path.")
    path: str | None = Field(default=None, description="The directory, for `workspace: path`.")


class Defaults(Spending):
    """What tasks are when they do not say otherwise."""

    agent: str | None = None
    priority: Priority = Priority.NORMAL
    gate: str | None = None
    timeout: Duration = timedelta(minutes=30)
    max_attempts: int = Field(default=3, ge=1, le=100)
    retry: Retry = Retry.usual()
    budget_usd: Positive | None = None
    budget: Budget | None = None
    workspace: WorkspaceKind | None = None


class Workflow(Spending):
    """A workflow file."""

    name: Annotated[str, AfterValidator(named)] = Field(min_length=1, max_length=100, description="What people call it.")
    description: str = Field(default="", description="For people.")
    target: Branch | None = Field(default=None, description="The branch that changes go to; default: the current one.")
    delivery: DeliveryMode | None = Field(default=None, description="When merged work goes to the target: each, end or never.")
    budget_usd: Positive | None = Field(default=None, description="What the whole run may spend, in US dollars.")
    budget: Budget | None = Field(default=None, description="What else the whole run may spend.")
    phases: Phases | None = Field(default=None, description="In order; each starts when the one before is completed.")
    inputs: dict[str, Input | str | int | float | bool | None] = Field(
        default_factory=dict, description="Values that may be given at the start; a plain value is a default."
    )
    defaults: Defaults = Field(default=Defaults.usual(), description="What tasks are when they do not say otherwise.")
    tasks: dict[str, Task] = Field(min_length=1, description="By name.")


class ProjectLimits(Spending):
    """How much at once, and how much at all."""

    agents: int | None = Field(default=None, ge=1, description="Agents that may be live at once for one run.")
    project: int | None = Field(default=None, ge=1, description="Agents that may be live at once for all runs of the project.")
    account: int | None = Field(
        default=None, ge=1, description="Agents that may be live at once with one account, whatever they work for."
    )
    models: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="MODEL: agents of it that may be live at once with one account."
    )
    keep_free: Size | None = Field(default=None, description="Memory of this machine that agents never get.")
    slots: int | None = Field(default=None, ge=1, description="Agents that may be live at once on this machine.")
    budget_usd: Positive | None = Field(default=None, description="What one run may spend, in US dollars.")
    budget: Budget | None = Field(default=None, description="What else one run may spend.")
    merge_returns: int | None = Field(default=None, ge=0, description="How often a change goes back from the merge queue.")


class Merge(Model):
    """How changes go through the merge queue."""

    batch: int | None = Field(default=None, ge=1, le=100, description="How many changes are gated together at most.")
    wait: Duration | None = Field(default=None, description="How long a batch that is not full waits for more.")
    protect: Names | None = Field(
        default=None, description="Globs of files whose change waits for a person; replaces the built-in list."
    )


class Total(Model):
    """What may be spent by all together."""

    usd: Positive | None = Field(default=None, description="US dollars.")
    tokens: Count | None = Field(default=None, description="Tokens, those from a cache apart.")
    cached_tokens: Count | None = Field(default=None, description="Tokens that are read from a cache.")
    turns: Count | None = Field(default=None, description="Model calls, those of subagents too.")
    time: Duration | None = Field(default=None, description="For which agents may work, all of them together.")


class PeriodTotal(Total):
    """What may be spent by all together within a time."""

    per: Period = Field(default=Period.EVER, description="`day` or `month` (in UTC), after which it begins anew; or `ever`.")


class Budgets(Model):
    """What may be spent by more than one run."""

    project: PeriodTotal | None = Field(default=None, description="By all runs of the project.")
    account: PeriodTotal | None = Field(default=None, description="By all that use the same key or login, on this machine.")
    day: Total | None = Field(default=None, description="By everything on this machine, from midnight to midnight (UTC).")
    on_spent: OnSpent | None = Field(
        default=None,
        description="What becomes of tasks whose budget is spent: `ask` (default: they wait, and you are asked) or `stop` (they"
        " fail).",
    )
    answer_within: Duration | None = Field(
        default=None, description="How long you have to answer then, before it counts as `stop`; default: for ever."
    )


class Liveness(Model):
    """How long agents may look still; what an agent does not say is as for the whole project."""

    silence: Duration | None = Field(
        default=None, gt=NO_TIME, description="Nothing at all is heard or seen of an agent. Default: 3m."
    )
    stream: Duration | None = Field(default=None, gt=NO_TIME, description="Nothing comes of a model call. Default: 2m.")
    tool: Duration | None = Field(
        default=None, gt=NO_TIME, description="A tool says nothing and uses no processor. Default: 10m."
    )
    stopped: Duration | None = Field(default=None, gt=NO_TIME, description="A process was stopped by a signal. Default: 30s.")
    between: Duration | None = Field(default=None, gt=NO_TIME, description="From one answer to the next one. Default: 2m.")
    repeats: int | None = Field(default=None, ge=2, description="The same call fails so often in a row. Default: 5.")
    nudge_repeats: int | None = Field(default=None, ge=2, description="So often, before the agent is told. Default: 8.")
    break_repeats: int | None = Field(default=None, ge=2, description="So often, before its turn is broken off. Default: 15.")
    interrupts: int | None = Field(default=None, ge=0, description="How often in an attempt that is done. Default: 2.")
    restarts: int | None = Field(default=None, ge=0, description="How often its program is started anew. Default: 2.")
    straying: bool | None = Field(default=None, description="Whether files outside `writes` are looked for. Default: true.")
    hands_off: bool | None = Field(default=None, description="Only tell, and do nothing. Default: false.")


class Alerts(Model):
    """Bounds that raise an alert when they are passed by."""

    failures: float | None = Field(
        default=None, gt=0, le=1, description="Share of a run's tasks that failed, when five or more have ended."
    )
    queue_age: Duration | None = Field(
        default=None, gt=NO_TIME, description="How long a task that could run waits for an agent."
    )
    disk_free: Size | None = Field(default=None, description="Less is free on the disk that holds state and workspaces.")
    memory_free: Size | None = Field(default=None, description="Less memory of this machine is free.")
    spend_per_hour: Positive | None = Field(default=None, description="US dollars that the project spends in an hour.")


class Project(Model):
    """`.kapelle/project.yml`."""

    name: str = ""
    description: str = ""
    target: Branch | None = None
    directories: dict[str, str] = Field(default_factory=dict, description="What is where: NAME: meaning. Told to the agents.")
    phases: Phases = Field(default_factory=list)
    limits: ProjectLimits = ProjectLimits.usual()
    budgets: Budgets = Budgets.usual()
    delivery: DeliveryMode | None = None
    merge: Merge = Merge.usual()
    working_hours: list[Annotated[str, AfterValidator(_window)]] = Field(
        default_factory=list,
        description="When agents of the project may work, such as `Mon-Fri 08:00-18:00`; default: always.",
    )
    time_zone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="The IANA time zone of `working_hours`, such as `Europe/Berlin`."
    )
    liveness: Liveness = Liveness.usual()
    alerts: Alerts = Alerts.usual()
    gateway: Literal["on", "off"] | bool | None = Field(
        default=None, description="off: agents reach the model without the gateway."
    )


class Tools(Model):
    """What an agent may use without asking, and what it may not use at all."""

    allow: list[str] = Field(default_factory=list)
    deny: list[str] = Field(default_factory=list)


class ProcessLimits(Model):
    """How much of the machine an agent, or a command, may use with all that it starts."""

    memory: Size | None = Field(default=None, description="Memory and swap, such as 2GB; something of it is ended for more.")
    cpus: Positive | None = Field(default=None, description="Processors, such as 1.5; it gets no more.")
    pids: int | None = Field(default=None, ge=1, description="Processes and threads at once.")
    disk: Size | None = Field(
        default=None, description="Its workspace, home and temporary files, such as 5GB; all of it is ended for more."
    )
    files: int | None = Field(default=None, ge=16, description="Open files of each process.")


def _host(value: str) -> str:
    if problem := host_problem(value):
        raise ValueError(problem)
    return value


def _private(value: str) -> str:
    if problem := private_problem(value):
        raise ValueError(problem)
    return value


class AllowedNetwork(Model):
    """Which hosts may be reached beside the model."""

    allow: Annotated[list[Annotated[str, AfterValidator(_host)]], BeforeValidator(listed)] = Field(
        description="Hosts: NAME, *.NAME (all below it) or *; NAME:PORT for a port that is not the web's."
    )
    private: Annotated[list[Annotated[str, AfterValidator(_private)]], BeforeValidator(listed)] = Field(
        default_factory=list, description="Hosts and networks that may be reached though not public."
    )


Network = Literal["open", "none", "model-only"] | AllowedNetwork


class Isolated(Model):
    """What is asked of a sandbox."""

    sandbox: str | None = Field(
        default=None, description="process, bubblewrap, container, auto, ...; `kapelle doctor` tells what they isolate."
    )
    limits: ProcessLimits = Field(default=ProcessLimits.usual(), description="How much of the machine may be used.")
    network: Network | None = Field(
        default=None, description="open, none, model-only, or {allow: [HOST, ...]} for the model and these."
    )
    mounts: dict[str, MountKind] = Field(
        default_factory=dict, description="PATH: read, write or hide. What is shown of the machine beside what work needs."
    )
    path: Names = Field(default_factory=list, description="Directories of programs, before all others.")
    image: Named | Annotated[dict[Named, str], Field(min_length=1, max_length=1)] | None = Field(
        default=None,
        description="For containers: host (this machine's programs), containerfile (the one that Kapelle brings), "
        "{containerfile: FILE} or {name: IMAGE}.",
    )

    @property
    def isolation_given(self) -> bool:
        """Whether anything is asked of the sandbox."""
        return bool(self.model_fields_set & {"limits", "network", "mounts", "path", "image"})


def _rule(value: str) -> str:
    without(rule_problem(value))
    return value


def _builtin(name: str) -> str:
    known = [builtin.name for builtin in BUILTIN]
    if name not in known:
        raise ValueError(f"there is no built-in rule {name}; {closest(name, known)}")
    return name


WrittenRule = Annotated[str, AfterValidator(_rule)]
Does = Literal["deny", "ask", "review", "off"]


def _off(value: object) -> object:
    # YAML 1.1 takes `off` for false, and people write either.
    return "off" if value is False else value


class Rules(Model):
    """What agents may not do, and what a person is asked about first."""

    deny: Annotated[list[WrittenRule], BeforeValidator(listed)] = Field(
        default_factory=list, description="Tool, or Tool(pattern): WebFetch, Bash(terraform apply *), Edit(migrations/**)."
    )
    ask: Annotated[list[WrittenRule], BeforeValidator(listed)] = Field(
        default_factory=list, description="The same; a person is asked. What is denied is not asked about."
    )
    builtin: Annotated[
        Literal["off"] | dict[Annotated[str, AfterValidator(_builtin)], Annotated[Does, BeforeValidator(_off)]],
        BeforeValidator(_off),
    ] = Field(default_factory=dict, description="NAME: deny, ask, review or off, for built-in rules; or off for all of them.")
    deadline: Duration = Field(default=timedelta(minutes=10), description="How long a question waits; 0s: nobody is asked.")
    default: Fallback = Field(default=Fallback.DENY, description="What becomes of a question that nobody answered in time.")


class Asked(Model):
    """What an agent is reckoned to need of the machine: promised to it as long as it lives, and to nobody else."""

    memory: Size | None = Field(default=None, description="Such as 1GB. Default: `limits.memory`, where there is one.")
    cpus: Positive | None = Field(default=None, description="Processors, such as 0.5.")


class Pool(Model):
    """How many agents of a kind there are beforehand, and at all."""

    warm: int = Field(default=0, ge=0, le=100, description="Spares that always wait for a task, started and set up.")
    min: int = Field(default=0, ge=0, le=100, description="Agents that there are at least: at work or spare.")
    max: int | None = Field(
        default=None, ge=1, le=1000, description="Agents that there are at most. Up to it spares follow the queue."
    )
    idle: Duration = Field(default=timedelta(minutes=10), description="How long a spare waits that nothing asks for any more.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        least = max(self.warm, self.min)
        if self.max is not None and self.max < least:
            raise ValueError(f"max ({self.max}) is less than {'warm' if self.warm == least else 'min'} ({least})")
        return self


class Agent(Isolated):
    """A configured kind of agent. What it does not say of its sandbox is as for the whole file."""

    program: str = Field(default="claude", description="claude, command, python, or a driver of a plug-in.")
    model: str | None = None
    prompt: str | None = Field(
        default=None, description="File below .kapelle/ with text for the system prompt, or the text itself."
    )
    technologies: list[str] = Field(default_factory=list, description="Told to the agent; tasks may require them.")
    capabilities: list[str] = Field(default_factory=list, description="What it can do: tasks may require it.")
    tools: Tools = Field(default_factory=Tools)
    permission_mode: str | None = None
    terminal: Literal["tmux"] | None = Field(default=None, description="A session for each agent, in which people see it.")
    max_turns: int | None = Field(default=None, ge=1)
    function: str | None = Field(default=None, description="For `program: python`: package.module:function.")
    rules: Rules | None = Field(default=None, description="Command rules; default: those of the whole file.")
    env: dict[Annotated[str, AfterValidator(variable)], str] = Field(default_factory=dict)
    limit: int | None = Field(default=None, ge=1, description="Agents of this kind that may be live at once.")
    asks: Asked = Field(default=Asked.usual(), description="What each is reckoned to need of the machine.")
    liveness: Liveness = Field(default=Liveness.usual(), description="How long such agents may look still.")
    pool: Pool = Field(default=Pool.usual(), description="How many of them are started before there is a task for them.")
    reuse: Literal["never", "same-run"] = Field(
        default="never",
        description="same-run: when its task is merged, a program goes on to another task of its run, in a workspace and a"
        " conversation as new.",
    )
    secrets: References = Field(
        default_factory=dict,
        description="What only agents of this kind get: NAME: env:VARIABLE, file:PATH or keyring:SERVICE/USER.",
    )
    git: dict[str, GitLogin] = Field(default_factory=dict, description="How git logs in, by host.")
    mcp: dict[Named, McpServer] = Field(default_factory=dict, description="MCP servers for `program: claude`, by name.")

    @model_validator(mode="after")
    def _referenced(self) -> "Agent":
        unknown_secrets(self.secrets, self.git, self.mcp)
        return self

    @model_validator(mode="after")
    def _used_again(self) -> "Agent":
        if self.reuse == "same-run" and (self.terminal or self.secrets):
            what = "a terminal" if self.terminal else "secrets"
            raise ValueError(f"reuse: same-run is not for agents with {what}: what one task has there is not for the next")
        return self


class Check(Model):
    """One command of a gate."""

    name: Named
    run: str
    timeout: Duration = timedelta(minutes=10)
    required: bool = True


class Gate(Model):
    """A named list of checks."""

    checks: list[Check] = Field(min_length=1)
    rounds: int = Field(default=2, ge=0, description="How often a failed check goes back to the agent.")

    @field_validator("checks")
    @classmethod
    def _named_once(cls, value: list[Check]) -> list[Check]:
        once([check.name for check in value], "checks")
        return value


class Workspace(Model):
    """How each workspace is set up."""

    copy_: list[Copied] = Field(default_factory=list, alias="copy", description="Files that git ignores and agents need.")
    setup: list[str] = Field(default_factory=list, description="Commands, run once in each new workspace.")
    ports: int = Field(default=0, ge=0, le=1000, description="TCP ports for each workspace: PORT, PORT_1, ...")


class Agents(Isolated):
    """`.kapelle/agents.yml`. What it says of the sandbox holds for set-up commands, checks, and agents that say nothing."""

    agents: dict[Named, Agent] = Field(default_factory=dict)
    gates: dict[Named, Gate] = Field(default_factory=dict)
    assignment_rules: dict[str, Names] = Field(
        default_factory=dict, description="KIND, name:GLOB, phase:GLOB or writes:GLOB: the agents for such tasks."
    )
    placement: Strategy = Field(
        default=Strategy.LEAST_LOADED,
        description="Which of several agents that fit is taken: least_loaded, round_robin or best_fit.",
    )
    workspace: Workspace = Workspace.usual()
    rules: Rules = Field(default=Rules.usual(), description="Command rules of agents that have none of their own.")


SCHEMAS: dict[str, type[Model]] = {"workflow": Workflow, "project": Project, "agents": Agents}


def json_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of the file *name*: workflow, project or agents."""
    schema = SCHEMAS[name].model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": f"Kapelle {name} file"}
