import pytest

from kapelle.adapters.hosts.local import LocalHost
from kapelle.adapters.sandboxes.container.sandbox import ContainerSandbox
from kapelle.core.ports import Host, Sandbox
from kapelle.testing.conformance.sandboxes import SandboxSuite


@pytest.mark.usefixtures("podman")
class TestContainerSandbox(SandboxSuite):
    def sandbox(self) -> Sandbox:
        return ContainerSandbox()

    def host(self) -> Host:
        return LocalHost()
