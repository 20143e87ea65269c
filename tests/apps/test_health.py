"""`kapelle status`: what each agent does, how the work goes, how the machine does; and what is told of stuck agents."""

from datetime import UTC, datetime, timedelta

import pytest

from kapelle.apps.cli.telling import line_of
from kapelle.apps.health import AgentHealth
from kapelle.core.event import Event
from kapelle.core.ids import AgentId, AttemptId, RunId, TaskId
from kapelle.core.liveness import Condition, Grade
from kapelle.core.liveness_events import (
    AgentInterrupted,
    AgentNoted,
    AgentProbed,
    AgentRecovered,
    AlertCleared,
    AlertRaised,
)
from kapelle.testing.places import Place, until

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WORKFLOW = """\
name: slow
defaults: {agent: script, gate: none}
tasks:
  one: {prompt: "echo up; read answer < fifo"}
"""


def test_status_tells_what_agents_do_and_how_the_machine_does(place: Place) -> None:
    place.write("flow.yml", WORKFLOW.replace("read answer < fifo", "mkfifo fifo; read answer < fifo"))
    (place.repository / ".kapelle" / "project.yml").write_text("name: shop\nalerts: {disk_free: 900000GB}\n")
    with place.start("run", "../flow.yml", env={"KAPELLE_HEARTBEAT": "1s"}) as leader:
        until(leader, "alert disk_free")
        until_started = place.run("status", "--json").json["health"]
        said = place.run("status")
        waiting = place.run("inbox")
        leader.terminate()
        until(leader, "again stops now")
        leader.terminate()
        leader.communicate()
    assert said.code == 0
    (alert,) = until_started["alerts"]
    assert (alert["name"], alert["project"]) == ("disk_free", "shop")
    assert until_started["work"]["at_work"] + until_started["work"]["waiting"] == 1
    system = until_started["system"]
    assert system["memory_free"] <= system["memory"]
    assert system["store"] > 0
    assert "memory free" in said.out
    assert "alert disk_free of shop" in said.out
    assert "alert disk_free of shop" in waiting.out
    # With nobody leading, nobody looks.
    assert place.run("status", "--json").json["health"]["alerts"] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"doing": "Bash make"}, "works: Bash make"),
        ({}, "works"),
        ({"condition": Condition.BLOCKED, "grade": Grade.NOTE}, "does nothing for 5m00s (silent)"),
        ({"condition": Condition.LOOPING, "grade": Grade.NUDGE}, "does the same again and again for 5m00s (silent); told"),
        ({"condition": Condition.WAITING, "reasons": ()}, "waits for a person for 5m00s"),
    ],
)
def test_what_an_agent_does_is_said_in_words(changes: dict[str, object], words: str) -> None:
    values: dict[str, object] = {
        "agent_id": AgentId("g-1"),
        "attempt_id": AttemptId("a-1"),
        "run_id": RunId("r-1"),
        "task_id": TaskId("t-1"),
        "task": "one",
        "condition": Condition.WORKING,
        "since": NOON - timedelta(minutes=5),
        "reasons": ("silent",),
        "grade": Grade.NONE,
        "doing": "",
        "worked_at": NOON,
    }
    assert AgentHealth(**(values | changes)).words(NOON) == words  # type: ignore[arg-type]


BROKEN_OFF = "; its turn was broken off, and it goes on with what was seen"
WHO = {"task_id": TaskId("t-1"), "agent_id": AgentId("g-1")}
STUCK = {**WHO, "condition": "blocked", "since": NOON, "evidence": ("it has said nothing for 3m00s",)}


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (AgentNoted(**STUCK), "one: its agent: does nothing (it has said nothing for 3m00s)"),
        (AgentProbed(**STUCK), "one: its agent: does nothing (it has said nothing for 3m00s); it was probed"),
        (AgentInterrupted(**STUCK), f"one: its agent: does nothing (it has said nothing for 3m00s){BROKEN_OFF}"),
        (AgentRecovered(**WHO, after="blocked", since=NOON), "one: its agent works again (before, it was: does nothing)"),
        (AlertRaised(alert="disk_free", limit=1.0, value=0.0, told="the disk is full"), "alert disk_free: the disk is full"),
        (AlertCleared(alert="disk_free", limit=1.0, value=2.0), "alert disk_free is over"),
    ],
)  # fmt: skip
def test_what_is_done_about_agents_is_told_in_a_line(event: Event, line: str) -> None:
    assert list(line_of(event, {"t-1": "one"})) == [line]


def test_what_is_told_elsewhere_is_not_told_twice() -> None:
    waiting = AgentNoted(**{**STUCK, "condition": "waiting_for_person"})
    assert list(line_of(waiting, {"t-1": "one"})) == []
