import pytest

from kapelle.adapters.hosts.local import LocalHost
from kapelle.adapters.sandboxes.container.sandbox import ContainerSandbox
from kapelle.core.ports import Host, Sandbox
from kapelle.testing.conformance.sandboxes import SandboxSuite


@pytest.mark.usefixtures("podman")
class TestContainerSandbox(SandboxSuite):
    @pytest.fixture(autouse=True)
    def _one(self) -> None:
        self._sandbox = ContainerSandbox()

    def sandbox(self) -> Sandbox:
        return self._sandbox

    def host(self) -> Host:
        return LocalHost()
