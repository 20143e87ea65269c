"""The machine's time as Kapelle sees it: whoever sets the clock, nothing waits for an hour or a day because of it."""

from datetime import UTC, datetime, timedelta

from kapelle.apps.clock import SystemClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Machine:
    """A time of day that somebody may set, and a count that nobody may."""

    def __init__(self) -> None:
        self.wall = NOON
        self.count = 100.0

    def passes(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.count += seconds

    def clock(self) -> SystemClock:
        return SystemClock(lambda: self.wall, lambda: self.count)


def test_it_is_the_time_of_day() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.passes(90)
    assert clock.now() == NOON + timedelta(seconds=90)


def test_set_back_by_an_hour_it_goes_on_as_if_nobody_had() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall -= timedelta(hours=1)
    assert clock.now() == NOON
    machine.passes(60)
    assert clock.now() == NOON + timedelta(minutes=1)
    machine.passes(60)
    assert clock.now() == NOON + timedelta(minutes=2)


def test_set_forward_by_a_day_it_follows() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall += timedelta(days=1)
    assert clock.now() == NOON + timedelta(days=1)


def test_a_small_correction_is_followed_and_never_back() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.passes(10)
    machine.wall -= timedelta(milliseconds=500)
    assert clock.now() == NOON + timedelta(seconds=9.5)
    machine.wall -= timedelta(milliseconds=300)
    assert clock.now() == NOON + timedelta(seconds=9.5)


def test_time_spent_asleep_counts() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall += timedelta(hours=8)
    assert clock.now() == NOON + timedelta(hours=8)
