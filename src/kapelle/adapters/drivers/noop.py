"""A driver without a process: its tasks are done the moment they are placed. For benchmarks of the engine."""

from collections.abc import Sequence

from kapelle.adapters.drivers.command import CommandCodec
from kapelle.core.agent import AgentConfig
from kapelle.core.ports import AgentOrder, Codec, DriverCapabilities, Launch


class NoopDriver:
    """See ``core.ports.Driver``."""

    name = "noop"
    capabilities = DriverCapabilities(immediate=True)

    def launch(self, order: AgentOrder) -> Launch:
        return Launch(argv=("true",), cwd=order.cwd)

    def codec(self) -> Codec:
        return CommandCodec()

    def missing(self) -> str:
        return ""

    def problems(self, config: AgentConfig, *, gateway: bool = True) -> Sequence[str]:
        return ()
