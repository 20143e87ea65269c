"""What is asked before something is done: yes or no, a line, an answer; and the page of help."""

from collections.abc import Sequence
from typing import ClassVar, TypeVar

from rich.table import Table
from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from kapelle.apps.cli.top.fitting import GAP, cell
from kapelle.apps.inbox import Item, Said
from kapelle.core.plain_text import shown
from kapelle.core.question import AnswerKind
from kapelle.core.spent import SpentAnswer

R = TypeVar("R")

ANSWERS: dict[str, Said] = {
    "a": AnswerKind.ALLOW,
    "d": AnswerKind.DENY,
    "w": AnswerKind.ALWAYS,
    "r": SpentAnswer.RAISE,
    "s": SpentAnswer.STOP,
}
"""Keys, and what they answer."""


class Dialog(ModalScreen[R]):
    """Something that is asked in front of the screen; Escape goes back without an answer."""

    DEFAULT_CSS = """
    Dialog { align: center middle; }
    Dialog > Vertical {
        width: 90%; max-width: 100; height: auto; max-height: 90%; overflow-y: auto;
        border: round ansi_cyan; padding: 0 1; background: ansi_default; color: ansi_default;
    }
    Dialog Static { height: auto; }
    Dialog Input, Dialog Input:focus { border: none; height: 1; padding: 0; background: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [("escape", "back", "back")]

    def action_back(self) -> None:
        """Ask no more."""
        self.dismiss(None)


class Confirm(Dialog[bool]):
    """Yes or no."""

    BINDINGS: ClassVar[list[BindingType]] = [("y", "yes", "yes"), ("n", "back", "no")]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """See ``Widget``."""
        with Vertical():
            yield Static(cell(self._question))
            yield Static(_keys(("y", "yes"), ("n", "no")))

    def action_yes(self) -> None:
        """Say yes."""
        self.dismiss(True)


class Line(Dialog[str]):
    """A line of text."""

    def __init__(self, question: str, *, value: str = "", hint: str = "") -> None:
        super().__init__()
        self._question, self._value, self._hint = question, value, hint

    def compose(self) -> ComposeResult:
        """See ``Widget``."""
        with Vertical():
            yield Static(cell(self._question))
            yield Input(value=self._value, placeholder=self._hint, compact=True)
            yield Static(_keys(("Enter", "that is it"), ("Esc", "back")))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Give the line back."""
        event.stop()
        self.dismiss(event.value)


class Answer(Dialog[Said]):
    """What waits for a person, and what may be said."""

    def __init__(self, item: Item) -> None:
        super().__init__()
        self._item = item
        self._possible = {key: said for key, said in ANSWERS.items() if said in item.answers}

    def compose(self) -> ComposeResult:
        """See ``Widget``."""
        item = self._item
        with Vertical():
            yield Static(Text.assemble((shown(item.name), "bold"), f"  {item.item_id}"))
            yield Static(cell(item.what))
            if item.because:
                yield Static(cell(item.because, "dim"))
            if item.always and AnswerKind.ALWAYS in item.answers:
                yield Static(cell(f"always lets through: {', '.join(item.always)}", "dim"))
            if item.otherwise and not self._possible:
                yield Static(cell(f"This does it: {item.otherwise}", "yellow"))
            yield Static(_keys(*((key, said.value) for key, said in self._possible.items()), ("Esc", "back")))

    def on_key(self, event: events.Key) -> None:
        """Answer."""
        if event.key in self._possible:
            event.stop()
            self.dismiss(self._possible[event.key])


class Help(Dialog[None]):
    """What the keys do."""

    BINDINGS: ClassVar[list[BindingType]] = [("question_mark,q,enter", "back", "back")]

    def __init__(self, keys: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._keys = keys

    def compose(self) -> ComposeResult:
        """See ``Widget``."""
        with Vertical():
            lines = Table.grid("key", "meaning", padding=(0, GAP, 0, 0))
            lines.columns[0].justify, lines.columns[0].style = "right", "bold cyan"
            for key, meaning in self._keys:
                lines.add_row(key, meaning)
            yield Static(lines)
            yield Static(_keys(("Esc", "back")))


def _keys(*pairs: tuple[str, str]) -> Text:
    parts = [Text.assemble((key, "bold cyan"), f" {meaning}") for key, meaning in pairs]
    return Text("   ").join(parts)
