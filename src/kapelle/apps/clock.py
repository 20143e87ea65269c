"""The machine's own time and randomness."""

import random
import secrets
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

DRIFT = timedelta(seconds=1)
"""How far the time of day may fall behind by itself; more than that, and somebody has set the clock back."""


def _time_of_day() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  # this is the Clock port


class SystemClock:
    """See ``core.ports.Clock``: the time of day, but it never goes back.

    When somebody sets the machine's clock back, time goes on here as if nobody had, as long as the process lives: what was to
    be tried again in a minute is tried again in a minute, and events stay in order. Set forward, it follows.
    """

    def __init__(
        self, time_of_day: Callable[[], datetime] = _time_of_day, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._time_of_day = time_of_day
        self._steady = steady
        self._last = time_of_day()
        self._last_steady = steady()

    def now(self) -> datetime:
        """See the port."""
        wall, steady = self._time_of_day(), self._steady()
        expected = self._last + timedelta(seconds=steady - self._last_steady)
        self._last = max(wall, self._last) if expected - wall < DRIFT else expected
        self._last_steady = steady
        return self._last


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
        """See ``core.gateway.Credentials``."""
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
