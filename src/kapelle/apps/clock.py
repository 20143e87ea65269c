"""The machine's own time and randomness."""

import random
import secrets
import uuid
from datetime import UTC, datetime


class SystemClock:
    """See ``core.ports.Clock``."""

    def now(self) -> datetime:
        """See the port."""
        return datetime.now(UTC)  # noqa: TID251  # this is the Clock port


class SystemChance:
    """See ``core.ports.Chance``."""

    def bits(self, count: int) -> int:
        """See the port."""
        return secrets.randbits(count)

    def share(self) -> float:
        """See the port."""
        return random.random()  # noqa: S311  # jitter, not a secret

    def uuid(self) -> str:
        """See the port."""
        return str(uuid.uuid4())


class EnvironmentCredentials:
    """References such as ``env:ANTHROPIC_API_KEY``, looked up in the environment of whoever leads."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def resolve(self, reference: str) -> str | None:
        """See ``core.ports.Credentials``."""
        kind, _, name = reference.partition(":")
        return self._environment.get(name) or None if kind == "env" else None
