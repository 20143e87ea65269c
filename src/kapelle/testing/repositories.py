"""Repositories and workspaces in memory."""

from collections.abc import Sequence
from datetime import datetime
from itertools import chain, count

from kapelle.core.errors import GitFailed, RepositoryRefused, WorkspaceFailed
from kapelle.core.git import Commit, Conflict, Delivered, Glance, Merged, Ref, RepositoryFacts, Signature, WorkspaceOrder
from kapelle.core.hiding import NOTHING, Hiding, Leak
from kapelle.core.isolation import Mount
from kapelle.testing.clock import NOON
from kapelle.testing.git import Files, MemoryDirectory, MemoryGit, MemoryRepository, has_markers, matches
from kapelle.testing.points import Points


class MemoryRepositories:
    """See ``core.ports.Repositories``."""

    def __init__(self, git: MemoryGit, points: Points | None = None) -> None:
        self._git = git
        self._points = points or Points()

    def _at(self, repository: str) -> MemoryRepository:
        found = self._git.repositories.get(repository)
        if found is None:
            raise GitFailed(f"the directory {repository} is gone")
        return found

    async def inspect(self, path: str) -> RepositoryFacts:
        """See the port."""
        found = self._git.repositories.get(path)
        if found is None:
            raise RepositoryRefused(f"{path} is no git repository")
        head = found.resolve("HEAD") or ""
        return RepositoryFacts(root=found.root, git_dir=f"{found.root}/.git", branch=found.branch, head=head)

    async def resolve(self, repository: str, name: str) -> str | None:
        """See the port."""
        return self._at(repository).resolve(name)

    async def tree(self, repository: str, commit: str) -> str:
        """See the port."""
        return self._at(repository).commits[commit].tree

    async def is_ancestor(self, repository: str, older: str, newer: str) -> bool:
        """See the port."""
        return older in self._at(repository).ancestors(newer)

    async def changed(self, repository: str, base: str, head: str) -> Sequence[str]:
        """See the port."""
        before, after = self._at(repository).files(base), self._at(repository).files(head)
        return [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]

    async def diff(self, repository: str, base: str, head: str, files: Sequence[str] = (), limit: int = 20_000) -> str:
        """See the port."""
        before, after = self._at(repository).files(base), self._at(repository).files(head)
        names = [name for name in await self.changed(repository, base, head) if not files or name in files]
        return "".join(f"{name}\n-{before.get(name, '')}\n+{after.get(name, '')}\n" for name in names)[:limit]

    async def merge(self, repository: str, onto: str, commit: str, signature: Signature) -> Merged:
        """See the port."""
        async with self._points.passing("merge"):
            at = self._at(repository)
            if commit not in at.commits:
                raise GitFailed(f"{commit} is not a commit")
            if commit in at.ancestors(onto):
                return Merged(commit=Commit(commit=onto, tree=at.commits[onto].tree), unchanged=True)
            files, conflicts = at.merge_files(onto, commit)
            if conflicts:
                found = tuple(Conflict(file=name, reason=reason) for name, reason in conflicts.items())
                return Merged(commit=None, conflicts=found)
            made = at.commit(files, [onto, commit], author=signature.author, message=signature.message)
            return Merged(commit=Commit(commit=made.commit, tree=made.tree))

    async def join(self, repository: str, tree: str, parents: Sequence[str], signature: Signature) -> str:
        """See the port."""
        at = self._at(repository)
        return at.commit(at.trees[tree], parents, author=signature.author, message=signature.message).commit

    async def since(self, repository: str, base: str, head: str) -> Sequence[str]:
        """See the port."""
        at = self._at(repository)
        held, found, name = at.ancestors(base), list[str](), head
        while name not in held:
            found.append(name)
            parents = at.commits[name].parents
            if not parents:
                break
            name = parents[0]
        return found

    async def move_ref(self, repository: str, ref: str, new: str, old: str | None) -> bool:
        """See the port."""
        async with self._points.passing("move_ref"):
            at = self._at(repository)
            if at.refs.get(ref) != old:
                return False
            at.move(ref, new)
            return True

    async def delete_ref(self, repository: str, ref: str, commit: str | None = None) -> None:
        """See the port."""
        refs = self._at(repository).refs
        if commit is None or refs.get(ref) == commit:
            refs.pop(ref, None)

    async def refs(self, repository: str, prefix: str) -> Sequence[Ref]:
        """See the port; every commit was made at the same time."""
        at = self._at(repository)
        names = sorted(name for name in at.refs if name.startswith(prefix))
        subjects = {name: at.commits[at.refs[name]].message.partition("\n")[0] for name in names}
        return [Ref(name=name, commit=at.refs[name], at=NOON, subject=subjects[name]) for name in names]

    async def branches_with(self, repository: str, commit: str) -> Sequence[Ref]:
        """See the port."""
        at = self._at(repository)
        return [ref for ref in await self.refs(repository, "refs/heads/") if commit in at.ancestors(ref.commit)]

    async def deliver(self, repository: str, target: str, commit: str, expected: str) -> Delivered:
        """See the port."""
        async with self._points.passing("deliver"):
            at, ref = self._at(repository), f"refs/heads/{target}"
            tip = at.refs.get(ref, "")
            if tip == commit:
                return Delivered(moved=True, tip=commit)
            if tip != expected or expected not in at.ancestors(commit):
                return Delivered(moved=False, reason=f"{target} was moved by somebody else meanwhile", tip=tip)
            if at.branch == target and at.in_the_way:
                return Delivered(moved=False, reason=at.in_the_way, tip=tip)
            at.move(ref, commit)
            return Delivered(moved=True, tip=commit)


class MemoryWorkspaces:
    """See ``core.ports.Workspaces``."""

    def __init__(self, git: MemoryGit, points: Points | None = None) -> None:
        self._git = git
        self._points = points or Points()

    def _at(self, path: str, repository: str) -> tuple[MemoryDirectory, MemoryRepository]:
        directory, owner = self._git.directories.get(path), self._git.repositories.get(repository)
        if directory is None or owner is None or directory.repository is not owner:
            raise WorkspaceFailed(f"{path} is no worktree of {repository} (any more)")
        return directory, owner

    async def prepare(self, order: WorkspaceOrder) -> None:
        """See the port."""
        async with self._points.passing("prepare"):
            if order.path in self._git.directories:
                return
            if order.repository is None:
                self._git.directories[order.path] = MemoryDirectory(files={})
                return
            repository = self._git.repositories.get(order.repository)
            if repository is None or order.base is None or order.base not in repository.commits:
                raise WorkspaceFailed(f"the workspace {order.path} cannot be made at {order.base} of {order.repository}")
            copied = {name for name in repository.loose if matches(name, order.copy)}
            files = {**repository.files(order.base), **{name: repository.loose[name] for name in copied}}
            directory = MemoryDirectory(files=files, repository=repository, head=order.base, copied=copied)
            self._git.directories[order.path] = directory

    async def glance(self, path: str, repository: str, base: str) -> Glance:
        """See the port."""
        async with self._points.passing("glance"):
            directory, at = self._at(path, repository)
            before, now = at.files(base), directory.work()
            names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
            return Glance(files=tuple(names), mark=repr([(name, now.get(name)) for name in names]))

    async def commit(self, path: str, repository: str, signature: Signature, hiding: Hiding = NOTHING) -> Commit:
        """See the port."""
        async with self._points.passing("commit"):
            directory, at = self._at(path, repository)
            parents, work = [directory.head], directory.work()
            leaks = tuple(Leak(secret=held, file=name) for name in work for held in hiding.found(work[name].encode()))
            if leaks:
                return Commit(commit=directory.head, tree=at.commits[directory.head].tree, leaks=leaks)
            if directory.merging is not None and directory.merging not in at.ancestors(directory.head):
                parents.append(directory.merging)
            tree = at.commits[directory.head].tree
            if len(parents) == 1 and at.tree_of(work) == tree:
                return Commit(commit=directory.head, tree=tree)
            made = at.commit(work, parents, author=signature.author, message=signature.message)
            directory.head, directory.merging = made.commit, None
            return Commit(commit=made.commit, tree=made.tree)

    async def cleanse(self, repository: str, hiding: Hiding, since: datetime) -> int:
        """See the port: nobody writes into this repository behind its back."""
        del repository, hiding, since
        return 0

    async def snapshot(self, path: str, repository: str, ref: str, hiding: Hiding = NOTHING) -> str | None:
        """See the port."""
        async with self._points.passing("snapshot"):
            if path not in self._git.directories:
                return None
            directory, at = self._at(path, repository)
            kept = directory.head
            work = {name: hiding.hide_text(content) for name, content in directory.work().items()}
            if at.tree_of(work) != at.commits[directory.head].tree:
                kept = at.commit(work, [directory.head], author="Kapelle", message=f"Snapshot of {path}\n").commit
            elif at.reachable(directory.head):
                return None
            at.move(ref, kept)
            return kept

    async def bring_in(self, path: str, repository: str, commit: str, hiding: Hiding = NOTHING) -> Sequence[Conflict]:
        """See the port."""
        del hiding  # those inside commit nothing by themselves
        async with self._points.passing("bring_in"):
            directory, at = self._at(path, repository)
            if directory.merging not in (None, commit):
                self._reset(directory, at.files(directory.head))
            files, conflicts = at.merge_files(directory.head, commit)
            if directory.merging is None and commit not in at.ancestors(directory.head):
                self._reset(directory, files)
                directory.merging = commit
            return [Conflict(file=name, reason=reason) for name, reason in conflicts.items()]

    async def leftover_markers(self, path: str, repository: str, base: str) -> Sequence[str]:
        """See the port."""
        directory, at = self._at(path, repository)
        before, after = at.files(base), at.files(directory.head)
        return [name for name, content in after.items() if before.get(name) != content and has_markers(content)]

    async def put(self, path: str, repository: str, commit: str, *, bare: bool = False) -> None:
        """See the port."""
        async with self._points.passing("put"):
            directory, at = self._at(path, repository)
            if bare:
                work = directory.work()
                for name in [name for name in directory.files if name not in work and name not in directory.copied]:
                    del directory.files[name]
            self._reset(directory, at.files(commit))
            directory.head = commit

    @staticmethod
    def _reset(directory: MemoryDirectory, files: Files) -> None:
        """Replace all that git knows or would add; what it ignores and what was copied in stay."""
        work = directory.work()
        stays = {name: content for name, content in directory.files.items() if name not in work}
        directory.files.clear()
        directory.files.update({**stays, **files})
        directory.merging = None

    async def reach(self, path: str, repository: str) -> Sequence[Mount]:
        """See the port. In memory there is nothing to reach."""
        self._at(path, repository)
        return ()

    async def remove(self, path: str, repository: str | None) -> None:  # noqa: ARG002  # as the port has it
        """See the port."""
        async with self._points.passing("remove"):
            self._git.directories.pop(path, None)
            self._git.removed.append(path)

    async def set_aside(self, path: str, folder: str) -> str:
        """See the port."""
        name = path.rpartition("/")[2]
        names = chain([name], (f"{name}-{number}" for number in count(2)))
        free = next(goal for goal in (f"{folder}/{each}" for each in names) if goal not in self._git.directories)
        self._git.directories[free] = self._git.directories.pop(path)
        return free

    async def present(self, folder: str) -> Sequence[str]:
        """See the port."""
        return sorted(path for path in self._git.directories if path.startswith(f"{folder}/"))
