"""``claude-tui``: the CLI's own screen in a terminal, always; see ``screen.py``."""

from collections.abc import Sequence

from kapelle.adapters.drivers.claude.driver import ClaudeDriver
from kapelle.adapters.drivers.claude.screen import ScreenCodec, launch_screen
from kapelle.core.agent import AgentConfig
from kapelle.core.frozen import replace
from kapelle.core.ports import AgentOrder, Codec, Launch


class ClaudeTuiDriver:
    """See ``core.ports.Driver`` and ``core.terminals.ScreenDriver``: the CLI's own screen in a terminal."""

    name = "claude-tui"
    capabilities = replace(
        ClaudeDriver.capabilities,
        reports_cost=False,
        structured_result=False,
        fork=False,
        screen=True,
        always_screen=True,
        warm=False,
    )

    def __init__(self, program: str | None = None) -> None:
        self._program = program
        self._claude = ClaudeDriver(program)

    def launch(self, order: AgentOrder) -> Launch:
        return launch_screen(order, self._program, by_hand=False)

    def screen(self, order: AgentOrder, *, by_hand: bool) -> Launch:
        """See ``core.terminals.ScreenDriver``."""
        return launch_screen(order, self._program, by_hand=by_hand)

    def codec(self) -> Codec:
        return ScreenCodec()

    def screen_codec(self) -> Codec:
        """See ``core.terminals.ScreenDriver``."""
        return ScreenCodec()

    def missing(self) -> str:
        return self._claude.missing()

    def problems(self, config: AgentConfig, *, gateway: bool = True) -> Sequence[str]:
        found = list(self._claude.problems(config, gateway=gateway))
        if config.max_turns is not None:
            found.append("claude-tui bounds no turns; leave max_turns out, or use `program: claude`")
        return found
