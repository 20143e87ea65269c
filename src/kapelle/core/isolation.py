"""What a process may see, reach and use: everything that a person may ask of a sandbox, and what a sandbox may promise."""

from collections.abc import Iterator
from enum import StrEnum

from kapelle.core.frozen import frozen


class MountKind(StrEnum):
    """What a process in a sandbox may do with a path."""

    READ = "read"
    WRITE = "write"
    HIDE = "hide"
    """Nothing: an empty directory is in its place."""


@frozen
class Mount:
    """A path beyond its workspace that a process in a sandbox needs, or must not see."""

    kind: MountKind
    path: str
    """Where the process finds it."""
    source: str = ""
    """What is there instead, on this machine; when empty, *path* itself."""


class Limit(StrEnum):
    """One thing that a process and all its children together may have only so much of."""

    MEMORY = "memory"
    CPUS = "cpus"
    PIDS = "pids"
    DISK = "disk"
    FILES = "files"


@frozen
class ProcessLimits:
    """How much of the machine a process and all its children together may use. None: as much as there is."""

    memory: int | None = None
    """Bytes, swap included. Something is ended when there would be more."""
    cpus: float | None = None
    """Processors, on average; more slow it down."""
    pids: int | None = None
    """Processes and threads at once. No further ones can be started."""
    disk: int | None = None
    """Bytes in its workspace, its home and its temporary files. Everything is ended when there are more."""
    files: int | None = None
    """Open files of each process."""

    def given(self) -> Iterator[Limit]:
        """Yield which limits there are."""
        for limit in Limit:
            if getattr(self, limit.value) is not None:
                yield limit


class NetworkKind(StrEnum):
    """What a process may reach."""

    OPEN = "open"
    """All that this machine reaches."""
    NONE = "none"
    """Nothing, not even a model."""
    MODEL_ONLY = "model-only"
    """Its model, through the gateway."""
    ALLOW = "allow"
    """Its model, and the hosts that are listed, through the proxy."""


@frozen
class Network:
    """What a process may reach of the network."""

    kind: NetworkKind = NetworkKind.OPEN
    hosts: tuple[str, ...] = ()
    """For ``allow``: names of hosts, ``*.`` before one for all below it, ``*`` for every one, ``:PORT`` behind one for another
    port than those of the web."""
    private: tuple[str, ...] = ()
    """Hosts and networks (``10.1.0.0/16``) that may be reached although they are not public."""

    @property
    def closed(self) -> bool:
        """Whether anything is kept from it."""
        return self.kind is not NetworkKind.OPEN


@frozen
class Isolation:
    """What a person asks of the sandbox of an agent, or of set-up commands and checks."""

    limits: ProcessLimits = ProcessLimits()
    network: Network = Network()
    mounts: tuple[Mount, ...] = ()
    """What is shown beyond what the work itself needs."""
    path: tuple[str, ...] = ()
    """Directories of programs, before all others."""
    image: str = ""
    """Where programs come from, for a sandbox that takes them from an image: ``POLICY`` or ``POLICY:ARGUMENT``."""


@frozen
class Way:
    """How a process that reaches nothing by itself comes to its model and to the proxy."""

    folder: str
    """A directory with the socket ``proxy`` in it, and ``model`` where there is one; who leads next makes them again."""
    model: int | None = None
    """The port of its model on this machine's loopback: it is to be found at the same inside."""


@frozen
class Place:
    """What a sandbox may know about where a process works."""

    workspace: str
    """The directory that it may write."""
    folder: str
    """The agent's own folder on the host: configuration, temporary files."""
    home: str
    """The agent's home directory."""
    store_id: str = ""
    """Whose it is."""
    key: str = ""
    """Which process of that store this is; no other that is there at the same time is called so."""
    owned: bool = True
    """Whether the workspace was made for this, and is nobody's but the agent's: not a directory that a person named."""
    mounts: tuple[Mount, ...] = ()
    """What the workspace needs beyond itself; in this order, the later on top of the earlier."""
    isolation: Isolation = Isolation()
    way: Way | None = None
    """None for a process with an open network, and for one with none at all."""


@frozen
class Remains:
    """What is to be said of a process that has ended, beyond its exit code."""

    out_of_memory: bool = False
    """The system ended something of it, because it would have used more memory than it may."""
    full: Limit | None = None
    """The limit that it was ended for, or that it met."""


@frozen
class Met:
    """A limit that a process met."""

    reason: str
    """Which, in words for people."""
    out_of_memory: bool = False
    again: bool = True
    """Whether it can go on in the same workspace: one that is too full already is too full still."""


@frozen
class SandboxCapabilities:
    """What a sandbox isolates on this machine; the conformance suite tests what is declared."""

    files: bool = False
    network: bool = False
    pids: bool = False
    """Processes inside see none outside."""
    ends_all: bool = False
    """What was started ends with it, also when it left its process group and threw away its environment."""
    limits: frozenset[Limit] = frozenset()
    """What it can hold."""
    held_by: str = ""
    """What holds the limits of memory, processors and processes, in words for people."""
    screens: bool = False
    """A program with a screen of its own works inside: it gets the terminal that it is started in."""
    images: bool = False
    """Whether programs can come from an image."""
    by: str = ""
    """What does the work, where that is not the same everywhere: its name, its version and where it is."""
