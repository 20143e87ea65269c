"""Accounts: whose model credentials and limits. One limit, one question to a person, for all that use it.

open --limit--> limited --its time has come--> restarting (time known) | trying (time not known) --one agent got through-->
restarting --agents started one after the other--> open
open --credentials refused--> refused --other credentials, or a person says go on--> trying
"""

from datetime import datetime, timedelta
from enum import StrEnum

from kapelle.core.conversation import Trouble
from kapelle.core.frozen import frozen, replace
from kapelle.core.gateway import Upstream
from kapelle.core.ids import AccountId, AttemptId
from kapelle.core.retry import RetryPolicy, delay
from kapelle.core.trouble import believable


class AccountState(StrEnum):
    """Whether agents of an account may start."""

    OPEN = "open"
    LIMITED = "limited"
    REFUSED = "refused"
    TRYING = "trying"
    RESTARTING = "restarting"


SHUT = frozenset({AccountState.LIMITED, AccountState.REFUSED})
"""States in which no call of the account is let through."""
BAD_CREDENTIALS = frozenset({Trouble.LOGIN_EXPIRED, Trouble.INVALID_KEY})

LOGIN = "login@"
"""How the id of an account begins that is the program's own login."""

UNKNOWN_RESET = RetryPolicy(initial=timedelta(minutes=1), factor=2.0, maximum=timedelta(minutes=30))
"""How long until one agent tries, where the API does not say when a limit ends."""
SPACING = timedelta(seconds=2)
"""Between the starts of two agents of an account that has come back."""
STAGGERED = 15
"""Starts after which the account is as it was before."""
QUIET = timedelta(minutes=1)
"""So long after the last start nobody is waiting any more."""


@frozen
class Account:
    """Whose credentials the model calls of some runs use, and whether they are let through."""

    account_id: AccountId
    name: str
    """What people call it."""
    state: AccountState = AccountState.OPEN
    trouble: Trouble | None = None
    reason: str = ""
    """What the API said."""
    began_at: datetime | None = None
    resets_at: datetime | None = None
    """When the limit ends by the API's own word; None when it did not say."""
    next_at: datetime | None = None
    """No agent of it starts before this time."""
    refusals: int = 0
    """How often in a row it was refused."""
    tried_by: AttemptId | None = None
    """The attempt whose agent tries whether it goes again."""
    started: int = 0
    """How many agents were started since it came back."""
    key: str = ""
    """A mark of the credentials that were refused, from which they cannot be found out."""

    @property
    def shut(self) -> bool:
        """Whether no call of it is let through."""
        return self.state in SHUT


def account_of(upstream: Upstream) -> Account:
    """Return the account that model calls to *upstream* use, as it is before anything is known of it."""
    if upstream.rehearsal is not None:
        name = f"rehearsal {upstream.rehearsal.replace(chr(92), '/').rpartition('/')[2]}"
        return Account(account_id=AccountId(f"rehearsal:{upstream.rehearsal}"), name=name)
    place = upstream.base_url.partition("://")[2].rstrip("/") or upstream.base_url
    if upstream.credential is not None:
        return Account(
            account_id=AccountId(f"{upstream.credential}@{upstream.base_url}"), name=f"{upstream.credential} at {place}"
        )
    return Account(account_id=AccountId(f"{LOGIN}{upstream.base_url}"), name=f"the login of claude at {place}")


def reference_of(upstream: Upstream) -> str | None:
    """Return the reference under which the account's credentials are found, or None when it has none."""
    if upstream.rehearsal is not None:
        return None
    return upstream.credential or "login:claude"


def shuts(trouble: Trouble | None, resets_at: datetime | None) -> bool:
    """Say whether *trouble* is the whole account's and not of one call."""
    return (
        trouble is Trouble.USAGE_LIMIT
        or trouble in BAD_CREDENTIALS
        or (trouble is Trouble.RATE_LIMITED and resets_at is not None)
    )


def shut(
    account: Account, trouble: Trouble, reason: str, *, now: datetime, resets_at: datetime | None, key: str, chance: float
) -> Account:
    """Return *account* after the API refused it; the same again when that says nothing new.

    Several agents run into the same limit at the same time: only the first of them counts.
    """
    if trouble in BAD_CREDENTIALS:
        if account.state is AccountState.REFUSED:
            return account
        return _closed(account, AccountState.REFUSED, trouble, reason, now=now, resets_at=None, next_at=None, key=key)
    known = believable(resets_at, now)
    if account.state is AccountState.LIMITED:
        later = known is not None and (account.resets_at is None or known > account.resets_at)
        return replace(account, resets_at=known, next_at=known, reason=reason) if later else account
    if account.state is AccountState.REFUSED:
        return account
    next_at = known or now + delay(UNKNOWN_RESET, account.refusals + 1, chance)
    return _closed(account, AccountState.LIMITED, trouble, reason, now=now, resets_at=known, next_at=next_at, key="")


def _closed(
    account: Account,
    state: AccountState,
    trouble: Trouble,
    reason: str,
    *,
    now: datetime,
    resets_at: datetime | None,
    next_at: datetime | None,
    key: str,
) -> Account:
    return replace(
        account,
        state=state,
        trouble=trouble,
        reason=reason,
        began_at=account.began_at or now,
        resets_at=resets_at,
        next_at=next_at,
        refusals=account.refusals + 1,
        tried_by=None,
        started=0,
        key=key,
    )


def retry_now(account: Account, now: datetime) -> Account:
    """Return *account* when there is reason to try: its credentials are others, or a person says so."""
    if not account.shut:
        return account
    return replace(account, state=AccountState.TRYING, next_at=now, tried_by=None)


def got_through(account: Account, now: datetime) -> Account:
    """Return *account* after a call of it went well. One that was on its way when the account was shut proves nothing."""
    if account.state is not AccountState.TRYING:
        return account
    return replace(account, state=AccountState.RESTARTING, next_at=now + SPACING, tried_by=None, started=1)


def passed(account: Account, now: datetime) -> Account:
    """Return *account* as it is at *now*, when nothing else has happened to it."""
    due = account.next_at is not None and account.next_at <= now
    if account.state is AccountState.LIMITED and due:
        if account.resets_at is None:
            return replace(account, state=AccountState.TRYING, tried_by=None)
        return replace(account, state=AccountState.RESTARTING, started=0)
    if account.state is AccountState.RESTARTING and account.next_at is not None:
        over = account.started >= STAGGERED and due
        if over or account.next_at + QUIET <= now:
            return Account(account_id=account.account_id, name=account.name)
    return account


def may_start(account: Account, now: datetime) -> int | None:
    """Return how many agents of *account* may start at *now*; None when it sets no bound."""
    if account.state is AccountState.OPEN:
        return None
    if account.state is AccountState.TRYING:
        return 0 if account.tried_by is not None else 1
    return int(account.state is AccountState.RESTARTING and (account.next_at is None or account.next_at <= now))


def begun(account: Account, attempt_id: AttemptId, now: datetime) -> Account:
    """Return *account* after an agent of it was given out for an attempt."""
    if account.state is AccountState.TRYING:
        return replace(account, tried_by=attempt_id)
    if account.state is AccountState.RESTARTING:
        return replace(account, started=account.started + 1, next_at=now + SPACING)
    return account


def next_change(account: Account, now: datetime) -> datetime | None:
    """Return when *account* changes by itself, or None when it does not."""
    moment = account.next_at
    if moment is not None and account.state is AccountState.RESTARTING and moment <= now:
        moment += QUIET
    return moment if moment is not None and moment > now else None


def told(account: Account) -> str:
    """Say in words what keeps the agents of *account* from starting; empty when nothing does."""
    said = f" ({account.reason.strip().splitlines()[0]})" if account.reason.strip() else ""
    match account.state:
        case AccountState.OPEN:
            return ""
        case AccountState.LIMITED if account.resets_at is not None:
            return f"{account.name} is at its limit until {_clock(account.resets_at)}{said}"
        case AccountState.LIMITED:
            again = f"; one agent tries at {_clock(account.next_at)}" if account.next_at is not None else ""
            return f"{account.name} is at its limit, until when was not said{again}{said}"
        case AccountState.REFUSED:
            return f"{account.name} is refused: {remedy(account)}{said}"
        case AccountState.TRYING:
            return f"one agent tries whether {account.name} goes again{said}"
        case AccountState.RESTARTING:
            return f"{account.name} goes again; agents start one after the other"


def remedy(account: Account) -> str:
    """Say what a person can do about an account whose credentials are refused."""
    if account.trouble is Trouble.LOGIN_EXPIRED or account.account_id.startswith(LOGIN):
        return "the login has expired or is not accepted; log in again with `claude`, then `kapelle resume RUN`"
    return "the key is not valid; stop Kapelle, set another one, then `kapelle resume RUN`"


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
