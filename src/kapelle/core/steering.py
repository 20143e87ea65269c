"""What a person asks about one agent while it is at work: requests to whoever leads, as those of ``requests.py`` are."""

from kapelle.core.frozen import frozen
from kapelle.core.ids import AgentId, RunId


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


Steering = Freeze | Thaw | StopAgent
"""All of them."""
