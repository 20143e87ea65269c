"""Composing: the only file that picks adapters. Built-in ones come in by the same door as plug-ins: entry points."""

import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import datetime
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from kapelle.apps.settings import Configuration
from kapelle.core.agent import ProcessRef
from kapelle.core.containers import ImagePolicy
from kapelle.core.errors import NotPossibleNow, ProgramMissing, UsageError
from kapelle.core.evaluating import Evaluator
from kapelle.core.git import Repositories
from kapelle.core.ids import AgentId, make_id
from kapelle.core.ports import Driver, Host, Launch, Sandbox

# Adapters are imported where they are composed: a command that opens no store does not wait for SQL and HTTP to load.
if TYPE_CHECKING:
    from kapelle.adapters.gateway.rehearsal_file import Rehearsal
    from kapelle.adapters.gateway.standalone import Served
    from kapelle.adapters.store.backups import Restored
    from kapelle.adapters.workspaces.merges import KnownMerge
    from kapelle.apps.desk import Desk
    from kapelle.apps.machine import Machine, Records
    from kapelle.apps.reader import Reader

GROUP = "kapelle.adapters"
PRICES_VARIABLE = "KAPELLE_PRICES"
STORE, LOCK, PORT = "store.db", "lead.lock", "gateway.port"
"""Files of the state directory."""


def _named(kind: str) -> dict[str, EntryPoint]:
    prefix = f"{kind}:"
    return {entry.name.removeprefix(prefix): entry for entry in _entries(tuple(sys.path)) if entry.name.startswith(prefix)}


@cache
def _entries(_path: tuple[str, ...]) -> Collection[EntryPoint]:
    """Return all adapters that can be found from here; every distribution is asked for its own, so once must do."""
    return entry_points(group=GROUP)


class _Lazy(Mapping[str, Any]):
    """Adapters of one kind by name, made when they are first asked for: most commands need few of them."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries = _named(kind)
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            if name not in self._entries:
                raise KeyError(name)
            self._made[name] = self._entries[name].load()()
        return self._made[name]

    def __iter__(self) -> Any:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def drivers() -> Mapping[str, Driver]:
    """Return all drivers, those of plug-ins among them."""
    return _Lazy("driver")


def sandboxes() -> Mapping[str, Sandbox]:
    """Return all sandboxes, those of plug-ins among them."""
    return _Lazy("sandbox")


def image_policies() -> Mapping[str, ImagePolicy]:
    """Return all policies that say which image a container is made from, those of plug-ins among them."""
    return _Lazy("images")


def repositories() -> Repositories:
    """Return how git repositories are reached."""
    from kapelle.adapters.workspaces.repositories import GitRepositories

    return GitRepositories()


def worktree_records() -> "Records":
    """Return how git's records of worktrees are looked at."""
    from kapelle.adapters.workspaces.records import GitRecords

    return GitRecords()


async def merges_since(repository: str, store_id: str, moment: datetime) -> "list[KnownMerge]":
    """Return what the merge queue of a store has made in *repository* since *moment*, as git tells, the newest first.

    Raises:
        GitFailed: git failed.
    """
    from kapelle.adapters.workspaces.merges import merges_since as since

    return await since(repository, store_id, moment)


async def look_up_secret(configuration: Configuration, name: str, reference: str) -> str:
    """Return the value of a secret, as whoever leads here would find it.

    Raises:
        SecretMissing: it is not to be had.
    """
    from kapelle.adapters.secrets.lookup import look_up

    return await look_up(name, reference, configuration.environment)


def vault_place() -> tuple[Path, bool]:
    """Return where secrets are kept while agents use them, and whether that is in memory.

    Raises:
        HostFailed: there is no private place.
    """
    from kapelle.adapters.system.private import is_in_memory, private_place

    place = private_place()
    return place, is_in_memory(place)


def evaluator() -> Evaluator:
    """Return what evaluates templates and the like, under limits; whoever has used it closes it."""
    from kapelle.adapters.evaluators.process import ProcessEvaluator

    return ProcessEvaluator()


def last_port(home: Path) -> int | None:
    """Return the port that the gateway of this state directory listened on last, or does now."""
    from kapelle.adapters.gateway.server import remembered

    return remembered(home / PORT)


def store_size(home: Path) -> int:
    """Return how many bytes the store takes up, with what is written ahead."""
    files = (home / STORE, home / f"{STORE}-wal")
    return sum(file.stat().st_size for file in files if file.exists())


def store_mark(home: Path) -> tuple[int, int] | None:
    """Return what tells the store of *home* from another one in its place; None where there is none."""
    try:
        found = (home / STORE).stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def gateway_answers(home: Path) -> bool:
    """Say whether somebody listens where the gateway of this state directory does."""
    port = last_port(home)
    if port is None:
        return False
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def host() -> Host:
    """Return this machine as a host.

    Raises:
        ProgramMissing: Kapelle is not installed as a package.
    """
    hosts = _Lazy("host")
    if "local" not in hosts:
        raise ProgramMissing("Kapelle is not installed as a package", remedy="Install it: pip install -e .")
    return hosts["local"]


def _make(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        remedy = "Name another one in KAPELLE_HOME."
        raise UsageError(f"the state directory {home} cannot be made: {error.strerror}", remedy=remedy) from error


def _alive(process: ProcessRef) -> bool:
    from kapelle.adapters.system import processes

    return processes.alive(process)


@asynccontextmanager
async def open_reader(configuration: Configuration) -> "AsyncGenerator[Reader]":
    """Open the store of *configuration* to look things up; close it at the end. Where there is none, none is made.

    Raises:
        StoreFailed: the store cannot be opened.
    """
    from kapelle.adapters.store.sqlite_reader import SqliteReader
    from kapelle.apps.clock import SystemClock
    from kapelle.apps.reader import Reader

    home: Path = configuration.settings.home
    found = SqliteReader.open(home / STORE)
    if found is not None:
        try:
            yield Reader(found, SystemClock(), found, alive=_alive)
        finally:
            await found.close()
        return
    from kapelle.adapters.store.sqlite import SqliteStore
    from kapelle.adapters.store.sqlite_lead import SqliteLeadership

    clock = SystemClock()
    with _there_or_empty(home) as place:
        store = await SqliteStore.open(str(place / STORE), clock)
        try:
            yield Reader(store, clock, SqliteLeadership(store, str(place / LOCK)), alive=_alive)
        finally:
            await store.close()


@contextmanager
def _there_or_empty(home: Path) -> Generator[Path]:
    """Yield *home*, or where nothing was ever kept there a place with nothing in it, which is gone afterwards."""
    if (home / STORE).exists() or backed_up(home):
        yield home
        return
    with TemporaryDirectory(prefix="kapelle-") as place:
        yield Path(place)


@asynccontextmanager
async def open_desk(configuration: Configuration, *, make: bool = True) -> "AsyncGenerator[Desk]":
    """Open the store of *configuration* and everything round it; close it at the end.

    Without *make* nothing is left behind where there is no store: whoever looks finds nothing, and that is all.

    Raises:
        StoreFailed: the store cannot be opened.
        UsageError: the state directory cannot be made.
    """
    with ExitStack() as stack:
        home: Path = configuration.settings.home if make else stack.enter_context(_there_or_empty(configuration.settings.home))
        if make:
            _make(home)
        async with _desk_in(home, configuration) as desk:
            yield desk


@asynccontextmanager
async def _desk_in(home: Path, configuration: Configuration) -> "AsyncGenerator[Desk]":
    from kapelle.adapters.evaluators.process import ProcessEvaluator
    from kapelle.adapters.gateway.prices import PRICES, read_prices
    from kapelle.adapters.gateway.server import ModelGateway
    from kapelle.adapters.hints.files import FileHints
    from kapelle.adapters.network.ways import LocalWays
    from kapelle.adapters.secrets.vault import Vault
    from kapelle.adapters.store.sqlite import SqliteStore
    from kapelle.adapters.store.sqlite_lead import SqliteLeadership
    from kapelle.adapters.system import processes
    from kapelle.adapters.system.files import many_files
    from kapelle.adapters.system.git import Locks
    from kapelle.adapters.terminals.tmux import Tmux
    from kapelle.adapters.wardens.sockets import SocketWarden
    from kapelle.adapters.workspaces.repositories import GitRepositories
    from kapelle.adapters.workspaces.worktrees import GitWorkspaces
    from kapelle.apps.clock import EnvironmentCredentials, SystemChance, SystemClock
    from kapelle.apps.desk import Desk
    from kapelle.engine.leader import Engine
    from kapelle.engine.world import EngineSettings, Folders, World

    clock, chance = SystemClock(), SystemChance()
    store = await SqliteStore.open(str(home / STORE), clock)
    evaluator = ProcessEvaluator()
    try:
        credentials = EnvironmentCredentials(dict(configuration.environment))
        vault = Vault(store.store_id, configuration.environment)
        store.hide(lambda: vault.everything)
        own_prices = configuration.environment.get(PRICES_VARIABLE)
        locks = Locks()
        world = World(
            store=store,
            clock=clock,
            chance=chance,
            host=host(),
            drivers=drivers(),
            sandboxes=sandboxes(),
            ways=LocalWays(),
            workspaces=GitWorkspaces(locks),
            repositories=GitRepositories(),
            gateway=ModelGateway(
                port_file=home / PORT,
                credentials=credentials,
                now=clock.now,
                evaluator=evaluator,
                new_id=lambda: make_id("m", chance.bits(64)),
                prices=read_prices(Path(own_prices)) if own_prices else PRICES,
                port=configuration.settings.gateway_port,
                known=vault.known,
            ),
            warden=SocketWarden(),
            credentials=credentials,
            secrets=vault,
            hints=FileHints(home / "hints"),
            evaluator=evaluator,
            terminal=Tmux(lambda agent_id: _transcript(agent_id, home, configuration)),
            folders=Folders(root=str(home)),
            settings=EngineSettings(
                slots=configuration.settings.slots,
                keep_free=configuration.settings.keep_free,
                lead_timeout=configuration.settings.lead_timeout,
                heartbeat=configuration.settings.heartbeat,
            ),
        )
        leadership = SqliteLeadership(store, str(home / LOCK))
        engine = Engine(world, leadership, processes.me())
        yield Desk(
            world,
            leadership,
            engine,
            alive=processes.alive,
            end_process=processes.end_process,
            back_up=store.back_up,
            backup_every=configuration.settings.backup_every,
            steady=time.monotonic,
            # Each agent has connections to whoever leads.
            while_leading=many_files,
        )
    finally:
        evaluator.close()
        await store.close()


def _transcript(agent_id: AgentId, home: Path, configuration: Configuration) -> Launch:
    """Return what shows in a terminal what an agent says, and says to it what is typed there."""
    kept = {name: configuration.environment[name] for name in ("PATH", "LANG", "HOME") if name in configuration.environment}
    return Launch(
        argv=(sys.executable, "-m", "kapelle", "attach", agent_id, "--transcript", "--write"),
        cwd=str(home),
        env=tuple({**kept, "KAPELLE_HOME": str(home), "TERM": "screen-256color"}.items()),
    )


def agent_above(store_id: str) -> str | None:
    """Return the task of the agent of this store that this process belongs to, or None when it belongs to none."""
    from kapelle.adapters.system import processes

    return processes.agent_above(store_id)


def restore_store(configuration: Configuration) -> "Restored":
    """Put the newest good backup in the place of a damaged store, while nobody leads.

    Raises:
        NotPossibleNow: the store is in order, or somebody leads.
        StoreFailed: there is no good backup.
    """
    from kapelle.adapters.store import backups
    from kapelle.adapters.store.sqlite_lead import holder_of, lock
    from kapelle.apps.clock import SystemClock

    home = configuration.settings.home
    if not home.is_dir():
        raise NotPossibleNow(f"there is no state directory {home}", remedy="There is nothing to restore.")
    with lock(home / LOCK) as held:
        if not held:
            pid = holder_of(home / LOCK)
            # A store that is damaged cannot be asked who it is.
            who, end = ("", "Ctrl-C where it runs") if pid is None else (f": {pid}", f"Ctrl-C where it runs, or `kill {pid}`")
            raise NotPossibleNow(f"another process leads{who}", remedy=f"Let it end first: {end}.")
        return backups.restore(home / "store.db", SystemClock().now())


def backed_up(home: Path) -> bool:
    """Say whether there are backups of the store in *home*."""
    from kapelle.adapters.store import backups

    return bool(backups.of(home / STORE))


def taken(path: Path) -> tuple[int, float]:
    """Return what *path* and all that is below it takes up on the disk, in bytes, and when any of it was last written to.

    Raises:
        OSError: a directory cannot be looked at.
    """
    from kapelle.adapters.system.walking import taken as measured

    return measured(str(path))


def machine() -> "Machine":
    """Return the machine as `kapelle doctor` looks at it."""
    from kapelle.adapters.system.machine import LocalMachine

    return LocalMachine()


def claude_facts() -> tuple[str, tuple[str, str]]:
    """Return where the Claude Code CLI is, and the range of versions that was tested.

    Raises:
        ProgramMissing: it is not installed.
    """
    from kapelle.adapters.drivers.claude.driver import TESTED, find_claude

    return find_claude(), TESTED


def load_rehearsal(path: Path) -> "Rehearsal":
    """Read the rehearsal file at *path*.

    Raises:
        FileMissing: it cannot be read.
        FileInvalid: it has mistakes.
    """
    from kapelle.adapters.gateway.rehearsal_file import load_rehearsal as load

    return load(path)


def rehearsal_schema() -> dict[str, Any]:
    """Return the JSON Schema of rehearsal files."""
    from kapelle.adapters.gateway.rehearsal_file import rehearsal_schema as schema

    return schema()


async def serve_rehearsal(
    path: Path,
    *,
    host: str,
    port: int,
    log: Path,
    on_request: "Callable[[Served], None]",
    on_ready: Callable[[int], None],
) -> None:
    """Serve the rehearsal at *path* by itself until the process is interrupted.

    Raises:
        FileMissing: the file cannot be read.
        FileInvalid: it has mistakes.
    """
    from kapelle.adapters.evaluators.process import ProcessEvaluator
    from kapelle.adapters.gateway.standalone import serve_rehearsal as serve

    evaluator = ProcessEvaluator()
    try:
        await serve(path, host=host, port=port, log=log, evaluator=evaluator, on_request=on_request, on_ready=on_ready)
    finally:
        evaluator.close()
