"""What happens to a run, drawn anew in the same place while it lasts: for a terminal."""

import asyncio
import sys
import termios
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kapelle.apps.cli.lines import count_tokens, money
from kapelle.apps.cli.output import out, state_text
from kapelle.apps.cli.telling import line_of
from kapelle.apps.cli.watching import Watcher, within
from kapelle.apps.desk import Desk
from kapelle.apps.inbox import inbox
from kapelle.apps.views import RunReport, done_text, sandbox_text
from kapelle.core.brake_events import BudgetAsked, BudgetRaised, BudgetStopped
from kapelle.core.durations import format_duration
from kapelle.core.events import AgentUsedTool, Entry, Event, TaskMoved, TaskWaited
from kapelle.core.ids import RunId, TaskId
from kapelle.core.plain_text import shown
from kapelle.core.question import ASKS
from kapelle.core.rule_events import QuestionAnswered, QuestionAsked, QuestionExpired
from kapelle.core.steering_events import AgentFrozen, AgentThawed
from kapelle.core.task import TERMINAL, Wait

ASKING = (QuestionAsked, QuestionAnswered, QuestionExpired, BudgetAsked, BudgetRaised, BudgetStopped)
"""What stands above the table."""
COMMANDS = 3
"""Commands that are told below the table."""
NARROW = 80
"""Letters of a terminal below which the live view leaves out what matters least."""


@contextmanager
def _without_echo_of_keys() -> Generator[None]:
    """Keep the terminal from writing ^C into what is drawn: what stands there would be a line off, and some of it stay."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    changed = [*before]
    changed[3] = before[3] & ~termios.ECHOCTL
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, changed)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


class DrawingWatcher(Watcher):
    """Follows one run by its events and draws it: a live table."""

    def __init__(self, desk: Desk, run_id: RunId) -> None:
        super().__init__(desk, run_id)
        self._tools: dict[TaskId, str] = {}
        self._held: dict[TaskId, str] = {}
        """Whose agents a person holds still."""
        self._note = ""
        self._waiting = 0
        """How many things wait for a person."""

    def note(self, text: str) -> None:
        """Show *text* below the table."""
        self._note = text

    async def show(self, over: asyncio.Event) -> None:
        """Draw the run until *over* is set."""
        with (
            _without_echo_of_keys(),
            Live(console=out(soft_wrap=False), refresh_per_second=8, transient=True) as live,
        ):
            narrow = live.console.width < NARROW
            while True:
                last = over.is_set()
                entries = await self._entries()
                report = await self._report()
                if report is not None:
                    self._names = {entry.task.task_id: entry.task.name for entry in report.tasks}
                    self._waiting = len(await self._desk.world.store.read(inbox))
                    for text in (*self._asked(entries), *self._new_reviews(report)):
                        # Above the table, where nothing is cut: it is neither wrapped nor shortened.
                        live.console.print(Text(text, style="yellow"), soft_wrap=True)
                    live.update(self._picture(report, self._desk.world.clock.now(), narrow=narrow))
                if last:
                    return
                await within(over, 0.15)

    def _asked(self, entries: Iterable[Entry]) -> Iterator[str]:
        """Take in what happened, and yield of it what a person is asked, or was, in the words of a pipe."""
        for entry in entries:
            self._take(entry.event)
            event = entry.event
            # How to review a change of protected files, which has a detail, is told at length.
            start = isinstance(event, TaskWaited) and event.waits_for is Wait.APPROVAL and not event.detail
            if start or isinstance(event, ASKING):
                yield from (f"{entry.at.astimezone():%H:%M:%S} {line}" for line in line_of(entry.event, self._names))

    def _take(self, event: Event) -> None:
        if event.task_id is None:
            return
        if isinstance(event, AgentFrozen):
            self._held[event.task_id] = f"held still by {event.principal}"
        elif isinstance(event, AgentThawed | TaskMoved):
            self._held.pop(event.task_id, None)
        if isinstance(event, AgentUsedTool):
            self._tools[event.task_id] = f"{event.tool} {event.about}".strip()
        elif isinstance(event, TaskMoved):
            self._tools.pop(event.task_id, None)

    def _picture(self, report: RunReport, now: datetime, *, narrow: bool) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0), expand=True)
        # A name may have to be copied: it is folded, never cut.
        table.add_column("TASK", ratio=2, overflow="fold")
        table.add_column("STATE", no_wrap=True, min_width=12)
        if not narrow:
            table.add_column("AGENT", no_wrap=True, max_width=12, overflow="ellipsis")
        table.add_column("DOING", no_wrap=True, ratio=2 if narrow else 4, overflow="ellipsis")
        if not narrow:
            table.add_column("TOKENS", no_wrap=True, justify="right")
        table.add_column("COST", no_wrap=True, justify="right")
        table.add_column("TIME", no_wrap=True, justify="right")
        commands: list[str] = []
        for entry in report.tasks:
            task = entry.task
            doing = self._held.get(task.task_id) or self._tools.get(task.task_id, "")
            if task.failure is not None:
                doing = task.failure.message.splitlines()[0] if task.failure.message else task.failure.kind
            elif task.state in TERMINAL:
                doing = task.summary.splitlines()[0] if task.summary else ""
            elif task.waits_for is not None:
                # How to answer a question stands above the table.
                doing = f"asks: {task.detail.removeprefix(ASKS)}" if task.detail.startswith(ASKS) else report.waits_for(task)
                # What is to be typed stands below the table, where nothing is cut.
                doing, colon, command = doing.rpartition(": kapelle ") if ": kapelle " in doing else (doing, "", "")
                commands += [f"kapelle {command}"] if colon else []
            elapsed = entry.elapsed(now)
            tokens = count_tokens(entry.spend.usage.total) if entry.spend.calls else ""
            table.add_row(
                Text(task.name),
                state_text(task.state.value),
                *([] if narrow else [Text(entry.agent, style="dim")]),
                Text(shown(doing), style="dim"),
                *([] if narrow else [tokens]),
                money(entry.spend.cost_usd) if entry.spend.calls else "",
                format_duration(elapsed) if elapsed is not None else "",
            )
        bar = ProgressBar(total=max(len(report.tasks), 1), completed=report.ended, width=10 if narrow else 30)
        head = Table.grid(padding=(0, 2))
        elapsed = format_duration((report.run.ended_at or now) - report.run.submitted_at)
        sums = f"{done_text(report.counts)}  {count_tokens(report.spend.usage.total)} tokens  "
        head.add_row(Text(report.run.spec.name, style="bold"), bar, f"{sums}{money(report.spend.cost_usd)}  {elapsed}")
        parts = [head, Text(f"{report.run.run_id}  {sandbox_text(report.run.spec)}", style="dim"), Text(), table]
        if self._waiting:
            waits = "1 waits" if self._waiting == 1 else f"{self._waiting} wait"
            parts.append(Text(f"{waits} for you: kapelle inbox", style="yellow"))
        told = [*dict.fromkeys(commands)][:COMMANDS]
        parts += [Text(f"  → {shown(command)}", style="yellow", no_wrap=False, overflow="fold") for command in told]
        if self._note:
            parts.append(Text(self._note, style="yellow", no_wrap=False, overflow="fold"))
        return Group(*parts)
