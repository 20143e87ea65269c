from collections.abc import Callable

import pytest

from kapelle.adapters.hosts.local import LocalHost
from kapelle.adapters.terminals.tmux import Tmux
from kapelle.core.ids import AgentId
from kapelle.core.ports import Host, Launch
from kapelle.core.terminals import Terminal
from kapelle.testing.conformance.terminals import TerminalSuite


@pytest.fixture(autouse=True)
def _installed(program: Callable[[str], str]) -> None:
    program("tmux")


class TestTmux(TerminalSuite):
    def terminal(self, shows: Callable[[AgentId], Launch]) -> Terminal:
        return Tmux(shows)

    def host(self) -> Host:
        return LocalHost()
