"""Fakes of the small ports: sandbox, gateway, credentials, hints. The large ones are in ``hosts`` and ``repositories``."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime

from kapelle.core.account import shuts
from kapelle.core.agent import ProcessRef
from kapelle.core.budget import Usage
from kapelle.core.calls import ModelCall, Refusal
from kapelle.core.conversation import Trouble
from kapelle.core.errors import HostFailed, SecretMissing
from kapelle.core.frozen import frozen, replace
from kapelle.core.gateway import Meter, Ticket
from kapelle.core.hiding import Secret
from kapelle.core.ids import AgentId, AttemptId
from kapelle.core.isolation import Place, Remains, SandboxCapabilities, Way
from kapelle.core.network import Decision, Destination, Pass
from kapelle.core.ports import Launch
from kapelle.core.rules import Call, Ruling
from kapelle.core.secrets import Handed
from kapelle.core.terminals import Attaching
from kapelle.core.warden import Judge, WardenAccess


class PlainSandbox:
    """See ``core.ports.Sandbox``: it changes nothing and remembers what it wrapped."""

    name = "process"
    capabilities = SandboxCapabilities(screens=True)

    def __init__(self) -> None:
        self.wrapped: list[tuple[Launch, Place]] = []
        self.cleared: list[str] = []
        self.frozen: set[str] = set()
        """The keys of what is held still."""
        self.remains: Callable[[Place], Remains] = lambda _: Remains()
        """What is to be said of a process that has ended; or it raises."""
        self.within: Callable[[str, Collection[str]], Sequence[ProcessRef]] = lambda _store_id, _keys: ()
        """What is not below what was started; or it raises."""

    def missing(self) -> str:
        """See the port."""
        return ""

    def remedy(self) -> str:
        """See the port."""
        return ""

    async def wrap(self, launch: Launch, place: Place) -> Launch:
        """See the port."""
        self.wrapped.append((launch, place))
        return launch

    async def clear(self, place: Place) -> Remains:
        """See the port."""
        self.cleared.append(place.key)
        return self.remains(place)

    async def met(self, place: Place) -> Remains:
        """See the port."""
        return self.remains(place)

    async def sweep(self, store_id: str, keep: Collection[str]) -> Sequence[str]:
        """See the port."""
        found = list(await self.leftovers(store_id, keep))
        self.cleared += found
        return found

    async def freeze(self, place: Place, process: ProcessRef | None) -> None:
        """See the port."""
        del process
        self.frozen.add(place.key)

    async def thaw(self, place: Place, process: ProcessRef | None) -> None:
        """See the port."""
        del process
        self.frozen.discard(place.key)

    async def leftovers(self, store_id: str, keep: Collection[str]) -> Sequence[str]:
        """See the port."""
        places = [place for _, place in self.wrapped if place.store_id == store_id]
        return [place.key for place in places if place.key not in {*keep, *self.cleared}]

    async def inside(self, store_id: str, keys: Collection[str]) -> Sequence[ProcessRef]:
        """See the port."""
        return self.within(store_id, keys)


class FakeTerminal:
    """See ``core.terminals.Terminal``: nothing is shown, and what is open is remembered."""

    name = "fake"

    def __init__(self) -> None:
        self.hosting: list[str] = []
        """The folders of what was started in a session."""
        self.sessions: dict[str, str] = {}
        """The sessions that were opened, by folder."""
        self.absent = ""
        """Why it cannot be used."""

    def missing(self) -> str:
        """See the port."""
        return self.absent

    def hosted(self, launch: Launch, folder: str) -> Launch:
        """See the port."""
        self.hosting.append(folder)
        return launch

    async def open(self, agent_id: AgentId, folder: str, name: str) -> None:
        """See the port."""
        del agent_id
        if self.absent:
            raise HostFailed(self.absent)
        self.sessions.setdefault(folder, name)

    async def close(self, folder: str) -> None:
        """See the port."""
        self.sessions.pop(folder, None)

    async def there(self, folder: str) -> bool:
        """See the port."""
        return folder in self.sessions

    async def within(self, root: str) -> tuple[str, ...]:
        """See the port."""
        below = [folder for folder in self.sessions if folder.startswith(f"{root}/")]
        return tuple(folder.removeprefix(f"{root}/") for folder in below)

    def attaching(self, folder: str, *, write: bool) -> Attaching:
        """See the port."""
        return Attaching(argv=("attach", "write" if write else "read"), cwd=folder)


class OpenWays:
    """See ``core.ports.Ways``: it lets nobody through, and says so when somebody knocks."""

    def __init__(self) -> None:
        self.open_now: dict[str, Pass] = {}
        self.swept: list[tuple[str, frozenset[str]]] = []
        self.told: Callable[[Decision], None] = lambda _: None
        self._folders: dict[str, str] = {}
        self._again: dict[str, dict[Destination, int]] = {}
        """How often each destination was refused again, by the key of who asked."""

    def listen(self, told: Callable[[Decision], None]) -> None:
        """See the port."""
        self.told = told

    async def open(self, holder: Pass, folder: str) -> Way:
        """See the port."""
        if self.open_now.get(holder.key) != holder:
            self._tell_rest(holder.key)
        self.open_now[holder.key] = holder
        return Way(folder=self._folders.setdefault(holder.key, folder), model=holder.model)

    def knock(self, folder: str, to: Destination) -> None:
        """Want to go *to* somewhere, as the process does whose way is in *folder*."""
        key = next(key for key, its in self._folders.items() if its == folder)
        again = self._again.setdefault(key, {})
        if to in again:
            again[to] += 1
            return
        again[to] = 0
        self.told(Decision(holder=self.open_now[key], to=to, refusal=NOBODY_PASSES))

    def _tell_rest(self, key: str) -> None:
        for to, times in self._again.pop(key, {}).items():
            if times:
                self.told(Decision(holder=self.open_now[key], to=to, refusal=NOBODY_PASSES, times=times))

    async def close(self, key: str) -> None:
        """See the port."""
        self._tell_rest(key)
        self.open_now.pop(key, None)
        self._folders.pop(key, None)

    async def sweep(self, root: str, keep: Collection[str]) -> None:
        """See the port."""
        self.swept.append((root, frozenset(keep)))

    async def stop(self) -> None:
        """See the port."""
        for key in list(self.open_now):
            await self.close(key)


NOBODY_PASSES = "nobody passes here"


@frozen
class Flight:
    """A model call that has been let through and has not ended."""

    call: ModelCall
    started: int
    """Which gateway it goes through: with that it is broken off."""


HELD = "it has to wait for others"


class FakeGateway:
    """See ``core.gateway.Gateway``. Agents call by ``call``, or by ``begin`` and ``end`` to have several calls in flight."""

    URL = "http://gateway.invalid"

    def __init__(self) -> None:
        self.running = False
        self.tickets: dict[AgentId, Ticket] = {}
        self.refusals: list[str] = []
        self._meter: Meter | None = None
        self._number = 0
        self._started = 0

    async def start(self, meter: Meter) -> str:
        """See the port."""
        self.running, self._meter = True, meter
        self._started += 1
        return self.URL

    def admit(self, ticket: Ticket) -> None:
        """See the port."""
        self.tickets[ticket.agent_id] = ticket

    def dismiss(self, agent_id: AgentId) -> None:
        """See the port."""
        self.tickets.pop(agent_id, None)

    async def stop(self) -> None:
        """See the port."""
        self.running, self._meter = False, None
        self.tickets.clear()

    def begin(self, token: str, *, guess: float = 0.0) -> Flight | str:
        """Begin a model call with an agent's *token*; return why not, in words, when it is refused.

        *guess* is what it will probably cost, in US dollars; one that has to wait for others is ``HELD``.
        """
        ticket = next((ticket for ticket in self.tickets.values() if ticket.token == token), None)
        if self._meter is None or ticket is None:
            return self._refuse("unknown token")
        self._number += 1
        call = ModelCall(
            call_id=f"m-{self._number}",
            agent_id=ticket.agent_id,
            run_id=ticket.run_id,
            task_id=ticket.task_id,
            attempt_id=ticket.attempt_id,
            model="",
            usage=Usage(input_tokens=10, output_tokens=5),
            cost_usd=guess,
            status=0,
            seconds=0.0,
        )
        said = self._meter.admit(call)
        if said is not None:
            return self._refuse(said.message if isinstance(said, Refusal) else HELD)
        return Flight(call=call, started=self._started)

    def goes_out(self, flight: Flight) -> str | None:
        """Ask the meter at the last moment, as a gateway does; return why the call does not go out after all, or None."""
        if self._meter is None or flight.started != self._started:
            return self._refuse("the connection was broken off")
        said = self._meter.still(flight.call.call_id)
        return None if said is None else self._refuse(said.message)

    def _refuse(self, reason: str) -> str:
        self.refusals.append(reason)
        return reason

    def fail(
        self, token: str, trouble: Trouble, message: str = "no", *, status: int = 429, resets_at: datetime | None = None
    ) -> str | None:
        """Make a model call that the API answers with an error; return why it was refused before that, or None."""
        flight = self.begin(token)
        if isinstance(flight, str):
            return flight
        self.end(flight, usd=0.0, status=status, trouble=trouble, message=message, resets_at=resets_at)
        return None

    def drip(self, flight: Flight) -> None:
        """Let a piece of the answer to a model call come."""
        if self._meter is not None and flight.started == self._started:
            self._meter.heard(flight.call.call_id)

    def end(
        self,
        flight: Flight,
        *,
        usd: float,
        model: str = "model-1",
        priced: bool = True,
        status: int = 200,
        trouble: Trouble | None = None,
        message: str = "",
        resets_at: datetime | None = None,
    ) -> None:
        """End a model call that cost *usd*."""
        if self._meter is None or flight.started != self._started:
            return
        self._meter.record(
            replace(
                flight.call,
                model=model,
                cost_usd=usd,
                status=status,
                seconds=0.5,
                error="" if trouble is None else trouble.value,
                trouble=trouble,
                message=message,
                resets_at=resets_at,
                of_account=shuts(trouble, resets_at),
                priced=priced,
            )
        )

    def call(
        self, token: str, *, usd: float, model: str = "model-1", priced: bool = True, usage: Usage | None = None
    ) -> str | None:
        """Make a whole model call; return why it was refused, or None."""
        flight = self.begin(token)
        if isinstance(flight, str):
            return flight
        if usage is not None:
            flight = replace(flight, call=replace(flight.call, usage=usage))
        self.end(flight, usd=usd, model=model, priced=priced)
        return None


class FakeWarden:
    """See ``core.warden.Warden``. An agent's program asks by ``ask``; it waits in a task of its own, as a real one does."""

    def __init__(self) -> None:
        self.admitted: dict[AgentId, WardenAccess] = {}
        self._judge: Judge | None = None
        self._waiting: set[asyncio.Future[Ruling]] = set()

    async def start(self, judge: Judge) -> None:
        """See the port."""
        self._judge = judge

    def admit(self, agent_id: AgentId, access: WardenAccess) -> None:
        """See the port."""
        self.admitted[agent_id] = access

    def dismiss(self, agent_id: AgentId) -> None:
        """See the port."""
        self.admitted.pop(agent_id, None)

    async def stop(self) -> None:
        """See the port; who waits hears nothing."""
        self._judge = None
        self.admitted.clear()
        for waiting in self._waiting:
            waiting.cancel()
        self._waiting.clear()

    async def ask(self, agent_id: AgentId, call: Call) -> "asyncio.Future[Ruling]":
        """Ask, as the program of *agent_id* does; what is returned is done when there is an answer."""
        if self._judge is None or agent_id not in self.admitted:
            raise AssertionError(f"nobody listens for {agent_id}")
        asked = asyncio.ensure_future(self._judge.judge(agent_id, call))
        self._waiting.add(asked)
        asked.add_done_callback(self._waiting.discard)
        # It is on its way then.
        await asyncio.sleep(0)
        return asked

    def intrude(self, agent_id: AgentId, reason: str = "somebody else spoke") -> None:
        """Let somebody else speak there."""
        if self._judge is not None:
            self._judge.refused(agent_id, reason)


class FakeCredentials:
    """See ``core.gateway.Credentials``: what *known* holds."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def resolve(self, reference: str) -> str | None:
        """See the port."""
        return self.known.get(reference)


class FakeSecrets:
    """See ``core.secrets.Secrets``: what *values* holds, by reference; nothing is written anywhere."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.handed: dict[AgentId, dict[str, str]] = {}
        """What each agent has now."""
        self.kept: dict[AttemptId, dict[str, str]] = {}

    async def resolve(self, name: str, reference: str) -> str:
        """See the port."""
        if reference not in self.values:
            raise SecretMissing(f"the secret {name} ({reference}) is missing")
        return self.values[reference]

    def hand_over(
        self, attempt_id: AttemptId, agent_id: AgentId, values: Mapping[str, str], files: Mapping[str, str], *, boxed: bool
    ) -> Handed:
        """See the port."""
        del boxed  # nothing is written that would have an owner
        self.handed[agent_id] = {**values, **files}
        return Handed(folder=f"/vault/{agent_id}", hide=self.remember(attempt_id, values), memory=f"/memory/{attempt_id}")

    def remember(self, attempt_id: AttemptId, values: Mapping[str, str]) -> str:
        """See the port."""
        self.kept.setdefault(attempt_id, {}).update(values)
        return f"/known/{attempt_id}"

    def known(self, attempt_id: AttemptId) -> Sequence[Secret]:
        """See the port."""
        return [Secret(name=name, value=value) for name, value in self.kept.get(attempt_id, {}).items()]

    def revoke(self, agent_id: AgentId) -> None:
        """See the port."""
        self.handed.pop(agent_id, None)

    def forget(self, attempt_id: AttemptId) -> None:
        """See the port."""
        self.kept.pop(attempt_id, None)

    def sweep(self, agents: Collection[AgentId], attempts: Collection[AttemptId], *, remove: bool = True) -> Sequence[str]:
        """See the port."""
        gone = [*(found for found in self.handed if found not in agents), *(each for each in self.kept if each not in attempts)]
        if remove:
            self.handed = {agent_id: held for agent_id, held in self.handed.items() if agent_id in agents}
            self.kept = {attempt_id: held for attempt_id, held in self.kept.items() if attempt_id in attempts}
        return gone


class FakeHints:
    """See ``core.ports.Hints``; while ``lost`` is set, none arrives."""

    def __init__(self) -> None:
        self.lost = False
        self.rung = 0
        self.listening = asyncio.Event()
        """Set as soon as anybody has listened."""
        self._listeners: list[asyncio.Event] = []

    def ring(self) -> None:
        """See the port."""
        self.rung += 1
        if not self.lost:
            for listener in self._listeners:
                listener.set()

    async def listen(self) -> AsyncIterator[None]:
        """See the port."""
        heard = asyncio.Event()
        self._listeners.append(heard)
        self.listening.set()
        try:
            while True:
                await heard.wait()
                heard.clear()
                yield
        finally:
            self._listeners.remove(heard)
