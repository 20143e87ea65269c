"""Patience: how long an agent may look still before it is taken for one that is stuck, and how far that then goes."""

from datetime import timedelta

from kapelle.core.frozen import frozen


@frozen
class Patience:
    """How long is waited, and how often is tried. ``docs/explain/liveness.md`` says what comes of each."""

    silence: timedelta = timedelta(minutes=3)
    """Nothing at all: no word, no model call, no tool, no processor used. Then the agent is blocked."""
    stream: timedelta = timedelta(minutes=2)
    """A model call on its way of which nothing comes. Then its stream has stalled."""
    tool: timedelta = timedelta(minutes=10)
    """A tool that says nothing while its processes use no processor. Then it is silent for long."""
    stopped: timedelta = timedelta(seconds=30)
    """A process that was stopped by somebody. Then the agent is blocked, and is let go on."""
    between: timedelta = timedelta(minutes=2)
    """From one answer to the next one, which goes further."""
    repeats: int = 5
    """So often in a row the same call may fail in the same way, with nothing changed in between."""
    nudge_repeats: int = 8
    """So often, before the agent is told."""
    break_repeats: int = 15
    """So often, before its turn is broken off."""
    interrupts: int = 2
    """How often a turn of an attempt is broken off before its program is started anew instead."""
    restarts: int = 2
    """How often the program of an attempt is started anew before the attempt has failed."""
    straying: bool = True
    """Whether it is looked for files that were changed outside the task's ``writes``."""
    hands_off: bool = False
    """Nothing is done but told: notes, and no answer that goes further."""

    @property
    def quiet(self) -> timedelta:
        """An agent of which nothing was heard for so long looks silent: its processes are measured."""
        return min(self.stopped, self.stream, self.silence, self.tool) / 2


WORKS = 0.05
"""Share of one processor that an agent's processes use at least when they do something: an idle program uses a hundredth."""
