"""`kapelle report`: what it counts, as text, as JSON and as a page."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kapelle.apps.charts import page
from kapelle.apps.summary import STAGES, Day, Summary, summary
from kapelle.core.budget import Spend
from kapelle.core.liveness_events import AgentNoted
from kapelle.core.task import TaskState
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import writes
from kapelle.testing.liveness import BEAT
from kapelle.testing.places import Place
from kapelle.testing.worlds import world

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WORKFLOW = """\
name: day
defaults: {agent: script, gate: none}
tasks:
  one: {prompt: 'echo 1 > one.txt'}
  two: {prompt: 'exit 3', max_attempts: 1}
"""
WRONG = (("--day", "someday"), ("--since", "x"), ("--day", "today", "--since", "1d"), ("--since", "1h", "--until", "2h"))


async def test_what_happened_is_counted_by_stage_and_day(tmp_path: Path) -> None:
    async with world(tmp_path, heartbeat=BEAT, slots=1) as here:
        await here.submit(run_spec(task("one"), task("two", needs=("one",))))
        leader = await here.lead()
        await leader.run()
        here.clock.move(timedelta(minutes=4))
        here.gateway.call(here.process("one").token, usd=2.0)
        writes({"one.py": "1"})(here.process("one"), "")
        await leader.run()
        here.clock.move(timedelta(hours=24))
        writes({"two.py": "1"})(here.process("two"), "")
        await leader.run()
        noted = len(await here.events(AgentNoted))
        found = await here.store.read(lambda view: summary(view, here.clock.now()))
        first = await here.store.read(lambda view: summary(view, here.clock.now(), until=NOON + timedelta(hours=1)))
    assert found.ended == {TaskState.COMPLETED: 2}
    assert (found.success, found.open, found.runs, found.tries) == (1.0, 0, 1, 2)
    by_day = [(day.day.day, day.completed, day.cost_usd) for day in found.days]
    assert by_day == [(1, 1, 2.0), (2, 1, 0.0)]
    assert found.stages[TaskState.RUNNING] == timedelta(hours=24, minutes=4)
    assert found.stages[TaskState.PENDING] == timedelta(minutes=4)
    assert found.hours == pytest.approx(24 + 4 / 60)
    assert found.helped.get("noted", 0) == noted
    assert first.ended == {TaskState.COMPLETED: 1}
    assert first.stages[TaskState.RUNNING] == timedelta(hours=1), "the rest was later"


def test_a_run_is_told_as_text_as_json_and_as_a_page(place: Place, tmp_path: Path) -> None:
    place.write("flow.yml", WORKFLOW)
    assert place.run("run", "../flow.yml").code == 1
    text = place.run("report").out
    assert "1 completed, 1 failed" in text
    assert "agent at work" in text
    found = place.run("report", "day", "--day", "today", "--json").json
    assert (found["tasks"], found["success"]) == ({"completed": 1, "failed": 1}, 0.5)
    assert found["failed_attempts"] == {"agent_failed": 1}
    said = place.run("report", "--html", str(tmp_path / "page.html"))
    assert said.out == f"Written: {tmp_path / 'page.html'}\n"
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_what_is_no_time_is_told(place: Place) -> None:
    for arguments in WRONG:
        assert place.run("report", *arguments).code == 2
    assert place.run("report", "--html", "/no/such/folder/page.html").code == 2


class Tags(HTMLParser):
    """Sees whether every tag that is opened is closed, and what is loaded from elsewhere."""

    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.loads += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.loads += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


EXAMPLE = Summary(
    title="<script>alert(1)</script>\x1b[31m",
    since=NOON,
    until=NOON + timedelta(days=1),
    runs=1,
    ended={TaskState.COMPLETED: 3, TaskState.FAILED: 1},
    open=0,
    hours=1.0,
    typical=timedelta(minutes=3),
    late=timedelta(minutes=5),
    stages=dict.fromkeys(STAGES, timedelta(minutes=1)),
    tries=4,
    failed_tries={"gate_failed": 1},
    gate_returns=1,
    merge_returns=0,
    helped={},
    alerts=0,
    spend=Spend(cost_usd=2.5, calls=7),
    days=(
        Day(day=date(2026, 3, 1), completed=3, failed=1, cost_usd=2.5, typical=timedelta(minutes=3)),
        Day(day=date(2026, 3, 2)),
    ),
    unpaid="$2.50 of it was rehearsed: nothing was paid",
)


def test_a_page_is_whole_needs_nothing_else_and_believes_no_name() -> None:
    text = page(EXAMPLE, NOON)
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.loads == []
    assert "script" not in tags.seen
    assert "\x1b" not in text
    assert {"svg", "rect", "table"} <= tags.seen
    assert "prefers-color-scheme: dark" in text
    assert re.search(r"<title>2026-03-01: 3</title>", text)
    assert "7 model calls; $2.50 of it was rehearsed" in text
    scales = [re.findall(r'text-anchor="end">([^<]+)<', chart) for chart in text.split("<section>")]
    assert scales[2:5] == [["0", "2", "4"], ["$0.00", "$1.25", "$2.50"], ["0s", "1.5m", "3m"]]


def test_half_of_an_odd_number_of_tasks_is_not_told() -> None:
    found = replace(EXAMPLE, days=(Day(day=date(2026, 3, 1), completed=5),))
    assert re.findall(r'text-anchor="end">([^<]+)<', page(found, NOON).split("<section>")[2]) == ["0", "5"]
