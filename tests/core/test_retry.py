"""Delays before the next try."""

from datetime import timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from kapelle.core.retry import RetryPolicy, delay

quick = settings(max_examples=100, deadline=None)
policies = st.builds(
    RetryPolicy,
    initial=st.timedeltas(timedelta(0), timedelta(hours=1)),
    factor=st.floats(1, 1e9),
    maximum=st.timedeltas(timedelta(0), timedelta(days=1)),
    jitter=st.floats(0, 1),
)
failures = st.integers(1, 1000)
chances = st.floats(0, 1, exclude_max=True)
MIDDLE = 0.5
TICK = timedelta(microseconds=1)


def test_the_delay_doubles_until_it_is_the_longest() -> None:
    policy = RetryPolicy(initial=timedelta(seconds=5), factor=2, maximum=timedelta(seconds=60), jitter=0.2)
    seconds = [delay(policy, count, MIDDLE).total_seconds() for count in range(1, 7)]
    assert seconds == [5, 10, 20, 40, 60, 60]


def test_chance_spreads_the_delay_evenly_to_both_sides() -> None:
    policy = RetryPolicy(initial=timedelta(seconds=100), jitter=0.2)
    assert delay(policy, 1, 0) == timedelta(seconds=80)
    assert delay(policy, 1, MIDDLE) == timedelta(seconds=100)
    assert delay(policy, 1, 0.75) == timedelta(seconds=110)


def test_without_jitter_chance_changes_nothing() -> None:
    policy = RetryPolicy(jitter=0)
    assert delay(policy, 3, 0) == delay(policy, 3, 0.99)


def test_a_small_factor_grows_to_the_longest_delay_too() -> None:
    policy = RetryPolicy(initial=timedelta(seconds=1), factor=1.01, maximum=timedelta(minutes=5))
    assert delay(policy, 1000, MIDDLE) == timedelta(minutes=5)


@quick
@example(policy=RetryPolicy(factor=1e9), count=1000, chance=0.5)  # the power is more than a float can hold
@example(policy=RetryPolicy(initial=timedelta(0), factor=1e9), count=1000, chance=0.5)
@given(policy=policies, count=failures, chance=chances)
def test_a_delay_is_never_negative_and_exceeds_the_longest_by_no_more_than_the_jitter(
    policy: RetryPolicy, count: int, chance: float
) -> None:
    found = delay(policy, count, chance)
    assert timedelta(0) <= found <= policy.maximum * (1 + policy.jitter) + TICK


@quick
@given(policy=policies, count=failures, chance=chances)
def test_a_delay_stays_within_the_jitter_of_its_middle(policy: RetryPolicy, count: int, chance: float) -> None:
    middle = delay(policy, count, MIDDLE)
    assert middle * (1 - policy.jitter) - TICK <= delay(policy, count, chance) <= middle * (1 + policy.jitter) + TICK


@quick
@given(policy=policies, count=failures, chance=chances)
def test_another_failure_never_shortens_the_delay(policy: RetryPolicy, count: int, chance: float) -> None:
    assert delay(policy, count, chance) <= delay(policy, count + 1, chance)


@quick
@given(policy=policies, chance=chances)
def test_no_failure_counts_as_one(policy: RetryPolicy, chance: float) -> None:
    assert delay(policy, 0, chance) == delay(policy, 1, chance)
