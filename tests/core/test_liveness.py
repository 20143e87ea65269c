"""What an agent is taken for, by what was seen of it; and how far it is interfered with: never on the word of one source."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.core.ids import AgentId, AttemptId, RunId, TaskId
from kapelle.core.liveness import (
    BREAKS_OFF,
    IN_WORDS,
    LADDERS,
    Condition,
    Evidence,
    Grade,
    Judgement,
    Processes,
    Repeats,
    Repetition,
    Source,
    Standing,
    ToolAtWork,
    answered,
    judge,
    outside,
    respond,
    settled,
)
from kapelle.core.nudging import ADVICE, broken_off, nudged, started_anew
from kapelle.core.patience import Patience

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PATIENCE = Patience()
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


def ago(**parts: float) -> datetime:
    return NOON - timedelta(**parts)


def seen(**changes: object) -> Evidence:
    """Return the evidence of an agent that has been silent for an hour, whose processes do nothing."""
    values: dict[str, object] = {
        "begun_at": ago(hours=1),
        "heard_at": ago(hours=1),
        "call_at": ago(hours=1),
        "processes": Processes(worked_at=ago(hours=1), measured_at=NOON),
    }
    return Evidence(**(values | changes))  # type: ignore[arg-type]


def standing(**changes: object) -> Standing:
    values: dict[str, object] = {
        "attempt_id": AttemptId("a-1"),
        "agent_id": AgentId("g-1"),
        "run_id": RunId("r-1"),
        "task_id": TaskId("t-1"),
        "since": ago(hours=1),
        "beat_at": NOON,
        "worked_at": ago(hours=1),
    }
    return Standing(**(values | changes))  # type: ignore[arg-type]


STOPPED = Processes(stopped=1, worked_at=ago(minutes=1), measured_at=NOON)
TOOL = ToolAtWork(tool="Bash", about="make", since=ago(hours=1))
LOOP = Repetition(tool="Bash", about="make test", times=20, since=ago(minutes=5))


@pytest.mark.parametrize(
    ("condition", "changes"),
    [
        (Condition.BLOCKED, {}),
        (Condition.WORKING, {"heard_at": ago(minutes=2)}),
        (Condition.WORKING, {"processes": Processes(worked_at=ago(minutes=2), measured_at=NOON)}),
        (Condition.WORKING, {"changed_at": ago(minutes=2)}),
        (Condition.WORKING, {"in_turn": False}),
        (Condition.WORKING, {"held": True}),
        (Condition.WORKING, {"sees_calls": False, "heard_at": ago(minutes=9)}),
        (Condition.BLOCKED, {"sees_calls": False}),
        (Condition.BLOCKED, {"processes": STOPPED, "begun_at": ago(minutes=1)}),
        (Condition.BLOCKED, {"processes": Processes(waiting=1, worked_at=ago(hours=1), measured_at=NOON)}),
        (Condition.SILENT_TOOL, {"tools": (TOOL,)}),
        (Condition.SILENT_TOOL, {"reports_tools": False}),
        (Condition.WORKING, {"tools": (TOOL,), "heard_at": ago(minutes=9)}),
        (Condition.STALLED_STREAM, {"calls": (ago(minutes=3),)}),
        (Condition.STALLED_STREAM, {"calls": (ago(minutes=3),), "tools": (TOOL,)}),
        (Condition.WORKING, {"calls": (ago(minutes=1),)}),
        (Condition.WAITING, {"question": "may it?"}),
        (Condition.USAGE_LIMIT, {"limited": "until noon"}),
        (Condition.EXPIRED_LOGIN, {"refused": "log in"}),
        (Condition.OUT_OF_MEMORY, {"out_of_memory": "2 GB"}),
        (Condition.FROZEN, {"frozen": True}),
        (Condition.DEAD, {"processes": Processes(alive=False, worked_at=ago(hours=1), measured_at=NOON)}),
        (Condition.LOOPING, {"repetition": LOOP}),
        (Condition.LOOPING, {"repetition": LOOP, "heard_at": NOON}),
        (Condition.WORKING, {"repetition": LOOP, "heard_at": NOON, "changed_at": ago(minutes=1), "looked_at": NOON}),
        (Condition.WORKING, {"repetition": replace(LOOP, times=4), "heard_at": NOON}),
        (Condition.STRAYING, {"strayed": ("other.py",), "heard_at": NOON}),
        (Condition.BLOCKED, {"strayed": ("other.py",)}),
    ],
)  # fmt: skip
def test_what_an_agent_is_taken_for(condition: Condition, changes: dict[str, object]) -> None:
    assert judge(seen(**changes), NOON, PATIENCE).condition is condition


def test_every_condition_has_words_and_every_answered_one_has_advice() -> None:
    assert set(IN_WORDS) == set(Condition)
    assert set(ADVICE) == set(LADDERS)
    for condition in LADDERS:
        for said in (nudged, broken_off, started_anew):
            assert "it has said nothing for 3m00s" in said(condition, ["it has said nothing for 3m00s"])


def test_one_process_that_was_stopped_is_told_apart_from_several() -> None:
    there = Processes(stopped=1, worked_at=ago(hours=1), measured_at=NOON)
    assert judge(seen(processes=there), NOON, PATIENCE).reasons[0] == "a process of it was stopped by a signal"
    there = replace(there, stopped=3)
    assert judge(seen(processes=there), NOON, PATIENCE).reasons[0] == "3 processes of it were stopped by a signal"


def test_a_loop_is_broken_off_only_where_nothing_changes() -> None:
    """That its calls fail is one source, that its workspace stays the same another."""
    only_told = judge(seen(repetition=LOOP, heard_at=NOON), NOON, PATIENCE)
    assert only_told.sources == {Source.SPOOL}
    looked = judge(seen(repetition=LOOP, heard_at=NOON, looked_at=NOON), NOON, PATIENCE)
    assert looked.sources == {Source.SPOOL, Source.WORKSPACE}
    nudged_ = standing(condition=Condition.LOOPING, grade=Grade.NUDGE, answered_at=NOON)
    assert respond(nudged_, only_told, NOON, PATIENCE) is None
    assert respond(nudged_, looked, NOON, PATIENCE) is Grade.INTERRUPT


def test_what_cannot_go_on_where_it_was_is_never_broken_off() -> None:
    found = judge(seen(reports_tools=False, resumable=False), NOON, PATIENCE)
    row = standing(condition=found.condition, grade=Grade.PROBE, answered_at=ago(hours=1))
    assert respond(row, found, NOON, PATIENCE) is None


def test_the_same_call_is_counted_until_it_succeeds_or_something_changes() -> None:
    repeats = Repeats()
    for _ in range(4):
        repeats = repeats.failed("Bash", "key", "make", NOON).failed("Read", "other", "x", NOON)
    assert repeats.worst == Repetition(tool="Bash", about="make", times=4, since=NOON)
    assert repeats.succeeded("Read", "other", changes=False).worst == repeats.worst
    assert repeats.succeeded("Bash", "key", changes=False).worst == Repetition(tool="Read", about="x", times=4, since=NOON)
    assert repeats.succeeded("Write", "any", changes=True).worst is None
    for number in range(100):
        repeats = repeats.failed("Bash", f"key {number}", "make", NOON)
    assert len(repeats.failing) < 10


def test_what_a_task_does_not_name_is_outside() -> None:
    files = ["src/a.py", "src/deep/b.py", "docs/x.md", "README.md"]
    assert outside(files, ["src/**"]) == ("docs/x.md", "README.md")
    assert outside(files, ["src", "*.md"]) == ("docs/x.md",)
    assert outside(files, ["src/", "docs/*.md", "README.md"]) == ()


# --- Properties ---

moments = st.integers(0, 3600).map(lambda seconds: NOON - seconds * SECOND)
maybe = st.none() | moments
processes = st.none() | st.builds(
    Processes,
    alive=st.just(value=True),
    stopped=st.integers(0, 2),
    waiting=st.integers(0, 2),
    worked_at=moments,
    measured_at=moments,
)
evidence = st.builds(
    Evidence,
    begun_at=moments,
    in_turn=st.booleans(),
    heard_at=moments,
    tools=st.lists(st.builds(ToolAtWork, tool=st.just("Bash"), about=st.just("make"), since=moments), max_size=2).map(tuple),
    sees_calls=st.booleans(),
    call_at=maybe,
    calls=st.lists(moments, max_size=2).map(tuple),
    held=st.booleans(),
    processes=processes,
    changed_at=maybe,
    looked_at=maybe,
    strayed=st.sampled_from([(), ("other.py",)]),
    repetition=st.none() | st.builds(Repetition, tool=st.just("Bash"), times=st.integers(1, 30), since=moments),
    question=st.sampled_from(["", "", "may it?"]),
    limited=st.sampled_from(["", "", "until noon"]),
    refused=st.sampled_from(["", "", "log in"]),
    frozen=st.booleans(),
    reports_tools=st.booleans(),
    resumable=st.booleans(),
    hears=st.booleans(),
)
standings = st.builds(
    standing,
    condition=st.sampled_from(Condition),
    grade=st.sampled_from(Grade),
    answered_at=maybe,
    interrupts=st.integers(0, 3),
    restarts=st.integers(0, 3),
    warned=st.booleans(),
)


def step(row: Standing, found: Judgement, hears: bool) -> tuple[Standing, Grade | None]:
    after = settled(row, found, NOON)
    grade = respond(after, found, NOON, PATIENCE, hears=hears)
    return (after if grade is None else answered(after, grade, NOON)), grade


@given(evidence, standings)
def test_nothing_is_broken_off_on_the_word_of_one_source(what: Evidence, row: Standing) -> None:
    found = judge(what, NOON, PATIENCE)
    _, grade = step(row, found, what.hears)
    if grade in BREAKS_OFF:
        assert len(found.sources) >= 2
        assert found.condition in LADDERS
        assert what.resumable


@given(evidence, standings)
def test_who_shows_a_sign_of_work_is_never_answered_but_for_its_loops_and_files(what: Evidence, row: Standing) -> None:
    """A sign within the shortest patience: of whatever kind it is."""
    found = judge(what, NOON, PATIENCE)
    _, grade = step(row, found, what.hears)
    if NOON - what.worked_at < min(PATIENCE.stopped, PATIENCE.stream, PATIENCE.silence, PATIENCE.tool):
        allowed = {None, Grade.NOTE}
        if found.condition in {Condition.LOOPING, Condition.STRAYING}:
            allowed |= {Grade.NUDGE, Grade.INTERRUPT, Grade.RESTART, Grade.GIVE_UP}
        assert grade in allowed


@given(evidence, standings)
def test_grades_only_rise_and_each_is_given_once(what: Evidence, row: Standing) -> None:
    found = judge(what, NOON, PATIENCE)
    after = settled(row, found, NOON)
    once, grade = step(row, found, what.hears)
    if grade is not None:
        assert grade.height > after.grade.height
        again = respond(once, found, NOON, PATIENCE, hears=what.hears)
        assert again is not grade


@given(evidence, standings)
def test_who_works_begins_with_a_clean_slate(what: Evidence, row: Standing) -> None:
    found = judge(what, NOON, PATIENCE)
    if found.condition is Condition.WORKING and row.condition is not Condition.WORKING:
        after = settled(row, found, NOON)
        assert (after.grade, after.answered_at) == (Grade.NONE, None)
        assert (after.interrupts, after.restarts) == (row.interrupts, row.restarts)


@given(evidence, standings)
def test_a_person_is_never_disturbed_in_what_they_hold(what: Evidence, row: Standing) -> None:
    """Frozen agents, and those that wait for an answer or an account, are noted and left alone."""
    what = replace(what, frozen=True)
    _, grade = step(row, judge(what, NOON, PATIENCE), what.hears)
    assert grade in {None, Grade.NOTE}


@given(evidence)
def test_how_often_is_bounded(what: Evidence) -> None:
    row = standing(condition=Condition.BLOCKED, grade=Grade.NUDGE, answered_at=ago(hours=1), interrupts=9, restarts=9)
    found = judge(what, NOON, PATIENCE)
    _, grade = step(row, found, what.hears)
    assert grade not in {Grade.INTERRUPT, Grade.RESTART}
