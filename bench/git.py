"""What Kapelle adds to git, in a repository of 5,000 files: a ready workspace, a merge without its gate, a snapshot.

Each is measured beside plain git doing the same, in turns, so that both meet the same noise; medians of several turns.
"""

import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha1
from pathlib import Path

from bench.machine import Figures
from bench.places import git, repository
from kapelle.adapters.workspaces.repositories import GitRepositories
from kapelle.adapters.workspaces.worktrees import GitWorkspaces
from kapelle.core.git import Signature, WorkspaceOrder
from kapelle.core.ids import WorkspaceId

FILES, FEW_FILES = 5_000, 50
TURNS, FEW_TURNS = 9, 2
LINES = 130
SIGNED = Signature(author="Kapelle", email="bench@agents.kapelle.invalid", message="Merge work into main\n")


async def measure(*, small: bool = False) -> Figures:
    """Measure once."""
    with tempfile.TemporaryDirectory(prefix="kapelle-bench-") as place:
        bench = _Bench(Path(place), FEW_FILES if small else FILES, FEW_TURNS if small else TURNS)
        return {**await bench.workspace(), **await bench.merge(), **await bench.snapshot()}


class _Bench:
    def __init__(self, folder: Path, files: int, turns: int) -> None:
        self.folder = folder
        self.turns = turns
        # About 28 MB of text that hardly repeats itself, in folders of a hundred.
        self.root = repository(folder / "repository", {_name(number): _text(number) for number in range(files)})
        self.workspaces, self.repositories = GitWorkspaces(), GitRepositories()
        self.head = git(self.root, "rev-parse", "HEAD")

    async def workspace(self) -> Mapping[str, float]:
        """Time a workspace that is ready for an agent against a plain ``git worktree add``."""

        def plain(turn: int) -> None:
            git(self.root, "worktree", "add", "-q", "--detach", str(self.folder / f"plain-{turn}"), self.head)

        async def ours(turn: int) -> None:
            path = str(self.folder / f"ours-{turn}")
            order = WorkspaceOrder(
                workspace_id=WorkspaceId(f"w-{turn}"), path=path, repository=str(self.root), base=self.head, copy=()
            )
            await self.workspaces.prepare(order)

        theirs_s, ours_s = await self._side_by_side(plain, ours)
        return {"worktree_add_ms": theirs_s * 1000, "workspace_ms": ours_s * 1000, "workspace_ratio": ours_s / theirs_s}

    async def merge(self) -> Mapping[str, float]:
        """Time a merge into a branch that is checked out, all but its gate, against ``git merge --no-ff`` in that checkout."""
        root = str(self.root)
        work = {name: self._branch(name, f"src/{name}.txt") for turn in range(self.turns) for name in (f"p{turn}", f"o{turn}")}

        def plain(turn: int) -> None:
            git(self.root, "merge", "--no-ff", "-q", "-m", "Merge work", work[f"p{turn}"])

        async def ours(turn: int) -> None:
            target = await self.repositories.resolve(root, "refs/heads/main") or ""
            merged = await self.repositories.merge(root, target, work[f"o{turn}"], SIGNED)
            if merged.commit is None:
                raise RuntimeError("it does not merge")
            ref = "refs/kapelle/bench/integration/main"
            now = await self.repositories.resolve(root, ref)
            await self.repositories.move_ref(root, ref, merged.commit.commit, now)
            delivered = await self.repositories.deliver(root, "main", merged.commit.commit, target)
            if not delivered.moved:
                raise RuntimeError(delivered.reason)

        theirs_s, ours_s = await self._side_by_side(plain, ours)
        return {"git_merge_ms": theirs_s * 1000, "merge_ms": ours_s * 1000, "merge_ratio": ours_s / theirs_s}

    async def snapshot(self) -> Mapping[str, float]:
        """Time keeping everything that is in a workspace, with a file changed and one added."""
        path = str(self.folder / "ours-0")
        found: list[float] = []
        for turn in range(self.turns):
            _change(Path(path), turn)
            begun = time.perf_counter()
            kept = await self.workspaces.snapshot(path, str(self.root), f"refs/kapelle/bench/kept/{turn}")
            found.append(time.perf_counter() - begun)
            if kept is None:
                raise RuntimeError("nothing was kept")
        return {"snapshot_ms": statistics.median(found) * 1000}

    async def _side_by_side(self, plain: Callable[[int], None], ours: Callable[[int], Awaitable[None]]) -> tuple[float, float]:
        theirs_s: list[float] = []
        ours_s: list[float] = []

        def timed_plain(turn: int) -> None:
            begun = time.perf_counter()
            plain(turn)
            theirs_s.append(time.perf_counter() - begun)

        for turn in range(self.turns):
            # Whoever goes first warms the disk for the other: they take turns.
            if turn % 2:
                timed_plain(turn)
            begun = time.perf_counter()
            await ours(turn)
            ours_s.append(time.perf_counter() - begun)
            if not turn % 2:
                timed_plain(turn)
        return statistics.median(theirs_s), statistics.median(ours_s)

    def _branch(self, name: str, file: str) -> str:
        git(self.root, "checkout", "-q", "-b", name, self.head)
        place = self.root / file
        place.parent.mkdir(exist_ok=True)
        place.write_text(name)
        git(self.root, "add", "-A")
        git(self.root, "commit", "-q", "-m", name)
        git(self.root, "checkout", "-q", "main")
        return git(self.root, "rev-parse", name)


def _change(path: Path, turn: int) -> None:
    (path / _name(turn)).write_text(f"changed {turn}\n")
    (path / f"new-{turn}.txt").write_text(f"new {turn}\n")


def _name(number: int) -> str:
    return f"part-{number // 100}/file-{number}.txt"


def _text(number: int) -> str:
    return "".join(f"{sha1(f'{number} {line}'.encode(), usedforsecurity=False).hexdigest()}\n" for line in range(LINES))
