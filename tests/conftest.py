"""What all tests share: their order, and the real parts that must be there."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kapelle.adapters.system.ownership import AGENT
from kapelle.core.errors import HostFailed
from kapelle.testing import docker as real_docker
from kapelle.testing import managers
from kapelle.testing.managers import UserManager
from kapelle.testing.places import Place, make_repository
from kapelle.testing.podman import missing_programs, podman_service

# The fast ones first: a slip is seen in seconds.
ORDER = ("core", "docs", "engine", "apps", "conformance", "adapters", "fuzz", "simulation", "acceptance")
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(HERE).parts[0]
        return ORDER.index(folder) if folder in ORDER else len(ORDER)

    items.sort(key=place)


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Return the path of a real program; without it the test fails in CI and is skipped, with the reason, elsewhere."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None and os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed; tools/system-packages installs it")
        if path is None:
            pytest.skip(f"{name} is not installed")
        return path

    return find


@pytest.fixture
def bubblewrap(program: Callable[[str], str]) -> None:
    """See that there is a sandbox to test."""
    program("bwrap")


@pytest.fixture
def as_root() -> None:
    """See that the tests run as root, who gives agents a user of their own."""
    if os.geteuid() != 0:
        pytest.skip("only root gives agents a user of their own")


@pytest.fixture
def without_root(program: Callable[[str], str], as_root: None) -> Callable[..., None]:  # noqa: ARG001
    """Run tests once more, as pytest takes them, as a user who has nothing to say beyond what is theirs."""

    def run(*tests: str) -> None:
        # In a namespace where root is called somebody else, everything stays theirs: this Python, and the folders of the test.
        user = [program("unshare"), "--user", f"--map-user={AGENT}", f"--map-group={AGENT}", "--"]
        # Not below this test's own: the path of a socket has a hundred bytes.
        with tempfile.TemporaryDirectory(prefix="kapelle-theirs-") as folder:
            pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={folder}/of", *tests]
            done = subprocess.run([*user, *pytest_], check=False, capture_output=True, text=True, cwd=HERE.parent)
            assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture(scope="session")
def podman_programs(program: Callable[[str], str]) -> None:
    """See that a Podman can be started."""
    for name in missing_programs():
        program(name)


@pytest.fixture(scope="session")
def podman_address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return where a Podman of the tests' own answers."""
    request.getfixturevalue("podman_programs")
    with podman_service() as address:
        yield address


@pytest.fixture
def podman(podman_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """See that there is a runtime for containers to test, and that it is the one that is used; return where it answers."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("CONTAINER_HOST", podman_address)
    return podman_address


@pytest.fixture(scope="session")
def docker_address(program: Callable[[str], str]) -> Iterator[str]:
    """Return where a Docker of the tests' own answers."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a Docker of its own")
    for name in real_docker.missing_programs():
        program(name)
    with real_docker.docker_service() as address:
        yield address


@pytest.fixture
def docker(docker_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """See that there is a Docker to test, and that it is the one that is used; return where it answers."""
    monkeypatch.delenv("CONTAINER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_HOST", docker_address)
    return docker_address


@pytest.fixture(params=["podman", pytest.param("docker", marks=pytest.mark.soak)])
def runtime(request: pytest.FixtureRequest) -> str:
    """Return where each of the real container runtimes answers; Docker weighs more to install, so `make soak` does that."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def manager(program: Callable[[str], str]) -> Iterator[UserManager]:
    """Return a real service manager of a user, with login sessions beside it."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a user a service manager that is nobody's otherwise")
    for name in managers.missing_programs():
        program(name)
    with ExitStack() as stack:
        try:
            found = stack.enter_context(managers.user_manager())
        except HostFailed as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(error.message)
        yield found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return the demo's sample repository with one commit, and an empty state directory."""
    repository = tmp_path / "shop"
    shutil.copytree(HERE.parent / "examples" / "demo" / "repository", repository)
    return Place(repository=make_repository(repository), home=tmp_path / "state")
