"""What the container sandbox asks of a runtime (Docker, Podman, ...), and of a policy that says which image is used.

Both come in by entry points (``kapelle.adapters``: ``runtime:NAME`` and ``images:NAME``), ours like anybody's.
"""

from collections.abc import Mapping
from typing import Protocol

from kapelle.core.frozen import frozen


class ImageRefused(ValueError):
    """There is no such image, in words for people."""


@frozen
class Image:
    """An image that containers are made from."""

    name: str
    """With its tag. Of one that is built here, the tag is a digest of all that it is built from: the same is built once."""
    recipe: bytes | None = None
    """What to build it from when it is not there: a tar archive with a ``Containerfile``. None: it is fetched by its name."""
    containerfile: str = ""
    """Where the file is that it is built from, for a person who builds it by hand; empty: there is none."""
    lost: str = ""
    """Why it cannot be built any more, in words for people, when it is not there."""
    host_programs: bool = False
    """Whether it is empty, and holds the programs of this machine, mounted read-only, at their own paths."""


class ImagePolicy(Protocol):
    """Says which image an agent's container is made from. ``image: {NAME: ARGUMENT}`` in agents.yml chooses one."""

    name: str

    def settle(self, argument: str, root: str) -> str:
        """Return *argument* as it is kept with a run: the same image for as long as it takes, whatever changes at *root*.

        Returns at once.

        Raises:
            ImageRefused: nothing can be made of it; the message says why.
        """
        ...

    def image(self, argument: str) -> Image:
        """Return the image that *argument*, as ``settle`` has given it, stands for. Returns at once."""
        ...


@frozen
class RuntimeFacts:
    """A container runtime that answers."""

    product: str
    """Its name and version, as it says them."""
    address: str
    """Where it answers: the path of a socket, or ``HOST:PORT``."""
    api: str = "1.41"
    """The version of Docker's API that it speaks."""
    rootless: bool = False
    """Whether it works without root's rights."""
    cgroup_driver: str = ""
    """Who makes its cgroups: ``cgroupfs`` (the runtime itself) or ``systemd``."""
    limits: bool = True
    """Whether it can hold limits on this machine."""


@frozen
class ContainerUse:
    """What a running container uses."""

    cpu_seconds: float
    """Of processor time, since it was started."""
    memory: int
    """Bytes."""
    pids: int
    """Processes and threads."""


class Runtime(Protocol):
    """Something that runs containers and speaks Docker's API at an address of this machine.

    Raises ``HostFailed`` when it cannot be reached, or cannot do what it is asked for.
    """

    name: str

    def chosen(self) -> bool:
        """Say whether a person has named this very runtime, by a variable of the environment. Returns at once."""
        ...

    def missing(self) -> str:
        """Return why it cannot be used, in words for people; empty when it can. Waits for it briefly."""
        ...

    def remedy(self) -> str:
        """Return what a person can do so that it can be used, in whole sentences; empty when it can. Waits for it briefly."""
        ...

    def facts(self) -> RuntimeFacts:
        """Return what answers. Waits for it briefly, and for the first time longer."""
        ...

    def changes(self) -> Mapping[str, object]:
        """Return what of a container's ``HostConfig`` must be otherwise for this runtime."""
        ...

    async def provide(self, image: Image) -> None:
        """Make sure that *image* is there: build it, or fetch it, when it is not."""
        ...

    async def search_path(self, image: Image) -> str:
        """Return where programs are looked for in *image*: its ``PATH``, or empty where it has none."""
        ...

    async def found(self, labels: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        """Return all containers, running or not, that have *labels*: the labels of each by its name."""
        ...

    async def first_process(self, name: str) -> int | None:
        """Return the number that the first process of the container *name* has on this machine; None when none runs in it."""
        ...

    async def remove(self, name: str) -> bool:
        """End and remove the container *name*; return whether the system had ended something in it for want of memory."""
        ...

    async def pause(self, name: str) -> None:
        """Stop all processes in the container *name* where they are; no effect when there is none, or it is so already."""
        ...

    async def unpause(self, name: str) -> None:
        """Let them go on; no effect when there is none, or they do."""
        ...

    async def use(self, name: str) -> ContainerUse:
        """Return what the container *name* uses now."""
        ...
