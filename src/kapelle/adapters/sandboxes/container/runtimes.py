"""Docker and Podman, by the API that both speak: where they answer, and what is asked of them beside the hot path.

The hot path, a container's life, is the runner's; what is here needs aiodocker, which is loaded when it is first used.
"""

import asyncio
import os
import shlex
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, cast

from kapelle.adapters.sandboxes.container.runner import Api, Failed
from kapelle.core.containers import ContainerUse, Image, RuntimeFacts
from kapelle.core.errors import HostFailed
from kapelle.core.frozen import frozen

KNOWN_FOR = 10.0
"""Seconds for which what was found out of a runtime is believed: it may be started, or ended, at any time."""
PATIENCE = 5.0
"""Seconds that an answer about the runtime itself may take."""
FOUND, NOT_FOUND, CONFLICT = 200, 404, 409
NO_SUCH = "no such container"
IN_BETWEEN = ("container state improper", "is not running")
"""What Podman and Docker say when a container became another while it was looked at: one that was paused ends when it goes on,
and one that is to be killed may have ended just then.
"""
TRIES, REST = 100, 0.05
"""How often it is tried to remove a container that is being removed by somebody else; seconds between."""
LAST_LINES = 20
"""How much of what a build said is told when it fails."""
SYSTEMD = Path("/run/systemd/system")
"""It is there where systemd is what starts services."""
SYSTEM_SOCKET = Path("/run/podman/podman.sock")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


@frozen
class Missing:
    """Why a runtime cannot be used, in words for people, and what to do, in whole sentences."""

    why: str
    remedy: str


class DockerApi(ABC):
    """A runtime that speaks Docker's API; see ``core.containers.Runtime``. A plug-in's may be made from this one."""

    name = ""
    title = ""
    variable = ""
    """The variable of the environment that says where it answers."""
    programs: tuple[str, ...] = ()
    """Programs of which one is on the PATH where it is installed; none: that cannot be seen."""

    def __init__(
        self, environment: Mapping[str, str] | None = None, *, root: bool | None = None, systemd: Path = SYSTEMD
    ) -> None:
        self._environment = os.environ if environment is None else environment
        self._root = os.geteuid() == 0 if root is None else root
        self._systemd = systemd.is_dir()
        self._known: tuple[float, RuntimeFacts | Missing] | None = None
        self._facts: dict[str, RuntimeFacts] = {}
        """By address: asking for them takes Podman a quarter of a second, and they do not change while it runs."""
        self._making = asyncio.Lock()

    @abstractmethod
    def sockets(self) -> Iterator[Path]:
        """Yield where its socket may be, unless a person says it."""

    def install(self) -> str:
        """Return how it is installed here, in a whole sentence."""
        return f"Install {self.title}."

    def start(self) -> str:
        """Return how it is started here once it is installed, in a whole sentence."""
        return f"Start {self.title}."

    def chosen(self) -> bool:
        return bool(self._environment.get(self.variable))

    def missing(self) -> str:
        found = self._look()
        return found.why if isinstance(found, Missing) else ""

    def remedy(self) -> str:
        found = self._look()
        return found.remedy if isinstance(found, Missing) else ""

    def facts(self) -> RuntimeFacts:
        found = self._look()
        if isinstance(found, Missing):
            raise HostFailed(found.why, remedy=found.remedy)
        return found

    def changes(self) -> Mapping[str, object]:
        # Without root's rights, who started it is root inside, and anybody else inside is nobody's outside: unless it is said.
        return {"UsernsMode": "keep-id"} if self.facts().rootless else {}

    def _look(self) -> RuntimeFacts | Missing:
        now = time.monotonic()
        if self._known is None or now - self._known[0] > KNOWN_FOR:
            self._known = now, self._ask()
        return self._known[1]

    def _ask(self) -> RuntimeFacts | Missing:
        where = self._address()
        if isinstance(where, Missing):
            return where
        api = Api(where, patience=PATIENCE)
        try:
            version = api.version()
            if where in self._facts:
                return self._facts[where]
            status, info = api.ask("GET", "/info")
        except Failed as error:
            self._facts.pop(where, None)
            return Missing(why=f"{self.title} does not answer: {error}", remedy=self._how_to_reach())
        if status != FOUND:
            return Missing(why=f"{self.title} does not answer as it should at {where}", remedy=self._how_to_reach())
        self._facts[where] = _facts(where, version, info)
        return self._facts[where]

    def _address(self) -> str | Missing:
        """Return the address, or why there is none."""
        given = self._environment.get(self.variable)
        if given:
            kind, _, rest = given.partition("://")
            host = rest.rstrip("/").rpartition(":")[0]
            if kind == "unix":
                return rest
            if kind in {"tcp", "http"} and host in LOOPBACK:
                return rest.rstrip("/")
            why = f"{self.variable} is {given}, and containers of Kapelle work in directories of this machine"
            return Missing(why=why, remedy=f"Name a socket of this machine in {self.variable} (unix:///...).")
        there = [path for path in self.sockets() if path.is_socket() and os.access(path, os.R_OK | os.W_OK)]
        if there:
            return str(there[0])
        closed = [path for path in self.sockets() if path.exists()]
        if closed:
            remedy = "See that your user may, or start a Podman of your own, without root's rights."
            return Missing(why=f"{closed[0]} is there, and you may not use it", remedy=remedy)
        why = "is installed, and its service is not running" if self._installed() else "is not installed"
        return Missing(why=f"{self.title} {why}", remedy=self._how_to_reach())

    def _installed(self) -> bool:
        path = self._environment.get("PATH", os.defpath)
        return not self.programs or any(shutil.which(name, path=path) is not None for name in self.programs)

    def _how_to_reach(self) -> str:
        """Return what to do so that somebody answers."""
        how = self.start() if self._installed() else f"{self.install()} {self.start()}"
        given = self._environment.get(self.variable)
        if given:
            return f"{self.variable} names {given}: see that it answers there, or name another. {how}"
        return f"{how} Or name in {self.variable} where it answers."

    # --- Images -------------------------------------------------------------------------------------------------------

    async def provide(self, image: Image) -> None:
        async with self._making, self._docker() as docker:
            if await _unless_missing(docker.images.inspect(image.name)) is not None:
                return
            if image.lost:
                raise HostFailed(image.lost, remedy="Put it back as it was, or submit the run again.")
            by_hand = _by_hand(await asyncio.to_thread(self.facts))
            if image.recipe is None:
                await _fetch(docker, image, by_hand)
            else:
                await _build(docker, image, by_hand)
            if await _unless_missing(docker.images.inspect(image.name)) is None:
                raise HostFailed(f"the image {image.name} was made, and is not there", remedy=f"See `{by_hand} images`.")

    async def search_path(self, image: Image) -> str:
        async with self._docker() as docker:
            found = await _unless_missing(docker.images.inspect(image.name)) or {}
        config = cast("dict[str, Any]", found.get("Config") or {})
        lines = cast("list[str]", config.get("Env") or [])
        return next((line.removeprefix("PATH=") for line in lines if line.startswith("PATH=")), "")

    # --- Containers ---------------------------------------------------------------------------------------------------

    async def found(self, labels: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        wanted = [f"{name}={value}" for name, value in labels.items()]
        async with self._docker() as docker:
            there = await docker.containers.list(all=True, filters={"label": wanted})
        return {str(each["Names"][0]).lstrip("/"): dict(each["Labels"]) for each in there}

    async def first_process(self, name: str) -> int | None:
        async with self._docker() as docker:
            found = await _unless_missing(docker.containers.container(name).show())
        return None if found is None else int(found["State"].get("Pid") or 0) or None

    async def remove(self, name: str) -> bool:
        async with self._docker() as docker:
            container = docker.containers.container(name)
            found = await _unless_missing(container.show())
            # Others may be removing it just now: its runner, before it was killed.
            for _ in range(TRIES):
                if await _unless_missing(container.delete(force=True, v=True), CONFLICT) is None:
                    break
                if await _unless_missing(container.show()) is None:
                    break
                await asyncio.sleep(REST)
            else:
                raise HostFailed(f"the container {name} cannot be removed", remedy=f"See what holds it: inspect {name}.")
        return found is not None and bool(found["State"].get("OOMKilled"))

    async def pause(self, name: str) -> None:
        await self._hold(name, paused=True)

    async def unpause(self, name: str) -> None:
        await self._hold(name, paused=False)

    async def _hold(self, name: str, *, paused: bool) -> None:
        async with self._docker() as docker:
            container = docker.containers.container(name)
            if await _is_paused(container) is not (not paused):
                return
            try:
                await (container.pause() if paused else container.unpause())
            except _aiodocker().DockerError:
                # It may have ended meanwhile, or somebody else was quicker.
                if await _is_paused(container) is (not paused):
                    raise

    async def use(self, name: str) -> ContainerUse:
        async with self._docker() as docker:
            said: dict[str, Any] = (await docker.containers.container(name).stats(stream=False))[0]
        return ContainerUse(
            cpu_seconds=said["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
            memory=int(said["memory_stats"].get("usage", 0)),
            pids=int(said["pids_stats"].get("current", 0)),
        )

    @asynccontextmanager
    async def _docker(self) -> AsyncGenerator[Any]:
        """Give a client (``aiodocker.Docker``, which has no whole types); what goes wrong with it is a failure of this host.

        Raises:
            HostFailed: the runtime cannot be reached, or says no.
        """
        facts = await asyncio.to_thread(self.facts)
        # A tenth of a second and more, when it is first used.
        aiodocker = await asyncio.to_thread(_aiodocker)
        url = f"unix://{facts.address}" if facts.address.startswith("/") else f"http://{facts.address}"
        try:
            async with aiodocker.Docker(url=url, api_version=f"v{facts.api}") as docker:
                yield docker
        except (aiodocker.DockerError, aiodocker.DockerContainerError) as error:
            raise HostFailed(f"{facts.product}: {error.message}") from error
        except (OSError, TimeoutError) as error:
            raise HostFailed(f"{facts.product} cannot be reached: {error}", remedy=self._how_to_reach()) from error


class DockerRuntime(DockerApi):
    """Docker, of the system or of a person."""

    name = "docker"
    title = "Docker"
    variable = "DOCKER_HOST"
    programs = ("docker", "dockerd")

    def install(self) -> str:
        return "Install Docker (docs.docker.com/engine/install)."

    def start(self) -> str:
        by_root = "systemctl start docker" if self._systemd else "dockerd"
        return f"Start Docker, as root: `{by_root}`." if sys.platform == "linux" else super().start()

    def sockets(self) -> Iterator[Path]:
        yield Path("/var/run/docker.sock")
        yield Path.home() / ".docker" / "run" / "docker.sock"
        if folder := self._environment.get("XDG_RUNTIME_DIR"):
            yield Path(folder) / "docker.sock"

    def _ask(self) -> RuntimeFacts | Missing:
        found = super()._ask()
        if isinstance(found, RuntimeFacts) and found.rootless and "podman" not in found.product.lower():
            why = "Docker without root's rights cannot let you be yourself in a container"
            return Missing(why=why, remedy="Use Podman, which can.")
        return found


class PodmanRuntime(DockerApi):
    """Podman, as the service that speaks Docker's API."""

    name = "podman"
    title = "Podman"
    variable = "CONTAINER_HOST"
    programs = ("podman",)

    def install(self) -> str:
        how = "`apt-get install podman` or `dnf install podman`" if sys.platform == "linux" else "podman.io"
        return f"Install Podman ({how})."

    def start(self) -> str:
        if sys.platform != "linux":
            return "Start Podman: `podman machine start`."
        if self._systemd and not self._root:
            return "Start Podman: `systemctl --user start podman.socket`."
        own = SYSTEM_SOCKET
        if not self._root:
            own = Path(self._environment.get("XDG_RUNTIME_DIR") or Path.home()) / "podman" / "podman.sock"
        return (
            f"Start Podman: `mkdir -p {own.parent}; podman system service --time=0 unix://{own} &`; "
            f"then `export CONTAINER_HOST=unix://{own}`."
        )

    def sockets(self) -> Iterator[Path]:
        if folder := self._environment.get("XDG_RUNTIME_DIR"):
            yield Path(folder) / "podman" / "podman.sock"
        yield SYSTEM_SOCKET


def _aiodocker() -> Any:
    import aiodocker

    return aiodocker


def _facts(address: str, api: str, info: Mapping[str, Any]) -> RuntimeFacts:
    options = cast("list[str]", info.get("SecurityOptions") or [])
    driver = str(info.get("CgroupDriver") or "")
    rootless = bool(info.get("Rootless")) or any("rootless" in option for option in options)
    # Only with version 2 does the system hand cgroups to others than root.
    cannot = driver in {"", "none"} or (rootless and str(info.get("CgroupVersion")) == "1")
    return RuntimeFacts(
        product=f"{'Podman' if 'BuildahVersion' in info else 'Docker'} {info.get('ServerVersion', '')}",
        api=api,
        address=address,
        rootless=rootless,
        cgroup_driver=driver,
        limits=bool(info.get("MemoryLimit", True)) and not cannot,
    )


async def _unless_missing(asked: Awaitable[Any], *expected: int) -> dict[str, Any] | None:
    """Return what is answered (empty for nothing in particular, and for *expected*); None when there is no such thing."""
    from aiodocker import DockerError

    try:
        return cast("dict[str, Any]", await asked or {})
    except DockerError as error:
        # Podman says so with another status for one that is being removed.
        if error.status == NOT_FOUND or NO_SUCH in error.message.lower():
            return None
        if error.status in expected or (CONFLICT in expected and any(each in error.message.lower() for each in IN_BETWEEN)):
            return {}
        raise


async def _is_paused(container: Any) -> bool | None:
    """Say whether *container* is paused; None when it does not run, or is gone."""
    found = await _unless_missing(container.show())
    state: dict[str, Any] = found["State"] if found is not None else {}
    if state.get("Paused"):
        return True
    return False if state.get("Running") else None


def _by_hand(facts: RuntimeFacts) -> str:
    """Return the command, without what it is to do, by which a person asks the same runtime."""
    program = "podman --url" if facts.product.startswith("Podman") else "docker --host"
    return f"{program} {'unix' if facts.address.startswith('/') else 'tcp'}://{facts.address}"


async def _fetch(docker: Any, image: Image, by_hand: str) -> None:
    from aiodocker import DockerError

    try:
        said = cast("list[dict[str, Any]]", await docker.images.pull(image.name))
        problem = next((str(line["error"]) for line in said if line.get("error")), "")
    except DockerError as error:
        problem = error.message
    if problem:
        remedy = (
            f"Fetch it by hand: `{by_hand} pull {image.name}`, where the registry asks who you are after a `login`. "
            "One that is there is not fetched."
        )
        raise HostFailed(f"the image {image.name} cannot be fetched: {problem}", remedy=remedy)


async def _build(docker: Any, image: Image, by_hand: str) -> None:
    from aiodocker import DockerError

    said: list[str] = []
    stream = docker.images.build(
        fileobj=BytesIO(image.recipe or b""),
        path_dockerfile="Containerfile",
        tag=image.name,
        encoding="identity",
        stream=True,
    )
    problem = ""
    try:
        async for line in stream:
            problem = problem or str(line.get("error", ""))
            said.append(str(line.get("stream", "")))
    except DockerError as error:
        problem = error.message
    if problem:
        told = "".join([*said[-LAST_LINES:], problem])
        remedy = "See whether its disk is full: `df`."
        if image.containerfile:
            file, folder = shlex.quote(image.containerfile), shlex.quote(str(Path(image.containerfile).parent))
            remedy = (
                f"Try it by hand: `{by_hand} build --tag {image.name} --file {file} {folder}`; one that is there is not "
                "built again. Where the Containerfile must be mended, submit the run again afterwards."
            )
        raise HostFailed(f"the image {image.name} cannot be built:\n{told.strip()}", remedy=remedy)
