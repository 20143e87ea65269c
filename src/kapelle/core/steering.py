"""What a person asks about one agent while it is at work: requests to whoever leads, as those of ``requests.py`` are."""

from kapelle.core.frozen import frozen
from kapelle.core.ids import AgentId, PromptId, RunId, TaskId


@frozen
class Freeze:
    """Hold an agent still, until it is thawed."""

    run_id: RunId
    agent_id: AgentId


@frozen
class Thaw:
    """Let a frozen agent go on."""

    run_id: RunId
    agent_id: AgentId


@frozen
class StopAgent:
    """End an agent when its turn is over, or within a bound; its task waits until it is resumed."""

    run_id: RunId
    agent_id: AgentId
    at_once: bool = False
    """Do not wait for its turn."""


@frozen
class Send:
    """Say something to an agent, in its conversation."""

    run_id: RunId
    agent_id: AgentId
    prompt_id: PromptId
    """Chosen by who asks, so that asking twice is saying it once."""
    text: str


@frozen
class TakeOver:
    """Let a person go on with an agent's conversation, on its program's own screen."""

    run_id: RunId
    agent_id: AgentId


@frozen
class HandBack:
    """Let the engine go on with a conversation that a person has taken over."""

    run_id: RunId
    task_id: TaskId


Steering = Freeze | Thaw | StopAgent | Send | TakeOver | HandBack
"""All of them."""
