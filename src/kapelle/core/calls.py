"""Calls to the model, as the gateway and the engine speak of them."""

from datetime import datetime

from kapelle.core.budget import Usage
from kapelle.core.conversation import Trouble
from kapelle.core.frozen import frozen
from kapelle.core.ids import AccountId, AgentId, AttemptId, RunId, TaskId


@frozen
class ModelCall:
    """One call to the model that has ended; or one that is on its way, with what it will use as far as that can be told."""

    call_id: str
    agent_id: AgentId
    run_id: RunId
    task_id: TaskId
    attempt_id: AttemptId
    model: str
    usage: Usage
    cost_usd: float
    status: int
    seconds: float
    error: str = ""
    """The API's word for what went wrong, such as ``overloaded_error``; empty when it went well."""
    trouble: Trouble | None = None
    """What that means; None when it went well."""
    message: str = ""
    """What the API said about it."""
    resets_at: datetime | None = None
    """When the account's limit ends, if the API said so."""
    of_account: bool = False
    """Whether the trouble is the whole account's and not this call's."""
    project: str = ""
    """The project whose run made it."""
    account_id: AccountId = AccountId("")
    """Whose credentials it used."""
    settled: bool = True
    """Whether it has ended; until then its cost is a guess, which is kept back."""
    priced: bool = True
    """False when the price table does not know the model; the cost is then 0."""


LOST = "lost"
"""The error of a call that was on its way when whoever led died: it is booked as it was guessed."""


@frozen
class Held:
    """A call that waits: what others keep back leaves too little for it."""


@frozen
class Refusal:
    """Why an agent may make no further model call."""

    trouble: Trouble
    """``BUDGET``, or what shuts its account."""
    message: str
    """A sentence for people."""
