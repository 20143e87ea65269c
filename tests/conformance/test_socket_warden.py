from kapelle.adapters.wardens.sockets import SocketWarden
from kapelle.core.warden import Warden
from kapelle.testing.conformance.wardens import WardenSuite


class TestSocketWarden(WardenSuite):
    def warden(self) -> Warden:
        return SocketWarden()
