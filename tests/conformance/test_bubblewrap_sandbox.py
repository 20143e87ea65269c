import pytest

from kapelle.adapters.hosts.local import LocalHost
from kapelle.adapters.sandboxes.bubblewrap import BubblewrapSandbox
from kapelle.core.ports import Host, Sandbox
from kapelle.testing.conformance.sandboxes import SandboxSuite


@pytest.mark.usefixtures("bubblewrap")
class TestBubblewrapSandbox(SandboxSuite):
    def sandbox(self) -> Sandbox:
        return BubblewrapSandbox()

    def host(self) -> Host:
        return LocalHost()
