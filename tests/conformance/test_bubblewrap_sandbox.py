from collections.abc import Callable

import pytest

from kapelle.adapters.hosts.local import LocalHost
from kapelle.adapters.sandboxes.bubblewrap import BubblewrapSandbox
from kapelle.core.ports import Host, Sandbox
from kapelle.testing.conformance.limiting import LimitsSuite
from kapelle.testing.conformance.sandboxes import SandboxSuite

LIMITS = " or ".join(name for name in vars(LimitsSuite) if name.startswith("test_"))


@pytest.mark.usefixtures("bubblewrap")
class TestBubblewrapSandbox(SandboxSuite):
    def sandbox(self) -> Sandbox:
        return BubblewrapSandbox()

    def host(self) -> Host:
        return LocalHost()


def test_so_it_is_for_who_is_not_root(without_root: Callable[..., None]) -> None:
    """Without settings of the kernel, and groups: in such a namespace they stay in the hands of whom they belong to."""
    without_root(__file__, "-k", f"not test_the_system_cannot_be_changed and not ({LIMITS})")
