"""What stands in for a driver that is not installed where Kapelle leads: nothing starts, and the task says why.

A run may have been submitted where a plug-in was installed that is gone since. That ends its tasks, never the leader.
"""

from collections.abc import Mapping, Sequence

from kapelle.core.agent import AgentConfig
from kapelle.core.conversation import ConversationEvent, Prompt, Trouble, TurnEnded
from kapelle.core.errors import ProgramMissing
from kapelle.core.ids import PromptId
from kapelle.core.ports import AgentOrder, Codec, DriverCapabilities, Ended, Launch


class MissingDriver:
    """See ``core.ports.Driver``."""

    capabilities = DriverCapabilities()

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def _message(self) -> str:
        return f"there is no program {self.name} here"

    def launch(self, order: AgentOrder) -> Launch:
        """See the port."""
        remedy = f"Install the plug-in that brings it, or give {order.config.name} another program."
        raise ProgramMissing(self._message, remedy=remedy)

    def codec(self) -> Codec:
        """See the port."""
        return _Deaf(self._message)

    def missing(self) -> str:
        """See the port."""
        return self._message

    def problems(self, config: AgentConfig, *, gateway: bool = True) -> Sequence[str]:  # noqa: ARG002  # as the port has it
        """See the port."""
        return [f"{self._message} (for {config.name})"]


class _Deaf:
    """A codec that understands nothing."""

    def __init__(self, message: str) -> None:
        self._message = message

    def feed(self, data: bytes) -> Sequence[ConversationEvent]:
        del data
        return ()

    def finish(self, ended: Ended) -> Sequence[ConversationEvent]:
        del ended
        return [TurnEnded(trouble=Trouble.CRASHED, message=self._message)]

    def prompt(self, prompt: Prompt) -> bytes:
        del prompt
        return b""

    def assign(self, env: Mapping[str, str]) -> bytes:  # noqa: ARG002  # as the port has it
        return b""

    def clear(self, prompt_id: PromptId) -> bytes:  # noqa: ARG002  # as the port has it
        return b""

    def interrupt(self) -> bytes:
        return b""

    def goodbye(self) -> bytes:
        return b""
