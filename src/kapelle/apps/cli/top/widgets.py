"""The parts of the screen: panels, which are lists of lines under a title; all in the terminal's own colours."""

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from kapelle.apps.cli.top.arranging import TITLE
from kapelle.apps.cli.top.fitting import Panel, fitted


class Lines(OptionList):
    """Rows of which one is chosen; which one, and what is seen of a long list, stays when they are told anew."""

    DEFAULT_CSS = """
    Lines, Lines:focus {
        height: 1fr; border: none; padding: 0; background: ansi_default; color: ansi_default; background-tint: ansi_default 0%;
        scrollbar-size-vertical: 1;
    }
    Lines > .option-list--option { padding: 0; }
    Lines > .option-list--option-hover { background: ansi_default; }
    Lines > .option-list--option-highlighted { background: ansi_default; color: ansi_default; text-style: bold underline; }
    Lines:focus > .option-list--option-highlighted { background: ansi_default; color: ansi_default; text-style: reverse; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [("j", "cursor_down", "down"), ("k", "cursor_up", "up")]

    @property
    def keys(self) -> list[str]:
        """What the rows stand for."""
        return [option.id or "" for option in self.options]

    @property
    def chosen(self) -> str | None:
        """What the chosen row stands for."""
        option = self.highlighted_option
        return option.id if option is not None else None

    def tell(self, keys: Sequence[str], lines: Sequence[Text]) -> None:
        """Show *lines*, which stand for *keys*."""
        if list(keys) == self.keys:
            for at, line in enumerate(lines):
                if self.get_option_at_index(at).prompt != line:
                    self.replace_option_prompt_at_index(at, line)
            return
        chosen, place, seen = self.chosen, self.highlighted, self.scroll_offset.y
        self.set_options([Option(line, id=key) for key, line in zip(keys, lines, strict=True)])
        if not keys:
            return
        self.highlighted = keys.index(chosen) if chosen in keys else min(place or 0, len(keys) - 1)
        self.scroll_to(y=seen, animate=False)


class PanelView(Vertical):
    """A panel: its title, what its columns are called, its rows."""

    DEFAULT_CSS = """
    PanelView { height: auto; }
    PanelView > Static { height: 1; }
    """

    def __init__(self, name: str) -> None:
        super().__init__(id=name)
        self._title, self._heading, self.lines = Static(), Static(), Lines()
        self._panel: Panel | None = None

    def compose(self) -> ComposeResult:
        """See ``Widget``."""
        yield self._title
        yield self._heading
        yield self.lines

    @property
    def has_focus_within(self) -> bool:
        """Whether keys that move go here."""
        return self.lines.has_focus

    def tell(self, panel: Panel, width: int, height: int, *, heading: bool) -> None:
        """Show *panel* in so much room."""
        self._panel = panel
        self.styles.height = height
        room = max(width - 1, 1)
        # One letter is left to the scroll bar.
        said, lines = fitted(panel, room)
        self._title.update(titled(panel, width, focused=self.lines.has_focus))
        self._heading.display = heading and bool(lines)
        self._heading.update(said)
        self.lines.display = height > TITLE
        self.lines.tell([row.key for row in panel.rows], lines)

    def on_descendant_focus(self) -> None:
        """Show where the keys go."""
        self._retitle(focused=True)

    def on_descendant_blur(self) -> None:
        """Show that they go elsewhere."""
        self._retitle(focused=False)

    def _retitle(self, *, focused: bool) -> None:
        if self._panel is not None:
            self._title.update(titled(self._panel, self.size.width, focused=focused))


def titled(panel: Panel, width: int, *, focused: bool) -> Text:
    """Return the title of *panel* as a rule; where it has no rows, with what is said then."""
    name, _, rest = panel.title.partition("  ")
    said = rest if panel.rows else " · ".join(part for part in (panel.nothing, rest) if part)
    line = Text.assemble(("━ " if focused else "─ ", "cyan" if focused else "dim"), (name, "bold cyan" if focused else "bold"))
    if said:
        line.append(f"  {said}", style="" if panel.rows else "dim")
    line.append(" ")
    line.truncate(width, overflow="ellipsis")
    rest_of_line = width - cell_len(line.plain)
    return line.append(("━" if focused else "─") * rest_of_line, style="cyan" if focused else "dim")
