"""Containers of a real Podman and a real Docker: what is left of them, what they meet, what they are made from."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest

from kapelle.adapters.hosts.local import LocalHost
from kapelle.adapters.sandboxes.container import runner
from kapelle.adapters.sandboxes.container.groups import PREFIX, ROOT
from kapelle.adapters.sandboxes.container.images import ContainerfileImages, NamedImages
from kapelle.adapters.sandboxes.container.sandbox import ContainerSandbox
from kapelle.adapters.system import processes
from kapelle.core.containers import Image
from kapelle.core.errors import HostFailed
from kapelle.core.isolation import Isolation, Limit, Place, ProcessLimits, Remains
from kapelle.core.ports import Ended
from kapelle.testing.conformance.processes import Stage, Started, read_to_end, read_until

pytestmark = pytest.mark.usefixtures("runtime")
STORE = "store-of-the-tests"


@cache
def one(runtime: str) -> ContainerSandbox:
    assert runtime
    return ContainerSandbox()


@pytest.fixture
def sandbox(runtime: str) -> ContainerSandbox:
    return one(runtime)


@pytest.fixture
async def stage(tmp_path: Path, sandbox: ContainerSandbox) -> AsyncIterator[Stage]:
    (tmp_path / "workspace").mkdir()
    stage = Stage(host=LocalHost(), folder=tmp_path / "workspace")
    yield stage
    await stage.clear()
    await sandbox.sweep(STORE, ())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(
        workspace=str(tmp_path / "workspace"),
        folder=str(tmp_path / "folder"),
        home=str(tmp_path / "home"),
        store_id=STORE,
        key="a-1",
    )


def limited(place: Place, **limits: float) -> Place:
    return replace(place, isolation=Isolation(limits=ProcessLimits(**limits)))


async def start(sandbox: ContainerSandbox, stage: Stage, place: Place, script: str, *arguments: str) -> Started:
    return await stage.start_launch(await sandbox.wrap(stage.launch(script, *arguments), place), Path(place.folder))


async def there(sandbox: ContainerSandbox) -> list[str]:
    return [labels["kapelle.key"] for labels in (await sandbox.runtime().found({"kapelle.store": STORE})).values()]


def groups() -> list[Path]:
    return list(ROOT.glob(f"*/{PREFIX}{STORE}-*"))


# --- What is left ---


async def test_nothing_is_left_of_a_container_that_has_ended(sandbox: ContainerSandbox, stage: Stage, place: Place) -> None:
    found = await start(sandbox, stage, place, "echo good")
    assert await read_to_end(stage.host, found) == (b"good\n", Ended(exit_code=0))
    assert await there(sandbox) == []
    assert await sandbox.clear(place) == Remains()
    assert await sandbox.clear(place) == Remains()


async def test_what_asks_it_to_end_is_passed_on(sandbox: ContainerSandbox, stage: Stage, place: Place) -> None:
    script = 'trap "echo bye; exit 3" TERM; echo up; while :; do sleep 0.02; done'
    found = await start(sandbox, stage, place, script)
    await read_until(stage.host, found, b"up\n")
    processes.signal_group(found.process, signal.SIGTERM)
    assert await read_to_end(stage.host, found) == (b"up\nbye\n", Ended(exit_code=3))


async def test_when_the_runner_is_killed_everything_inside_ends_and_clear_removes_it(
    sandbox: ContainerSandbox, stage: Stage, place: Place
) -> None:
    lifeline = stage.lifeline()
    script = 'exec 9>"$1"; echo up >&9; echo up; trap "" TERM HUP INT; setsid sleep 1000 & sleep 1000'
    found = await start(sandbox, stage, place, script, lifeline.path)
    await read_until(stage.host, found, b"up\n")
    await stage.host.end(found.process, found.folder, grace=timedelta(0))
    assert await lifeline.cut() == "up\n"
    assert await there(sandbox) == ["a-1"]
    await sandbox.clear(place)
    assert await there(sandbox) == []


async def test_a_container_that_was_made_and_never_started_is_found(
    sandbox: ContainerSandbox, stage: Stage, place: Place, tmp_path: Path
) -> None:
    code = f"import json, sys; sys.path.insert(0, {os.path.dirname(runner.__file__)!r}); import runner"  # noqa: PTH120
    code += "; c = runner.Container(json.load(open(sys.argv[1]))); open(c._spec['lifeline'], 'w'); c._make()"

    for key in ("a-1", "a-2", "a-3"):
        wrapped = await sandbox.wrap(stage.launch("true"), replace(place, key=key))
        made = replace(wrapped, argv=(sys.executable, "-c", code, wrapped.argv[-1]))
        assert (await stage.host.run(made, str(tmp_path / f"{key}.log"))).exit_code == 0
    assert sorted(await there(sandbox)) == ["a-1", "a-2", "a-3"]
    await sandbox.clear(place)
    assert await sandbox.sweep("another store", ()) == ()
    assert list(await sandbox.sweep(STORE, {"a-2"})) == ["a-3"]
    assert await there(sandbox) == ["a-2"]
    # And one of that name does not stand in the way of the next.
    found = await start(sandbox, stage, replace(place, key="a-2"), "echo good")
    assert (await read_to_end(stage.host, found))[0] == b"good\n"
    assert await there(sandbox) == []


async def test_what_cannot_be_started_says_why(sandbox: ContainerSandbox, stage: Stage, place: Place) -> None:
    launch = replace(stage.launch(""), argv=("no-such-program",))
    found = await stage.start_launch(await sandbox.wrap(launch, place), Path(place.folder))
    assert (await read_to_end(stage.host, found))[1] == Ended(exit_code=127)
    assert "no-such-program" in (Path(place.folder) / "stderr").read_text()
    missing = replace(place, isolation=Isolation(image="name:localhost/kapelle-none:1"))
    with pytest.raises(HostFailed, match="kapelle-none"):
        await sandbox.wrap(stage.launch("true"), missing)


# --- Limits ---


def left_here() -> list[Path]:
    return list(Path().glob("oom"))


async def test_out_of_memory_is_told_and_its_groups_are_removed(sandbox: ContainerSandbox, stage: Stage, place: Place) -> None:
    bounded = limited(place, memory=64 << 20)
    found = await start(sandbox, stage, bounded, "exec python3 -c 'import signal; x = bytearray(200 << 20); signal.pause()'")
    assert (await read_to_end(stage.host, found))[1] == Ended(exit_code=137)
    remains = await sandbox.clear(bounded)
    # Without control groups it is a guard that ends it.
    assert remains.out_of_memory is sandbox.runtime().facts().limits
    assert remains.out_of_memory or remains.full is Limit.MEMORY
    # It leaves a file where its service was started: that is nowhere of ours.
    assert left_here() == []
    assert await sandbox.clear(bounded) == Remains()
    assert groups() == []


@pytest.fixture
def with_groups(sandbox: ContainerSandbox) -> None:
    """See that the runtime has control groups: Podman without root's rights has none of version 1."""
    if not sandbox.runtime().facts().limits:
        pytest.skip("this runtime has no control groups: it holds no limits, pauses nothing and says of nobody what they use")


@pytest.mark.usefixtures("with_groups")
async def test_limits_hold(sandbox: ContainerSandbox, stage: Stage, place: Place) -> None:
    assert {Limit.MEMORY, Limit.CPUS, Limit.PIDS, Limit.FILES} <= sandbox.capabilities.limits
    bounded = limited(place, pids=20, files=64, cpus=0.5)
    script = """
        ulimit -n
        count=0; for each in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do
            sleep 1000 2>/dev/null & count=$((count + 1)); done 2>/dev/null; echo $count
    """
    found = await start(sandbox, stage, bounded, script)
    lines = (await read_to_end(stage.host, found))[0].split()
    assert lines[0] == b"64"
    assert b"25" not in lines


# --- Looking at it and holding it ---


@pytest.mark.usefixtures("with_groups")
async def test_a_container_is_paused_and_goes_on_and_says_what_it_uses(
    sandbox: ContainerSandbox, stage: Stage, place: Place
) -> None:
    found = await start(sandbox, stage, place, "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.01; done")
    data = await read_until(stage.host, found, b"3\n")
    runtime = sandbox.runtime()
    ((name, labels),) = (await runtime.found({"kapelle.store": STORE, "kapelle.key": "a-1"})).items()
    assert labels["kapelle.store"] == STORE
    used = await runtime.use(name)
    assert 0 < used.memory < 1 << 30
    assert used.pids >= 2
    assert used.cpu_seconds >= 0
    await runtime.pause(name)
    first = (await runtime.use(name)).cpu_seconds
    assert (await runtime.use(name)).cpu_seconds == first
    await runtime.unpause(name)
    await read_until(stage.host, found, f"\n{len(data.split()) + 40}\n".encode())
    assert await runtime.remove(name) is False
    assert await runtime.remove(name) is False
    await runtime.pause(name)
    await runtime.unpause(name)


async def test_a_place_is_frozen_and_thawed_and_once_more_changes_nothing(
    sandbox: ContainerSandbox, stage: Stage, place: Place
) -> None:
    await sandbox.freeze(place, None)
    found = await start(sandbox, stage, place, "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.01; done")
    await sandbox.thaw(place, None)
    data = await read_until(stage.host, found, b"3\n")
    await sandbox.freeze(place, None)
    runtime = sandbox.runtime()
    ((name, _),) = (await runtime.found({"kapelle.store": STORE, "kapelle.key": "a-1"})).items()
    first = (await runtime.use(name)).cpu_seconds
    await sandbox.freeze(place, None)
    assert (await runtime.use(name)).cpu_seconds == first
    # Whoever leads by now.
    other = ContainerSandbox()
    await other.thaw(place, None)
    await other.thaw(place, None)
    await read_until(stage.host, found, f"\n{len(data.split()) + 40}\n".encode())
    await stage.host.end(found.process, found.folder, grace=timedelta(seconds=0.1))
    for each in (sandbox.freeze, sandbox.thaw):
        await each(place, None)
    await sandbox.clear(place)
    for each in (sandbox.freeze, sandbox.thaw):
        await each(place, None)


async def test_what_is_frozen_can_be_ended(sandbox: ContainerSandbox, stage: Stage, place: Place) -> None:
    lifeline = stage.lifeline()
    found = await start(sandbox, stage, place, 'exec 9>"$1"; echo up >&9; echo up; sleep 1000', lifeline.path)
    await read_until(stage.host, found, b"up\n")
    await sandbox.freeze(place, None)
    await stage.host.end(found.process, found.folder, grace=timedelta(0))
    await sandbox.clear(place)
    assert await lifeline.cut() == "up\n"
    assert await there(sandbox) == []


# --- What it is made from ---


def own_image(folder: Path) -> Path:
    """Write a Containerfile of an image that needs no registry: a shell, and what it is linked to."""
    shell = shutil.which("sh") or "/bin/sh"
    linked = subprocess.run(["ldd", os.path.realpath(shell)], check=True, capture_output=True, text=True).stdout
    files = [word for word in linked.split() if word.startswith("/")]
    for path in (*files, "/bin/sh", "/bin/cat"):
        goal = folder / "root" / path.lstrip("/")
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(path), goal)
    (folder / "root" / "tools").mkdir()
    tool = folder / "root" / "tools" / "agent"
    tool.write_text('#!/bin/sh\necho "the image has its own $1"\n')
    tool.chmod(0o755)
    written = folder / "Containerfile"
    written.write_text("FROM scratch\nCOPY root/ /\nENV PATH=/tools:/bin FROM_IMAGE=yes\n")
    return written


async def test_an_image_of_a_containerfile_is_built_once_and_has_its_own_programs(
    sandbox: ContainerSandbox, stage: Stage, place: Place, tmp_path: Path
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    settled = ContainerfileImages().settle(str(own_image(context)), "/")
    within = replace(place, isolation=Isolation(image=f"containerfile:{settled}"))
    host_only = tmp_path / "bin" / "agent"
    launch = replace(stage.launch(""), argv=(str(host_only), "agent"), env=(("GIVEN", "x"),))
    found = await stage.start_launch(await sandbox.wrap(launch, within), Path(place.folder))
    assert (await read_to_end(stage.host, found))[0] == b"the image has its own agent\n"

    # What was built is used although it could not be built again, by another leader, too.
    (context / "root" / "tools" / "agent").write_text("changed")
    script = 'echo "$PATH $FROM_IMAGE $GIVEN"; cat /etc/passwd; echo x > made; echo x > /etc/made'
    launch = replace(stage.launch(script), env=(("GIVEN", "x"),))
    found = await stage.start_launch(await ContainerSandbox().wrap(launch, within), tmp_path / "again")
    lines = (await read_to_end(stage.host, found))[0].decode().splitlines()
    assert lines[0] == "/tools:/bin yes x"
    assert lines[2].startswith("agent:")
    assert (Path(place.workspace) / "made").exists()

    changed = ContainerfileImages().image(settled)
    await sandbox.runtime().provide(changed)
    assert await sandbox.runtime().search_path(changed) == "/tools:/bin"
    with pytest.raises(HostFailed, match="was changed since"):
        await sandbox.runtime().provide(replace(changed, name="localhost/kapelle:gone"))


async def test_a_build_that_fails_says_where(sandbox: ContainerSandbox, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM scratch\nCOPY not-there /\n")
    policy = ContainerfileImages()
    image = policy.image(policy.settle("Containerfile", str(tmp_path)))
    with pytest.raises(HostFailed, match=r"(?s)cannot be built:.*not-there") as refused:
        await sandbox.runtime().provide(image)
    assert f"{client(sandbox)} build --tag {image.name}" in refused.value.advice
    (tmp_path / "Containerfile").write_text("FROM scratch\nLABEL a=b\n")
    assert by_hand(refused.value) == 0
    # What a person has made by hand is taken as it is.
    await sandbox.runtime().provide(image)


def client(sandbox: ContainerSandbox) -> str:
    """Return the command by which a person asks the same runtime."""
    option = {"podman": "--url", "docker": "--host"}[sandbox.runtime().name]
    return f"{sandbox.runtime().name} {option} unix://{sandbox.runtime().facts().address}"


def by_hand(error: HostFailed) -> int:
    """Do what the advice says, with the programs of the machine; return the exit code."""
    command = error.advice.split("`")[1]
    return subprocess.run(shlex.split(command), check=False, capture_output=True).returncode


async def test_an_image_that_cannot_be_fetched_says_how_to_fetch_it(sandbox: ContainerSandbox) -> None:
    image = NamedImages().image("localhost:1/no/such:1")
    with pytest.raises(HostFailed, match=f"the image {image.name} cannot be fetched: ") as refused:
        await sandbox.runtime().provide(image)
    assert f"`{client(sandbox)} pull {image.name}`" in refused.value.advice


async def test_kapelles_own_python_is_in_no_image(
    sandbox: ContainerSandbox, stage: Stage, place: Place, tmp_path: Path
) -> None:
    (tmp_path / "Containerfile").write_text("FROM scratch\nLABEL a=b\n")
    settled = ContainerfileImages().settle("Containerfile", str(tmp_path))
    within = replace(place, isolation=Isolation(image=f"containerfile:{settled}"))
    with pytest.raises(HostFailed) as refused:
        await sandbox.wrap(replace(stage.launch(""), argv=(sys.executable, "-m", "x")), within)
    assert "image: host" in refused.value.advice


def test_what_answers_is_told(sandbox: ContainerSandbox) -> None:
    facts = sandbox.runtime().facts()
    assert sandbox.missing() == ""
    runtime = sandbox.runtime().name
    assert facts.product.startswith(f"{runtime.title()} ")
    variable = {"podman": "CONTAINER_HOST", "docker": "DOCKER_HOST"}[runtime]
    assert facts.address == os.environ[variable].removeprefix("unix://")
    assert isinstance(facts.rootless, bool)
    assert Image(name="x").lost == ""
