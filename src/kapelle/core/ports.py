"""The ports: what the engine asks of the world, and what each adapter owes in return; further: ``core.gateway``, ``core.git``.

Rules for all of them. Methods are asynchronous unless the docstring says that they return at once. An adapter raises only
errors of ``core.errors`` (``WorldError`` and below); what an agent, a command or a check does wrong is a value. Every act may
be repeated with the same arguments after a crash: it then finds what it had done before. Paths are absolute and of type
``str``.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import field
from datetime import datetime, timedelta
from typing import Protocol

from kapelle.core.agent import AgentConfig, ProcessRef
from kapelle.core.conversation import ConversationEvent, Prompt
from kapelle.core.frozen import frozen
from kapelle.core.ids import AgentId, AttemptId, PromptId, WorkspaceId
from kapelle.core.isolation import Place, Remains, SandboxCapabilities, Way
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
class Screen:
    """The screen of a program: it runs in a terminal, and what happens on it is told by files. Nobody ever reads the screen."""

    name: str
    """Of the session, for people."""
    told: str
    """The directory in which the program's hooks leave a file for each thing that happens; it need not be there yet."""
    conversation: str
    """Where the program writes its conversation down: a directory, and below it somewhere ``conversation_file``."""
    conversation_file: str
    resumed: bool = False
    """Whether the conversation was begun before."""
    by_hand: bool = False
    """A person alone works there: it ends when that person has left."""


@frozen
class Launch:
    """A process to start, as the driver wants it, as the sandbox changed it, as the host starts it."""

    argv: tuple[str, ...]
    cwd: str
    env: tuple[tuple[str, str], ...] = ()
    """The whole environment: nothing is inherited."""
    stdin: bool = False
    """Whether the process is written to; otherwise its standard input is empty."""
    limit: timedelta | None = timedelta(minutes=30)
    """When it is ended by force, whether or not anybody watches; None: ``Host.bound`` will say."""
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
    screen: Screen | None = None
    """For a program with a screen of its own: it is started in a terminal."""
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


@frozen
class Measure:
    """What a host has, and what of it is free."""

    memory: int
    """Bytes, all in all."""
    memory_free: int
    """Bytes that a new process could have without anybody else losing any."""
    cpus: float
    """Processors."""
    load: float = 0.0
    """How many processes used one or waited for one, on average of the last minute."""
    disk: int = 0
    """Bytes, all in all, of the disk that was asked about."""
    disk_free: int = 0
    """Bytes of it that may still be written."""


@frozen
class Activity:
    """What a process does, with all that it has started."""

    cpu: float
    """Seconds of processor time that they have used; those count that have ended."""
    processes: int = 1
    stopped: int = 0
    """How many of them were stopped by a signal."""
    waiting: int = 0
    """How many wait for a disk or a device."""
    memory: int = 0
    """Bytes that they have in memory; what they share is counted for each."""


class Host(Protocol):
    """A machine that runs agents and commands.

    A process that was started outlives the host object and the leader; it is found again by its ``ProcessRef``. Its output goes
    to an append-only spool in *folder*; its exit code is recorded there by a shim, not by the leader. When a process ends,
    everything in its process group ends with it.
    """

    name: str

    async def measure(self, path: str = "") -> Measure:
        """Measure the host, now; with *path* the disk that it is on as well."""
        ...

    async def activities(self, processes: Sequence[Sequence[ProcessRef]]) -> Sequence[Activity | None]:
        """Measure some agents in one look: each by the processes that it begins with, and all that is below those.

        None for one of which nothing is there any more.
        """
        ...

    async def go_on(self, processes: Sequence[ProcessRef]) -> int:
        """Let everything go on of an agent that was stopped by a signal; return how many processes that were."""
        ...

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

    async def bound(self, process: ProcessRef, folder: str, limit: timedelta) -> None:
        """End a process that was started without a limit by force after *limit*, counted from now, give or take two seconds.

        Again it has as much time from then on, if that is not less than what it had at most before.

        Raises:
            HostFailed: that cannot be arranged.
        """
        ...

    async def close_input(self, process: ProcessRef) -> None:
        """Close the process's standard input; no effect when it is closed."""
        ...

    async def end(self, process: ProcessRef, folder: str, *, grace: timedelta) -> Ended:
        """Ask the process to end, then end it and its whole group by force; also when it was started by an earlier leader."""
        ...

    async def stop_clock(self, folder: str) -> None:
        """Let the time limit of the process in *folder* stand still, also with nobody leading; no effect when it does."""
        ...

    async def start_clock(self, folder: str) -> None:
        """Let it go on: the process has as much time left as when it was stopped; no effect when it goes on already."""
        ...

    async def at_work_for(self, store_id: str, attempt_id: AttemptId) -> int:
        """Return how many live processes carry *attempt_id* in KAPELLE_ATTEMPT, and *store_id* in KAPELLE_STORE."""
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
        """Return why it cannot be used on this machine, in words for people; empty when it can."""
        ...

    def remedy(self) -> str:
        """Return what a person can do so that it can be used, in whole sentences; empty when it can."""
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

    async def met(self, place: Place) -> Remains:
        """Return what is to be said so far of a process that goes on, as far as that is known before its end."""
        ...

    async def sweep(self, store_id: str, keep: Collection[str]) -> Sequence[str]:
        """Do the same for all processes of a store but those whose keys are in *keep*; return the keys of what was found."""
        ...

    async def leftovers(self, store_id: str, keep: Collection[str]) -> Sequence[str]:
        """Return the keys of what ``sweep`` would find, and leave it as it is."""
        ...

    async def freeze(self, place: Place, process: ProcessRef | None) -> None:
        """Hold everything still that runs at *place*, started as *process*, until ``thaw``.

        No effect when it stands still already, or nothing runs there. It can be ended all the same.

        Raises:
            NotStill: something does not stand still just now, and may do so later; everything goes on.
            HostFailed: something cannot be held still.
        """
        ...

    async def thaw(self, place: Place, process: ProcessRef | None) -> None:
        """Let it go on; no effect when it does. Another leader may have frozen it.

        Raises:
            HostFailed: it cannot be told to.
        """
        ...

    async def inside(self, store_id: str, keys: Collection[str]) -> Sequence[ProcessRef]:
        """Return the live processes of those whose keys are in *keys* that may not be below the one that was started for them.

        What is below one of these belongs to it, and need not be among them.

        Raises:
            HostFailed: it cannot be told.
        """
        ...


class Ways(Protocol):
    """The ways out for processes that reach nothing by themselves: to the gateway, and through one proxy to what they may."""

    def listen(self, told: Callable[[Decision], None]) -> None:
        """Tell *told* of every decision from now on: a new one at once, the same again by number. Returns at once."""
        ...

    async def open(self, holder: Pass, folder: str) -> Way:
        """Let *holder* through, by sockets in *folder*; opened again, also by another leader, it is the same way.

        Opened again by another holder of the same key (a spare that has a task by now), it stays where it is, and whatever is
        decided from then on is decided for that one, and told of it: the first time at once, whatever the one before was told.

        Raises:
            HostFailed: the sockets cannot be made.
        """
        ...

    async def close(self, key: str) -> None:
        """Close the way of a process, with whatever goes through it; no effect when it is closed."""
        ...

    async def sweep(self, root: str, keep: Collection[str]) -> None:
        """Remove what earlier leaders left of ways below *root*, but for those in the folders *keep* and what is open."""
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
    warm: bool = False
    """It can be started before there is a task, and is told of that when it has one (``Codec.assign``)."""
    clears: bool = False
    """A program can begin a new conversation, as if nothing had been said (``Codec.clear``)."""
    immediate: bool = False
    """No process at all: a task is done the moment it is placed (benchmarks)."""
    tools: frozenset[str] = frozenset()
    """What its tools are called that are known; there may be others."""
    writers: frozenset[str] = frozenset()
    """Those of them that change files."""
    lasting: frozenset[str] = frozenset()
    """Those of them whose doings go on in the program's next conversation (``clears``): a timer, say."""
    screen: bool = False
    """A person can take its conversation over, on its program's own screen (``core.terminals.ScreenDriver``)."""
    always_screen: bool = False
    """Its program always runs on its own screen, in a terminal."""
    least_memory: int = 0
    """Bytes that its program needs by itself."""


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
    timeout: timedelta | None = timedelta(minutes=30)
    """None: its time limit is set when it has a task."""
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

    def assign(self, env: Mapping[str, str]) -> bytes:
        """Return what to write so that *env* holds for all that the program starts from now on; empty when it cannot."""
        ...

    def clear(self, prompt_id: PromptId) -> bytes:
        """Return what to write so that a new conversation begins, after the last turn; empty when it cannot.

        It is answered as a prompt is: ``ConversationStarted`` gives the new conversation's id, and ``TurnEnded`` says that it
        has begun.
        """
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


# --- Between processes ---


class Hints(Protocol):
    """Lossy wake-ups between the processes of one store; they carry no data."""

    def ring(self) -> None:
        """Wake everybody who listens. Returns at once; may be lost."""
        ...

    def listen(self) -> AsyncIterator[None]:
        """Yield once for every wake-up; several may come as one."""
        ...
