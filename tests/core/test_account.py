"""The rules of accounts: pure, so every order of what may be heard can be tried."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.core.account import (
    QUIET,
    SPACING,
    STAGGERED,
    Account,
    AccountState,
    account_of,
    begun,
    got_through,
    may_start,
    next_change,
    passed,
    reference_of,
    remedy,
    retry_now,
    shut,
    shuts,
    told,
)
from kapelle.core.conversation import Trouble
from kapelle.core.gateway import Upstream
from kapelle.core.ids import AccountId, AttemptId

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
OPEN = Account(account_id=AccountId("env:KEY@https://api.example"), name="env:KEY at api.example")
TRIER = AttemptId("a-1")


def limited(account: Account = OPEN, *, now: datetime = NOON, resets_at: datetime | None = NOON + HOUR) -> Account:
    return shut(account, Trouble.USAGE_LIMIT, "hit your limit", now=now, resets_at=resets_at, key="", chance=0.5)


def refused(account: Account = OPEN, trouble: Trouble = Trouble.INVALID_KEY) -> Account:
    return shut(account, trouble, "invalid x-api-key", now=NOON, resets_at=None, key="mark", chance=0.5)


@pytest.mark.parametrize(
    ("upstream", "name", "reference"),
    [
        (Upstream(credential="env:KEY"), "env:KEY at api.anthropic.com", "env:KEY"),
        (Upstream(), "the login of claude at api.anthropic.com", "login:claude"),
        (Upstream(bypass=True, base_url="http://127.0.0.1:1/"), "the login of claude at 127.0.0.1:1", "login:claude"),
        (Upstream(rehearsal="/state/rehearsals/r-1.yml"), "rehearsal r-1.yml", None),
    ],
)
def test_an_account_is_who_pays_and_where(upstream: Upstream, name: str, reference: str | None) -> None:
    assert account_of(upstream).name == name
    assert reference_of(upstream) == reference


def test_two_runs_with_one_key_share_an_account_and_those_with_two_do_not() -> None:
    ids = {account_of(Upstream(credential=name)).account_id for name in ("env:A", "env:A", "env:B")}
    assert len(ids) == 2


@pytest.mark.parametrize("trouble", list(Trouble))
def test_only_limits_and_credentials_are_the_whole_accounts(trouble: Trouble) -> None:
    assert shuts(trouble, None) is (trouble in {Trouble.USAGE_LIMIT, Trouble.LOGIN_EXPIRED, Trouble.INVALID_KEY})


def test_a_busy_minute_is_the_accounts_only_when_it_is_said_to_last() -> None:
    assert shuts(Trouble.RATE_LIMITED, NOON)
    assert not shuts(None, None)


def test_nobody_starts_before_the_reset() -> None:
    account = limited()
    assert may_start(account, NOON + HOUR - SECOND) == 0
    assert passed(account, NOON + HOUR - SECOND) == account
    assert next_change(account, NOON) == NOON + HOUR


def test_the_same_limit_heard_by_many_agents_is_one() -> None:
    first = limited()
    assert limited(first, now=NOON + SECOND) == first
    assert limited(first, now=NOON + SECOND, resets_at=None) == first


def test_a_longer_limit_replaces_a_shorter_one() -> None:
    assert limited(limited(), resets_at=NOON + 2 * HOUR).next_at == NOON + 2 * HOUR


@pytest.mark.parametrize("resets_at", [NOON - HOUR, NOON, NOON + timedelta(days=400)])
def test_a_reset_that_nobody_can_wait_for_is_not_believed(resets_at: datetime) -> None:
    account = limited(resets_at=resets_at)
    assert account.resets_at is None
    assert account.next_at is not None
    assert NOON < account.next_at < NOON + HOUR


@given(st.lists(st.integers(0, 10), min_size=2 * STAGGERED, max_size=2 * STAGGERED))
def test_agents_of_an_account_that_comes_back_start_one_after_the_other(steps: list[int]) -> None:
    account, now, starts = limited(), NOON + HOUR, list[datetime]()
    for step in steps:
        account = passed(account, now)
        bound = may_start(account, now)
        if bound is None:
            break
        assert bound <= 1
        if bound:
            account = begun(account, TRIER, now)
            starts.append(now)
        now += step * SECOND
    assert all(later - earlier >= SPACING for earlier, later in pairwise(starts))
    assert len(starts) <= STAGGERED


def test_an_account_for_which_nobody_waits_any_more_is_as_before() -> None:
    back = passed(limited(), NOON + HOUR)
    assert back.state is AccountState.RESTARTING
    quiet = next_change(back, NOON + HOUR)
    assert quiet == NOON + HOUR + QUIET
    assert passed(back, NOON + HOUR + QUIET) == OPEN


def test_where_no_reset_is_known_one_tries_and_the_pauses_grow() -> None:
    account, now, pauses = OPEN, NOON, list[timedelta]()
    for _ in range(8):
        account = limited(account, now=now, resets_at=None)
        assert account.next_at is not None
        pauses.append(account.next_at - now)
        now = account.next_at
        account = passed(account, now)
        assert (account.state, may_start(account, now)) == (AccountState.TRYING, 1)
        account = begun(account, TRIER, now)
        assert may_start(account, now + HOUR) == 0
    assert pauses == sorted(pauses)
    assert pauses[-1] <= timedelta(minutes=36)


def test_when_the_one_that_tries_gets_through_the_others_follow_one_by_one() -> None:
    trying = begun(passed(limited(resets_at=None), NOON + HOUR), TRIER, NOON + HOUR)
    back = got_through(trying, NOON + HOUR)
    assert may_start(back, NOON + HOUR) == 0
    assert may_start(back, NOON + HOUR + SPACING) == 1


def test_a_call_that_was_on_its_way_when_the_account_was_shut_proves_nothing() -> None:
    assert got_through(limited(), NOON) == limited()
    assert got_through(refused(), NOON) == refused()
    assert got_through(OPEN, NOON) == OPEN


def test_refused_credentials_wait_for_a_person_for_ever() -> None:
    account = refused()
    assert passed(account, NOON + 1000 * HOUR) == account
    assert next_change(account, NOON) is None
    assert refused(account) == account
    assert limited(account) == account
    assert retry_now(account, NOON).state is AccountState.TRYING


def test_trying_is_for_what_is_shut_alone() -> None:
    trying = begun(retry_now(refused(), NOON), TRIER, NOON)
    assert retry_now(trying, NOON) == trying
    assert retry_now(OPEN, NOON) == OPEN


def test_each_state_is_told_in_words_that_name_the_account() -> None:
    assert told(OPEN) == ""
    assert told(limited()) == "env:KEY at api.example is at its limit until 2026-03-01 13:00:00 UTC (hit your limit)"
    assert "one agent tries at 2026-03-01 12:01:00 UTC" in told(limited(resets_at=None))
    for account in (refused(), retry_now(refused(), NOON), passed(limited(), NOON + HOUR)):
        assert OPEN.name in told(account)


def test_what_a_person_can_do_depends_on_what_is_wrong() -> None:
    assert "`claude`" in remedy(refused(trouble=Trouble.LOGIN_EXPIRED))
    assert "key" in remedy(refused())
    assert "`claude`" in remedy(refused(account_of(Upstream())))


TROUBLES = st.sampled_from([Trouble.USAGE_LIMIT, Trouble.RATE_LIMITED, Trouble.LOGIN_EXPIRED, Trouble.INVALID_KEY])


@given(st.lists(st.tuples(st.sampled_from("srtbp"), TROUBLES, st.integers(0, 7200), st.booleans()), max_size=40))
def test_whatever_is_heard_an_account_is_never_stuck(heard: list[tuple[str, Trouble, int, bool]]) -> None:
    account, now = OPEN, NOON
    for what, trouble, seconds, known in heard:
        now += timedelta(seconds=seconds)
        if what == "s":
            resets_at = now + HOUR if known else None
            account = shut(account, trouble, "no", now=now, resets_at=resets_at, key="k", chance=0.5)
        elif what == "r":
            account = retry_now(account, now)
        elif what == "t":
            account = got_through(account, now)
        elif what == "b" and may_start(account, now) != 0:
            account = begun(account, TRIER, now)
        account = passed(account, now)
        # Either somebody may start, or tries, or a time is known, or a person is asked: never none of them.
        waits_for_somebody = account.state is AccountState.REFUSED or account.tried_by is not None
        assert may_start(account, now) != 0 or next_change(account, now) is not None or waits_for_somebody
        assert bool(told(account)) is (account.state is not AccountState.OPEN)
