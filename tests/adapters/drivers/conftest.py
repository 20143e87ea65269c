from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from kapelle.core.agent import AgentConfig
from kapelle.core.conversation import Prompt
from kapelle.core.ids import AgentId, PromptId
from kapelle.core.ports import AgentOrder

CONFIG_FIELDS = frozenset(AgentConfig.__dataclass_fields__)


@pytest.fixture
def make_order() -> Callable[..., AgentOrder]:
    """Return how to make an order: fields of the agent's config are told apart from the order's own."""

    def make(**changes: Any) -> AgentOrder:
        config = {name: changes.pop(name) for name in list(changes) if name in CONFIG_FIELDS - {"env"}}
        given: dict[str, Any] = {
            "agent_id": AgentId("g1"),
            "config": AgentConfig(**{"name": "coder", "env": (("FROM_CONFIG", "c"), ("BOTH", "c")), **config}),
            "cwd": "/w/slot-1",
            "folder": "/state/agents/g1",
            "home": "/state/homes/a1",
            "conversation_id": "11111111-2222-3333-4444-555555555555",
            "resume": False,
            "first_prompt": Prompt(prompt_id=PromptId("p1"), text="echo hi"),
            "timeout": timedelta(minutes=7),
            "env": (("FROM_ORDER", "o"), ("BOTH", "o")),
        }
        return AgentOrder(**{**given, **changes})

    return make
