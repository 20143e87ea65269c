"""Integrating a batch of changes: what is done in git and on disk, and what came of it. The stage writes it down."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from kapelle.core.attempt import Attempt
from kapelle.core.errors import WorkspaceFailed
from kapelle.core.frozen import frozen, replace
from kapelle.core.gate import Gate, Verdict
from kapelle.core.git import Commit, Conflict, Signature, WorkspaceOrder
from kapelle.core.ids import BatchId
from kapelle.core.merge import Change, Integration, hold_up, undelivered
from kapelle.core.plain_text import shown_files
from kapelle.core.run import Run
from kapelle.core.store import WorkspaceRow
from kapelle.core.task import Task
from kapelle.core.wording import Whose, batch_message, broke_when_merged, conflict, merge_message
from kapelle.engine.collisions import collisions
from kapelle.engine.deploy import set_up
from kapelle.engine.gating import Gating, key_of, run_gate
from kapelle.engine.secrets import hiding
from kapelle.engine.stillness import still
from kapelle.engine.world import World

Rooms = tuple[tuple[Run, WorkspaceRow], ...]
"""The runs whose work is on one line, each with the workspace in which it gates merged trees."""
TRIES = 2
"""How often a gate may fail on undelivered work and a target that has moved on before it is left to a person."""
MERGER = "Kapelle"
MERGER_EMAIL = "merge-queue@agents.kapelle.invalid"


@frozen
class Merging:
    """A change whose turn it is."""

    change: Change
    task: Task
    attempt: Attempt
    run: Run
    workspace: WorkspaceRow

    @property
    def gate(self) -> Gate | None:
        """The gate that it must pass."""
        return self.run.spec.gate(self.task.spec.gate)


@frozen
class Trial:
    """What is tried next on a target: changes that are merged onto its tip together and gated once."""

    batch_id: BatchId
    entries: tuple[Merging, ...]
    """At least one; all have the same gate, and whatever else its answer depends on."""
    again: bool
    """Whether this is the one change that bisection named."""
    room: WorkspaceRow
    """The workspace in which merged trees of this target are gated."""
    rooms: Rooms
    """Those of every run whose work may be among what is not delivered yet."""
    integration: Integration | None

    @property
    def first(self) -> Merging:
        """The change that goes first."""
        return self.entries[0]

    @property
    def repository(self) -> str:
        """The repository that they change."""
        return self.first.change.repository

    @property
    def target(self) -> str:
        """The branch that they go to."""
        return self.first.change.target


@frozen
class Proven:
    """A commit that has passed a gate."""

    commit: str
    gating: Gating
    changed: tuple[str, ...]


@frozen
class Landed:
    """Merged, and the gate passed on the merged tree."""

    entries: tuple[Merging, ...]
    commit: str
    gating: Gating | None
    changed: tuple[str, ...]


@frozen
class Red:
    """Together they do not pass: one of them is to blame, or chance."""

    entries: tuple[Merging, ...]
    reason: str
    tree: str = "-"
    gating: Gating | None = None


@frozen
class SentBack:
    """A change that goes back to its agent; what was merged meanwhile is in its workspace now."""

    entry: Merging
    reason: str
    prompt: str
    onto: str
    files: tuple[str, ...] = ()
    """Where it conflicts; empty when it merges cleanly and fails the gate."""
    gating: Gating | None = None


@frozen
class Tried:
    """What came of a trial."""

    delivered: str = ""
    """Where the target is, on which all was built."""
    landed: Landed | None = None
    red: Red | None = None
    sent_back: tuple[SentBack, ...] = ()
    refused: str = ""
    """Why none of them can be merged at all."""
    proven: tuple[Proven, ...] = ()
    """What else was gated on the way."""
    room_ready: bool = False


@frozen
class _Both:
    """Undelivered work together with a target that has moved on by itself."""

    commit: Commit | None = None
    """None when they conflict, or are known not to pass."""
    conflicts: tuple[Conflict, ...] = ()
    proven: tuple[Proven, ...] = ()
    failing: str = ""
    """The check that fails on them, if one does."""


@frozen
class _Failed:
    """What did not pass together."""

    what: Hashable
    failing: str
    times: int


@dataclass(slots=True)
class _Pile:
    """Changes that were merged one onto the other."""

    onto: str
    tip: Commit | None = None
    """The last of them; None while there is none."""
    entries: list[Merging] = field(default_factory=list[Merging])
    heads: list[str] = field(default_factory=list[str])
    conflicted: list[SentBack] = field(default_factory=list[SentBack])


def integration_ref(store_id: str, target: str, line: str = "") -> str:
    """Return the ref that a line of the merge queue of *target* builds up."""
    return f"refs/kapelle/{store_id}/integration/{target}" + (f"@{line}" if line else "")


class Integrator:
    """The acts of the merge stage."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._failed: dict[tuple[str, str, str], _Failed] = {}
        """By line: what did not pass together with its target when that was last tried."""

    async def integrate(self, trial: Trial) -> Tried:
        """Merge the changes onto the tip, gate what comes of it, and say how it went.

        Raises:
            KapelleError: git or the file system failed.
        """
        target = await self._world.repositories.resolve(trial.repository, f"refs/heads/{trial.target}")
        if target is None:
            return Tried(refused=f"the branch {trial.target} is gone")
        onto, proven = await self._onto(trial, target)
        pile = await self._pile(trial, onto)
        found = Tried(delivered=target, sent_back=tuple(pile.conflicted), proven=proven, room_ready=trial.room.ready)
        if pile.tip is None:
            return found
        commit = await self._joined(trial, pile, pile.tip)
        gating, ready = await self._gate(trial, commit)
        found = replace(found, room_ready=found.room_ready or ready)
        entries = tuple(pile.entries)
        if gating is None or gating.verdict.passed:
            changed = tuple(await self._world.repositories.changed(trial.repository, onto, commit.commit))
            return replace(found, landed=Landed(entries=entries, commit=commit.commit, gating=gating, changed=changed))
        if len(entries) == 1 and trial.again:
            return replace(found, sent_back=(*found.sent_back, await self._named(entries[0], gating, onto)))
        return replace(found, red=Red(entries=entries, tree=gating.tree, gating=gating, reason=_fails(gating)))

    async def _pile(self, trial: Trial, onto: str) -> _Pile:
        """Merge one change after the other onto *onto*, as far as they fit."""
        merge, repository = self._world.repositories.merge, trial.repository
        pile = _Pile(onto=onto)
        for entry in trial.entries:
            signature = self._signed(merge_message(whose(entry), trial.target))
            merged = await merge(repository, onto if pile.tip is None else pile.tip.commit, entry.change.head, signature)
            if merged.commit is None and pile.entries:
                merged = await merge(repository, onto, entry.change.head, signature)
                if merged.commit is not None:
                    # It fits the target, and not those before it: it is the first of the next batch, and keeps its place.
                    break
            if merged.commit is None:
                files = tuple(found.file for found in merged.conflicts)
                pile.conflicted.append(await self._conflicted(entry, files, onto))
                continue
            pile.entries.append(entry)
            pile.tip = merged.commit
            if not merged.unchanged:
                pile.heads.append(entry.change.head)
        return pile

    async def _joined(self, trial: Trial, pile: _Pile, tip: Commit) -> Commit:
        """Return the one commit that brings all of *pile* onto the target: only what was gated may be a first parent."""
        if len(pile.entries) == 1 or not pile.heads:
            return tip
        signature = self._signed(batch_message([whose(entry) for entry in pile.entries], trial.target))
        parents = (pile.onto, *pile.heads)
        commit = await self._world.repositories.join(trial.repository, tip.tree, parents, signature)
        return replace(tip, commit=commit)

    async def _conflicted(self, entry: Merging, files: tuple[str, ...], onto: str) -> SentBack:
        change = entry.change
        await self._bring_in(entry, onto)
        others = await collisions(self._world, change, onto, files)
        theirs = await self._world.repositories.diff(change.repository, change.base, onto, files)
        mine = await self._world.repositories.diff(change.repository, change.base, change.head, files)
        who = f" (changed by {', '.join(other.name for other in others)})" if others else ""
        return SentBack(
            entry=entry,
            files=files,
            onto=onto,
            reason=f"it conflicts with {change.target} in {shown_files(files)}{who}",
            prompt=conflict(change.target, files, others, theirs=theirs, mine=mine),
        )

    async def _bring_in(self, entry: Merging, onto: str) -> None:
        config = entry.run.spec.config(entry.attempt.config)
        found = await hiding(self._world, config, entry.attempt.attempt_id)
        async with still(self._world, entry.attempt.attempt_id):
            await self._world.workspaces.bring_in(entry.workspace.path, entry.change.repository, onto, found)

    async def _named(self, entry: Merging, gating: Gating, onto: str) -> SentBack:
        change, failing = entry.change, gating.verdict.failing
        await self._bring_in(entry, onto)
        others = await collisions(self._world, change, onto)
        theirs = await self._world.repositories.diff(change.repository, change.base, onto)
        who = f", together with {', '.join(other.name for other in others)}" if others else ""
        return SentBack(
            entry=entry,
            gating=gating,
            onto=onto,
            reason=_fails(gating, who),
            prompt=broke_when_merged(change.target, gating.gate, failing, others, theirs) if failing is not None else "",
        )

    async def _onto(self, trial: Trial, target: str) -> tuple[str, tuple[Proven, ...]]:
        """Return the commit to merge onto: all that was merged and all that the target holds meanwhile."""
        repository, integration = trial.repository, trial.integration
        tip = undelivered(integration)
        if integration is None or tip is None or await self._world.repositories.is_ancestor(repository, tip, target):
            return target, ()
        if await self._world.repositories.is_ancestor(repository, target, tip):
            return tip, ()
        # The target moved on by itself while merged work was not delivered: bring both together first, and prove it.
        both = await self._together(integration, trial.rooms, target)
        if both.failing or both.commit is None:
            # A person must settle this; until then the queue goes on, on what it has proven.
            return tip, ()
        return both.commit.commit, both.proven

    async def catch_up(self, integration: Integration, rooms: Rooms) -> tuple[Integration, tuple[Proven, ...]]:
        """Merge undelivered work onto a target that has moved on by itself, and prove it with every gate of its runs."""
        repository, name = integration.repository, integration.target
        target = await self._world.repositories.resolve(repository, f"refs/heads/{name}")
        if target is None:
            return _gone(integration), ()
        both = await self._together(integration, rooms, target)
        if both.failing:
            why = f"{name} has moved on, and {both.failing} fails on both together"
            return hold_up(integration, why, f"Mend it: on {name}, {_by_hand(integration)}"), both.proven
        if both.commit is None:
            files = shown_files(found.file for found in both.conflicts)
            why = f"{name} has moved on and conflicts with merged work in {files}"
            return hold_up(integration, why, f"Bring both together: on {name}, {_by_hand(integration)}"), ()
        return replace(integration, tip=both.commit.commit, held_up=""), both.proven

    async def _together(self, integration: Integration, rooms: Rooms, target: str) -> _Both:
        """Merge undelivered work onto *target*, and prove it.

        What fails may do so by chance, and is tried once more; then no more, until one of them has moved or a person says so:
        a target that is held up is looked at every few seconds, and a gate takes its time.
        """
        line = integration.repository, integration.target, integration.line
        what = target, integration.tip, tuple(run.run_id for run, _ in rooms)
        failed = self._failed.get(line)
        times = failed.times if failed is not None and failed.what == what else 0
        if failed is not None and times >= TRIES and integration.held_up:
            return _Both(failing=failed.failing)
        signature = self._signed(f"Merge undelivered work into {integration.target}\n")
        merged = await self._world.repositories.merge(integration.repository, target, integration.tip, signature)
        if merged.commit is None:
            return _Both(conflicts=tuple(merged.conflicts))
        proven, failing = await self._prove(rooms, merged.commit, integration.repository, target)
        if failing:
            self._failed[line] = _Failed(what=what, failing=failing, times=times + 1)
        else:
            self._failed.pop(line, None)
        return _Both(commit=merged.commit, proven=proven, failing=failing)

    async def _prove(self, rooms: Rooms, both: Commit, repository: str, target: str) -> tuple[tuple[Proven, ...], str]:
        """Run every gate of *rooms*' runs on *both*; return what passed, and which check failed, if one did."""
        changed = tuple(await self._world.repositories.changed(repository, target, both.commit))
        proven: dict[str, Proven] = {}
        for run, room in rooms:
            for gate in gates_of(run):
                if key_of(self._world, run, gate, both.tree, None) in proven:
                    continue
                gating, _ = await self._gate_in(room, run, None, gate, both, repository, f"catch-up-{both.commit[:10]}")
                if gating.verdict.failing is not None:
                    return tuple(proven.values()), f"{gate.name}/{gating.verdict.failing.name}"
                proven[gating.key] = Proven(commit=both.commit, gating=gating, changed=changed)
        return tuple(proven.values()), ""

    async def _gate(self, trial: Trial, commit: Commit) -> tuple[Gating | None, bool]:
        """Gate *commit* in the target's own workspace; say also whether that is set up now."""
        gate = trial.first.gate
        if gate is None:
            return None, trial.room.ready
        task = trial.first.task if len(trial.entries) == 1 else None
        label = f"merge-{trial.batch_id}"
        return await self._gate_in(trial.room, trial.first.run, task, gate, commit, trial.repository, label)

    async def _gate_in(
        self, room: WorkspaceRow, run: Run, task: Task | None, gate: Gate, commit: Commit, repository: str, label: str
    ) -> tuple[Gating, bool]:
        key = key_of(self._world, run, gate, commit.tree, task)
        receipt = await self._world.store.read(lambda view: view.changes.receipt(key))
        if receipt is not None:
            verdict = Verdict(passed=True, checks=receipt.checks)
            return Gating(gate=gate, tree=commit.tree, key=key, verdict=verdict, reused=True), room.ready
        await self._prepare(room, repository, commit.commit, run)
        verdict = await run_gate(self._world, run, task, gate, room, label=label)
        return Gating(gate=gate, tree=commit.tree, key=key, verdict=verdict), True

    async def _prepare(self, room: WorkspaceRow, repository: str, commit: str, run: Run) -> None:
        await self._world.workspaces.prepare(
            WorkspaceOrder(
                workspace_id=room.workspace_id,
                path=room.path,
                repository=repository,
                base=commit,
                copy=run.spec.workspace.copy,
            )
        )
        await self._world.workspaces.put(room.path, repository, commit)
        if not room.ready:
            problem = await set_up(self._world, run, None, room)
            if problem is not None:
                raise WorkspaceFailed(problem)

    @staticmethod
    def _signed(message: str) -> Signature:
        return Signature(author=MERGER, email=MERGER_EMAIL, message=message)

    async def deliver(self, integration: Integration, rooms: Rooms) -> tuple[Integration, tuple[Proven, ...]]:
        """Move the target to the tip; return the integration as it is then, with a reason when it could not be moved."""
        await self.move_ref(integration)
        repository = integration.repository
        target = await self._world.repositories.resolve(repository, f"refs/heads/{integration.target}")
        if target is None:
            return _gone(integration), ()
        if target == integration.tip or await self._world.repositories.is_ancestor(repository, integration.tip, target):
            return replace(integration, delivered=integration.tip, held_up=""), ()
        if not await self._world.repositories.is_ancestor(repository, target, integration.tip):
            # What comes of it is written down before any ref moves: the delivery itself is the next step's.
            return await self.catch_up(integration, rooms)
        delivered = await self._world.repositories.deliver(repository, integration.target, integration.tip, target)
        if delivered.moved:
            return replace(integration, delivered=integration.tip, held_up=""), ()
        return hold_up(integration, delivered.reason, delivered.remedy), ()

    async def move_ref(self, integration: Integration) -> None:
        """Let the integration ref stand where the store says."""
        ref = integration_ref(self._world.store.store_id, integration.target, integration.line)
        now = await self._world.repositories.resolve(integration.repository, ref)
        if now != integration.tip:
            await self._world.repositories.move_ref(integration.repository, ref, integration.tip, now)


def _gone(integration: Integration) -> Integration:
    name, last = integration.target, integration.delivered or integration.tip
    return hold_up(integration, f"the branch {name} is gone", f"Make it again, where it was: git branch {name} {last[:10]}")


def _by_hand(integration: Integration) -> str:
    return f"git merge {integration.tip[:10]} , mend what does not fit, and commit it."


def gates_of(run: Run) -> tuple[Gate, ...]:
    """Return the gates that the work of *run* must pass."""
    names = dict.fromkeys(spec.gate for spec in run.spec.tasks)
    return tuple(gate for name in names for gate in [run.spec.gate(name)] if gate is not None)


def whose(entry: Merging) -> Whose:
    """Return who made the change of *entry*, for the message of a commit."""
    return Whose(
        name=entry.task.name,
        run_id=entry.run.run_id,
        task_id=entry.task.task_id,
        attempt=entry.attempt.number,
        agent=entry.attempt.config,
    )


def names(entries: Sequence[Merging]) -> str:
    """Return the names of the tasks of *entries*, for people."""
    return ", ".join(entry.task.name for entry in entries)


def _fails(gating: Gating, who: str = "") -> str:
    """Return why what was merged is not good; *who* it was merged with."""
    failing = gating.verdict.failing
    what = f"the check {gating.gate.name}/{failing.name}" if failing is not None else f"the gate {gating.gate.name}"
    limit = f": {failing.limit}" if failing is not None and failing.limit else ""
    return f"{what} fails on the merged tree{who}{limit}"
