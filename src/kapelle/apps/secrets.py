"""Which secrets agents must have, and whether each is to be had here. No value is shown, and none is kept."""

from collections.abc import Iterable

from kapelle.apps import compose
from kapelle.apps.settings import Configuration
from kapelle.core.agent import AgentConfig
from kapelle.core.errors import SecretMissing
from kapelle.core.frozen import frozen


@frozen
class Looked:
    """A secret of one kind of agent, after a look for it."""

    agent: str
    name: str
    reference: str
    problem: str = ""
    """Why it is not to be had; empty when it is."""
    remedy: str = ""


async def look(found: Configuration, configs: Iterable[AgentConfig] | None = None) -> list[Looked]:
    """Look up every secret of *configs*, or of all agents of agents.yml, and say how each stands."""
    wanted = [
        *((config.name, name, reference) for config in configs or () for name, reference in config.secrets),
        *(
            (agent, name, reference)
            for agent, config in (found.agents.agents.items() if configs is None else ())
            for name, reference in config.secrets.items()
        ),
    ]
    return [await _looked(found, agent, name, reference) for agent, name, reference in wanted]


async def _looked(found: Configuration, agent: str, name: str, reference: str) -> Looked:
    try:
        await compose.look_up_secret(found, name, reference)
    except SecretMissing as error:
        return Looked(agent=agent, name=name, reference=reference, problem=error.message, remedy=error.advice)
    return Looked(agent=agent, name=name, reference=reference)
