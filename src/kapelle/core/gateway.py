"""The ports between agents and models: the gateway, what it counts with, and who may call through it."""

from dataclasses import field
from typing import Protocol

from kapelle.core.calls import Held, ModelCall, Refusal
from kapelle.core.frozen import frozen
from kapelle.core.ids import AgentId, AttemptId, RunId, TaskId


@frozen
class Upstream:
    """Where a run's model calls go: exactly one of a real API or a rehearsal."""

    base_url: str = "https://api.anthropic.com"
    credential: str | None = None
    """A reference such as ``env:ANTHROPIC_API_KEY``, resolved by whoever leads. None: the agent's own login is passed on."""
    rehearsal: str | None = None
    """The path of a rehearsal file (the store's own copy of it)."""
    log: str | None = None
    """The path of the rehearsal's request log, which outlives the leader."""
    record: str | None = None
    """The path of a file to which the real model's replies are recorded as a rehearsal."""
    bypass: bool = False
    """``gateway: off``: agents reach the model without the gateway."""

    @property
    def own_login(self) -> bool:
        """Whether the agent's program calls with a login of its own, which it renews by itself."""
        return self.rehearsal is None and self.credential is None


@frozen
class Ticket:
    """What an agent's token stands for at the gateway."""

    token: str = field(repr=False)
    agent_id: AgentId
    run_id: RunId
    task_id: TaskId
    attempt_id: AttemptId
    task: str
    """The task's name."""
    attempt: int
    round: int
    cwd: str
    upstream: Upstream
    call_id: str = ""
    """The model call that is being made with it, if one is."""


class Meter(Protocol):
    """Who is asked before each model call and told after it. Returns at once where it need not wait."""

    def admit(self, call: ModelCall) -> Refusal | Held | None:
        """Keep back what *call* will probably use; return why it may not be made, or None when it may."""
        ...

    async def room(self) -> None:
        """Wait until one of those that were let through has ended: one that was held may ask again."""
        ...

    async def kept(self, call_id: str) -> None:
        """Wait until it is written down that the call is on its way: it may go out then, and be forgotten by nobody."""
        ...

    def still(self, call_id: str) -> Refusal | None:
        """Say, right before a call that was kept goes out, why it may not after all; None when it may.

        It may have been kept a while, and everything was halted meanwhile, or a budget used up. What was kept back for a call
        that is refused now is free again, and it is booked nowhere.
        """
        ...

    def heard(self, call_id: str) -> None:
        """Take note that something of the answer to a call has come: it goes on."""
        ...

    def record(self, call: ModelCall) -> None:
        """Book *call*, which has ended; what was kept back for it is free again."""
        ...

    def crowded(self, agent_id: AgentId, reason: str) -> None:
        """Take note that *agent_id* asked for more at once than anybody may, and was refused."""
        ...


class Gateway(Protocol):
    """The local reverse proxy between agents and models."""

    async def start(self, meter: Meter) -> str:
        """Listen, on the address of an earlier leader if there was one, and return the base URL.

        Raises:
            GatewayFailed: it cannot listen.
        """
        ...

    def admit(self, ticket: Ticket) -> None:
        """Let the token of *ticket* in, or change what it stands for (the round). Returns at once."""
        ...

    def dismiss(self, agent_id: AgentId) -> None:
        """Refuse the agent's token from now on. Returns at once."""
        ...

    async def stop(self) -> None:
        """Stop listening; calls in flight are broken off."""
        ...


class Credentials(Protocol):
    """References to secrets, resolved at the last moment. Returns at once."""

    def resolve(self, reference: str) -> str | None:
        """Return the secret that *reference* stands for, or None when it is not to be had here.

        ``env:NAME`` is a variable of whoever leads, ``login:claude`` the operator's own login.
        """
        ...
