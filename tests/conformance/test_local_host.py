from kapelle.adapters.hosts.local import LocalHost
from kapelle.core.ports import Host
from kapelle.testing.conformance.hosts import HostSuite


class TestLocalHost(HostSuite):
    def host(self) -> Host:
        return LocalHost()
