"""The machine's own time and randomness."""

import random
import secrets
import uuid
from datetime import UTC, datetime
from pathlib import Path


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
    """References such as ``env:ANTHROPIC_API_KEY``, looked up in the environment of whoever leads, and ``login:claude``."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def resolve(self, reference: str) -> str | None:
        """See ``core.ports.Credentials``."""
        kind, _, name = reference.partition(":")
        if kind == "env":
            return self._environment.get(name) or None
        return self._login() if reference == "login:claude" else None

    def _login(self) -> str | None:
        """Return what the operator's own claude is logged in with; on macOS it lies in the keychain and is not to be had."""
        if token := self._environment.get("CLAUDE_CODE_OAUTH_TOKEN"):
            return token
        folder = Path(self._environment.get("CLAUDE_CONFIG_DIR") or Path.home() / ".claude")
        try:
            return (folder / ".credentials.json").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None
