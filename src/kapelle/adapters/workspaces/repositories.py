"""Repositories: their facts, their refs, merging without touching a directory, and moving a target safely."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from kapelle.adapters.system.git import Git, GitResult, failed, plain
from kapelle.core.errors import RepositoryRefused
from kapelle.core.ports import Commit, Conflict, Delivered, Merged, Ref, RepositoryFacts, Signature

MESSAGE_LINES = 4


class GitRepositories:
    """See ``core.ports.Repositories``."""

    async def inspect(self, path: str) -> RepositoryFacts:
        if not Path(path).is_dir():
            raise RepositoryRefused(f"{path} is no directory", remedy="Give the path of a git repository.")
        git = Git(path)
        bare = await git.ask("rev-parse", "--is-bare-repository")
        if bare.code != 0:
            raise RepositoryRefused(f"{path} is no git repository", remedy="Run `git init` there, or go to a repository.")
        if bare.text == "true":
            raise RepositoryRefused(
                f"{path} is a bare repository, which has no checkout to read the configuration from",
                remedy="Clone it and run Kapelle in the clone.",
            )
        root = await git.ask("rev-parse", "--show-toplevel")
        if root.code != 0:
            raise RepositoryRefused(f"{path} is inside a .git directory", remedy="Go to the checkout itself.")
        git = Git(root.text)
        head = await git.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        if head.code != 0:
            raise RepositoryRefused(
                f"the repository {root.text} has no commit yet", remedy="Make a first one: git add -A && git commit"
            )
        # A worktree has its submodules empty, and their commits would not be merged by the queue: better said than half done.
        if any(line.startswith("160000 ") for line in (await git.do("ls-files", "--stage")).lines):
            raise RepositoryRefused(
                f"the repository {root.text} has submodules, which Kapelle cannot work with yet",
                remedy="Work in the submodule's own repository, or in a branch without submodules.",
            )
        common = (await git.do("rev-parse", "--path-format=absolute", "--git-common-dir")).text
        branch = await git.ask("symbolic-ref", "--quiet", "--short", "HEAD")
        return RepositoryFacts(root=root.text, git_dir=common, branch=branch.text if branch.code == 0 else None, head=head.text)

    async def resolve(self, repository: str, name: str) -> str | None:
        found = await Git(repository).ask("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return found.text if found.code == 0 else None

    async def tree(self, repository: str, commit: str) -> str:
        return (await Git(repository).do("rev-parse", f"{commit}^{{tree}}")).text

    async def is_ancestor(self, repository: str, older: str, newer: str) -> bool:
        arguments = ("merge-base", "--is-ancestor", older, newer)
        result = await Git(repository).ask(*arguments)
        if result.code not in {0, 1}:
            raise failed(arguments, result)
        return result.code == 0

    async def changed(self, repository: str, base: str, head: str) -> Sequence[str]:
        return (await Git(repository).do("diff", "--name-only", "-z", "--no-renames", base, head)).names

    async def diff(self, repository: str, base: str, head: str, files: Sequence[str] = (), limit: int = 20_000) -> str:
        result = await Git(repository).do("diff", "--no-color", "--no-ext-diff", "--no-textconv", base, head, "--", *files)
        text = result.out.decode(errors="replace")
        return text if len(text) <= limit else f"{text[:limit]}\n[... {len(text) - limit} more characters]"

    async def merge(self, repository: str, onto: str, commit: str, signature: Signature) -> Merged:
        git = Git(repository)
        if await self.is_ancestor(repository, commit, onto):
            unchanged = Commit(commit=onto, tree=await self.tree(repository, onto))
            return Merged(commit=unchanged, unchanged=True)
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
        return made.text

    async def since(self, repository: str, base: str, head: str) -> Sequence[str]:
        return (await Git(repository).do("rev-list", "--first-parent", head, f"^{base}")).lines

    async def move_ref(self, repository: str, ref: str, new: str, old: str | None) -> bool:
        # Forty zeros mean: it must not exist.
        expected = old if old is not None else "0" * len(new)
        result = await Git(repository).ask("update-ref", "--create-reflog", "-m", "kapelle", ref, new, expected)
        return result.code == 0

    async def delete_ref(self, repository: str, ref: str) -> None:
        await Git(repository).do("update-ref", "-d", ref)

    async def refs(self, repository: str, prefix: str) -> Sequence[Ref]:
        parts = "%(refname)%00%(objectname)%00%(committerdate:unix)%00%(contents:subject)"
        result = await Git(repository).do("for-each-ref", f"--format={parts}", prefix)
        found: list[Ref] = []
        for line in result.lines:
            name, commit, seconds, subject = line.split("\0")
            # A ref that is no commit has no date; none of ours is.
            at = datetime.fromtimestamp(int(seconds or 0), UTC)
            found.append(Ref(name=name, commit=commit, at=at, subject=plain(subject)))
        return found

    async def held_by_a_branch(self, repository: str, commit: str) -> bool:
        places = ("refs/heads/", "refs/remotes/")
        found = await Git(repository).do("for-each-ref", "--count=1", "--format=%(refname)", f"--contains={commit}", *places)
        return bool(found.lines)

    async def deliver(self, repository: str, target: str, commit: str, expected: str) -> Delivered:
        ref = f"refs/heads/{target}"
        tip = await self.resolve(repository, ref)
        if tip == commit:
            return Delivered(moved=True, tip=commit)
        if tip != expected:
            return Delivered(moved=False, reason=f"{target} was moved by somebody else meanwhile", tip=tip or "")
        checkout = await self._checkout_of(repository, ref)
        if checkout is None:
            moved = await self.move_ref(repository, ref, commit, expected)
            reason = "" if moved else f"{target} was moved by somebody else meanwhile"
            return Delivered(moved=moved, reason=reason, tip=commit if moved else tip or "")
        result = await Git(checkout).ask("merge", "--ff-only", "--quiet", commit)
        if result.code == 0:
            return Delivered(moved=True, tip=commit)
        said = " ".join(line.strip() for line in (result.error or result.text).splitlines()[:MESSAGE_LINES])
        return Delivered(moved=False, reason=plain(f"git does not update the checkout {checkout}: {said}"), tip=expected)

    @staticmethod
    async def _checkout_of(repository: str, ref: str) -> str | None:
        """Return the directory in which the branch *ref* is checked out, or None."""
        # Asked first, since git lists a checkout whose git directory is elsewhere by that directory.
        if (await Git(repository).ask("symbolic-ref", "--quiet", "HEAD")).text == ref:
            return repository
        listed = await Git(repository).do("worktree", "list", "--porcelain", "-z")
        path = ""
        for field in listed.fields:
            if field.startswith("worktree "):
                path = field.removeprefix("worktree ")
            elif field == f"branch {ref}" and os.path.isdir(path):  # noqa: PTH112  # a str is at hand
                return path
        return None


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
