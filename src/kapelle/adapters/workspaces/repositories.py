"""Repositories: their facts, their refs, merging without touching a directory, and moving a target safely."""

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from kapelle.adapters.system.git import Git, GitResult, failed, plain
from kapelle.adapters.system.locks import HELD, IN_THE_WAY
from kapelle.adapters.workspaces.commits import read_commit
from kapelle.adapters.workspaces.own_files import FULL, NotKnown
from kapelle.adapters.workspaces.refs import read_branch, read_ref
from kapelle.core.errors import RepositoryRefused
from kapelle.core.git import Commit, Conflict, Delivered, Merged, Ref, RepositoryFacts, Signature

MESSAGE_LINES = 4
MOVED = "moved by somebody else meanwhile"
AGAIN = "Nothing is to be done: it is tried again while somebody leads."
REMEMBERED = 10_000
FEW = 100
"""Names of files that are remembered together."""
K = TypeVar("K")
V = TypeVar("V")


class _Known(dict[K, V]):
    """Facts that never change, the newest few of them."""

    def keep(self, key: K, value: V) -> None:
        """Remember one."""
        self[key] = value
        if len(self) > REMEMBERED:
            del self[next(iter(self))]


class GitRepositories:
    """See ``core.ports.Repositories``.

    What a commit is named by, its full name, is what it holds and what it came from: such facts are asked for once.
    """

    def __init__(self) -> None:
        self._trees: _Known[tuple[str, str], str] = _Known()
        self._older: _Known[tuple[str, str, str], bool] = _Known()
        """(repository, older commit, newer one): the older is an ancestor of the newer."""
        self._changed: _Known[tuple[str, str, str], Sequence[str]] = _Known()
        """(repository, commit, tree): the files that are not the same in both, where they are few."""

    async def inspect(self, path: str) -> RepositoryFacts:
        if not Path(path).is_dir():
            raise RepositoryRefused(f"{path} is no directory", remedy="Give the path of a git repository.")
        git = Git(path)
        found = await git.ask("rev-parse", "--is-bare-repository", "--show-toplevel")
        bare, _, top = found.text.partition("\n")
        if not bare:
            raise RepositoryRefused(f"{path} is no git repository", remedy="Run `git init` there, or go to a repository.")
        if bare == "true":
            raise RepositoryRefused(
                f"{path} is a bare repository, which has no checkout to read the configuration from",
                remedy="Clone it and run Kapelle in the clone.",
            )
        if found.code != 0:
            raise RepositoryRefused(f"{path} is inside a .git directory", remedy="Go to the checkout itself.")
        git = Git(top)
        at = await git.ask(
            "rev-parse", "--path-format=absolute", "--git-common-dir", "HEAD^{commit}", "--symbolic-full-name", "HEAD"
        )
        if at.code != 0:
            raise RepositoryRefused(
                f"the repository {top} has no commit yet", remedy="Make a first one: git add -A && git commit"
            )
        # A worktree has its submodules empty, and their commits would not be merged by the queue: better said than half done.
        if any(line.startswith("160000 ") for line in (await git.do("ls-files", "--stage")).lines):
            raise RepositoryRefused(
                f"the repository {top} has submodules, which Kapelle cannot work with yet",
                remedy="Work in the submodule's own repository, or in a branch without submodules.",
            )
        # The names of folders may hold newlines.
        common, head, name = at.text.rsplit("\n", 2)
        branch = name.removeprefix("refs/heads/") if name.startswith("refs/heads/") else None
        return RepositoryFacts(root=top, git_dir=common, branch=branch, head=head)

    async def resolve(self, repository: str, name: str) -> str | None:
        with suppress(NotKnown):
            return read_ref(repository, name)
        found = await Git(repository).ask("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return found.text if found.code == 0 else None

    async def tree(self, repository: str, commit: str) -> str:
        key = (repository, commit)
        if key not in self._trees:
            if self._is_noted(repository, commit):
                return self._trees[key]
            found = (await Git(repository).do("rev-parse", f"{commit}^{{tree}}")).text
            if not FULL.fullmatch(commit):
                return found
            self._trees.keep(key, found)
        return self._trees[key]

    async def is_ancestor(self, repository: str, older: str, newer: str) -> bool:
        if older == newer or (repository, older, newer) in self._older:
            return True
        if (repository, newer, older) in self._older:
            return False
        if self._is_noted(repository, newer) and (repository, older, newer) in self._older:
            return True
        arguments = ("merge-base", "--is-ancestor", older, newer)
        result = await Git(repository).ask(*arguments)
        if result.code not in {0, 1}:
            raise failed(arguments, result)
        if result.code == 0 and FULL.fullmatch(older) and FULL.fullmatch(newer):
            self._older.keep((repository, older, newer), True)
        return result.code == 0

    async def changed(self, repository: str, base: str, head: str) -> Sequence[str]:
        noted = FULL.fullmatch(base) and self._is_noted(repository, head)
        key = (repository, base, self._trees[repository, head]) if noted else None
        if key is not None and key in self._changed:
            return self._changed[key]
        found = (await Git(repository).do("diff", "--name-only", "-z", "--no-renames", base, head)).names
        if key is not None and len(found) <= FEW:
            self._changed.keep(key, found)
        return found

    async def diff(self, repository: str, base: str, head: str, files: Sequence[str] = (), limit: int = 20_000) -> str:
        # The names are of files, whatever they look like.
        git = Git(repository).having(GIT_LITERAL_PATHSPECS="1")
        result = await git.do("diff", "--no-color", "--no-ext-diff", "--no-textconv", base, head, "--", *files)
        text = result.out.decode(errors="replace")
        return text if len(text) <= limit else f"{text[:limit]}\n[... {len(text) - limit} more characters]"

    async def merge(self, repository: str, onto: str, commit: str, signature: Signature) -> Merged:
        git = Git(repository)
        if await self.is_ancestor(repository, commit, onto):
            unchanged = Commit(commit=onto, tree=await self.tree(repository, onto))
            return Merged(commit=unchanged, unchanged=True)
        if self._is_noted(repository, commit) and (repository, onto, commit) in self._older:
            # Nothing was merged since it was begun: both together are what it is itself.
            tree = self._trees[repository, commit]
            made = await self.join(repository, tree, (onto, commit), signature)
            return Merged(commit=Commit(commit=made, tree=tree))
        arguments = ("merge-tree", "--write-tree", "-z", "--messages", "--allow-unrelated-histories", onto, commit)
        result = await git.ask(*arguments)
        if result.code not in {0, 1}:
            raise failed(arguments, result)
        if result.code == 1:
            return Merged(commit=None, conflicts=_conflicts(result))
        tree = result.fields[0]
        made = await self.join(repository, tree, (onto, commit), signature)
        return Merged(commit=Commit(commit=made, tree=tree))

    async def join(self, repository: str, tree: str, parents: Sequence[str], signature: Signature) -> str:
        names = {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", signature.author), ("EMAIL", signature.email))
        }
        named = [part for parent in parents for part in ("-p", parent)]
        made = await Git(repository).having(**names).do("commit-tree", tree, *named, given=signature.message.encode())
        self._keep(repository, made.text, tree, parents)
        return made.text

    def _is_noted(self, repository: str, commit: str) -> bool:
        """Take in what *commit* holds and comes from; say whether that is known without git."""
        try:
            origin = read_commit(repository, commit)
        except NotKnown:
            return False
        self._keep(repository, commit, origin.tree, origin.parents)
        return True

    def _keep(self, repository: str, commit: str, tree: str, parents: Sequence[str]) -> None:
        self._trees.keep((repository, commit), tree)
        for parent in parents:
            self._older.keep((repository, parent, commit), True)

    async def since(self, repository: str, base: str, head: str) -> Sequence[str]:
        return (await Git(repository).do("rev-list", "--first-parent", head, f"^{base}")).lines

    async def move_ref(self, repository: str, ref: str, new: str, old: str | None) -> bool:
        # Forty zeros mean: it must not exist.
        expected = old if old is not None else "0" * len(new)
        result = await Git(repository).ask("update-ref", "--create-reflog", "-m", "kapelle", ref, new, expected)
        return result.code == 0

    async def delete_ref(self, repository: str, ref: str, commit: str | None = None) -> None:
        git = Git(repository)
        deleting = ("update-ref", "-d", ref, *([commit] if commit is not None else ()))
        done = await git.ask(*deleting)
        if done.code != 0 and (commit is None or await self.resolve(repository, ref) == commit):
            raise failed(deleting, done)

    async def refs(self, repository: str, prefix: str) -> Sequence[Ref]:
        return await self._listed(repository, prefix)

    async def branches_with(self, repository: str, commit: str) -> Sequence[Ref]:
        return await self._listed(repository, f"--contains={commit}", "refs/heads/", "refs/remotes/")

    @staticmethod
    async def _listed(repository: str, *which: str) -> Sequence[Ref]:
        parts = "%(refname)%00%(objectname)%00%(committerdate:unix)%00%(contents:subject)"
        result = await Git(repository).do("for-each-ref", f"--format={parts}", *which)
        found: list[Ref] = []
        for line in result.lines:
            name, commit, seconds, subject = line.split("\0")
            # A ref that is no commit has no date; none of ours is.
            at = datetime.fromtimestamp(int(seconds or 0), UTC)
            found.append(Ref(name=name, commit=commit, at=at, subject=plain(subject)))
        return found

    async def deliver(self, repository: str, target: str, commit: str, expected: str) -> Delivered:
        ref = f"refs/heads/{target}"
        tip = await self.resolve(repository, ref)
        if tip == commit:
            return Delivered(moved=True, tip=commit)
        if tip != expected:
            return Delivered(moved=False, reason=f"{target} was {MOVED}", remedy=AGAIN, tip=tip or "")
        checkout = await self._checkout_of(repository, ref)
        if checkout is None:
            moved = await self.move_ref(repository, ref, commit, expected)
            reason, remedy = ("", "") if moved else (f"{target} was {MOVED}", AGAIN)
            return Delivered(moved=moved, reason=reason, remedy=remedy, tip=commit if moved else tip or "")
        # Whoever works in that checkout is a person: they are told what is in the way, and it is tried again later.
        result = await Git(checkout).ask("merge", "--ff-only", "--quiet", commit, patience=HELD)
        if result.code == 0:
            return Delivered(moved=True, tip=commit)
        said = " ".join(line.strip() for line in (result.error or result.text).splitlines()[:MESSAGE_LINES])
        reason = plain(f"git does not update the checkout {checkout}: {said}")
        return Delivered(moved=False, reason=reason, remedy=plain(_remedy(said, checkout)), tip=expected)

    @staticmethod
    async def _checkout_of(repository: str, ref: str) -> str | None:
        """Return the directory in which the branch *ref* is checked out, or None."""
        # Asked first, since git lists a checkout whose git directory is elsewhere by that directory.
        if await _branch(repository) == ref:
            return repository
        listed = await Git(repository).do("worktree", "list", "--porcelain", "-z")
        path = ""
        for field in listed.fields:
            if field.startswith("worktree "):
                path = field.removeprefix("worktree ")
            elif field == f"branch {ref}" and os.path.isdir(path):  # noqa: PTH112  # a str is at hand
                return path
        return None


async def _branch(repository: str) -> str | None:
    """Return the ref that is checked out in *repository*, or None."""
    try:
        return read_branch(repository)
    except NotKnown:
        return (await Git(repository).ask("symbolic-ref", "--quiet", "HEAD")).text or None


def _conflicts(result: GitResult) -> tuple[Conflict, ...]:
    """Read the conflicts from the output of ``merge-tree -z --messages``.

    Format: tree, then mode, object and stage with the path for each conflicted entry, an empty field, then messages, each a
    count of paths, the paths, its kind and its text.
    """
    parts = [part.decode(errors="surrogateescape") for part in result.out.split(b"\0")]
    files: dict[str, str] = {}
    index = 1
    while index < len(parts) and parts[index]:
        _, _, name = parts[index].partition("\t")
        files.setdefault(name, "content")
        index += 1
    index += 1
    while index < len(parts) and parts[index].isdigit():
        count = int(parts[index])
        names, kind = parts[index + 1 : index + 1 + count], parts[index + 1 + count]
        if kind.startswith("CONFLICT"):
            word = kind.removeprefix("CONFLICT (").removesuffix(")")
            files.update(dict.fromkeys(names, word))
        index += count + 3
    return tuple(Conflict(file=plain(name), reason=word) for name, word in files.items())


def _remedy(said: str, checkout: str) -> str:
    """Return what to do when git does not update *checkout* and has *said* why."""
    if lock := IN_THE_WAY.search(said):
        return f"Let the git that holds {lock['path']} end; when there is none, `kapelle doctor --fix` removes the lock."
    return f"Commit or stash what is in the way in {checkout}."
