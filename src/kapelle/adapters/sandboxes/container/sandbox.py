"""The container sandbox: a file system, processes, a network and limits of its own, made by Docker or Podman.

A process in it is a container, and a runner on the host that stands for it (``runner``): the host starts, feeds, watches and
ends the runner as it does any process, and finds it again after a crash. What is inside keeps its paths, as in bubblewrap.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from kapelle.adapters.sandboxes.container import runner
from kapelle.adapters.sandboxes.container.mounts import as_docker
from kapelle.adapters.sandboxes.given import ETC, given
from kapelle.adapters.sandboxes.programs import SYSTEM, needed
from kapelle.adapters.sandboxes.surroundings import PASSED_ON, environment
from kapelle.adapters.system.ownership import agent
from kapelle.core.containers import Image, ImagePolicy, Runtime
from kapelle.core.errors import HostFailed, ProgramMissing
from kapelle.core.ports import Launch, Mount, MountKind, Place, SandboxCapabilities

GROUP = "kapelle.adapters"
FIRST = ("podman", "docker")
"""The order in which runtimes are tried that nobody has named; those of plug-ins come after them."""
OWN = "/run/kapelle-container"
"""Where a container finds its first program and its lifeline."""
STORE, KEY = "kapelle.store", "kapelle.key"
"""Labels by which containers are found again."""
OF_A_MACHINE = frozenset(PASSED_ON) - {"LANG", "LC_ALL", "TZ"}
"""What of the operator's environment says where things are on this machine, and so means nothing in an image."""


class ContainerSandbox:
    """See ``core.ports.Sandbox``."""

    name = "container"
    capabilities = SandboxCapabilities(files=True, pids=True)

    def __init__(
        self, runtimes: Mapping[str, Runtime] | None = None, policies: Mapping[str, ImagePolicy] | None = None
    ) -> None:
        self._runtimes = _of_kind("runtime") if runtimes is None else runtimes
        self._policies = _of_kind("images") if policies is None else policies
        self._provided: set[tuple[str, str]] = set()

    def missing(self) -> str:
        found = self._choose()
        return found if isinstance(found, str) else ""

    def runtime(self) -> Runtime:
        """Return the runtime that containers are made by.

        Raises:
            HostFailed: there is none.
        """
        found = self._choose()
        if isinstance(found, str):
            raise HostFailed(f"the sandbox container cannot be used: {found}")
        return found

    def _choose(self) -> Runtime | str:
        """Return the runtime that a person has named, or the first that answers; or why there is none."""
        names = [*FIRST, *sorted(self._runtimes.keys() - set(FIRST))]
        there = [self._runtimes[name] for name in names if name in self._runtimes]
        named = [found for found in there if found.chosen()] or there
        problems = {found.name: found.missing() for found in named}
        return next((found for found in named if not problems[found.name]), "; or: ".join(problems.values()))

    async def wrap(self, launch: Launch, place: Place) -> Launch:
        runtime = self.runtime()
        image = self._image("host")
        await self._provide(runtime, image)
        own = given(launch, place)
        env = environment(launch, place)
        if not image.host_programs:
            env = {name: value for name, value in env.items() if name not in OF_A_MACHINE or name in dict(launch.env)}
        folder = _folder(place)
        lifeline, remains = folder / "own" / "lifeline", folder / "remains"
        who = agent() or os.geteuid()
        mounts = [*_programs(image, env, launch), *own, Mount(kind=MountKind.READ, path=OWN, source=str(folder / "own"))]
        spec = {
            "address": runtime.facts().address,
            "name": _name(place),
            "env": list(env),
            "stdin": launch.stdin,
            "lifeline": str(lifeline),
            "owner": who,
            "remains": str(remains),
            "create": _body(launch, place, image, mounts, folder, runtime.changes()),
        }
        path = _write(folder, spec)
        argv = (sys.executable, "-I", "-S", "-B", runner.__file__, str(path))
        return replace(launch, argv=argv, env=tuple(env.items()))

    def _image(self, wanted: str) -> Image:
        name, _, argument = wanted.partition(":")
        policy = self._policies.get(name)
        if policy is None:
            raise ProgramMissing(f"there is no image policy {name} here", remedy="Install the plug-in that brings it.")
        return policy.image(argument)

    async def _provide(self, runtime: Runtime, image: Image) -> None:
        known = (runtime.facts().address, image.name)
        if known not in self._provided:
            await runtime.provide(image)
            self._provided.add(known)


def _of_kind(kind: str) -> dict[str, Any]:
    found = {entry.name: entry for entry in entry_points(group=GROUP) if entry.name.startswith(f"{kind}:")}
    return {name.removeprefix(f"{kind}:"): entry.load()() for name, entry in found.items()}


def _name(place: Place) -> str:
    """Return what the container of a process is called: no other of any store is called so."""
    whose = f"{place.folder}"
    return f"kapelle-{hashlib.sha256(whose.encode()).hexdigest()[:16]}"


def _folder(place: Place) -> Path:
    return Path(place.folder) / "container"


def _programs(image: Image, env: Mapping[str, str], launch: Launch) -> list[Mount]:
    """Return the mounts of the machine's programs, and of the little of /etc that they ask for, where the image has none."""
    if not image.host_programs:
        return []
    system = [path for path in SYSTEM if Path(path).is_dir() and not Path(path).is_symlink()]
    etc = [f"/etc/{name}" for name in ETC if Path("/etc", name).exists()]
    paths = (*system, *etc, *needed(env.get("PATH", os.defpath), launch.argv[0]))
    return [Mount(kind=MountKind.READ, path=path) for path in paths]


def _argv(launch: Launch, image: Image) -> tuple[str, ...]:
    """Return the command as the image has it: what has a path on this machine is found by its name there."""
    program, *arguments = launch.argv
    if image.host_programs or not Path(program).is_absolute():
        return launch.argv
    if program == sys.executable:
        remedy = "Say `image: host` for agents of `program: python`: they run in Kapelle's own Python."
        raise HostFailed(f"{program} is not in the image {image.name}", remedy=remedy)
    return (Path(program).name, *arguments)


def _body(
    launch: Launch, place: Place, image: Image, mounts: list[Mount], folder: Path, changes: Mapping[str, object]
) -> dict[str, object]:
    """Return what Docker's API is asked to make; the environment is put in by the runner."""
    structured, lines = as_docker(mounts, folder / "hidden")
    who = agent() or os.geteuid()
    return {
        "Image": image.name,
        "Entrypoint": ["/bin/sh", f"{OWN}/init", f"{OWN}/lifeline"],
        "Cmd": list(_argv(launch, image)),
        "User": f"{who}:{agent() or os.getegid()}",
        "WorkingDir": launch.cwd,
        "Hostname": "sandbox",
        "Labels": {STORE: "", KEY: ""},
        "OpenStdin": launch.stdin,
        "StdinOnce": launch.stdin,
        "AttachStdin": launch.stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            "Mounts": structured,
            "Binds": lines,
            "Tmpfs": {"/tmp": "mode=1777", "/var/tmp": "mode=1777"},  # noqa: S108  # its own, and empty
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            # Without labels: the files are those of the machine, and a policy of the machine would keep them from it.
            "SecurityOpt": ["no-new-privileges", "label=disable"],
            "NetworkMode": "host",
            "IpcMode": "private",
            # What it says goes to the spool, and there alone.
            "LogConfig": {"Type": "none"},
            **changes,
        },
    }


def _write(folder: Path, spec: dict[str, object]) -> Path:
    """Write what the runner is to do, and the container's first program; return where."""
    text = json.dumps(spec, sort_keys=True)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    try:
        (folder / "own").mkdir(parents=True, exist_ok=True, mode=0o755)
        (folder / "own").chmod(0o755)
        init = folder / "own" / "init"
        init.write_text(runner.INIT, encoding="utf-8")
        init.chmod(0o444)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
    except OSError as error:
        raise HostFailed(f"{error.filename} cannot be prepared for the sandbox: {error.strerror}") from error
    return path
