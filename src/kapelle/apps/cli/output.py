"""How things look: colours and tables in a terminal, plain lines in a pipe, JSON when asked."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from kapelle.apps.cli.lines import count_tokens, money, print_json
from kapelle.apps.cli.tables import Column, print_hanging, print_table
from kapelle.apps.delivering import HeldUp
from kapelle.apps.views import RunReport, TaskReport, done_text, sandbox_text
from kapelle.core.account import told
from kapelle.core.durations import format_duration
from kapelle.core.errors import FileInvalid, KapelleError, Mistake
from kapelle.core.plain_text import shown, shown_block
from kapelle.core.run import RunState
from kapelle.core.task import TaskState

STATE_STYLES: dict[str, str] = {
    TaskState.PENDING: "dim",
    TaskState.ASSIGNED: "cyan",
    TaskState.RUNNING: "cyan",
    TaskState.VALIDATING: "blue",
    TaskState.MERGING: "magenta",
    TaskState.COMPLETED: "green",
    TaskState.SKIPPED: "dim",
    TaskState.FAILED: "bold red",
    TaskState.CANCELLED: "yellow",
    TaskState.REJECTED: "red",
    RunState.DELIVERING: "magenta",
}
MARKS: dict[str, str] = {
    TaskState.PENDING: "·",
    TaskState.ASSIGNED: "◌",
    TaskState.RUNNING: "▶",
    TaskState.VALIDATING: "◆",
    TaskState.MERGING: "⇄",
    TaskState.COMPLETED: "✓",
    TaskState.SKIPPED: "-",
    TaskState.FAILED: "✗",
    TaskState.CANCELLED: "■",
    TaskState.REJECTED: "✗",
}


PIPE_WIDTH = 100_000
"""Wider than anything: in a pipe nothing is folded."""


class Plain(Console):
    """A console on which nobody's text steers the terminal: only its own colours and movements do."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See ``Console``; text of every kind passes here, in tables and in what is drawn anew too."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else shown_block(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)


def out(*, soft_wrap: bool = True) -> Console:
    """Return the console for results.

    Lines that are too long are left to the terminal, which gives them back whole to whoever copies them; what is drawn anew
    in the same place must not be, and says so with *soft_wrap*.
    """
    return Plain(
        width=None if sys.stdout.isatty() else PIPE_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=soft_wrap,
    )


def err() -> Console:
    """Return the console for errors and notes."""
    return Plain(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_error(error: KapelleError, *, as_json: bool) -> None:
    """Tell what happened, why, and what to do next."""
    if as_json:
        mistakes = error.mistakes if isinstance(error, FileInvalid) else ()
        content: dict[str, Any] = {"code": error.code, "message": str(error), "remedy": error.advice}
        if mistakes:
            content["mistakes"] = [
                {
                    "file": mistake.file,
                    "line": mistake.line,
                    "column": mistake.column,
                    "message": mistake.message,
                    "advice": mistake.advice,
                }
                for mistake in mistakes
            ]
        print_json({"error": content})
        return
    console = err()
    if isinstance(error, FileInvalid):
        for mistake in error.mistakes:
            console.print(Text.assemble((f"{shown(mistake.place)}: ", "bold"), shown_block(mistake.message)))
            console.print(Text(f"    → {shown_block(mistake.advice)}", style="green"))
        count = len(error.mistakes)
        console.print(Text(f"{count} mistake{'s' if count != 1 else ''}; nothing was done. [{error.code}]", style="red"))
        return
    console.print(Text.assemble(("Error: ", "bold red"), shown_block(str(error)), (f"  [{error.code}]", "dim")))
    console.print(Text(f"  → {shown_block(error.advice)}", style="green"))


def print_disregarded(mistakes: Sequence[Mistake]) -> None:
    """Say on standard error which files count for nothing, and why."""
    console = err()
    for file in dict.fromkeys(mistake.file for mistake in mistakes):
        first, *more = (mistake for mistake in mistakes if mistake.file == file)
        console.print(Text.assemble((f"{shown(first.place)}: ", "bold"), shown_block(first.message), style="yellow"))
        console.print(Text(f"    → {shown_block(first.advice)}", style="green"))
        besides = f" ({len(more)} further mistake{'s' if len(more) != 1 else ''}: kapelle doctor)" if more else ""
        console.print(Text(f"Until that is mended, {PurePath(file).name} counts for nothing here{besides}.", style="yellow"))


def state_text(state: str, note: str = "") -> Text:
    """Return a state with its mark and colour."""
    mark = MARKS.get(state, "")
    text = Text(f"{mark} {state}".strip(), style=STATE_STYLES.get(state, ""))
    return text.append(f" {note}", style="dim") if note else text


REPORT = (
    Column(name="TASK", folds=True),
    Column(name="STATE", folds=True),
    Column(name="TRIES", right=True),
    Column(name="GATE", folds=True),
    Column(name="TOKENS", right=True),
    Column(name="COST", right=True),
    Column(name="TIME", right=True),
    Column(name="COMMIT"),
)


def _row(entry: TaskReport, now: datetime) -> Sequence[str | Text]:
    task = entry.task
    note = f"({task.waits_for.value})" if task.waits_for is not None else ""
    elapsed = entry.elapsed(now)
    gate = Text(entry.gate, style={True: "green", False: "red", None: "dim"}[entry.passed])
    if entry.merge_returns:
        gate.append(f" ⇄{entry.merge_returns}", style="magenta")
    return (
        task.name,
        state_text(task.state.value, note),
        str(len(entry.attempts) or ""),
        gate,
        count_tokens(entry.spend.usage.total) if entry.spend.calls else "",
        money(entry.spend.cost_usd) if entry.spend.calls else "",
        format_duration(elapsed) if elapsed is not None else "",
        (task.commit or "")[:10],
    )


def print_held_up(console: Console, held: HeldUp) -> None:
    """Print why a target could not be moved, and what to do."""
    for line in held.lines:
        lead = "  → " if line.startswith("  → ") else ""
        print_hanging(console, Text(lead, style="yellow"), line.removeprefix(lead), "yellow")


def print_report(report: RunReport, now: datetime) -> None:
    """Print a run: what it is, each task, the sum."""
    console = out()
    run = report.run
    title = Text.assemble((run.spec.name, "bold"), f"  {run.run_id}  ", state_text(run.state.value))
    if run.paused:
        title.append("  paused", style="yellow")
    console.print(title.append(f"  {sandbox_text(run.spec)}", style="dim"))
    print_table(console, REPORT, [_row(entry, now) for entry in report.tasks])
    ended = run.ended_at or now
    elapsed = format_duration(ended - run.submitted_at)
    tokens = count_tokens(report.spend.usage.total)
    rehearsed = " (rehearsed: nothing was paid)" if run.spec.upstream.rehearsal is not None and report.spend.calls else ""
    cost = f"{money(report.spend.cost_usd)}{rehearsed}"
    noun = " task" if len(report.tasks) == 1 else " tasks"
    console.print(f"{done_text(report.counts, noun)} · {tokens} tokens · {cost} · {elapsed}")
    for entry in report.tasks:
        if entry.task.failure is not None:
            console.print(Text.assemble((f"{entry.task.name}: ", "bold red"), shown_block(entry.task.failure.message.strip())))
    if report.account is not None:
        console.print(Text(shown(told(report.account)), style="yellow"))
    if report.held is not None:
        print_held_up(console, report.held)
        if run.state is RunState.DELIVERING:
            console.print(Text("What was merged is safe.", style="yellow"))
