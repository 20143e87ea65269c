"""Everything the engine needs of the world, handed over by whoever composes it."""

from collections.abc import Mapping
from dataclasses import field
from datetime import timedelta

from kapelle.core.evaluating import Evaluator
from kapelle.core.frozen import frozen
from kapelle.core.gateway import Credentials, Gateway
from kapelle.core.git import Repositories, Workspaces
from kapelle.core.ids import AgentId, AttemptId, RunId, TaskId, WorkspaceId, make_id
from kapelle.core.ports import Chance, Clock, Driver, Hints, Host, Sandbox, Ways
from kapelle.core.secrets import Secrets
from kapelle.core.store import Store
from kapelle.core.terminals import Terminal
from kapelle.core.warden import Warden
from kapelle.engine.keeping_still import Holds
from kapelle.engine.missing import MissingDriver


@frozen
class Folders:
    """Where things are kept on this machine; all under one state directory, never inside a repository."""

    root: str

    def agent(self, agent_id: AgentId) -> str:
        """Return the folder of a live agent: spool, standard error, exit code."""
        return f"{self.root}/agents/{agent_id}"

    def terminal(self, agent_id: AgentId) -> str:
        """Return the folder of the session in which a live agent's transcript is shown."""
        return f"{self.root}/terminals/{agent_id}"

    def home(self, attempt_id: AttemptId) -> str:
        """Return the home of an attempt's agents: the program keeps its conversation there."""
        return f"{self.root}/homes/{attempt_id}"

    def checks(self, workspace_id: WorkspaceId) -> str:
        """Return the folder that the checks of a workspace use for themselves."""
        return f"{self.root}/checks/{workspace_id}"

    def setup(self, workspace_id: WorkspaceId) -> str:
        """Return the folder that the set-up commands of a workspace use for themselves."""
        return f"{self.root}/setup/{workspace_id}"

    @property
    def workspaces(self) -> str:
        """Return the folder that holds all workspaces."""
        return f"{self.root}/workspaces"

    @property
    def orphans(self) -> str:
        """Return the folder for what lay among the workspaces, belonged to nobody and could not be kept as a commit."""
        return f"{self.root}/orphan"

    def workspace(self, workspace_id: WorkspaceId, name: str) -> str:
        """Return the path of a workspace; *name* is only there for people to recognise it."""
        readable = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)[:40]
        return f"{self.workspaces}/{readable}-{workspace_id}"

    def log(self, run_id: RunId, task_id: TaskId | str, name: str) -> str:
        """Return the path of the output of a check or a set-up command."""
        readable = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)[:60]
        return f"{self.root}/logs/{run_id}/{task_id}/{readable}.log"


@frozen
class EngineSettings:
    """The engine's own bounds."""

    slots: int = 4
    """Agents that may be live at once on this machine."""
    keep_free: int = 0
    """Bytes of memory that agents never get: not promised to any, and free by measure before one more starts."""
    batch: int = 300
    """Tasks looked at in one step."""
    goodbye: timedelta = timedelta(seconds=5)
    """How long an agent may take to end by itself once it has nothing left to do."""
    finish: timedelta = timedelta(seconds=60)
    """How long agents may take to finish their turn on a planned exit."""
    setup_timeout: timedelta = timedelta(minutes=15)
    first_port: int = 20_000
    last_port: int = 29_999
    interruptions: int = 5
    """How often in a row a conversation is resumed after an error that nobody knows before its attempt has failed."""
    outage: timedelta = timedelta(hours=24)
    """How long it is waited for a model API that does not answer, before the task is given up."""
    overflows: int = 5
    """How many fresh conversations an attempt may begin because the last one had become too long."""
    crashes: int = 2
    """How often an attempt's program may crash before the attempt counts as failed."""
    result_rounds: int = 2
    """How often a wrong structured result goes back to the agent."""
    lead_timeout: timedelta = timedelta(seconds=30)
    """How long a leader may show no sign of life before a follower ends it (a stopped process keeps its lock)."""
    evaluating: timedelta = timedelta(seconds=2)
    """How long one look at the tasks that are due may take up with their templates; the others have their turn at the next."""
    heartbeat: timedelta = timedelta(seconds=30)
    """How often it is looked whether each agent does something; nothing: never."""
    redeliver: timedelta = timedelta(seconds=5)
    """How long to wait before a target that was held up is tried again."""


@frozen
class World:
    """The ports, as composed."""

    store: Store
    clock: Clock
    chance: Chance
    host: Host
    drivers: Mapping[str, Driver]
    sandboxes: Mapping[str, Sandbox]
    ways: Ways
    workspaces: Workspaces
    repositories: Repositories
    gateway: Gateway
    warden: Warden
    credentials: Credentials
    secrets: Secrets
    hints: Hints
    evaluator: Evaluator
    terminal: Terminal
    folders: Folders
    settings: EngineSettings = field(default_factory=EngineSettings)
    term: int = 0
    """The leader's term; every commit is checked against it."""
    holds: Holds = field(default_factory=Holds)
    apart: bool = False
    """Whether this works beside whoever leads: what it starts is its own to end, and not the leader's."""

    @property
    def mark(self) -> str:
        """What everything that is started here carries, and its groups are called by: whose it is."""
        return f"{self.store.store_id}-apart" if self.apart else self.store.store_id

    def driver(self, program: str) -> Driver:
        """Return the driver of *program*; where none is installed, one that starts nothing and says so."""
        return self.drivers.get(program) or MissingDriver(program)

    def new_id(self, prefix: str) -> str:
        """Return a new id of the kind *prefix*."""
        return make_id(prefix, self.chance.bits(64))
