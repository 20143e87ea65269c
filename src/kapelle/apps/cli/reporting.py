"""`report`: how the work went, of one run or of all within a time; as text, as a page with charts, or as JSON."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from kapelle.apps import compose
from kapelle.apps.charts import page
from kapelle.apps.cli.common import Folder, Json, go, valid_configuration
from kapelle.apps.cli.lines import count_tokens, money, print_json, say
from kapelle.apps.cli.output import out
from kapelle.apps.cli.tables import Column, print_hanging, print_table
from kapelle.apps.cli.times import moment
from kapelle.apps.summary import STAGE_WORDS, Day, Summary, summary, summary_json
from kapelle.core.durations import format_duration
from kapelle.core.errors import UsageError
from kapelle.core.plain_text import shown
from kapelle.core.task import TaskState

BARS = " ▁▂▃▄▅▆▇█"
WIDE = 32
"""Letters of a bar that stands for all of something."""
COLOURS = ("dim", "cyan", "blue", "magenta", "green")
DAY = timedelta(days=1)


def report(
    which: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Default: all runs.")] = None,
    *,
    day: Annotated[str | None, typer.Option("--day", metavar="DAY", help="One day (UTC): today, or 2026-03-01.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="WHEN", help="Only what happened since: 7d, 2026-03-01.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Only what happened before.")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with charts into FILE.")] = None,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """How the work went: throughput, success, where the time went, retries, cost, and how that changed by day.

    Of one run, or of everything within a time.
    """
    if day is not None and (since is not None or until is not None):
        raise UsageError("give either --day or --since and --until", remedy="Leave one of them out.")
    go(_report(repository, which, (day, since, until), html, as_json=json))


async def _report(
    folder: Path | None,
    which: str | None,
    times: tuple[str | None, str | None, str | None],
    html: Path | None,
    *,
    as_json: bool,
) -> None:
    async with compose.open_reader(valid_configuration(folder)) as reader:
        now = reader.clock.now()
        since, until = _within(times, now)
        run_id = (await reader.find_run(which)).run.run_id if which is not None else None
        found = await reader.store.read(lambda view: summary(view, now, run_id=run_id, since=since, until=until))
    if html is not None:
        _write(html, page(found, now))
    if as_json:
        print_json(summary_json(found))
    elif html is not None:
        say(shown(f"Written: {html}"))
    else:
        _print(out(), found)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}", remedy="Name another file.") from error


def _within(times: tuple[str | None, str | None, str | None], now: datetime) -> tuple[datetime | None, datetime | None]:
    day, since, until = times
    if day is None:
        first, last = moment(since, now), moment(until, now)
        if first is not None and first >= (last or now):
            raise UsageError("--since is not before --until, or now", remedy="Give the earlier time with --since.")
        return first, last
    first = now if day == "today" else moment(day, now)
    first = (first or now).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return first, first + DAY


def _print(console: Console, found: Summary) -> None:
    when = f"{found.since.astimezone(UTC):%Y-%m-%d %H:%M} to {found.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    console.print(Text.assemble((shown(found.title), "bold"), f"  {when}"))
    if not found.runs:
        console.print("Nothing happened in this time.")
        return
    for name, words in _facts(found):
        print_hanging(console, Text(f"{name:<14}", style="dim"), shown(words))
    total = sum(found.stages.values(), timedelta(0))
    if total:
        console.print(Text("where the time of tasks went", style="bold"))
        for (state, spent), colour in zip(found.stages.items(), COLOURS, strict=True):
            share = spent / total
            bar, told = "█" * round(share * WIDE), f" {share:>4.0%}  {format_duration(spent)}"
            console.print(Text.assemble(f"  {STAGE_WORDS[state]:<14}", (f"{bar:<{WIDE}}", colour), told))
    if len(found.days) > 1:
        _print_days(console, found.days)
    if found.more:
        console.print(Text("There are more runs than are counted here; give --since.", style="yellow"))


def _facts(found: Summary) -> list[tuple[str, str]]:
    ended = found.ended
    others = [f"{number} {state.value}" for state, number in ended.items() if state is not TaskState.COMPLETED and number]
    still = [f"{found.open} open"] if found.open else []
    tasks = ", ".join([f"{ended.get(TaskState.COMPLETED, 0)} completed", *others, *still])
    success = "" if found.success is None else f" · {found.success:.0%} of those that could succeed did"
    facts = [("runs", str(found.runs)), ("tasks", f"{tasks}{success}")]
    if found.per_hour is not None:
        facts.append(("throughput", f"{found.per_hour:.1f} completed an hour at work ({found.hours:.2f} h)"))
    if found.typical is not None and found.late is not None:
        facts.append(("a task takes", f"{format_duration(found.typical)}; nine of ten within {format_duration(found.late)}"))
    failed = ", ".join(f"{number} {outcome}" for outcome, number in found.failed_tries.items())
    facts.append(("attempts", f"{found.tries}" + (f", failed: {failed}" if failed else "")))
    facts.append(("sent back", f"{found.gate_returns} by checks, {found.merge_returns} by the merge queue"))
    if found.helped:
        facts.append(("stuck agents", ", ".join(f"{number} {word}" for word, number in found.helped.items())))
    if found.alerts:
        facts.append(("alerts", str(found.alerts)))
    spend = found.spend
    facts.append(("cost", f"{money(spend.cost_usd)} · {count_tokens(spend.usage.total)} tokens · {spend.calls} model calls"))
    if found.unpaid:
        facts.append(("", found.unpaid))
    return facts


COLUMNS = (
    Column(name="DAY"),
    *(Column(name=name, right=True) for name in ("COMPLETED", "FAILED", "OTHER", "MEDIAN", "COST")),
)


def _print_days(console: Console, days: Sequence[Day]) -> None:
    console.print(Text("by day", style="bold"))
    for name, values, colour in (
        ("completed", [float(day.completed) for day in days], "green"),
        ("failed", [float(day.failed) for day in days], "red"),
        ("cost", [day.cost_usd for day in days], "cyan"),
    ):
        console.print(Text.assemble(f"  {name:<14}", (_sparks(values[-60:]), colour), f"  at most {max(values):g}"))
    rows = [
        (
            day.day.isoformat(),
            str(day.completed),
            str(day.failed or ""),
            str(day.other or ""),
            format_duration(day.typical) if day.typical is not None else "",
            money(day.cost_usd) if day.cost_usd else "",
        )
        for day in days[-31:]
    ]
    print_table(console, COLUMNS, rows)


def _sparks(values: Sequence[float]) -> str:
    most = max(values, default=0.0)
    # What is there at all is seen.
    return "".join(BARS[0 if not value or not most else max(1, round(value / most * (len(BARS) - 1)))] for value in values)
