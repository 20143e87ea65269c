from kapelle.adapters.hosts.local import LocalHost
from kapelle.adapters.sandboxes.process import ProcessSandbox
from kapelle.core.ports import Host, Sandbox
from kapelle.testing.conformance.sandboxes import SandboxSuite


class TestProcessSandbox(SandboxSuite):
    def sandbox(self) -> Sandbox:
        return ProcessSandbox()

    def host(self) -> Host:
        return LocalHost()


class TestProcessSandboxWithoutControlGroups(SandboxSuite):
    """As on a Mac, and for users of a machine that gives them no groups."""

    def sandbox(self) -> Sandbox:
        return ProcessSandbox(groups=False)

    def host(self) -> Host:
        return LocalHost()
