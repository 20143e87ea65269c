"""The live screen. What is on it is made in ``panels``, read in ``watching``; what its keys do is what commands do.

Nothing here waits for the store: looking is done in a thread, and what a person asks for in another, each with a place at the
store of its own. What comes of it arrives as a message.
"""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import App, ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.message import Message
from textual.theme import BUILTIN_THEMES, Theme
from textual.widgets import OptionList, Static

from kapelle.apps import steering as asks
from kapelle.apps.cli.top import panels
from kapelle.apps.cli.top.acting import Acting
from kapelle.apps.cli.top.arranging import KEYS, SHOWN, arrange, keys_line
from kapelle.apps.cli.top.dialogs import Answer, Confirm, Help, Line
from kapelle.apps.cli.top.fitting import cell, filtered, joined
from kapelle.apps.cli.top.leaving import run_command
from kapelle.apps.cli.top.watching import EVERY, Watch
from kapelle.apps.cli.top.widgets import PanelView
from kapelle.apps.desk import Desk
from kapelle.apps.fleet import AgentStand, Fleet
from kapelle.apps.inbox import Item, Said
from kapelle.apps.settings import Configuration
from kapelle.core.agent import Agent
from kapelle.core.durations import format_duration
from kapelle.core.errors import KapelleError
from kapelle.core.ids import AgentId
from kapelle.core.question import AnswerKind
from kapelle.core.spent import SpentAnswer

LOOKING = "Nothing was seen yet: wait a moment."
SILENT = 5
"""Looks without an answer after which it is said that there was none."""
PARTS = ("head", "hosts", "notes", "agents", "below", "left", "questions", "queue", "right", "spend", "said", "keys")
TERMINAL = Theme(
    name="terminal",
    ansi=True,
    primary="ansi_cyan",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    variables={
        **BUILTIN_THEMES["ansi-dark"].variables,
        "scrollbar": "ansi_cyan",
        "scrollbar-background": "ansi_default",
        "scrollbar-hover": "ansi_cyan",
    },
)
"""The terminal's own colours, light or dark."""


class Looked(Message):
    """The fleet was looked at."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__()
        self.fleet = fleet


class Failed(Message):
    """The store did not answer."""

    def __init__(self, error: KapelleError) -> None:
        super().__init__()
        self.error = error


class Told(Message):
    """What came of something that was asked for."""

    def __init__(self, words: str, *, bad: bool = False) -> None:
        super().__init__()
        self.words, self.bad = words, bad


class Broke(Message):
    """Something came to pass in a thread that nobody foresaw."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class Top(App[None]):
    """The screen of the fleet."""

    TITLE = "kapelle top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { overflow: hidden; }
    #head, #hosts, #said, #keys { height: 1; }
    #foot { dock: bottom; height: 2; }
    #notes { height: auto; }
    #below, #left, #right { height: auto; }
    #below.wide { layout: horizontal; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(key, action, word) for key, action, word, _ in KEYS),
        Binding("ctrl+c", "quit", "quit", priority=True),
        Binding("ctrl+q", "quit", "quit", show=False, priority=True),
        Binding("escape", "unfilter", "show all"),
    ]

    def __init__(
        self,
        configuration: Configuration,
        folder: Path | None = None,
        *,
        run: Callable[..., int] = run_command,
    ) -> None:
        super().__init__()
        # No traceback with everybody's variables on the screen: whoever has run this tells of the error.
        self.error_console.quiet = True
        self._configuration, self._folder, self._run_command = configuration, folder, run
        self.fleet: Fleet | None = None
        """What was seen last."""
        self.word = ""
        """What rows must have in them to be shown."""
        self._trouble: KapelleError | None = None
        self._silence = 0
        """Seconds since the fleet was seen."""
        self._there = False
        """Whether there is anything to draw on: not before everything is mounted, and not at the end."""
        self._watch = Watch(
            configuration,
            tell=lambda fleet: self._post(Looked(fleet)),
            fail=lambda error: self._post(Failed(error)),
        )
        self.acting = Acting(
            configuration,
            tell=self._acted,
            broken=lambda error: self._post(Broke(error)),
        )

    # --- Beginning and end ---

    def compose(self) -> ComposeResult:
        """See ``App``."""
        for name in ("head", "hosts", "notes"):
            yield Static(id=name)
        yield PanelView("agents")
        with Container(id="below"):
            with Container(id="left"):
                yield PanelView("questions")
                yield PanelView("queue")
            with Container(id="right"):
                yield PanelView("spend")
        with Container(id="foot"):
            yield Static(id="said")
            yield Static(id="keys")

    def on_mount(self) -> None:
        """Begin to look."""
        self._there = True
        self.register_theme(TERMINAL)
        self.theme = TERMINAL.name
        self._static("head").update("kapelle: looking ...")
        self._panel("agents").lines.focus()
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self.exit)
        self.acting.begin(self._watch.run)
        self.set_interval(EVERY.total_seconds(), self._tick)

    async def on_unmount(self) -> None:
        """End looking; what was asked for is asked for, whether or not it is waited for."""
        self._there = False
        self._watch.stop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)
        await self.acting.leave()

    def _post(self, message: Message) -> None:
        if self.is_running:
            self.post_message(message)

    def _acted(self, words: str, bad: bool) -> None:
        # Not before it can be seen: whoever reads "frozen" and presses the key once more means to let it go on.
        self._watch.look_now(lambda: self._post(Told(words, bad=bad)))

    @on(Broke)
    def _broke(self, event: Broke) -> None:
        raise event.error

    @property
    def defect(self) -> Exception | None:
        """What nobody foresaw, and has ended the screen. Textual keeps it, and has no public name for it."""
        return self._exception

    # --- What is seen ---

    @on(Looked)
    def _looked(self, event: Looked) -> None:
        self.fleet, self._trouble, self._silence = event.fleet, None, 0
        self._draw()

    @on(Failed)
    def _failed(self, event: Failed) -> None:
        self._trouble = event.error
        self._draw()

    def _tick(self) -> None:
        self._silence += 1
        if self._silence >= SILENT or self._trouble is not None:
            self._draw()

    def on_resize(self) -> None:
        """Fit into the new size."""
        self._draw()

    def _draw(self) -> None:
        # At the end the widgets go before the app is told.
        if not self._there or not all(self.query(f"#{name}") for name in PARTS):
            return
        self._draw_head()
        self._static("keys").update(keys_line(self.size.width))
        if self.fleet is not None:
            self._static("hosts").update(joined(panels.hosts(self.fleet)[0], self.size.width))
            self._arrange(self.fleet)

    def _draw_head(self) -> None:
        width, fleet = self.size.width, self.fleet
        if self._trouble is not None or (self._silence >= SILENT and fleet is not None):
            why = str(self._trouble) if self._trouble is not None else "the store does not answer"
            since = f", seen last {format_duration(EVERY * self._silence)} ago" if fleet is not None else ""
            self._static("head").update(joined([cell(f"trying again{since}: {why}", "bold red")], width))
        elif fleet is not None:
            parts = panels.head(fleet)
            if self.word:
                parts.insert(1, cell(f"filter: {self.word}", "cyan"))
            self._static("head").update(joined(parts, width))

    def _arrange(self, fleet: Fleet) -> None:
        """Give every panel its room."""
        width, height = self.size
        notes = [joined([note], width) for note in panels.notes(fleet)][: max(height // 10, 1)]
        self._static("notes").update(Text("\n").join(notes))
        self._static("notes").display = bool(notes)
        shown = {name: filtered(panel, self.word) for name, panel in panels.panels(fleet)}
        found = arrange(shown, width, height, len(notes))
        self.query_one("#below", Container).set_class(found.wide, "wide")
        self.query_one("#left", Container).styles.width = found.left
        self.query_one("#right", Container).styles.width = found.right
        for name, panel in shown.items():
            room = found.panels[name]
            self._panel(name).tell(panel, room.width, room.height, heading=found.heading)

    def _static(self, name: str) -> Static:
        return self.query_one(f"#{name}", Static)

    def _panel(self, name: str) -> PanelView:
        return self.query_one(f"#{name}", PanelView)

    # --- What was said ---

    @on(Told)
    def _told(self, event: Told) -> None:
        if self._there and self.query("#said"):
            self.say(event.words, bad=event.bad)

    def say(self, words: str, *, bad: bool = False) -> None:
        """Tell the person something, in the line above the keys."""
        self._static("said").update(joined([cell(words, "bold yellow" if bad else "green")], self.size.width))

    # --- What is chosen ---

    def _agent(self) -> AgentStand | None:
        """Return the chosen agent; say why there is none."""
        chosen = self._panel("agents").lines.chosen
        if self.fleet is None or chosen is None:
            self.say(LOOKING if self.fleet is None else "No agent is chosen: none is at work.", bad=True)
            return None
        found = next((stand for stand in self.fleet.agents if stand.report.agent.agent_id == chosen), None)
        if found is None:
            self.say(f"{chosen} has no task yet; it stands ready for the next one (`kapelle pool`).", bad=True)
        return found

    def _item(self) -> Item | None:
        """Return the chosen question; say why there is none."""
        chosen = self._panel("questions").lines.chosen
        found = next((item for item in self.fleet.items if item.item_id == chosen), None) if self.fleet is not None else None
        if found is None:
            self.say(LOOKING if self.fleet is None else "Nothing waits for you.", bad=True)
        return found

    # --- What keys do ---

    def action_attach(self) -> None:
        """Show what the chosen agent does, in this terminal, until the person leaves it."""
        stand = self._agent()
        if stand is None:
            return
        agent = stand.report.agent
        if agent.frozen_by:
            self.say(f"{agent.agent_id} is frozen, and so is its screen: f lets it go on.", bad=True)
            return
        try:
            with self.suspend():
                self._run_command("attach", agent.agent_id, folder=self._folder)
        except SuspendNotSupported:
            self.say(f"This terminal cannot be given away for a while: kapelle attach {agent.agent_id}", bad=True)
        self._watch.look_now()

    def action_freeze(self) -> None:
        """Hold the chosen agent still, or let it go on."""
        stand = self._agent()
        if stand is None:
            return
        agent, name = stand.report.agent, stand.report.task_name
        if agent.frozen_by:
            self.acting.steer(agent.agent_id, f"Thawed {name} ({agent.agent_id}).", asks.thaw)
        else:
            self.say(f"Holding {name} ({agent.agent_id}) still ...")
            self.acting.steer(agent.agent_id, f"Frozen {name} ({agent.agent_id}).", asks.freeze)

    def action_speak(self) -> None:
        """Say a line to the chosen agent."""
        stand = self._agent()
        if stand is None:
            return
        agent_id, name = stand.report.agent.agent_id, stand.report.task_name

        def said(text: str | None) -> None:
            if text is None or not text.strip():
                return

            async def speak(desk: Desk, agent: Agent) -> None:
                await asks.speak(desk, agent, text)

            self.acting.steer(agent_id, f"{name} ({agent_id}) hears it next.", speak)

        self.push_screen(Line(f"What do you say to {name} ({agent_id})? It hears it when its turn is over."), said)

    def action_stop(self) -> None:
        """End the chosen agent, when the person has said so twice."""
        stand = self._agent()
        if stand is None:
            return
        agent_id, name = stand.report.agent.agent_id, stand.report.task_name

        def confirmed(yes: bool | None) -> None:
            if yes:
                self.acting.steer(agent_id, f"Stopping {name} ({agent_id}).", asks.stop)

        question = f"Stop {name} ({agent_id})? Its work is kept, and its task waits until `kapelle resume {name}`."
        self.push_screen(Confirm(question), confirmed)

    def action_answer(self) -> None:
        """Answer the chosen question."""
        item = self._item()
        if item is None:
            return

        def said(answer: Said | None) -> None:
            if answer is SpentAnswer.RAISE:
                hint = "5 (US dollars), 2M (tokens), 50 (model calls), 30m (time)"
                self.push_screen(Line(f"By how much is the budget of {item.name} raised?", hint=hint), raised)
            elif answer is AnswerKind.DENY:
                self.push_screen(Line(f"Why not? {item.name} is told; Enter alone gives no reason."), denied)
            elif answer is not None:
                self.acting.answer(item, answer)

        def raised(amount: str | None) -> None:
            if amount is not None:
                self.acting.answer(item, SpentAnswer.RAISE, amount=amount.strip())

        def denied(reason: str | None) -> None:
            if reason is not None:
                self.acting.answer(item, AnswerKind.DENY, reason=reason.strip())

        self.push_screen(Answer(item), said)

    def action_halt(self) -> None:
        """Stop everything, or let everything go on, when the person has said so twice."""
        if self.fleet is None:
            self.say(LOOKING, bad=True)
            return
        halted = self.fleet.halted is not None

        def confirmed(yes: bool | None) -> None:
            if yes:
                self.acting.halt(off=not halted)

        stop = "Halt everything? No model call passes and no agent works until you let it go on."
        question = "Let everything go on?" if halted else stop
        self.push_screen(Confirm(question), confirmed)

    def action_filter(self) -> None:
        """Show only what has a word in it."""
        self.push_screen(Line("Show what has this in it:", value=self.word), self._filter)

    def action_unfilter(self) -> None:
        """Show everything."""
        self._filter("")

    def _filter(self, word: str | None) -> None:
        if word is not None:
            self.word = word.strip()
            self._draw()

    def action_help(self) -> None:
        """Say what the keys do."""
        moves = [("Tab", "go to the next panel; up and down choose")]
        self.push_screen(Help([*((SHOWN.get(key, key), told) for key, _, _, told in KEYS), *moves]))

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        """Enter: answer a question, or the one of the chosen agent."""
        event.stop()
        lines = self._panel("questions").lines
        if event.option_list is self._panel("agents").lines and self.fleet is not None:
            its = {stand.report.agent.agent_id: stand.report.agent.task_id for stand in self.fleet.agents}
            task_id = its.get(AgentId(event.option.id or ""))
            waits = next((item.item_id for item in self.fleet.questions if item.task_id and item.task_id == task_id), None)
            if waits is None or waits not in lines.keys:
                self.say("It asks nothing: a attaches, s says something, f freezes.", bad=True)
                return
            lines.highlighted = lines.keys.index(waits)
        elif event.option_list is not lines:
            return
        self.action_answer()


async def show(configuration: Configuration, folder: Path | None) -> Acting:
    """Show the screen until the person leaves it; return what did things, which may still be at it."""
    app = Top(configuration, folder)
    await app.run_async()
    if app.defect is not None:
        raise app.defect
    return app.acting
