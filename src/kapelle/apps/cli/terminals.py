"""`attach`, `takeover` and `handback`: a person at an agent's screen, or with its conversation."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer

from kapelle.apps import compose
from kapelle.apps.agents import agent_named, task_named
from kapelle.apps.cli.common import Folder, Json, go, valid_configuration
from kapelle.apps.cli.lines import note, print_json, say, say_nobody_leads
from kapelle.apps.cli.looking import tell_logs
from kapelle.apps.cli.output import err, print_error
from kapelle.apps.cli.showing import show
from kapelle.apps.cli.steering import Which, tell
from kapelle.apps.desk import Desk
from kapelle.apps.principal import principal
from kapelle.apps.reader import rest
from kapelle.apps.steering import must_lead, speak, task_of
from kapelle.core.agent import Agent, AgentState
from kapelle.core.errors import KapelleError, NotPossibleNow, UsageError
from kapelle.core.halt import Halt
from kapelle.core.halt import told as halt_told
from kapelle.core.steering import HandBack, TakeOver
from kapelle.core.store import View
from kapelle.engine.loop import supervised

LOOK = 0.1
"""Seconds between looks at whether a screen is there."""


def attach(
    which: Which,
    *,
    write: Annotated[
        bool,
        typer.Option("--write", "-w", help="Let what you type count: on its screen, or line by line as `kapelle send`."),
    ] = False,
    transcript: Annotated[bool, typer.Option("--transcript", help="What it says, also when it has a terminal.")] = False,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Look over an agent's shoulder: its terminal, or what it says when it has none. Ctrl-b d leaves."""
    go(_attach(which, repository, write=write, transcript=transcript, as_json=json))


def takeover(which: Which, *, repository: Folder = None, json: Json = False) -> None:
    """Go on yourself with an agent's conversation, on its program's own screen, where it works. Leaving hands it back.

    The agent's turn is broken off. It goes on when you leave (/exit, Ctrl-b d, or your terminal is closed), and is told of it.
    """
    go(_take_over(which, repository, as_json=json))


def handback(
    which: Annotated[str, typer.Argument(metavar="TASK|AGENT", help="What was taken over.")],
    *,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Let the engine go on with a conversation that somebody has taken over."""
    go(_hand_back(which, repository, as_json=json))


def _must_be_a_terminal(remedy: str, *, as_json: bool) -> None:
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("this needs a terminal", remedy=f"Run it in one, without --json; {remedy}")


TO_LOOK = "`kapelle logs AGENT -f` needs none."
TO_SPEAK = "`kapelle send AGENT TEXT` needs none."


async def _attach(which: str, folder: Path | None, *, write: bool, transcript: bool, as_json: bool) -> None:
    if write:
        _must_be_a_terminal(TO_SPEAK, as_json=as_json)
    async with compose.open_desk(valid_configuration(folder), make=False) as desk:
        agent = await desk.store.read(lambda view: agent_named(view, which))
        if agent.frozen_by:
            raise NotPossibleNow(f"agent {agent.agent_id} is frozen, and so is its screen", remedy=f"kapelle thaw {which}")
        place = None if transcript else await _session(desk, agent)
        if place is not None:
            _must_be_a_terminal(TO_LOOK, as_json=as_json)
        how = None if place is None else desk.world.terminal.attaching(place, write=write)
    if how is not None:
        show(how)
        await _tell_left(folder, agent)
        return
    if not transcript:
        console = err()
        console.print(
            f"Agent {agent.agent_id} has no terminal (`terminal: tmux` gives it one). What it says follows; Ctrl-C leaves."
        )
    if write:
        # What is shown in a session is seen by all who attached, and not all may type there.
        begins = "With `attach --write` a" if transcript else "A"
        note(f"{begins} line that you type is said to it when its turn is over.")
    async with _speaking(folder, agent) if write else nullcontext():
        await tell_logs(valid_configuration(folder), agent.agent_id, as_json=as_json)


@asynccontextmanager
async def _speaking(folder: Path | None, agent: Agent) -> AsyncGenerator[None]:
    """Say to *agent* what is typed, line by line, as long as the body goes on."""
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[str]()

    def typed() -> None:
        data = os.read(sys.stdin.fileno(), 1 << 16)
        if not data:
            loop.remove_reader(sys.stdin.fileno())
        for line in data.decode(errors="replace").splitlines():
            if line.strip():
                # A terminal gives whole lines.
                lines.put_nowait(line)

    async with supervised() as group:
        loop.add_reader(sys.stdin.fileno(), typed)
        saying = group.create_task(_say_all(folder, agent, lines))
        try:
            yield
        finally:
            loop.remove_reader(sys.stdin.fileno())
            saying.cancel()


async def _say_all(folder: Path | None, agent: Agent, lines: asyncio.Queue[str]) -> None:
    """Say *lines* one after the other, in the order in which they were typed."""
    while True:
        line = await lines.get()
        try:
            async with compose.open_desk(valid_configuration(folder), make=False) as desk:
                await speak(desk, agent, line)
        except KapelleError as error:
            print_error(error, as_json=False)


async def _tell_left(folder: Path | None, agent: Agent) -> None:
    """Say why there is nothing to look at any more, where it was not the person who left."""
    async with compose.open_reader(valid_configuration(folder)) as reader:
        current = await reader.store.read(lambda view: view.agents.get(agent.agent_id))
        name = await reader.store.read(lambda view: task_of(view, agent))
    ended = current is None or current.state in {AgentState.STOPPED, AgentState.COMPLETING}
    if ended:
        say(f"The agent of {name} has ended, and its screen with it; `kapelle logs {name}` shows what it did.")


async def _session(desk: Desk, agent: Agent) -> str | None:
    """Return the folder of the session in which *agent* can be seen, or None when there is none."""
    terminal = desk.world.terminal
    for place in (agent.folder, desk.world.folders.terminal(agent.agent_id)):
        if await terminal.there(place):
            return place
    return None


async def _take_over(which: str, folder: Path | None, *, as_json: bool) -> None:
    _must_be_a_terminal(TO_SPEAK, as_json=as_json)
    async with compose.open_desk(valid_configuration(folder), make=False) as desk:
        agent = await desk.store.read(lambda view: agent_named(view, which))
        name = await desk.store.read(lambda view: task_of(view, agent))
        await must_lead(desk)
        who = principal(desk.world.store.store_id)
        before = await desk.store.read(lambda view: view.attempts.get(agent.attempt_id))
        joined = before is not None and bool(before.held_by)
        await desk.ask(TakeOver(run_id=agent.run_id, agent_id=agent.agent_id), who)
        note(f"{name} is taken over already ..." if joined else f"The turn of {name} is broken off; its screen opens ...")
        place = await _screen(desk, agent)
        how = desk.world.terminal.attaching(place, write=True)
    show(how)
    if joined:
        # It is somebody else's, who may be there still.
        say(f"Left {name}. It is handed back as soon as nobody is there, or by: kapelle handback {name}")
        return
    async with compose.open_desk(valid_configuration(folder), make=False) as desk:
        attempt = await desk.store.read(lambda view: view.attempts.get(agent.attempt_id))
        # Where its program was left, it is handed back already.
        if attempt is not None and attempt.held_by:
            with suppress(NotPossibleNow):
                await desk.ask(HandBack(run_id=agent.run_id, task_id=agent.task_id), who)
        halted = await desk.store.read(lambda view: view.brakes.halt())
        say(f"Handed {name} back. {await _then(desk, halted, name)}")


async def _then(desk: Desk, halted: Halt | None, name: str) -> str:
    """Say how it goes on with what was handed back."""
    if halted is not None:
        return f"It does not go on yet: {halt_told(halted)}"
    if await desk.leader() is None:
        return "Nobody leads just now; it goes on when somebody does: kapelle resume"
    return f"It goes on; `kapelle logs {name} -f` shows how."


async def _screen(desk: Desk, taken: Agent) -> str:
    """Wait until the screen is there on which a person goes on, and return the folder of its session.

    Raises:
        NotPossibleNow: it never comes.
    """

    def current(view: View) -> tuple[Agent | None, bool]:
        found = view.agents.newest(1, taken.task_id)
        attempt = view.attempts.get(taken.attempt_id)
        return (found[0] if found else None), attempt is not None and bool(attempt.held_by)

    while True:
        agent, held = await desk.store.read(current)
        if not held:
            raise NotPossibleNow("the screen could not be opened", remedy=f"`kapelle logs {taken.task_id}` says why.")
        live = agent is not None and agent.by_hand and agent.state is AgentState.ACTIVE
        if agent is not None and live and await desk.world.terminal.there(agent.folder):
            return agent.folder
        if await desk.leader() is None:
            raise NotPossibleNow("nobody leads any more; the screen opens when somebody does", remedy="kapelle resume")
        await rest(LOOK)


async def _hand_back(which: str, folder: Path | None, *, as_json: bool) -> None:
    async with compose.open_desk(valid_configuration(folder), make=False) as desk:
        if which.startswith("g-"):
            agent = await desk.store.read(lambda view: agent_named(view, which))
            task = await desk.store.read(lambda view: view.tasks.get(agent.task_id))
        else:
            task = await desk.store.read(lambda view: task_named(view, which))
        if task is None:
            raise NotPossibleNow(f"{which} has no task any more")
        await desk.ask(HandBack(run_id=task.run_id, task_id=task.task_id), principal(desk.world.store.store_id))
        newest = await desk.store.read(lambda view: view.agents.newest(1, task.task_id))
        led = await desk.leader() is not None
    if newest:
        tell(newest[0], task.name, "Handing back", as_json=as_json)
    elif as_json:
        print_json({"task": task.name, "done": "handing back"})
    if not led and not as_json:
        say_nobody_leads("it is handed back")
