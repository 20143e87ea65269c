"""Looking things up: what every door may do whoever leads. It loads neither the engine nor what reaches the world."""

from asyncio import Event, timeout
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from kapelle.core.agent import Agent, AgentState, ProcessRef
from kapelle.core.errors import Ambiguous, NotFound
from kapelle.core.frozen import frozen
from kapelle.core.ids import RunId
from kapelle.core.leading import Lead, Led
from kapelle.core.ports import Clock
from kapelle.core.run import RUN_TERMINAL, Run, RunState
from kapelle.core.store import Readable, View
from kapelle.core.task import TERMINAL, Task

if TYPE_CHECKING:
    from kapelle.core.events import Entry

SHORTEST = 4
"""Letters of an id that must be given, besides its r- or t-."""


MOST_TOLD = 10
"""Runs of one name that are listed."""


@frozen
class Found:
    """What an id or a prefix of one stands for."""

    run: Run
    task: Task | None = None
    agent: Agent | None = None


class Reader:
    """One process's view of a store."""

    def __init__(self, store: Readable, clock: Clock, led: Led, *, alive: Callable[[ProcessRef], bool]) -> None:
        self.store = store
        self.clock = clock
        self._led = led
        self._alive = alive

    async def leader(self) -> Lead | None:
        """Return who leads, or None when nobody does."""
        lead = await self._led.holder()
        if lead is None or lead.given_up or not self._alive(lead.holder):
            return None
        return lead

    def alive(self, agent: Agent) -> bool:
        """Say whether the process of *agent* is there; one that is just being started has none yet."""
        return agent.process is not None and self._alive(agent.process)

    async def ended(self, run_ids: Sequence[RunId]) -> bool:
        """Say whether there is nothing to wait for any more: each run has ended, or its target must be cleared by a person."""
        return await self.store.read(lambda view: all(_at_rest(view, view.runs.get(run_id)) for run_id in run_ids))

    async def find(self, word: str) -> Found:
        """Return the run or task that *word* stands for: its id or the beginning of it, or its name.

        The name of a task means that of the newest run that has it; the name of a run means that run when no other has it.

        Raises:
            NotFound: nothing does.
            Ambiguous: more than one thing does.
        """
        return await self.store.read(lambda view: find(view, word))

    async def find_run(self, word: str) -> Found:
        """Return what *word* stands for where a run is wanted: see ``find``, but what a run is called goes first.

        Raises:
            NotFound: nothing does.
            Ambiguous: more than one thing does.
        """
        return await self.store.read(lambda view: _run_named(view, word) or find(view, word))

    async def events(
        self, after: int = 0, run_id: RunId | None = None, *, over: Callable[[View], bool] = lambda _: False
    ) -> "AsyncIterator[Entry]":
        """Yield events after the sequence number *after*: those that are there, then new ones as they come, until it is *over*.

        What happened until then is told: whether it is over, and whether there is more to tell, is seen in one look.
        """
        while True:
            entries, ends = await self.store.read(
                lambda view, since=after: (view.events(since, run_id=run_id, limit=500), over(view))
            )
            for entry in entries:
                after = entry.seq
                yield entry
            if not entries:
                if ends:
                    return
                await rest(0.1)


def has_ended(view: View, found: Found) -> bool:
    """Say whether nothing more will happen to what was found."""
    if found.agent is not None:
        agent = view.agents.get(found.agent.agent_id)
        return agent is None or agent.state is AgentState.STOPPED
    if found.task is None:
        run = view.runs.get(found.run.run_id)
        return run is None or run.state in RUN_TERMINAL
    task = view.tasks.get(found.task.task_id)
    if task is None or task.state not in TERMINAL:
        return task is None
    # What its agent says while it is being stopped belongs to it.
    return all(agent.task_id != task.task_id for agent in view.agents.live())


def _at_rest(view: View, run: Run | None) -> bool:
    if run is None or run.state in RUN_TERMINAL:
        return run is not None
    spec = run.spec
    if run.state is not RunState.DELIVERING or spec.repository is None or spec.target is None:
        return False
    integration = view.changes.integration(spec.repository, spec.target, run.line)
    return integration is not None and bool(integration.held_up)


def find(view: View, word: str) -> Found:
    """Return the run or task that *word* stands for: see ``Reader.find``.

    Raises:
        NotFound: nothing does.
        Ambiguous: more than one thing does.
    """
    # Names go first: a short one may well be the beginning of somebody's id, which nobody means.
    if not word.startswith(("r-", "t-")):
        for overview in view.runs.overviews():
            named = [task for task in view.tasks.find(word, overview.run.run_id) if task.name == word]
            if named:
                return Found(run=overview.run, task=named[0])
        named_run = _run_named(view, word)
        if named_run is not None:
            return named_run
        if len(word) < SHORTEST:
            raise NotFound(f"nothing has the id or the name {word}")
    runs = view.runs.find(word if word.startswith("r-") else f"r-{word}")
    tasks = view.tasks.find(word if word.startswith("t-") else f"t-{word}")
    if len(runs) + len(tasks) > 1:
        raise Ambiguous(f"{word} is the beginning of more than one id")
    run = view.runs.get(runs[0] if runs else tasks[0].run_id) if runs or tasks else None
    if run is None and (named_run := _run_named(view, word)) is not None:
        return named_run
    if run is None:
        raise NotFound(f"nothing has the id or the name {word}")
    return Found(run=run, task=tasks[0] if tasks else None)


def _run_named(view: View, word: str) -> Found | None:
    """Return the one run that is called *word*, or None when none is."""
    runs = view.runs.named(word, MOST_TOLD)
    if len(runs) > 1:
        ids = ", ".join(f"{run.run_id} ({run.state.value}, {run.submitted_at.astimezone():%Y-%m-%d %H:%M})" for run in runs)
        more = " and perhaps more" if len(runs) == MOST_TOLD else ""
        raise Ambiguous(f"more than one run is called {word}: {ids}{more}", remedy="Give the id of the one that is meant.")
    return Found(run=runs[0]) if runs else None


async def rest(seconds: float) -> None:
    """Wait."""
    # Waiting for another process: there is nothing to be woken by.
    await within(seconds, Event().wait())


async def within(seconds: float, what: Awaitable[object]) -> None:
    """Wait for *what*, at most so long."""
    try:
        async with timeout(seconds):
            await what
    except TimeoutError:
        return
