"""Docker and Podman, by the API that both speak: where they answer, and what is asked of them beside the hot path.

The hot path, a container's life, is the runner's; what is here needs aiodocker, which is loaded when it is first used.
"""

import asyncio
import os
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

KNOWN_FOR = 10.0
"""Seconds for which what was found out of a runtime is believed: it may be started, or ended, at any time."""
PATIENCE = 5.0
"""Seconds that an answer about the runtime itself may take."""
FOUND, NOT_FOUND, CONFLICT = 200, 404, 409
NO_SUCH = "no such container"
IMPROPER = "container state improper"
"""What Podman says when a container became another while it was looked at: one that was paused ends when it goes on."""
TRIES, REST = 100, 0.05
"""How often it is tried to remove a container that is being removed by somebody else; seconds between."""
LAST_LINES = 20
"""How much of what a build said is told when it fails."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


class DockerApi(ABC):
    """A runtime that speaks Docker's API; see ``core.containers.Runtime``. A plug-in's may be made from this one."""

    name = ""
    title = ""
    variable = ""
    """The variable of the environment that says where it answers."""
    remedy = ""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._known: tuple[float, RuntimeFacts | str] | None = None
        self._facts: dict[str, RuntimeFacts] = {}
        """By address: asking for them takes Podman a quarter of a second, and they do not change while it runs."""
        self._making = asyncio.Lock()

    @abstractmethod
    def sockets(self) -> Iterator[Path]:
        """Yield where its socket may be, unless a person says it."""

    def chosen(self) -> bool:
        return bool(self._environment.get(self.variable))

    def missing(self) -> str:
        found = self._look()
        return found if isinstance(found, str) else ""

    def facts(self) -> RuntimeFacts:
        found = self._look()
        if isinstance(found, str):
            raise HostFailed(found, remedy=self.remedy)
        return found

    def changes(self) -> Mapping[str, object]:
        # Without root's rights, who started it is root inside, and anybody else inside is nobody's outside: unless it is said.
        return {"UsernsMode": "keep-id"} if self.facts().rootless else {}

    def _look(self) -> RuntimeFacts | str:
        now = time.monotonic()
        if self._known is None or now - self._known[0] > KNOWN_FOR:
            self._known = now, self._ask()
        return self._known[1]

    def _ask(self) -> RuntimeFacts | str:
        address = self._address()
        if isinstance(address, str):
            return address
        where = str(address[0])
        api = Api(where, patience=PATIENCE)
        try:
            version = api.version()
            if where in self._facts:
                return self._facts[where]
            status, info = api.ask("GET", "/info")
        except Failed as error:
            self._facts.pop(where, None)
            return f"{self.title} does not answer: {error}; {self.remedy}"
        if status != FOUND:
            return f"{self.title} does not answer as it should at {where}; {self.remedy}"
        self._facts[where] = _facts(where, version, info)
        return self._facts[where]

    def _address(self) -> tuple[str] | str:
        """Return the address in a tuple, or why there is none."""
        given = self._environment.get(self.variable)
        if given:
            kind, _, rest = given.partition("://")
            host = rest.rstrip("/").rpartition(":")[0]
            if kind == "unix":
                return (rest,)
            if kind in {"tcp", "http"} and host in LOOPBACK:
                return (rest.rstrip("/"),)
            return (
                f"{self.variable} is {given}, and containers of Kapelle work in directories of this machine: "
                f"name a socket of this machine (unix:///...)"
            )
        there = [path for path in self.sockets() if path.is_socket() and os.access(path, os.R_OK | os.W_OK)]
        if there:
            return (str(there[0]),)
        closed = [path for path in self.sockets() if path.exists()]
        if closed:
            return f"{closed[0]} is there, and you may not use it; see that your user may, or start Podman's for yourself"
        return f"{self.title} is not running, or not here; {self.remedy}"

    # --- Images -------------------------------------------------------------------------------------------------------

    async def provide(self, image: Image) -> None:
        async with self._making, self._docker() as docker:
            if await _unless_missing(docker.images.inspect(image.name)) is not None:
                return
            if image.lost:
                raise HostFailed(image.lost, remedy="Put it back as it was, or submit the run again.")
            if image.recipe is None:
                await docker.images.pull(image.name)
            else:
                await _build(docker, image)
            if await _unless_missing(docker.images.inspect(image.name)) is None:
                raise HostFailed(f"the image {image.name} was made, and is not there")

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
            raise HostFailed(f"{facts.product} cannot be reached: {error}", remedy=self.remedy) from error


class DockerRuntime(DockerApi):
    """Docker, of the system or of a person."""

    name = "docker"
    title = "Docker"
    variable = "DOCKER_HOST"
    remedy = "install and start Docker (docs.docker.com/engine/install), or name its socket in DOCKER_HOST"

    def sockets(self) -> Iterator[Path]:
        yield Path("/var/run/docker.sock")
        yield Path.home() / ".docker" / "run" / "docker.sock"
        if folder := self._environment.get("XDG_RUNTIME_DIR"):
            yield Path(folder) / "docker.sock"

    def missing(self) -> str:
        if problem := super().missing():
            return problem
        if self.facts().rootless and "podman" not in self.facts().product.lower():
            return "Docker without root's rights cannot let you be yourself in a container; use Podman, which can"
        return ""


class PodmanRuntime(DockerApi):
    """Podman, as the service that speaks Docker's API."""

    name = "podman"
    title = "Podman"
    variable = "CONTAINER_HOST"
    remedy = "install Podman and start `systemctl --user start podman.socket`, or name its socket in CONTAINER_HOST"

    def sockets(self) -> Iterator[Path]:
        if folder := self._environment.get("XDG_RUNTIME_DIR"):
            yield Path(folder) / "podman" / "podman.sock"
        yield Path("/run/podman/podman.sock")


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
        if error.status in expected or (CONFLICT in expected and IMPROPER in error.message.lower()):
            return {}
        raise


async def _is_paused(container: Any) -> bool | None:
    """Say whether *container* is paused; None when it does not run, or is gone."""
    found = await _unless_missing(container.show())
    state: dict[str, Any] = found["State"] if found is not None else {}
    if state.get("Paused"):
        return True
    return False if state.get("Running") else None


async def _build(docker: Any, image: Image) -> None:
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
        raise HostFailed(f"the image {image.name} cannot be built:\n{told.strip()}")
