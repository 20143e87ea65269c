"""Any program as an agent: the prompt is its command line. It has no conversation and is not prompted again."""

from collections.abc import Mapping, Sequence

from kapelle.adapters.drivers.lines import Lines, Telling
from kapelle.core.agent import AgentConfig
from kapelle.core.conversation import ConversationEvent, Prompt, Said, Trouble, TurnEnded
from kapelle.core.ids import PromptId
from kapelle.core.ports import AgentOrder, Codec, DriverCapabilities, Ended, Launch

SUMMARY_LINES = 5
SCRIPT = "command.sh"


class CommandDriver:
    """See ``core.ports.Driver``."""

    name = "command"
    capabilities = DriverCapabilities()

    def launch(self, order: AgentOrder) -> Launch:
        command = order.first_prompt.text if order.first_prompt is not None else ""
        env = {**dict(order.config.env), **dict(order.env)}
        # What it says on either stream is told: the reason of a failure stands on the other one.
        # As a file: a command line may be longer than the system takes as an argument.
        files = ((SCRIPT, f"exec 2>&1\n{command}\n"),)
        argv = ("/bin/sh", f"{order.folder}/{SCRIPT}")
        return Launch(argv=argv, cwd=order.cwd, env=tuple(env.items()), limit=order.timeout, files=files)

    def codec(self) -> Codec:
        return CommandCodec()

    def missing(self) -> str:
        return ""

    def problems(self, config: AgentConfig, *, gateway: bool = True) -> Sequence[str]:
        unused = [name for name in ("model", "permission_mode", "max_turns") if getattr(config, name) is not None]
        unused += ["mcp"] if config.mcp else []
        return [f"{name} means nothing for program: command" for name in unused]


class CommandCodec:
    """Lines out; the last ones are the summary."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._last: list[str] = []
        self._telling = Telling()

    def feed(self, data: bytes) -> Sequence[ConversationEvent]:
        return [said for line in self._lines.feed(data) if line is not None and line.strip() for said in self._say(line)]

    def _say(self, line: bytes) -> list[Said]:
        text, said = self._telling.tell(line)
        self._last = [*self._last[-(SUMMARY_LINES - 1) :], text]
        return said

    def finish(self, ended: Ended) -> Sequence[ConversationEvent]:
        rest = self._lines.rest()
        found: list[ConversationEvent] = [*self._say(rest)] if rest.strip() else []
        summary = "\n".join(self._last)
        if ended.exit_code == 0:
            return [*found, TurnEnded(text=summary)]
        how = "ran out of time" if ended.timed_out else f"ended with exit code {ended.exit_code}"
        return [*found, TurnEnded(trouble=Trouble.CRASHED, message=f"the command {how}\n{summary}".strip())]

    def prompt(self, prompt: Prompt) -> bytes:
        return b""

    def assign(self, env: Mapping[str, str]) -> bytes:  # as the port has it
        return b""

    def clear(self, prompt_id: PromptId) -> bytes:  # as the port has it
        return b""

    def interrupt(self) -> bytes:
        return b""

    def goodbye(self) -> bytes:
        return b""
