"""When to try again."""

import sys
from datetime import timedelta

from kapelle.core.frozen import frozen


@frozen
class RetryPolicy:
    """Exponential delays with jitter."""

    initial: timedelta = timedelta(seconds=5)
    factor: float = 2.0
    maximum: timedelta = timedelta(minutes=5)
    jitter: float = 0.2
    """The share of the delay that chance may add or take away, from 0 to 1."""


def delay(policy: RetryPolicy, failures: int, chance: float) -> timedelta:
    """Return how long to wait after the given number of *failures* (1 or more).

    *chance* is a random number in [0, 1); it spreads the delay evenly over ``1 - jitter`` to ``1 + jitter`` of its size.
    The result never exceeds ``maximum`` by more than the jitter.
    """
    try:
        growth = policy.factor ** max(failures - 1, 0)
    except OverflowError:
        growth = sys.float_info.max  # a float overflows long before a patient person gives up
    plain = min(policy.initial.total_seconds() * growth, policy.maximum.total_seconds())
    return timedelta(seconds=plain * (1 + policy.jitter * (2 * chance - 1)))
