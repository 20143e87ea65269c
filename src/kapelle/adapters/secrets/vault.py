"""The vault: a private directory in memory, one for each store.

kapelle-UID/STORE/agents/AGENT/     what one agent may read: NAME, mcp.json; gone when it ends
kapelle-UID/STORE/known/ATTEMPT/    every value of an attempt, for those who hide it; gone with the attempt's workspace
kapelle-UID/STORE/memory/ATTEMPT/   what the agent's program keeps of its conversation; gone with the attempt's workspace
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from kapelle.adapters.secrets.lookup import look_up
from kapelle.adapters.system.ownership import agent, give
from kapelle.adapters.system.private import made, private_places, read_known
from kapelle.adapters.system.removal import clear_tree
from kapelle.core.errors import HostFailed
from kapelle.core.hiding import NOTHING, Hiding, Secret
from kapelle.core.ids import AgentId, AttemptId
from kapelle.core.secrets import Handed

AGENTS, KNOWN, MEMORY = "agents", "known", "memory"


class Vault:
    """See ``core.secrets.Secrets``."""

    def __init__(
        self, store_id: str, environment: Mapping[str, str], places: Callable[[], Sequence[Path]] = private_places
    ) -> None:
        self._store_id = store_id
        self._environment = environment
        self._places = places
        self._everything: dict[tuple[str, str], Secret] = {}
        self.everything = NOTHING
        """Hides every value that was known at any time since this was made."""

    def _learn(self, found: Iterable[Secret]) -> None:
        fresh = {(secret.name, secret.value): secret for secret in found}
        if fresh.keys() - self._everything.keys():
            self._everything |= fresh
            self.everything = Hiding(self._everything.values())

    async def resolve(self, name: str, reference: str) -> str:
        return await look_up(name, reference, self._environment)

    def hand_over(
        self, attempt_id: AttemptId, agent_id: AgentId, values: Mapping[str, str], files: Mapping[str, str], *, boxed: bool
    ) -> Handed:
        hide = self.remember(attempt_id, values)
        owner = agent() if boxed else None
        try:
            folder = self._fresh(AGENTS, agent_id)
            for name, content in {**values, **files}.items():
                _write(folder / name, content)
            memory = self._folder(MEMORY, attempt_id)
            for path in (folder, memory):
                give(str(path), owner)
            # It is for reading alone, also for whoever it belongs to.
            folder.chmod(0o500)
        except OSError as error:
            raise HostFailed(f"secrets cannot be handed over: {error.strerror}") from error
        return Handed(folder=str(folder), hide=hide, memory=str(memory))

    def remember(self, attempt_id: AttemptId, values: Mapping[str, str]) -> str:
        try:
            folder = self._folder(KNOWN, attempt_id)
            there = read_known(str(folder))
            self._learn([*there, *(Secret(name=name, value=value) for name, value in values.items())])
            for name, value in values.items():
                same = [found.value for found in there if found.name == name]
                if value not in same:
                    _write(folder / (f"{name}.{len(same)}" if same else name), value)
        except OSError as error:
            raise HostFailed(f"secrets cannot be kept for those who hide them: {error.strerror}") from error
        return str(folder)

    def known(self, attempt_id: AttemptId) -> Sequence[Secret]:
        folder = self._at(KNOWN, attempt_id)
        try:
            found = read_known(str(folder))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise HostFailed(f"{folder} cannot be read: {error.strerror}") from error
        self._learn(found)
        return found

    def revoke(self, agent_id: AgentId) -> None:
        _remove(self._at(AGENTS, agent_id))

    def forget(self, attempt_id: AttemptId) -> None:
        for kind in (KNOWN, MEMORY):
            _remove(self._at(kind, attempt_id))
        self._tidy()

    def sweep(self, agents: Collection[AgentId], attempts: Collection[AttemptId], *, remove: bool = True) -> Sequence[str]:
        swept: list[str] = []
        for attempt_id in attempts:
            # What an earlier leader handed over is to be hidden from now on, too.
            self.known(attempt_id)
        for kind, owners in ((AGENTS, frozenset[str](agents)), (KNOWN, frozenset(attempts)), (MEMORY, frozenset(attempts))):
            folder = self._there() / kind
            gone = [path for path in sorted(folder.iterdir()) if path.name not in owners] if folder.is_dir() else []
            swept += [path.name for path in gone]
            for path in gone if remove else ():
                _remove(path)
        if remove:
            self._tidy()
        return list(dict.fromkeys(swept))

    def _tidy(self) -> None:
        """Remove the directories that nothing is left in."""
        store = self._there()
        for folder in (*(store / kind for kind in (AGENTS, KNOWN, MEMORY)), store):
            with suppress(OSError):
                # It refuses where there is something in it, or nothing there.
                folder.rmdir()

    def _there(self) -> Path:
        """Return where this store's part is, or would be: nothing is made for those who have no secrets."""
        places = [place / self._store_id for place in self._places()]
        return next((place for place in places if place.is_dir()), places[0])

    def _at(self, kind: str, owner: str) -> Path:
        return self._there() / kind / owner

    def _folder(self, kind: str, owner: str) -> Path:
        """Return the directory, which is made; all that lead to it are private."""
        store = self._there()
        for place in (store.parent, store, store / kind):
            made(place)
        folder = store / kind / owner
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _fresh(self, kind: str, owner: str) -> Path:
        """Return an empty directory: of one that a crash left, nothing is believed."""
        _remove(self._at(kind, owner))
        return self._folder(kind, owner)


def _write(path: Path, content: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
        stream.write(content)


def _remove(path: Path) -> None:
    try:
        clear_tree(path)
    except OSError as error:
        raise HostFailed(f"{path} cannot be removed: {error.strerror}") from error
