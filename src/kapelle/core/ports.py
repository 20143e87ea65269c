"""The ports: what the engine asks of the world, and what each adapter owes in return (of models: ``core.gateway``).

Rules for all of them. Methods are asynchronous unless the docstring says that they return at once. An adapter raises only
errors of ``core.errors`` (``WorldError`` and below); what an agent, a command or a check does wrong is a value. Every act may
be repeated with the same arguments after a crash: it then finds what it had done before. Paths are absolute and of type
``str``.
"""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import field
from datetime import datetime, timedelta
from typing import Protocol

from kapelle.core.agent import AgentConfig, ProcessRef
from kapelle.core.conversation import ConversationEvent, Prompt
from kapelle.core.frozen import frozen
from kapelle.core.hiding import NOTHING, Hiding, Leak
from kapelle.core.ids import AgentId, WorkspaceId
from kapelle.core.isolation import Mount, Place, Remains, SandboxCapabilities, Way
from kapelle.core.network import Decision, Pass
from kapelle.core.warden import WardenAccess

# --- Time and chance --------------------------------------------------------------------------------------------------


class Clock(Protocol):
    """The time. Returns at once."""

    def now(self) -> datetime:
        """Return the present in UTC, with its zone."""
        ...


class Chance(Protocol):
    """Randomness. Returns at once."""

    def bits(self, count: int) -> int:
        """Return *count* random bits, unguessable by others."""
        ...

    def share(self) -> float:
        """Return a random number in [0, 1)."""
        ...

    def uuid(self) -> str:
        """Return a random UUID."""
        ...


# --- Starting processes: driver -> sandbox -> host --------------------------------------------------------------------


@frozen
class Launch:
    """A process to start, as the driver wants it, as the sandbox changed it, as the host starts it."""

    argv: tuple[str, ...]
    cwd: str
    env: tuple[tuple[str, str], ...] = ()
    """The whole environment: nothing is inherited."""
    stdin: bool = False
    """Whether the process is written to; otherwise its standard input is empty."""
    limit: timedelta = timedelta(minutes=30)
    """When it is ended by force, whether or not anybody watches."""
    files: tuple[tuple[str, str], ...] = ()
    """Files to write into the agent's folder before the start: (name, content). Readable by their owner alone."""
    groups: tuple[str, ...] = ()
    """Files that the process writes itself into (``0`` stands for who writes) before it becomes the program."""
    open_files: int | None = None
    """How many files each process may have open."""
    file_size: int | None = None
    """Bytes that a file may grow to."""
    guard: tuple[str, ...] = ()
    """A program that looks on from outside, with the pid of the process as its last argument."""
    programs: tuple[str, ...] = ()
    """Other programs that it starts and that may not be on its PATH: a sandbox shows them as well."""
    hide: str = ""
    """A directory whose files hold values that are cut out of everything the process says; empty for none."""


@frozen
class Ended:
    """How a process ended."""

    exit_code: int | None
    """None when it was ended by force or its code is unknown; 128 + signal is given as it is by shells."""
    timed_out: bool = False


@frozen
class CommandResult:
    """What a command that ran to its end answered."""

    exit_code: int | None
    timed_out: bool
    seconds: float
    output_path: str
    """Where the whole output (both streams, in order) is kept."""
    output_hash: str
    tail: str
    """The last part of the output, decoded, at most 16,000 characters."""


@frozen
class Spool:
    """A look at a process: new output and, once it has ended, how."""

    data: bytes
    ended: Ended | None
    """None while it runs. Given only when all output up to the end has been read."""


class Host(Protocol):
    """A machine that runs agents and commands.

    A process that was started outlives the host object and the leader; it is found again by its ``ProcessRef``. Its output goes
    to an append-only spool in *folder*; its exit code is recorded there by a shim, not by the leader. When a process ends,
    everything in its process group ends with it.
    """

    name: str

    async def start(self, launch: Launch, folder: str) -> ProcessRef:
        """Start *launch* in a process group of its own; keep spool, stderr and exit code in *folder*.

        Raises:
            HostFailed: the program cannot be started.
        """
        ...

    async def look(self, process: ProcessRef, folder: str, offset: int, limit: int = 1 << 20) -> Spool:
        """Return at most *limit* bytes of the spool from *offset* on, without waiting for more."""
        ...

    async def wait(self, process: ProcessRef, folder: str, offset: int) -> None:
        """Return when the spool holds more than *offset* bytes or the process has ended."""
        ...

    async def write(self, process: ProcessRef, data: bytes) -> bool:
        """Write *data* to the process's standard input, wholly or not at all.

        Returns False when that is not possible any more: it has ended, or was started by an earlier leader.
        """
        ...

    async def close_input(self, process: ProcessRef) -> None:
        """Close the process's standard input; no effect when it is closed."""
        ...

    async def end(self, process: ProcessRef, folder: str, *, grace: timedelta) -> Ended:
        """Ask the process to end, then end it and its whole group by force; also when it was started by an earlier leader."""
        ...

    async def run(self, launch: Launch, output_path: str, on_output: Callable[[str], None] | None = None) -> CommandResult:
        """Run a command to its end, all its output into one file; a time-out ends all its children."""
        ...

    async def leftovers(
        self, store_id: str, workspaces: Collection[WorkspaceId] | None = None, *, living: Collection[ProcessRef] = ()
    ) -> Sequence[ProcessRef]:
        """Return the live processes that carry *store_id* in KAPELLE_STORE of their environment: group leaders only.

        With *workspaces*, only those that carry one of them in KAPELLE_WORKSPACE_ID, too. None of *living* is among them, nor
        what is below one of those: a program may run its tools in groups of their own.
        """
        ...


class Sandbox(Protocol):
    """Isolation round a process."""

    name: str

    @property
    def capabilities(self) -> SandboxCapabilities:
        """What it isolates on this machine."""
        ...

    def missing(self) -> str:
        """Return why it cannot be used on this machine, and what to do, in words for people; empty when it can."""
        ...

    async def wrap(self, launch: Launch, place: Place) -> Launch:
        """Return *launch* changed so that it runs inside the sandbox. Again and again it gives the same.

        Raises:
            HostFailed: the directories of *place* cannot be made, this machine has no such sandbox, or it cannot hold what is
                asked of it.
        """
        ...

    async def clear(self, place: Place) -> Remains:
        """Remove what the sandbox had made for a process that has ended, with all that is left inside; say what is to be said.

        Asked again, it finds nothing and says nothing.
        """
        ...

    async def sweep(self, store_id: str, keep: Collection[str]) -> Sequence[str]:
        """Do the same for all processes of a store but those whose keys are in *keep*; return the keys of what was found."""
        ...

    async def leftovers(self, store_id: str, keep: Collection[str]) -> Sequence[str]:
        """Return the keys of what ``sweep`` would find, and leave it as it is."""
        ...


class Ways(Protocol):
    """The ways out for processes that reach nothing by themselves: to the gateway, and through one proxy to what they may."""

    def listen(self, told: Callable[[Decision], None]) -> None:
        """Tell *told* of every decision from now on: a new one at once, the same again by number. Returns at once."""
        ...

    async def open(self, holder: Pass, folder: str) -> Way:
        """Let *holder* through, by sockets in *folder*; opened again, also by another leader, it is the same way.

        Raises:
            HostFailed: the sockets cannot be made.
        """
        ...

    async def close(self, key: str) -> None:
        """Close the way of a process, with whatever goes through it; no effect when it is closed."""
        ...

    async def stop(self) -> None:
        """Close all of them."""
        ...


# --- Drivers ----------------------------------------------------------------------------------------------------------


@frozen
class DriverCapabilities:
    """What a driver's program can do; the engine asks these, never the driver's name."""

    conversation: bool = False
    """It can be prompted again in the same conversation, also after a restart of the program."""
    reports_tools: bool = False
    reports_cost: bool = False
    structured_result: bool = False
    uses_gateway: bool = False
    fork: bool = False
    interrupt: bool = False
    asks: bool = False
    """It asks its warden before it does something: command rules hold."""
    immediate: bool = False
    """No process at all: a task is done the moment it is placed (benchmarks)."""


@frozen
class ModelAccess:
    """How an agent reaches its model: by the gateway's address, with a token of its own.

    ``api_key`` is None when the program's own login is to be used (a subscription): then only the address is changed, and
    with ``base_url`` None not even that (``gateway: off``).
    """

    base_url: str | None
    api_key: str | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = ()
    own_login: bool = False
    direct_url: str | None = None
    """Without the gateway: the address of the model's API, where it is not the program's own default."""


@frozen
class AgentOrder:
    """Everything a driver needs to know to say how its program is started."""

    agent_id: AgentId
    config: AgentConfig
    cwd: str
    folder: str
    home: str
    """A directory that lives as long as the attempt: the program keeps its conversation there."""
    conversation_id: str
    resume: bool
    """Whether the conversation exists already."""
    fork_from: str | None = None
    """Begin as a copy of this conversation."""
    first_prompt: Prompt | None = None
    """For programs that take their prompt by argument (``command``)."""
    result_schema: str | None = None
    budget_usd: float | None = None
    timeout: timedelta = timedelta(minutes=30)
    model: ModelAccess | None = None
    warden: WardenAccess | None = None
    """Where it asks before it does something, for programs that do."""
    env: tuple[tuple[str, str], ...] = ()
    """What the workspace and the engine add: ports, names of task and run, of files with secrets."""
    memory: str = ""
    """A directory in memory, for a conversation that may hold secrets; empty: it is kept in *home*."""
    mcp_config: str = ""
    """The file that names the MCP servers of the config, as they are started; empty when it has none."""


class Codec(Protocol):
    """The protocol of one program, sans-I/O: bytes in, typed events out. Returns at once."""

    def feed(self, data: bytes) -> Sequence[ConversationEvent]:
        """Take the next bytes of the spool, cut anywhere; never raises, whatever they are."""
        ...

    def finish(self, ended: Ended) -> Sequence[ConversationEvent]:
        """Take the end of the program; gives a TurnEnded if a prompt was left without one."""
        ...

    def prompt(self, prompt: Prompt) -> bytes:
        """Return what to write so that *prompt* is taken; empty for a program that takes it by argument."""
        ...

    def interrupt(self) -> bytes:
        """Return what to write to break off the running turn; empty when the program cannot."""
        ...

    def goodbye(self) -> bytes:
        """Return what to write so that the program ends after its last turn; empty when closing its input is enough."""
        ...


class Driver(Protocol):
    """How to start, feed and read one program. Everything returns at once except ``check``."""

    name: str
    capabilities: DriverCapabilities

    def launch(self, order: AgentOrder) -> Launch:
        """Return how the program is started for *order*.

        Raises:
            ProgramMissing: the program is not installed.
        """
        ...

    def codec(self) -> Codec:
        """Return a codec for one process, read from the beginning of its spool."""
        ...

    def missing(self) -> str:
        """Return what must be installed before the program can be started, in words for people; empty when it is there."""
        ...

    def problems(self, config: AgentConfig, *, gateway: bool = True) -> Sequence[str]:
        """Return what is wrong with *config* for this program, in words for people; empty when nothing is.

        *gateway* says whether the program reaches its model through the gateway.
        """
        ...


# --- Workspaces and repositories --------------------------------------------------------------------------------------


@frozen
class RepositoryFacts:
    """A repository that can be worked on."""

    root: str
    """The top directory of the operator's checkout."""
    git_dir: str
    """The common git directory: the same for all worktrees of a repository."""
    branch: str | None
    """The branch that is checked out at *root*, or None when HEAD is detached."""
    head: str


@frozen
class WorkspaceOrder:
    """A workspace to prepare."""

    workspace_id: WorkspaceId
    path: str
    """Where it is to be. It must be free, or hold this very workspace from before a crash."""
    repository: str | None
    """The root of the operator's checkout; None for a directory without git."""
    base: str | None = None
    copy: tuple[str, ...] = ()
    """Files (globs, relative to the root) that are copied in although git does not know them, such as ``.env``."""


@frozen
class Signature:
    """Who did a piece of work, and for what."""

    author: str
    email: str
    message: str
    """The whole commit message, with its trailers."""


@frozen
class Commit:
    """A commit and its tree."""

    commit: str
    tree: str
    leaks: tuple[Leak, ...] = ()
    """Where the values of secrets, and what looks like one, were found."""

    @property
    def refused(self) -> bool:
        """Whether nothing was committed, since there is the value of a secret in it."""
        return any(leak.secret for leak in self.leaks)


@frozen
class Conflict:
    """One file that both sides changed in ways that do not fit."""

    file: str
    reason: str
    """git's own word for it, such as ``content`` or ``modify/delete``."""


class Workspaces(Protocol):
    """Directories in which agents work: detached git worktrees. Host git trusts nothing that is in them."""

    async def prepare(self, order: WorkspaceOrder) -> None:
        """Make the workspace: a worktree at ``base`` with the files to copy in it.

        Raises:
            WorkspaceFailed: it cannot be made; the message says what to do.
        """
        ...

    async def commit(self, path: str, repository: str, signature: Signature, hiding: Hiding = NOTHING) -> Commit:
        """Commit everything that git would not ignore (but nothing that was copied in) and return the head.

        With nothing to commit, the head as it is. A merge that ``bring_in`` began is concluded with both parents.

        With a value of *hiding* in a file, in the name of one, or in what the agent itself has committed, nothing comes into
        the repository: the leaks are returned with the head as it was, what the agent committed is undone, and its files stay.
        """
        ...

    async def snapshot(self, path: str, repository: str, ref: str, hiding: Hiding = NOTHING) -> str | None:
        """Keep everything in the workspace that git would not ignore as a commit under *ref* (``refs/kapelle/...``).

        Returns the commit, or None when there is nothing beyond what a branch of the repository holds already. Neither the
        workspace nor its index is changed. In the place of values of *hiding* stand their names.
        """
        ...

    async def cleanse(self, repository: str, hiding: Hiding, since: datetime) -> int:
        """Delete what an agent wrote into the repository itself after *since*, holds a value of *hiding*, and nothing needs.

        Returns how many objects that were.
        """
        ...

    async def bring_in(self, path: str, repository: str, commit: str, hiding: Hiding = NOTHING) -> Sequence[Conflict]:
        """Merge *commit* into the workspace; conflicts are left in the files with markers, for the agent to resolve.

        What the agent has committed with a value of *hiding* in it is undone, as by ``commit``.
        """
        ...

    async def leftover_markers(self, path: str, repository: str, base: str) -> Sequence[str]:
        """Return the files changed since *base* that still hold conflict markers."""
        ...

    async def put(self, path: str, repository: str, commit: str) -> None:
        """Make a clean workspace hold exactly *commit*; ignored files (build caches, dependencies) stay."""
        ...

    async def reach(self, path: str, repository: str) -> Sequence[Mount]:
        """Return what git needs of the machine to work inside of the workspace, without being able to harm anything else.

        From then on the workspace has a second git directory, for those inside: what they commit is taken in by ``commit``
        and ``snapshot``, and what is done here is shown to them.
        """
        ...

    async def remove(self, path: str, repository: str | None) -> None:
        """Remove the workspace and git's record of it; no effect when it is gone."""
        ...

    async def set_aside(self, path: str, folder: str) -> str:
        """Move the directory at *path* into *folder*, under a name that is free there, and return where it is now.

        Raises:
            WorkspaceFailed: it cannot be moved.
        """
        ...

    async def present(self, folder: str) -> Sequence[str]:
        """Return the paths of all workspaces under *folder*, for finding those that no row knows."""
        ...


@frozen
class Merged:
    """What came of merging one commit onto another."""

    commit: Commit | None
    """None when there are conflicts."""
    conflicts: tuple[Conflict, ...] = ()
    unchanged: bool = False
    """The commit was in already; ``commit`` is the one it was merged onto."""


@frozen
class Delivered:
    """What came of moving a target."""

    moved: bool
    reason: str = ""
    """Why it was not moved, in words for people: the checkout has changes in the way, the target moved meanwhile."""
    remedy: str = ""
    """What a person can do about it."""
    tip: str = ""
    """Where the target is now."""


@frozen
class Ref:
    """A name for a commit."""

    name: str
    commit: str
    at: datetime
    """When the commit was made."""
    subject: str
    """The first line of its message."""


class Repositories(Protocol):
    """The git repositories that tasks change, and their refs. The operator's checkout is never made dirty."""

    async def inspect(self, path: str) -> RepositoryFacts:
        """Return the facts of the repository that *path* is in.

        Raises:
            RepositoryRefused: not a repository, a bare or empty one, or one that cannot be worked on safely.
        """
        ...

    async def resolve(self, repository: str, name: str) -> str | None:
        """Return the commit that *name* (a branch, tag or commit) stands for, or None."""
        ...

    async def tree(self, repository: str, commit: str) -> str:
        """Return the tree of *commit*."""
        ...

    async def is_ancestor(self, repository: str, older: str, newer: str) -> bool:
        """Say whether *newer* holds everything that *older* does."""
        ...

    async def changed(self, repository: str, base: str, head: str) -> Sequence[str]:
        """Return the files in which *head* differs from *base*."""
        ...

    async def diff(self, repository: str, base: str, head: str, files: Sequence[str] = (), limit: int = 20_000) -> str:
        """Return the differences as text, at most *limit* characters."""
        ...

    async def merge(self, repository: str, onto: str, commit: str, signature: Signature) -> Merged:
        """Merge *commit* onto *onto* without touching any directory; always makes a merge commit, first parent *onto*."""
        ...

    async def join(self, repository: str, tree: str, parents: Sequence[str], signature: Signature) -> str:
        """Make a commit that holds *tree* and has *parents*, in this order, and return it."""
        ...

    async def since(self, repository: str, base: str, head: str) -> Sequence[str]:
        """Return the first-parent commits of *head* that *base* does not hold, the newest first: what came to a branch."""
        ...

    async def move_ref(self, repository: str, ref: str, new: str, old: str | None) -> bool:
        """Move *ref* to *new* if it is at *old* now (None: if it does not exist); returns whether it was."""
        ...

    async def delete_ref(self, repository: str, ref: str, commit: str | None = None) -> None:
        """Delete *ref*; no effect when it does not exist, or is not at *commit* (any more) where that is given."""
        ...

    async def refs(self, repository: str, prefix: str) -> Sequence[Ref]:
        """Return all refs under *prefix*, by name."""
        ...

    async def branches_with(self, repository: str, commit: str) -> Sequence[Ref]:
        """Return the branches of the repository, and those that were fetched, that hold *commit*, by name."""
        ...

    async def deliver(self, repository: str, target: str, commit: str, expected: str) -> Delivered:
        """Move the branch *target* from *expected* to *commit*, its descendant.

        At once when nobody has it checked out; otherwise by a fast-forward merge in that checkout, when git allows it.
        """
        ...


class Hints(Protocol):
    """Lossy wake-ups between the processes of one store; they carry no data."""

    def ring(self) -> None:
        """Wake everybody who listens. Returns at once; may be lost."""
        ...

    def listen(self) -> AsyncIterator[None]:
        """Yield once for every wake-up; several may come as one."""
        ...
