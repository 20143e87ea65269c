"""`kapelle run` and `kapelle resume`: lead or follow, show what happens, end in order on Ctrl-C."""

import asyncio
import signal
import sys
import termios
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kapelle.apps.cli.output import count_tokens, err, money, out, state_text
from kapelle.apps.cli.telling import line_of
from kapelle.apps.desk import Desk
from kapelle.apps.inbox import inbox
from kapelle.apps.memory import collect_less
from kapelle.apps.views import RunReport, done_text, run_report, sandbox_text
from kapelle.core.brake_events import BudgetAsked, BudgetRaised, BudgetStopped
from kapelle.core.durations import format_duration
from kapelle.core.events import AgentUsedTool, ChangeHeld, Entry, Event, TaskMoved, TaskWaited
from kapelle.core.ids import RunId, TaskId
from kapelle.core.plain_text import shown
from kapelle.core.question import ASKS
from kapelle.core.rule_events import QuestionAnswered, QuestionAsked, QuestionExpired
from kapelle.core.steering_events import AgentFrozen, AgentThawed
from kapelle.core.task import TERMINAL, Wait
from kapelle.engine.leader import Stop

ASKING = (QuestionAsked, QuestionAnswered, QuestionExpired, BudgetAsked, BudgetRaised, BudgetStopped)
"""What stands above the table."""
MOST = 500
"""Events that are taken in at once."""
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


class Watcher:
    """Follows one run by its events and shows it: a live table in a terminal, plain lines elsewhere."""

    def __init__(self, desk: Desk, run_id: RunId, *, live: bool) -> None:
        self._desk = desk
        self._run_id = run_id
        self._live = live
        self._tools: dict[TaskId, str] = {}
        self._held: dict[TaskId, str] = {}
        """Whose agents a person holds still."""
        self._names: dict[str, str] = {}
        self._note = ""
        self._seq = 0
        self._waiting = 0
        """How many things wait for a person."""
        self._reviews: set[str] = set()
        """Commits whose review was asked for."""

    def note(self, text: str) -> None:
        """Show *text* below the table, or print it."""
        self._note = text
        if not self._live:
            err().print(text)

    async def skip(self) -> None:
        """Tell only what happens from now on."""
        self._seq = await self._desk.world.store.read(lambda view: view.last_seq())

    async def show(self, over: asyncio.Event) -> None:
        """Show the run until *over* is set."""
        if self._live:
            await self._show_live(over)
        else:
            await self._show_lines(over)

    async def _report(self) -> RunReport | None:
        return await self._desk.world.store.read(lambda view: run_report(view, self._run_id))

    async def _entries(self) -> list[Entry]:
        found = await self._desk.world.store.read(lambda view: view.events(self._seq, run_id=self._run_id, limit=MOST))
        if found:
            self._seq = found[-1].seq
        return list(found)

    async def _show_live(self, over: asyncio.Event) -> None:
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
                await _within(over, 0.15)

    async def _show_lines(self, over: asyncio.Event) -> None:
        while True:
            last = over.is_set()
            report = await self._report() if not self._names else None
            if report is not None:
                self._names = {entry.task.task_id: entry.task.name for entry in report.tasks}
            entries = await self._entries()
            if any(isinstance(entry.event, ChangeHeld) for entry in entries):
                report = await self._report()
            for entry in entries:
                for line in line_of(entry.event, self._names):
                    sys.stdout.write(f"{entry.at.astimezone():%H:%M:%S} {line}\n")
            for text in self._new_reviews(report) if report is not None else ():
                sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
            if len(entries) == MOST:
                # There may be more behind them: at the end, too, everything is told.
                continue
            if last:
                return
            await _within(over, 0.1)

    def _new_reviews(self, report: RunReport) -> Iterator[str]:
        """Yield how to review what waits for that and was not told of yet."""
        for entry in report.tasks:
            review = entry.review
            if review is not None and review.commit not in self._reviews:
                self._reviews.add(review.commit)
                yield review.text

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


async def stay(desk: Desk, run_id: RunId, *, live: bool, quiet: bool = False, resumed: bool = False) -> bool:
    """Lead or follow until the run has ended; return False when a person interrupted it.

    Of a run that is *resumed*, only what happens from now on is told.
    """
    stop, over = Stop(), asyncio.Event()
    watcher = Watcher(desk, run_id, live=live)

    async def finished() -> bool:
        return await desk.ended([run_id])

    if resumed:
        await watcher.skip()

    try:
        async with asyncio.TaskGroup() as group:
            showing = None if quiet else group.create_task(watcher.show(over))
            await lead_until(desk, finished, stop, watcher.note)
            over.set()
            if showing is not None:
                await showing
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return await desk.ended([run_id])


async def lead_until(desk: Desk, finished: Callable[[], Awaitable[bool]], stop: Stop, note: Callable[[str], None]) -> None:
    """Lead or follow until *finished*, or until a person interrupts it; *note* tells that person what happens then."""
    collect_less()
    with _signals(stop, note):
        await desk.lead_or_follow(finished, stop)


class _signals:  # noqa: N801  # used as a statement: with _signals(...)
    """First Ctrl-C: end in order. Second: at once."""

    def __init__(self, stop: Stop, note: Callable[[str], None]) -> None:
        self._stop = stop
        self._note = note

    def _caught(self) -> None:
        if self._stop.asked.is_set():
            self._stop.at_once.set()
            self._note("Stopping now.")
            return
        self._stop.asked.set()
        self._note("Stopping: agents finish their turn (at most a minute). Ctrl-C again stops now.")

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._caught)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
