"""Events of accounts. The run and task of each are those whose model call showed it."""

from datetime import datetime
from typing import ClassVar

from kapelle.core.event import Event
from kapelle.core.frozen import frozen


@frozen
class AccountLimited(Event):
    """An account is at its limit: everything that uses it waits."""

    kind: ClassVar[str] = "account.limited"
    account: str
    trouble: str
    reason: str = ""
    resets_at: datetime | None = None
    next_at: datetime | None = None


@frozen
class AccountRefused(Event):
    """An account's credentials are not accepted: everything that uses it waits for a person."""

    kind: ClassVar[str] = "account.refused"
    account: str
    trouble: str
    reason: str = ""
    remedy: str = ""


@frozen
class AccountRestored(Event):
    """An account goes again: its agents start one after the other."""

    kind: ClassVar[str] = "account.restored"
    account: str
