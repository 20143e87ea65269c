import os
from dataclasses import replace
from functools import cache

import pytest

from kapelle.adapters.hosts.local import LocalHost
from kapelle.adapters.sandboxes.container.images import HostImages
from kapelle.adapters.sandboxes.container.runtimes import PodmanRuntime
from kapelle.adapters.sandboxes.container.sandbox import ContainerSandbox
from kapelle.core.containers import RuntimeFacts
from kapelle.core.ports import Host, Sandbox
from kapelle.testing.conformance.sandboxes import SandboxSuite


@cache
def one(runtime: str) -> ContainerSandbox:
    """As in the life of a leader: what answers is found out, and the image is made, once."""
    assert runtime
    return ContainerSandbox()


class TestContainerSandbox(SandboxSuite):
    @pytest.fixture(autouse=True)
    def _one(self, runtime: str) -> None:
        self._sandbox = one(runtime)

    def sandbox(self) -> Sandbox:
        return self._sandbox

    def host(self) -> Host:
        return LocalHost()


class WithoutGroups(PodmanRuntime):
    """Podman as somebody has it who may make no control groups."""

    def facts(self) -> RuntimeFacts:
        return replace(super().facts(), limits=False, cgroup_driver="")


@pytest.mark.soak
@pytest.mark.usefixtures("podman")
class TestContainerSandboxWithoutControlGroups(SandboxSuite):
    def sandbox(self) -> Sandbox:
        return ContainerSandbox({"podman": WithoutGroups(os.environ)}, {"host": HostImages()})

    def host(self) -> Host:
        return LocalHost()
