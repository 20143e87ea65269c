"""Git in memory: commits, trees, refs and directories, with a three-way merge of whole files."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from kapelle.core.frozen import frozen

Files = dict[str, str]


@frozen
class MemoryCommit:
    """A commit: its files are those of its tree."""

    commit: str
    tree: str
    parents: tuple[str, ...]
    author: str
    message: str


@dataclass(kw_only=True, slots=True)
class MemoryRepository:
    """A repository with an operator's checkout at *root*."""

    root: str
    branch: str | None = "main"
    """What is checked out at *root*."""
    loose: Files = field(default_factory=Files)
    """Files in the checkout that git does not know, such as ``.env``."""
    ignored: tuple[str, ...] = ()
    """Globs of what git ignores."""
    in_the_way: str = ""
    """Why git does not update the checkout; empty when it does."""
    refs: dict[str, str] = field(default_factory=dict[str, str])
    moves: list[tuple[str, str | None, str]] = field(default_factory=list[tuple[str, str | None, str]])
    """Every move of a ref, by whomever: its name, where it was, where it went."""
    commits: dict[str, MemoryCommit] = field(default_factory=dict[str, MemoryCommit])
    trees: dict[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])

    def tree_of(self, files: Mapping[str, str]) -> str:
        """Keep *files* as a tree and return its name: the same files, the same name."""
        tree = hashlib.sha1(json.dumps(sorted(files.items())).encode(), usedforsecurity=False).hexdigest()
        self.trees[tree] = dict(files)
        return tree

    def commit(
        self, files: Mapping[str, str], parents: Sequence[str], *, author: str = "You", message: str = "work"
    ) -> MemoryCommit:
        """Make a commit; no two are the same, as if each were made in a second of its own."""
        tree = self.tree_of(files)
        about = json.dumps([tree, list(parents), author, message, len(self.commits)])
        name = hashlib.sha1(about.encode(), usedforsecurity=False).hexdigest()
        made = MemoryCommit(commit=name, tree=tree, parents=tuple(parents), author=author, message=message)
        self.commits[name] = made
        return made

    def files(self, name: str) -> Files:
        """Return the files of the commit that *name* stands for."""
        commit = self.resolve(name)
        if commit is None:
            raise KeyError(name)
        return dict(self.trees[self.commits[commit].tree])

    def push(self, changes: Mapping[str, str | None], *, branch: str = "main") -> str:
        """Commit *changes* (None deletes a file) on *branch*, as a person does, and return the commit."""
        ref = f"refs/heads/{branch}"
        old = self.refs.get(ref)
        files: dict[str, str | None] = {**(self.files(old) if old is not None else {}), **changes}
        kept = {name: content for name, content in files.items() if content is not None}
        made = self.commit(kept, [old] if old is not None else [], message="by hand")
        self.move(ref, made.commit)
        return made.commit

    def merge_by_hand(self, commit: str, mend: Callable[[Files], Files], *, branch: str = "main") -> str:
        """Merge *commit* on *branch* as a person does, who mends what does not fit, and return the merge."""
        ref = f"refs/heads/{branch}"
        old = self.refs[ref]
        files, _ = self.merge_files(old, commit)
        made = self.commit(mend(files), [old, commit], message="by hand")
        self.move(ref, made.commit)
        return made.commit

    def move(self, ref: str, commit: str) -> None:
        """Let *ref* stand at *commit*."""
        self.moves.append((ref, self.refs.get(ref), commit))
        self.refs[ref] = commit

    def resolve(self, name: str) -> str | None:
        """Return the commit that a ref, a branch or a commit stands for."""
        if name == "HEAD" and self.branch is not None:
            name = f"refs/heads/{self.branch}"
        return self.refs.get(name) or self.refs.get(f"refs/heads/{name}") or (name if name in self.commits else None)

    def ancestors(self, commit: str) -> set[str]:
        """Return *commit* and all that it holds."""
        seen: set[str] = set()
        todo = [commit]
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo.extend(self.commits[name].parents)
        return seen

    def reachable(self, commit: str) -> bool:
        """Say whether some ref holds *commit*: what none holds, git throws away one day."""
        return any(commit in self.ancestors(tip) for tip in self.refs.values())

    def merge_files(self, ours: str, theirs: str) -> tuple[Files, dict[str, str]]:
        """Merge the files of two commits; return them, with markers where they conflict, and the conflicts with git's word."""
        return three_way(self._base(ours, theirs), self.files(ours), self.files(theirs))

    def _base(self, ours: str, theirs: str) -> Files:
        common = self.ancestors(self.resolve(ours) or ours) & self.ancestors(self.resolve(theirs) or theirs)
        nearest = sorted(one for one in common if not any(one in self.ancestors(other) for other in common - {one}))
        if not nearest:
            return {}
        if len(nearest) == 1:
            return self.files(nearest[0])
        # Two histories that were merged crosswise: what git's own merge does, for two bases.
        return self.merge_files(nearest[0], nearest[1])[0]


def three_way(base: Files, ours: Files, theirs: Files) -> tuple[Files, dict[str, str]]:
    """Merge whole files: what only one side changed is taken from it; what both changed differently is a conflict."""
    merged: Files = {}
    conflicts: dict[str, str] = {}
    for name in sorted({*base, *ours, *theirs}):
        old, mine, other = base.get(name), ours.get(name), theirs.get(name)
        chosen = other if mine == old else mine
        if mine not in (old, other) and other != old:
            conflicts[name] = "add/add" if old is None else "modify/delete" if None in (mine, other) else "content"
            chosen = f"<<<<<<< ours\n{mine or ''}\n=======\n{other or ''}\n>>>>>>> theirs\n"
        if chosen is not None:
            merged[name] = chosen
    return merged, conflicts


def has_markers(content: str) -> bool:
    """Say whether a file still holds conflict markers."""
    return any(line.startswith(("<<<<<<< ", ">>>>>>> ")) or line == "=======" for line in content.splitlines())


@dataclass(kw_only=True, slots=True)
class MemoryDirectory:
    """A directory: of no repository, or a worktree of one, detached at *head*."""

    files: Files
    repository: MemoryRepository | None = None
    head: str = ""
    merging: str | None = None
    """The commit whose merge is not concluded yet."""
    copied: set[str] = field(default_factory=set[str])

    def work(self) -> Files:
        """Return everything that git would not ignore and that was not copied in."""
        ignored = self.repository.ignored if self.repository is not None else ()
        return {name: content for name, content in self.files.items() if name not in self.copied and not matches(name, ignored)}


def matches(name: str, globs: Iterable[str]) -> bool:
    """Say whether one of *globs* fits *name*."""
    return any(fnmatchcase(name, glob) for glob in globs)


class MemoryGit:
    """All repositories and directories of a world."""

    def __init__(self) -> None:
        self.repositories: dict[str, MemoryRepository] = {}
        self.directories: dict[str, MemoryDirectory] = {}
        self.removed: list[str] = []
        """What was removed, the first first, whether or not it was there."""

    def init(self, root: str, files: Mapping[str, str]) -> MemoryRepository:
        """Make a repository at *root* whose first commit, on main, holds *files*."""
        repository = MemoryRepository(root=root)
        self.repositories[root] = repository
        repository.push(files)
        return repository
