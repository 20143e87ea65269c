"""The container sandbox: a file system, processes, a network and limits of its own, made by Docker or Podman.

A process in it is a container, and a runner on the host that stands for it (``runner``): the host starts, feeds, watches and
ends the runner as it does any process, and finds it again after a crash. What is inside keeps its paths, as in bubblewrap.
"""

import hashlib
import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from kapelle.adapters.sandboxes.container import runner
from kapelle.adapters.sandboxes.container.groups import members, own_group, remove_empty, remove_group
from kapelle.adapters.sandboxes.container.mounts import as_docker
from kapelle.adapters.sandboxes.given import ETC, given, private
from kapelle.adapters.sandboxes.holding import GUARDING, POLLED, Holding
from kapelle.adapters.sandboxes.leading import Leading
from kapelle.adapters.sandboxes.programs import SYSTEM, needed
from kapelle.adapters.sandboxes.surroundings import PASSED_ON, environment
from kapelle.adapters.system import stopping
from kapelle.adapters.system.ownership import agent
from kapelle.adapters.system.processes import reference
from kapelle.core.agent import ProcessRef
from kapelle.core.containers import Image, ImagePolicy, Runtime, RuntimeFacts
from kapelle.core.errors import HostFailed, NotStill, ProgramMissing
from kapelle.core.frozen import replace
from kapelle.core.isolation import Isolation, Limit, Mount, MountKind, Place, ProcessLimits, Remains, SandboxCapabilities
from kapelle.core.ports import Launch

GROUP = "kapelle.adapters"
FIRST = ("podman", "docker")
"""The order in which runtimes are tried that nobody has named; those of plug-ins come after them."""
STORE, KEY = "kapelle.store", "kapelle.key"
"""Labels by which containers are found again."""
HELD_INSIDE = frozenset({Limit.MEMORY, Limit.CPUS, Limit.PIDS})
"""Limits that the runtime holds; the others hold with any."""
BLOCK = 512
"""Bytes: what POSIX counts the size of files in (``ulimit -f``)."""
OWN_PROCESSES = 2
"""How many processes are in each container beside those that it is for: the first one, and what looks at the lifeline."""
OF_A_MACHINE = frozenset(PASSED_ON) - {"LANG", "LC_ALL", "TZ"}
"""What of the operator's environment says where things are on this machine, and so means nothing in an image."""


class ContainerSandbox:
    """See ``core.ports.Sandbox``."""

    name = "container"

    def __init__(
        self, runtimes: Mapping[str, Runtime] | None = None, policies: Mapping[str, ImagePolicy] | None = None
    ) -> None:
        self._runtimes = _of_kind("runtime") if runtimes is None else runtimes
        self._policies = _of_kind("images") if policies is None else policies
        self._holding = Holding(groups=False, members=members, first=_first)
        self._images: dict[str, Image] = {}
        self._provided: set[tuple[str, str]] = set()

    @property
    def capabilities(self) -> SandboxCapabilities:
        """What it isolates here; the limits are those that the runtime can hold."""
        found = self._choose()
        limits, by = frozenset({Limit.DISK, Limit.FILES}), ""
        if found is not None:
            facts = found.facts()
            limits |= HELD_INSIDE if facts.limits else POLLED
            by = f"{facts.product} at {facts.address}{', without root' if facts.rootless else ''}"
            by += "" if facts.limits else f" and {GUARDING}"
        return SandboxCapabilities(files=True, network=True, pids=True, ends_all=True, limits=limits, images=True, by=by)

    def missing(self) -> str:
        if self._choose() is not None:
            return ""
        return "; or: ".join(found.missing() for found in self._wanted())

    def remedy(self) -> str:
        if self._choose() is not None:
            return ""
        return " Or: ".join(found.remedy() for found in self._wanted())

    def runtime(self) -> Runtime:
        """Return the runtime that containers are made by.

        Raises:
            HostFailed: there is none.
        """
        found = self._choose()
        if found is None:
            raise HostFailed(f"the sandbox container cannot be used: {self.missing()}", remedy=self.remedy())
        return found

    def _choose(self) -> Runtime | None:
        """Return the runtime that a person has named, or the first that answers; None when there is none."""
        return next((found for found in self._wanted() if not found.missing()), None)

    def _wanted(self) -> list[Runtime]:
        """Return the runtimes that a person has named, or all."""
        names = [*FIRST, *sorted(self._runtimes.keys() - set(FIRST))]
        there = [self._runtimes[name] for name in names if name in self._runtimes]
        return [found for found in there if found.chosen()] or there

    async def wrap(self, launch: Launch, place: Place) -> Launch:
        runtime = self.runtime()
        image = self._image(place.isolation.image or "host")
        await self._provide(runtime, image)
        own, way = given(launch, place), Leading(place.way)
        env = {**way.environment(), **await self._environment(runtime, image, launch, place)}
        folder, facts, name = _folder(place), runtime.facts(), _name(place)
        group = own_group(facts, place, name)
        programs = (launch.argv[0], *launch.programs, *way.programs())
        beside = OWN_PROCESSES + (1 if way.command() else 0)
        mounts = [*_programs(image, env, programs, place), *place.isolation.mounts, *own, *way.mounts()]
        mounts.append(Mount(kind=MountKind.READ, path=runner.OWN, source=str(folder / "own")))
        settings = {
            **_settings(mounts, folder, place.isolation.limits.disk),
            **(_limits(place, beside) if facts.limits else {}),
            "NetworkMode": "none" if place.isolation.network.closed else "host",
            **({} if group is None else {"CgroupParent": group["parent"]}),
            **runtime.changes(),
        }
        spec = {
            "address": facts.address,
            "name": name,
            "env": list(env),
            "stdin": launch.stdin,
            "lifeline": str(folder / "own" / "lifeline"),
            "owner": agent() or os.geteuid(),
            "ended": str(folder / "ended"),
            "first": str(_first(place)),
            "met": str(folder / "met"),
            "group": group,
            "create": {**_body(launch, place, image, way), "HostConfig": settings},
        }
        path = _write(folder, spec)
        argv = (sys.executable, "-I", "-S", "-B", runner.__file__, str(path))
        guarded = _guarded(place.isolation.limits, facts, beside)
        launch = replace(launch, argv=argv, env=tuple(env.items()))
        held = await self._holding.held(launch, replace(place, isolation=Isolation(limits=guarded)))
        # The runner writes the spool, which is none of what is limited.
        return replace(held, file_size=None)

    async def clear(self, place: Place) -> Remains:
        name, ended = _name(place), _folder(place) / "ended"
        try:
            # The runner came to its end and has removed all but this.
            said = ended.read_text(encoding="ascii").splitlines()
            ended.unlink()
        except FileNotFoundError:
            if not _folder(place).exists():
                return Remains()
            said = [*_met(place), *(["out of memory"] if await self.runtime().remove(name) else [])]
        (_folder(place) / "met").unlink(missing_ok=True)
        await remove_group(place, name)
        return _remains(said, await self._holding.cleared(place))

    async def met(self, place: Place) -> Remains:
        return _remains(_met(place), self._holding.met(place))

    async def sweep(self, store_id: str, keep: Collection[str]) -> Sequence[str]:
        runtime = self.runtime()
        found = await _of_nobody(runtime, store_id, keep)
        for name in found:
            await runtime.remove(name)
        remove_empty(store_id)
        return tuple(found.values())

    async def leftovers(self, store_id: str, keep: Collection[str]) -> Sequence[str]:
        return tuple((await _of_nobody(self.runtime(), store_id, keep)).values())

    async def inside(self, store_id: str, keys: Collection[str]) -> Sequence[ProcessRef]:
        # A container is not below its runner but below who watches it for the runtime; all of it is below its first process.
        runtime = self.runtime()
        there = await runtime.found({STORE: store_id})
        pids = [await runtime.first_process(name) for name, labels in there.items() if labels.get(KEY) in keys]
        return [found for pid in pids if pid is not None and (found := reference(pid)) is not None]

    async def freeze(self, place: Place, process: ProcessRef | None) -> None:
        del process  # whatever it is, it waits for the container
        # Without the folder there never was a container, nor need there be a runtime.
        if _folder(place).exists():
            runtime, name = self.runtime(), _name(place)
            if runtime.facts().limits:
                await runtime.pause(name)
            elif (first := await _first_process(runtime, name)) is not None:
                # Without control groups of its own a runtime pauses nothing.
                await stopping.stop(lambda: stopping.family(first))

    async def thaw(self, place: Place, process: ProcessRef | None) -> None:
        del process
        if _folder(place).exists():
            runtime, name = self.runtime(), _name(place)
            if runtime.facts().limits:
                await runtime.unpause(name)
            elif (first := await _first_process(runtime, name)) is not None:
                stopping.go_on(stopping.family(first))

    async def _environment(self, runtime: Runtime, image: Image, launch: Launch, place: Place) -> dict[str, str]:
        """Return the environment of the container; what says where things are on this machine means nothing in an image."""
        env = environment(launch, place)
        if image.host_programs:
            return env
        given_ones = dict(launch.env)
        env = {name: value for name, value in env.items() if name not in OF_A_MACHINE or name in given_ones}
        if place.isolation.path and "PATH" not in given_ones:
            env["PATH"] = os.pathsep.join((*place.isolation.path, await runtime.search_path(image) or os.defpath))
        return env

    def _image(self, wanted: str) -> Image:
        if wanted not in self._images:
            name, _, argument = wanted.partition(":")
            policy = self._policies.get(name)
            if policy is None:
                raise ProgramMissing(f"there is no image policy {name} here", remedy="Install the plug-in that brings it.")
            self._images[wanted] = policy.image(argument)
        return self._images[wanted]

    async def _provide(self, runtime: Runtime, image: Image) -> None:
        known = (runtime.facts().address, image.name)
        if known not in self._provided:
            await runtime.provide(image)
            self._provided.add(known)


async def _of_nobody(runtime: Runtime, store_id: str, keep: Collection[str]) -> dict[str, str]:
    """Return the keys of a store's containers by their names, without those that are kept."""
    there = await runtime.found({STORE: store_id})
    return {name: labels[KEY] for name, labels in there.items() if labels.get(KEY, "") not in keep}


def _of_kind(kind: str) -> dict[str, Any]:
    found = {entry.name: entry for entry in entry_points(group=GROUP) if entry.name.startswith(f"{kind}:")}
    return {name.removeprefix(f"{kind}:"): entry.load()() for name, entry in found.items()}


def _name(place: Place) -> str:
    """Return what the container of a process is called: no other of any store is called so."""
    whose = f"{place.store_id}\n{place.key}\n{place.folder}"
    return f"kapelle-{hashlib.sha256(whose.encode()).hexdigest()[:16]}"


async def _first_process(runtime: Runtime, name: str) -> int | None:
    """Return the process that everything in a container is below, or None when it does not run.

    Raises:
        NotStill: this machine does not see it.
    """
    pid = await runtime.first_process(name)
    # Where containers live in a machine of their own, their numbers are those of other processes here.
    if pid is not None and not runner.is_first(pid):
        raise NotStill(f"the processes of the container {name} are not to be seen from here")
    return pid


def _folder(place: Place) -> Path:
    return Path(place.folder) / "container"


def _met(place: Place) -> list[str]:
    """Return what the runner has written down so far."""
    try:
        return (_folder(place) / "met").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return []


def _remains(said: Collection[str], held: Remains) -> Remains:
    """Return what is to be said: what the runner *said*, and what *held* the rest."""
    return replace(held, out_of_memory="out of memory" in said, full=Limit.PIDS if "pids" in said else held.full)


def _first(place: Place) -> Path:
    """Return the file that names the first process of a container, while it runs."""
    return _folder(place) / "first"


def _guarded(limits: ProcessLimits, facts: RuntimeFacts, beside: int) -> ProcessLimits:
    """Return what a guard is to hold: room on the disk, and what else the runtime does not."""
    found = ProcessLimits(disk=limits.disk)
    if facts.limits:
        return found
    return replace(found, memory=limits.memory, pids=None if limits.pids is None else limits.pids + beside)


def _programs(image: Image, env: Mapping[str, str], programs: tuple[str, ...], place: Place) -> list[Mount]:
    """Return the mounts of the machine's programs, and of the little of /etc that they ask for, where the image has none."""
    if not image.host_programs:
        paths = needed(os.pathsep.join(place.isolation.path), (), private(place))
        return [Mount(kind=MountKind.READ, path=path) for path in paths]
    system = [path for path in SYSTEM if Path(path).is_dir() and not Path(path).is_symlink()]
    etc = [f"/etc/{name}" for name in ETC if Path("/etc", name).exists()]
    paths = (*system, *etc, *needed(env.get("PATH", os.defpath), programs, private(place)))
    return [Mount(kind=MountKind.READ, path=path) for path in paths]


def _argv(launch: Launch, image: Image, way: Leading) -> tuple[str, ...]:
    """Return the command as the image has it: what has a path on this machine is found by its name there."""
    if image.host_programs:
        return (*way.command(), *launch.argv)
    leading = ("python3", *way.command()[1:]) if way.command() else ()
    program, *arguments = launch.argv
    if program == sys.executable:
        remedy = "Say `image: host` for agents of `program: python`: they run in Kapelle's own Python."
        raise HostFailed(f"{program} is not in the image {image.name}", remedy=remedy)
    # A name that is no path stays as it is.
    return (*leading, Path(program).name if Path(program).is_absolute() else program, *arguments)


def _body(launch: Launch, place: Place, image: Image, way: Leading) -> dict[str, object]:
    """Return what Docker's API is asked to make; the environment is put in by the runner."""
    who, limits = agent(), place.isolation.limits
    blocks = "" if limits.disk is None else str(max(limits.disk // BLOCK, 1))
    return {
        "Image": image.name,
        "Entrypoint": ["/bin/sh", f"{runner.OWN}/init", f"{runner.OWN}/lifeline", str(limits.files or ""), blocks],
        "Cmd": list(_argv(launch, image, way)),
        "User": f"{who}:{who}" if who is not None else f"{os.geteuid()}:{os.getegid()}",
        "WorkingDir": launch.cwd,
        "Labels": {STORE: place.store_id, KEY: place.key},
        "OpenStdin": launch.stdin,
        "StdinOnce": launch.stdin,
        "AttachStdin": launch.stdin,
        "AttachStdout": True,
        "AttachStderr": True,
    }


def _settings(mounts: list[Mount], folder: Path, room: int | None) -> dict[str, object]:
    structured, lines = as_docker(mounts, folder / "hidden")
    temporary = "mode=1777" if room is None else f"mode=1777,size={room}"
    return {
        "Mounts": structured,
        "Binds": lines,
        "Tmpfs": {"/tmp": temporary, "/var/tmp": temporary},  # noqa: S108  # its own, and empty
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        # Without labels: the files are those of the machine, and a policy of the machine would keep them from it.
        "SecurityOpt": ["no-new-privileges", "label=disable"],
        "IpcMode": "private",
        **({} if room is None else {"ShmSize": room}),
        # What it says goes to the spool, and there alone.
        "LogConfig": {"Type": "none"},
    }


def _limits(place: Place, beside: int) -> dict[str, object]:
    limits, found = place.isolation.limits, dict[str, object]()
    if limits.memory is not None:
        found |= {"Memory": limits.memory, "MemorySwap": limits.memory}
    if limits.cpus is not None:
        found["NanoCpus"] = int(limits.cpus * 1e9)
    if limits.pids is not None:
        found["PidsLimit"] = limits.pids + beside
    return found


def _write(folder: Path, spec: Mapping[str, object]) -> Path:
    """Write what the runner is to do, and the container's first program; return where."""
    text = json.dumps(spec, sort_keys=True)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    try:
        (folder / "own").mkdir(parents=True, exist_ok=True, mode=0o755)
        (folder / "own").chmod(0o755)
        init = folder / "own" / "init"
        # An earlier one cannot be written any more.
        init.unlink(missing_ok=True)
        init.write_text(runner.INIT, encoding="utf-8")
        init.chmod(0o444)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
    except OSError as error:
        raise HostFailed(f"{error.filename} cannot be prepared for the sandbox: {error.strerror}") from error
    return path
