"""What of containers needs no runtime: frames, mounts, images, and what is said where there is no runtime."""

import io
import socket
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import aiodocker
import pytest

from kapelle.adapters.sandboxes.container import runtimes
from kapelle.adapters.sandboxes.container.images import SHIPPED, ContainerfileImages, HostImages, NamedImages
from kapelle.adapters.sandboxes.container.mounts import as_docker, seen
from kapelle.adapters.sandboxes.container.runner import Frames, Group, copy
from kapelle.adapters.sandboxes.container.runtimes import DockerRuntime, PodmanRuntime
from kapelle.adapters.sandboxes.container.sandbox import ContainerSandbox
from kapelle.core.containers import ImageRefused
from kapelle.core.errors import HostFailed
from kapelle.core.isolation import Limit, Mount, MountKind

READ, WRITE, HIDE = MountKind.READ, MountKind.WRITE, MountKind.HIDE


# --- Output ---


def framed(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def test_output_that_is_cut_anywhere_comes_out_whole() -> None:
    said = framed(1, b"hello ") + framed(2, b"oh") + framed(1, b"") + framed(1, b"world") + framed(2, b"!")
    for size in range(1, len(said) + 1):
        streams = {1: b"", 2: b""}

        def write(stream: int, data: memoryview, streams: dict[int, bytes] = streams) -> None:
            streams[stream] += bytes(data)

        frames = Frames(write)
        for start in range(0, len(said), size):
            frames.feed(said[start : start + size])
        assert streams == {1: b"hello world", 2: b"oh!"}


def test_what_became_of_its_limits_is_looked_at_when_something_is_said(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Docker has removed the container's cgroup before the end of the output is heard of."""
    (tmp_path / "libpod-conmon-1").mkdir()
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "pids.events").write_text("max 3\n")
    group = Group({"limits": [], "pids": str(tmp_path), "members": str(tmp_path / "members")}, str(tmp_path / "met"))
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(framed(1, b"cannot fork\n"))
        copy(ours, framed(1, b"begun\n"), stdin=False, group=group)
    assert group.said(out_of_memory=False) == "pids\n"
    assert (tmp_path / "met").read_text() == "pids\n"
    assert capfdbinary.readouterr().out == b"begun\ncannot fork\n"


# --- Mounts ---


def mount(kind: MountKind, path: str, source: str = "") -> Mount:
    return Mount(kind=kind, path=path, source=source)


def test_what_a_later_mount_covers_is_not_made() -> None:
    below, again = mount(READ, "/a/b"), mount(WRITE, "/c")
    inner = mount(READ, "/a/x/y")
    assert seen([below, mount(READ, "/c"), mount(READ, "/a"), again, inner]) == [mount(READ, "/a"), again, inner]


def test_a_hidden_directory_is_empty_but_for_room_for_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "file").write_text("secret")
    wanted = [
        mount(HIDE, "/hidden"),
        mount(WRITE, "/hidden/deep/folder", str(tmp_path / "source")),
        mount(READ, "/hidden/file", str(tmp_path / "file")),
        mount(HIDE, str(tmp_path / "file")),
    ]
    made, lines = as_docker(wanted, tmp_path / "made")
    room = Path(str(made[0]["Source"]))
    assert sorted(str(path.relative_to(room)) for path in room.rglob("*")) == ["deep", "deep/folder", "file"]
    assert (room / "file").read_text() == Path(str(made[3]["Source"])).read_text() == ""
    assert [each["ReadOnly"] for each in made] == [True, False, True, True]
    assert lines == []


def test_paths_are_told_in_the_way_that_can_hold_them(tmp_path: Path) -> None:
    made, lines = as_docker([mount(READ, "/a:b"), mount(WRITE, '/c,"d')], tmp_path)
    assert [each["Target"] for each in made] == ["/a:b"]
    assert lines == ['/c,"d:/c,"d:rw,rprivate']
    for name in ("/a:b,c", "/a\nb"):
        with pytest.raises(HostFailed, match="its name cannot be told"):
            as_docker([mount(READ, name)], tmp_path)


# --- Images ---


def test_an_image_is_known_by_all_that_it_is_built_from(tmp_path: Path) -> None:
    policy, written = ContainerfileImages(), tmp_path / "Containerfile"
    written.write_text("FROM scratch\nCOPY tool /\n")
    (tmp_path / "tool").write_text("1")
    settled = policy.settle("Containerfile", str(tmp_path))
    image = policy.image(settled)
    assert image.recipe is not None
    assert policy.image(policy.settle(str(written), "/")) == image
    (tmp_path / "tool").write_text("2")
    assert policy.settle("Containerfile", str(tmp_path)) != settled
    late = policy.image(settled)
    assert (late.name, late.recipe) == (image.name, None)
    assert "was changed since" in late.lost
    written.unlink()
    assert "cannot be read" in policy.image(settled).lost


def test_a_folder_that_is_too_large_or_not_there_is_refused(tmp_path: Path) -> None:
    policy = ContainerfileImages()
    with pytest.raises(ImageRefused, match="there is no file"):
        policy.settle("Containerfile", str(tmp_path))
    (tmp_path / "Containerfile").write_text("FROM scratch\n")
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(65 << 20)
    with pytest.raises(ImageRefused, match=r"too large .* give the Containerfile a folder of its own .* \.containerignore"):
        policy.settle("Containerfile", str(tmp_path))
    (tmp_path / ".containerignore").write_text("large\n")
    assert policy.settle("Containerfile", str(tmp_path))


def built_from(folder: Path) -> list[str]:
    policy = ContainerfileImages()
    recipe = policy.image(policy.settle("Containerfile", str(folder))).recipe
    with tarfile.open(fileobj=io.BytesIO(recipe or b"")) as archive:
        return archive.getnames()


def test_what_is_left_out_is_nothing_that_an_image_is_built_from(tmp_path: Path) -> None:
    for name in (
        "Containerfile",
        ".git/HEAD",
        "sub/.git",
        "a.py",
        "a.log",
        "sub/b.log",
        "sub/deep/c.log",
        "node_modules/x/y",
        "keep",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("FROM scratch\n")
    (tmp_path / "link").symlink_to("a.py")
    everything = ["Containerfile", "a.log", "a.py", "keep", "node_modules/x/y", "sub/b.log", "sub/deep/c.log"]
    assert built_from(tmp_path) == everything
    (tmp_path / ".git" / "HEAD").write_text("changed")
    ignore = tmp_path / ".dockerignore"
    for lines, left in (
        ("# nothing\n\n/\n", everything),
        ("*.log\nnode_modules/\n", ["Containerfile", "a.py", "keep", "sub/b.log", "sub/deep/c.log"]),
        ("**/*.log\n/sub/nothing", ["Containerfile", "a.py", "keep", "node_modules/x/y"]),
        ("*/*/*\n!sub/deep/c.log", ["Containerfile", "a.log", "a.py", "keep", "sub/b.log", "sub/deep/c.log"]),
        # It is needed all the same.
        ("*\n!keep\n", ["Containerfile", "keep"]),
        ("**", ["Containerfile"]),
    ):
        ignore.write_text(lines)
        assert [name for name in built_from(tmp_path) if name != ".dockerignore"] == left, lines
    (tmp_path / ".containerignore").write_text("**/.*\nnode_modules\nsub\n")
    assert built_from(tmp_path) == ["Containerfile", "a.log", "a.py", "keep"]


def test_the_containerfile_that_kapelle_brings_is_there() -> None:
    policy = ContainerfileImages()
    assert policy.image(policy.settle("", "/")).recipe is not None
    text = (SHIPPED / "Containerfile").read_text()
    # Whatever the agent's CLI, git and the demo's gate ask for.
    assert all(word in text for word in ("claude-code@${CLAUDE}", "git", "python3", "ca-certificates"))


def test_it_brings_the_version_of_the_cli_that_is_tested() -> None:
    from kapelle.adapters.drivers.claude.driver import TESTED

    assert f"ARG CLAUDE={TESTED[1]}\n" in (SHIPPED / "Containerfile").read_text()


def test_names_and_the_programs_of_the_machine() -> None:
    assert NamedImages().image(NamedImages().settle("docker.io/library/node:22", "/")).name == "docker.io/library/node:22"
    for wrong in ("", "-x", "a b", "a\n"):
        with pytest.raises(ImageRefused, match="no name of an image"):
            NamedImages().settle(wrong, "/")
    assert HostImages().settle("", "/") == ""
    assert HostImages().image("").host_programs
    with pytest.raises(ImageRefused, match="takes nothing more"):
        HostImages().settle("x", "/")


# --- Where there is no runtime ---


def without(**environment: str) -> Mapping[str, str]:
    return environment


def test_where_nothing_answers_it_is_said_what_to_do(tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/none.sock"
    docker, podman = DockerRuntime(without(DOCKER_HOST=nowhere)), PodmanRuntime(without(CONTAINER_HOST=nowhere))
    assert "Docker does not answer" in docker.missing()
    assert f"CONTAINER_HOST names {nowhere}: see that it answers there" in podman.remedy()
    sandbox = ContainerSandbox({"docker": docker, "podman": podman}, {})
    assert sandbox.missing() == f"{podman.missing()}; or: {docker.missing()}"
    assert sandbox.remedy() == f"{podman.remedy()} Or: {docker.remedy()}"
    with pytest.raises(HostFailed, match="container cannot be used") as refused:
        sandbox.runtime()
    assert refused.value.advice == sandbox.remedy()
    assert sandbox.capabilities.limits == {Limit.DISK, Limit.FILES}


class Nowhere(PodmanRuntime):
    def sockets(self) -> Iterator[Path]:
        return iter(())


@pytest.mark.parametrize(
    ("root", "systemd", "told"),
    [
        (False, True, "`systemctl --user start podman.socket`"),
        (
            False,
            False,
            "podman system service --time=0 unix://RUN/podman/podman.sock &`; then `export CONTAINER_HOST=unix://RUN/",
        ),
        (
            True,
            True,
            "podman system service --time=0 unix:///run/podman/podman.sock &`; then `export CONTAINER_HOST=unix:///run/",
        ),
        (
            True,
            False,
            "podman system service --time=0 unix:///run/podman/podman.sock &`; then `export CONTAINER_HOST=unix:///run/",
        ),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is `podman machine`")
def test_one_that_is_not_installed_is_told_from_one_that_is_not_running(
    tmp_path: Path, root: bool, systemd: bool, told: str
) -> None:
    environment = without(PATH=str(tmp_path), XDG_RUNTIME_DIR=str(tmp_path / "run"))
    folder = tmp_path if systemd else tmp_path / "none"
    gone = Nowhere(environment, root=root, systemd=folder)
    assert gone.missing() == "Podman is not installed"
    assert gone.remedy().startswith("Install Podman (`apt-get install podman`")
    (tmp_path / "podman").write_text("#!/bin/sh\n")
    (tmp_path / "podman").chmod(0o755)
    idle = Nowhere(environment, root=root, systemd=folder)
    assert idle.missing() == "Podman is installed, and its service is not running"
    assert "Install" not in idle.remedy()
    assert told.replace("RUN", str(tmp_path / "run")) in idle.remedy()
    assert idle.remedy().endswith("Or name in CONTAINER_HOST where it answers.")


def test_a_runtime_on_another_machine_is_refused() -> None:
    for address in ("tcp://192.0.2.1:2375", "ssh://me@elsewhere", "tcp://docker.example:2376"):
        assert "directories of this machine" in DockerRuntime(without(DOCKER_HOST=address)).missing()


def test_what_answers_nonsense_is_no_runtime(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.close()
        assert "cannot be reached" in DockerRuntime(without(DOCKER_HOST=f"unix://{path}")).missing()


def test_a_runtime_that_a_person_has_named_is_not_passed_over(tmp_path: Path) -> None:
    """Even when another works."""
    named = DockerRuntime(without(DOCKER_HOST=f"unix://{tmp_path}/none.sock"))
    other = PodmanRuntime(without())
    assert ContainerSandbox({"docker": named, "podman": other}, {}).missing() == named.missing()


@pytest.mark.parametrize(
    "said", ["container state improper", "Could not kill running container 1, cannot remove - Container 1 is not running"]
)
async def test_what_became_another_while_it_was_removed_is_tried_again(said: str) -> None:
    async def asked() -> None:
        raise aiodocker.DockerError(500, said)

    assert await runtimes._unless_missing(asked(), runtimes.CONFLICT) == {}
    with pytest.raises(aiodocker.DockerError):
        await runtimes._unless_missing(asked())
