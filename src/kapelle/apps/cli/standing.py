"""How agents stand and how it goes, on a terminal."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.text import Text

from kapelle.apps.cli.tables import Column, print_hanging, print_table
from kapelle.apps.health import AgentHealth, Health, SystemHealth, WorkHealth
from kapelle.core.durations import format_duration
from kapelle.core.liveness import LADDERS, Condition
from kapelle.core.plain_text import shown
from kapelle.core.standings import Alert

STYLES: dict[Condition, str] = {
    Condition.WORKING: "green",
    Condition.DEAD: "bold red",
    Condition.OUT_OF_MEMORY: "red",
    Condition.FROZEN: "cyan",
}
"""Colours; what is not named here waits for something, or is stuck."""
COLUMNS = (Column(name="AGENT"), Column(name="TASK", folds=True), Column(name="DOES", folds=True, least=24))


def print_health(console: Console, found: Health, system: SystemHealth, now: datetime) -> None:
    """Print how the agents stand, how the work goes, how the machine does, and what passed its bound."""
    if found.agents:
        print_table(console, COLUMNS, [_row(agent, now) for agent in found.agents])
    if words := _work(found.work):
        print_hanging(console, Text(), shown(" · ".join(words)), "dim")
    print_hanging(console, Text(), shown(" · ".join(system.words())), "dim")
    print_alerts(console, found.alerts, now)


def print_alerts(console: Console, alerts: Sequence[Alert], now: datetime) -> None:
    """Print the bounds that were passed by, and since when."""
    for alert in alerts:
        where = f" of {alert.project}" if alert.project else ""
        age = format_duration(max(now - alert.raised_at, now - now))
        told = f"{alert.name}{where}: {alert.told}, for {age}"
        print_hanging(console, Text("alert ", style="bold red"), shown(told), "red")


def _row(agent: AgentHealth, now: datetime) -> Sequence[str | Text]:
    stuck = "yellow" if agent.condition not in LADDERS else "bold yellow"
    return agent.agent_id, agent.task, Text(agent.words(now), style=STYLES.get(agent.condition, stuck))


def _work(work: WorkHealth) -> list[str]:
    if not work.at_work + work.waiting + work.completed + work.failed:
        return []
    found = [f"{work.at_work} at work", f"{work.waiting} waiting"]
    if work.queue_age.total_seconds() >= 1:
        found.append(f"the next one has waited {format_duration(work.queue_age)}")
    if work.success is not None:
        found.append(f"{work.success:.0%} of {work.completed + work.failed} tasks succeeded")
    if work.tries:
        found.append(f"{work.failed_tries} of {work.tries} attempts failed")
    return found
