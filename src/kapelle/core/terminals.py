"""Terminals: where a person looks at what an agent does, or types to it; and programs that have a screen of their own."""

from typing import Protocol, runtime_checkable

from kapelle.core.frozen import frozen
from kapelle.core.ids import AgentId
from kapelle.core.ports import AgentOrder, Codec, Launch


@frozen
class Attaching:
    """What a person's own terminal runs to show a session."""

    argv: tuple[str, ...]
    cwd: str


class Terminal(Protocol):
    """Sessions that outlive whoever looks at them. Each is in a folder of its own, and is reached by nobody else's."""

    name: str

    def missing(self) -> str:
        """Return what must be installed before it can be used, in words for people; empty when it is there. At once."""
        ...

    def hosted(self, launch: Launch, folder: str) -> Launch:
        """Return *launch*, which has a screen, so that it is started in a session in *folder*. At once.

        What is started takes lines on its standard input and says lines on its standard output, which a ``ScreenDriver`` reads.
        The session ends with the process, and the process with the session.

        Raises:
            ProgramMissing: the terminal is not installed.
        """
        ...

    async def open(self, agent_id: AgentId, folder: str, name: str) -> None:
        """Open a session *name* in *folder* that shows what an agent says, unless there is one; it ends when the agent does.

        Raises:
            ProgramMissing: the terminal is not installed.
            HostFailed: it cannot be opened.
        """
        ...

    async def close(self, folder: str) -> None:
        """End the session in *folder* and all that runs in it; no effect when there is none."""
        ...

    async def there(self, folder: str) -> bool:
        """Say whether there is a session in *folder* that can be attached to."""
        ...

    async def within(self, root: str) -> tuple[str, ...]:
        """Return the names of those folders right below *root* in which there is a session."""
        ...

    def attaching(self, folder: str, *, write: bool) -> Attaching:
        """Return what shows the session in *folder*; with *write* a person may type there. At once.

        Raises:
            ProgramMissing: the terminal is not installed.
        """
        ...


@runtime_checkable
class ScreenDriver(Protocol):
    """A driver whose program has a screen of its own, on the same conversations."""

    def screen(self, order: AgentOrder, *, by_hand: bool) -> Launch:
        """Return how the program's own screen is started for *order*, in a terminal; *by_hand*: for a person alone.

        Raises:
            ProgramMissing: the program is not installed.
        """
        ...

    def screen_codec(self) -> Codec:
        """Return a codec for a process that was started so."""
        ...
