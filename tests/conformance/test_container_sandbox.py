from functools import cache

import pytest

from kapelle.adapters.hosts.local import LocalHost
from kapelle.adapters.sandboxes.container.sandbox import ContainerSandbox
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
