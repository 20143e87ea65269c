"""Workspaces as detached git worktrees.

Every git command is told its git directory outright, and that is found on the repository's own side: the ``.git`` file inside a
workspace belongs to the agent.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain, count
from pathlib import Path

from kapelle.adapters.system.git import Git, Locks, failed, plain
from kapelle.adapters.system.locks import COPIED
from kapelle.adapters.system.removal import clear_tree
from kapelle.adapters.workspaces.cleansing import cleanse
from kapelle.adapters.workspaces.closed import everywhere
from kapelle.adapters.workspaces.glancing import glance
from kapelle.adapters.workspaces.harmless import as_stored, harmless
from kapelle.adapters.workspaces.inside import head_inside, is_open_inside, open_inside, show_again, take_in, undo_inside
from kapelle.adapters.workspaces.moved import repoint
from kapelle.adapters.workspaces.searching import (
    bring_across,
    common_objects,
    note_searched,
    quarantine,
    search,
    searched,
    without_values,
)
from kapelle.core.errors import GitFailed, WorkspaceFailed
from kapelle.core.frozen import frozen, replace
from kapelle.core.git import Commit, Conflict, Glance, Signature, WorkspaceOrder
from kapelle.core.hiding import NOTHING, Hiding, Leak
from kapelle.core.isolation import Mount

WILDCARD = re.compile(r"[\\*?\[]")
UNDER_WAY = {
    "merge": ("MERGE_HEAD", "MERGE_MODE", "MERGE_MSG", "MERGE_RR", "MERGE_AUTOSTASH", "AUTO_MERGE", "SQUASH_MSG"),
    "rebase": ("rebase-merge", "rebase-apply"),
    "cherry-pick": ("CHERRY_PICK_HEAD", "sequencer"),
    "revert": ("REVERT_HEAD", "sequencer"),
}
"""What an operation that was begun and not ended has left in a git directory: git is asked to end only what is under way."""


STAGED = Signature(author="Kapelle", email="staged@agents.kapelle.invalid", message="What is staged\n")


class GitWorkspaces:
    """See ``core.ports.Workspaces``."""

    def __init__(self, locks: Locks | None = None) -> None:
        self._locks = locks or Locks()

    async def prepare(self, order: WorkspaceOrder) -> None:
        path = Path(order.path)
        if order.repository is None:
            _make(path)
            return
        if order.base is None:
            raise WorkspaceFailed(f"no commit is named for the workspace {order.path}")
        async with self._locks.of(order.repository):
            if not await self._is_whole(order.path, order.repository):
                await self._discard(order.path, order.repository)
                _make(path.parent)
                added = ("worktree", "add", "--force", "--detach", "--quiet", order.path, order.base)
                await Git(order.repository).do(*added)
                _, git_dir = await self._git(order.path, order.repository)
                try:
                    copied = _copy_in(Path(order.repository), order.copy, path)
                    note_searched(git_dir, [order.base])
                    (git_dir / COPIED).write_bytes(b"\0".join(os.fsencode(name) for name in copied))
                except (OSError, ValueError, NotImplementedError) as error:
                    # The last two are what pathlib says of patterns that are none.
                    raise WorkspaceFailed(f"files cannot be copied into {path}: {error}") from error

    async def _is_whole(self, path: str, repository: str) -> bool:
        """Say whether the workspace is there from before, with everything copied in."""
        git_dir = await _private_git_dir(path, repository)
        return git_dir is not None and (git_dir / COPIED).exists() and Path(path).is_dir()

    async def commit(self, path: str, repository: str, signature: Signature, hiding: Hiding = NOTHING) -> Commit:
        git, git_dir = await self._git(path, repository)
        if not hiding:
            await take_in(git, git_dir, path)
            await _unmark(git, path, await _marked(git))
            await self._add_all(git, git_dir, path)
            return await self._commit(git, git_dir, path, signature)
        leaks = await self._stage(git, git_dir, path, hiding)
        if any(leak.secret for leak in leaks):
            await _undo(git, git_dir, path)
            await cleanse(repository, common_objects(git_dir), hiding, (git_dir / COPIED).stat().st_mtime)
            head, its_tree = (await git.do("rev-parse", "HEAD", "HEAD^{tree}")).lines
            return Commit(commit=head, tree=its_tree, leaks=tuple(leaks))
        made = await self._commit(git, git_dir, path, signature)
        note_searched(git_dir, [*searched(git_dir), made.commit])
        return replace(made, leaks=tuple(leaks))

    async def _stage(self, git: Git, git_dir: Path, path: str, hiding: Hiding) -> list[Leak]:
        """Take in and stage what holds no value of *hiding*; return what was found. With a value in it, nothing is done."""
        head = (await git.do("rev-parse", "HEAD")).text
        inside = await head_inside(git, git_dir, path)
        known = searched(git_dir) or [head]
        with quarantine(git, git_dir) as apart, tempfile.TemporaryDirectory(prefix="kapelle-index-") as folder:
            tree = await self._staged(apart, git_dir, path, inside or head, Path(folder) / "index")
            leaks = await search(apart, inside or head, known, hiding)
            known = [inside or head, *known]
            staged = await commit_tree(apart, tree, [inside or head], STAGED)
            leaks += await search(apart, staged, known, hiding)
            if not any(leak.secret for leak in leaks):
                await take_in(git, git_dir, path, only=inside)
                await bring_across(apart, git, staged, known, itself=False)
                shutil.copyfile(Path(folder) / "index", git_dir / "index.new")
                (git_dir / "index.new").replace(git_dir / "index")
        return list(dict.fromkeys(leaks))

    async def _staged(self, apart: Git, git_dir: Path, path: str, head: str, index: Path, *, whatever: bool = False) -> str:
        """Put all that is in the workspace into *index*, which is none of the worktree's own; return the tree."""
        if (git_dir / "index").exists():
            shutil.copy2(git_dir / "index", index)
        beside = apart.having(GIT_INDEX_FILE=str(index))
        if head != (await apart.do("rev-parse", "HEAD")).text:
            await beside.do("read-tree", head)
        await _unmark(beside, path, await _marked(beside))
        await self._add_all(beside, git_dir, path, whatever=whatever)
        return (await beside.do("write-tree")).text

    @staticmethod
    async def _commit(git: Git, git_dir: Path, path: str, signature: Signature) -> Commit:
        """Commit what is staged."""
        tree = (await git.do("write-tree")).text
        head, its_tree = (await git.do("rev-parse", "HEAD", "HEAD^{tree}")).lines
        merging = await _merging(git, git_dir)
        parents = [head]
        if merging is not None:
            already = await git.ask("merge-base", "--is-ancestor", merging, head)
            parents += [merging] if already.code != 0 else []
        if len(parents) == 1 and tree == its_tree:
            await git.do("update-ref", "--no-deref", "HEAD", head)
            show_again(git_dir, path)
            return Commit(commit=head, tree=tree)
        commit = await commit_tree(git, tree, parents, signature)
        # HEAD itself, also when the agent put it on a branch: that branch is none of ours.
        await git.do("update-ref", "--no-deref", "HEAD", commit)
        await _quit(git, git_dir, "merge")
        show_again(git_dir, path)
        return Commit(commit=commit, tree=tree)

    async def cleanse(self, repository: str, hiding: Hiding, since: datetime) -> int:
        if not hiding or not Path(repository).is_dir():
            return 0
        common = Path((await Git(repository).do("rev-parse", "--path-format=absolute", "--git-common-dir")).text)
        return await cleanse(repository, common / "objects", hiding, since.timestamp())

    async def _snapshot_without(self, git: Git, git_dir: Path, path: str, ref: str, hiding: Hiding) -> str | None:
        """Keep what is in the workspace, with names in the place of values."""
        head = (await git.do("rev-parse", "HEAD")).text
        own = await head_inside(git, git_dir, path) or head
        known = searched(git_dir) or [head]
        with quarantine(git, git_dir) as apart, tempfile.TemporaryDirectory(prefix="kapelle-index-") as folder:
            index = Path(folder) / "index"
            tree = await self._staged(apart, git_dir, path, own, index, whatever=True)
            leaks = await search(apart, own, known, hiding)
            base = own
            if any(leak.secret for leak in leaks):
                # The commits themselves cannot be kept: what they came to is, as one that says nothing else.
                base = known[-1]
                base = await self._kept_without(apart, index, f"{own}^{{tree}}", base, path, hiding)
            commit = await self._kept_without(apart, index, tree, base, path, hiding)
            if await held(apart, commit):
                return None
            await bring_across(apart, git, commit, known)
        await git.do("update-ref", ref, commit)
        return commit

    @staticmethod
    async def _kept_without(apart: Git, index: Path, tree: str, parent: str, path: str, hiding: Hiding) -> str:
        """Return a commit with *tree* on *parent*, without values; *parent* itself when that adds nothing to it."""
        its_tree = (await apart.do("rev-parse", f"{parent}^{{tree}}")).text
        wanted = (await apart.do("rev-parse", tree)).text
        clean = await without_values(apart, index, wanted, its_tree, hiding)
        if clean == its_tree:
            return parent
        message = f"Snapshot of {path}\n"
        signature = Signature(author="Kapelle", email="snapshot@agents.kapelle.invalid", message=message)
        return await commit_tree(apart, clean, [parent], signature)

    async def snapshot(self, path: str, repository: str, ref: str, hiding: Hiding = NOTHING) -> str | None:
        if not Path(path).is_dir():
            return None
        git, git_dir = await self._git(path, repository)
        if hiding:
            return await self._snapshot_without(git, git_dir, path, ref, hiding)
        await take_in(git, git_dir, path)
        state, marked = await _state(git, git_dir, path), await _marked(git)
        if state.clean and not marked and await held(git, state.head):
            return None
        with tempfile.TemporaryDirectory(prefix="kapelle-index-") as folder:
            index = Path(folder) / "index"
            if (git_dir / "index").exists():
                shutil.copy2(git_dir / "index", index)
            beside = git.having(GIT_INDEX_FILE=str(index))
            await _unmark(beside, path, marked)
            await self._add_all(beside, git_dir, path, whatever=True)
            tree = (await beside.do("write-tree")).text
        head, its_tree = (await git.do("rev-parse", "HEAD", "HEAD^{tree}")).lines
        commit = head
        if tree != its_tree:
            name = "Kapelle"
            signature = Signature(author=name, email="snapshot@agents.kapelle.invalid", message=f"Snapshot of {path}\n")
            commit = await commit_tree(git, tree, [head], signature)
        elif await held(git, head):
            return None
        await git.do("update-ref", ref, commit)
        return commit

    async def bring_in(self, path: str, repository: str, commit: str, hiding: Hiding = NOTHING) -> Sequence[Conflict]:
        git, git_dir = await self._git(path, repository)
        if hiding and any(leak.secret for leak in await self._stage(git, git_dir, path, hiding)):
            await _undo(git, git_dir, path)
        elif not hiding:
            await take_in(git, git_dir, path)
        merging = await _merging(git, git_dir)
        if merging is not None and merging != commit:
            await git.do("merge", "--abort")
        if merging != commit:
            identity = _identity("Kapelle", "merge-queue@agents.kapelle.invalid")
            arguments = ("merge", "--no-commit", "--no-ff", "--quiet", commit)
            result = await git.having(**identity).ask(*arguments)
            if result.code not in {0, 1}:
                raise failed(arguments, result)
        note_searched(git_dir, [commit, *searched(git_dir)])
        show_again(git_dir, path)
        found = await git.do("diff", "--ignore-submodules=all", "--name-only", "--diff-filter=U", "-z")
        return [Conflict(file=name, reason="content") for name in dict.fromkeys(found.names)]

    async def glance(self, path: str, repository: str, base: str) -> Glance:
        git, git_dir = await self._git(path, repository)
        return await glance(git, path, base, _copied(git_dir))

    async def leftover_markers(self, path: str, repository: str, base: str) -> Sequence[str]:
        git, _ = await self._git(path, repository)
        said = await git.ask("diff", "--no-ext-diff", "--no-textconv", "--ignore-submodules=all", "--check", base, "HEAD")
        lines = [line for line in said.lines if line.endswith("leftover conflict marker")]
        names = dict.fromkeys(line.rsplit(":", 2)[0] for line in lines)
        if not names:
            return []
        # git also takes seven equals signs under a heading for a marker; a conflict has the other two kinds.
        literally = git.having(GIT_LITERAL_PATHSPECS="1")
        arguments = ("grep", "--no-color", "-l", "-z", "-E", "-e", "^(<{7}|>{7}) ", "HEAD", "--", *names)
        return [name.removeprefix("HEAD:") for name in (await literally.ask(*arguments)).names]

    async def put(self, path: str, repository: str, commit: str, *, bare: bool = False) -> None:
        git, git_dir = await self._git(path, repository)
        await _quit(git, git_dir, *UNDER_WAY)
        await _unmark(git, path, await _marked(git))
        state = await _state(git, git_dir, path)
        if state.clean and state.detached and state.head == commit and not bare:
            show_again(git_dir, path)
            return
        await everywhere(git, path, "checkout", "--force", "--detach", "--quiet", commit)
        literal = [WILDCARD.sub(r"\\\g<0>", name) for name in _copied(git_dir)]
        await everywhere(git, path, "clean", "-ffdxq" if bare else "-ffdq", *[f"--exclude=/{name}" for name in literal])
        show_again(git_dir, path)

    async def reach(self, path: str, repository: str) -> Sequence[Mount]:
        git, git_dir = await self._git(path, repository)
        if not is_open_inside(git_dir):
            await as_stored(git, git_dir)
        try:
            return await open_inside(git_dir, path)
        except OSError as error:
            raise WorkspaceFailed(f"{path} cannot be made ready for a sandbox: {error.strerror}") from error

    async def remove(self, path: str, repository: str | None) -> None:
        if repository is None:
            _delete(Path(path))
            return
        async with self._locks.of(repository):
            await self._discard(path, repository)

    async def _discard(self, path: str, repository: str) -> None:
        # The directory first: git removes no worktree whose .git file is broken, but forgets one that is gone. Only this one:
        # a general prune would also forget those whose .git file an agent has deleted, with their work.
        _delete(Path(path))
        if Path(repository).is_dir() and await _private_git_dir(path, repository) is not None:
            await Git(repository).ask("worktree", "remove", "--force", "--force", path)

    async def set_aside(self, path: str, folder: str) -> str:
        place, name = Path(folder), Path(path).name
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            # A link counts as taken, wherever it leads.
            taken = {entry.name for entry in place.iterdir()}
            names = chain([name], (f"{name}-{number}" for number in count(2)))
            free = next(each for each in names if each not in taken)
            Path(path).rename(place / free)
            # Git works in it as before, where its repository is at hand.
            repoint(place / free, path)
        except OSError as error:
            raise WorkspaceFailed(f"{path} cannot be moved to {folder}: {error.strerror}") from error
        return str(place / free)

    async def present(self, folder: str) -> Sequence[str]:
        place = Path(folder)
        return sorted(str(entry) for entry in place.iterdir() if entry.is_dir()) if place.is_dir() else []

    async def _git(self, path: str, repository: str) -> tuple[Git, Path]:
        git_dir = await _private_git_dir(path, repository)
        # A link in its place would have git work, and clean, wherever it leads.
        if git_dir is None or Path(path).is_symlink():
            raise WorkspaceFailed(f"{path} is no worktree of {repository} (any more)")
        git = Git(path, git_dir=str(git_dir))
        return (await harmless(git) if is_open_inside(git_dir) else git), git_dir

    @staticmethod
    async def _add_all(git: Git, git_dir: Path, path: str, *, whatever: bool = False) -> None:
        """Put everything that git would not ignore into the index, but nothing that was copied in.

        A repository inside the workspace cannot be committed; it is refused, or left out when *whatever*.
        """
        copied = _copied(git_dir)
        # Where an agent has made one of another repository, git would look into that, by that one's own settings.
        without = await _repositories(git) if is_open_inside(git_dir) else []
        if copied:
            # git stumbles over an ignored file that is named, even when it is named to be left out.
            ignored = (await git.ask("check-ignore", "-z", "--stdin", given=os.fsencode("\0".join(copied)))).fields
            without += [name for name in copied if name not in ignored]
        await everywhere(git, path, "add", "--all", "--", ":/", *[f":(exclude,literal,top){name}" for name in without])
        if copied:
            # The agent may have staged it.
            named = [f":(literal,top){name}" for name in copied]
            await git.do("rm", "-r", "--cached", "--quiet", "--force", "--ignore-unmatch", "--", *named)
        nested = await _repositories(git)
        if not nested:
            return
        if not whatever:
            raise WorkspaceFailed(
                f"there is a git repository inside the workspace: {plain(', '.join(nested))}",
                remedy="An agent cloned or made it there. Let it use another directory, or add it to .gitignore.",
            )
        await git.do("rm", "--cached", "--quiet", "--force", "--", *nested)


def _copy_in(repository: Path, patterns: Sequence[str], path: Path) -> list[str]:
    """Copy what git does not know into a new workspace; return what was copied."""
    root, copied = repository.resolve(), list[str]()
    for pattern in patterns:
        try:
            found = sorted(root.glob(pattern))
        except (ValueError, NotImplementedError, OSError) as error:
            raise WorkspaceFailed(f"{pattern!r} names no files to copy: {error}", remedy="Mend it in agents.yml.") from error
        for source in found:
            real = source.resolve()
            goal = path / source.relative_to(root)
            if not real.is_relative_to(root):
                raise WorkspaceFailed(
                    f"{pattern} leads out of the repository (to {real})", remedy="Copy files of the repository only."
                )
            if not goal.resolve().is_relative_to(path.resolve()):
                raise WorkspaceFailed(
                    f"{pattern} leads out of the workspace (to {goal.resolve()})",
                    remedy="A link that is committed is in the way of the folder to copy to.",
                )
            if goal.exists() or ".git" in source.relative_to(root).parts:
                continue
            goal.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, goal, symlinks=True)
            else:
                shutil.copy2(source, goal)
            copied.append(str(source.relative_to(root)))
    return copied


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise WorkspaceFailed(f"the folder {path} cannot be made: {error.strerror}") from error


def _delete(path: Path) -> None:
    try:
        clear_tree(path)
    except OSError as error:
        raise WorkspaceFailed(f"{path} cannot be removed: {error.strerror}") from error


async def _private_git_dir(path: str, repository: str) -> Path | None:
    """Return the git directory of the worktree at *path*, as the repository knows it."""
    common = Path(repository, ".git")
    if not (common / "HEAD").is_file() or (common / "commondir").exists():
        # It lies elsewhere.
        try:
            common = Path((await Git(repository).do("rev-parse", "--path-format=absolute", "--git-common-dir")).text)
        except GitFailed:
            return None
    return _find_record(Path(path), common)


def _find_record(path: Path, common: Path) -> Path | None:
    worktrees = common / "worktrees"
    wanted = os.path.realpath(path)
    for record in worktrees.iterdir() if worktrees.is_dir() else ():
        try:
            pointed = (record / "gitdir").read_text().strip()
        except OSError:
            continue
        # With worktree.useRelativePaths it is told from where the record is.
        if os.path.realpath((record / pointed).parent) == wanted:
            return record
    return None


@frozen
class _State:
    """Where a worktree is."""

    head: str
    detached: bool
    clean: bool
    """Whether everything in it that git would not ignore is in the commit *head*, but for what was copied in."""


async def _state(git: Git, git_dir: Path, path: str) -> _State:
    look = ("status", "--porcelain=v2", "--branch", "-z", "--untracked-files=normal", "--ignored=no", "--ignore-submodules=all")
    said = (await everywhere(git, path, *look)).fields
    facts = dict(line[2:].split(" ", 1) for line in said if line.startswith("# "))
    copied = {f"? {name}" for name in _copied(git_dir)}
    clean = all(line.startswith("# ") or line in copied for line in said)
    return _State(head=facts["branch.oid"], detached=facts["branch.head"] == "(detached)", clean=clean)


async def _repositories(git: Git) -> list[str]:
    """Return the repositories within the worktree that are staged."""
    staged = (await git.do("ls-files", "--stage", "-z")).fields
    return [entry.split("\t", 1)[1] for entry in staged if entry.startswith("160000 ")]


async def _marked(git: Git) -> list[str]:
    """Return the files that git was told to overlook: no commit would hold what is in them, and yet a gate would look at it."""
    said = (await git.do("ls-files", "-v", "-z")).fields
    return [entry[2:] for entry in said if entry[0] == "S" or entry[0].islower()]


async def _unmark(git: Git, path: str, marked: Sequence[str]) -> None:
    """Let git look at the files *marked* again."""
    if not marked:
        return
    # What a sparse checkout leaves out is marked as well; without its mark it would be taken for deleted.
    sparse = (await git.ask("config", "--type=bool", "core.sparseCheckout")).text == "true"
    names = [name for name in marked if not sparse or os.path.lexists(os.path.join(path, name))]  # noqa: PTH118  # may be no text
    # git takes one of the two at a time.
    for mark in ("--no-assume-unchanged", "--no-skip-worktree"):
        await git.do("update-index", mark, "-z", "--stdin", given=os.fsencode("".join(f"{name}\0" for name in names)))


async def held(git: Git, commit: str) -> bool:
    """Say whether a branch, or what Kapelle keeps, holds *commit*."""
    found = await git.do("for-each-ref", "--contains", commit, "--count=1", "refs/heads", "refs/kapelle")
    return bool(found.text)


async def _merging(git: Git, git_dir: Path) -> str | None:
    """Return the commit that is being merged into the worktree, or None."""
    if not (git_dir / "MERGE_HEAD").exists():
        return None
    found = await git.ask("rev-parse", "--verify", "--quiet", "MERGE_HEAD")
    return found.text if found.code == 0 else None


async def _undo(git: Git, git_dir: Path, path: str) -> None:
    """Bring the worktree back to the last commit in which nothing was found; its files stay as they are."""
    last = (searched(git_dir) or [(await git.do("rev-parse", "HEAD")).text])[-1]
    await git.do("update-ref", "--no-deref", "HEAD", last)
    await git.do("read-tree", last)
    # They would keep what was undone.
    for name in ("logs/HEAD", "ORIG_HEAD", "COMMIT_EDITMSG"):
        (git_dir / name).unlink(missing_ok=True)
    undo_inside(git_dir, path)


async def _quit(git: Git, git_dir: Path, *operations: str) -> None:
    """Forget *operations* that were begun and not ended."""
    # Where refs are kept in tables, what is under way may be there, too, and not in files.
    tables = (git_dir / "reftable").exists()
    for operation in operations:
        if tables or any((git_dir / name).exists() for name in UNDER_WAY[operation]):
            await git.ask(operation, "--quit")


def _copied(git_dir: Path) -> list[str]:
    try:
        return [os.fsdecode(name) for name in (git_dir / COPIED).read_bytes().split(b"\0") if name]
    except OSError:
        return []


def _identity(name: str, email: str) -> dict[str, str]:
    return {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", name), ("EMAIL", email))}


async def commit_tree(git: Git, tree: str, parents: Iterable[str], signature: Signature) -> str:
    """Make a commit that holds *tree* and return it."""
    named = [argument for parent in parents for argument in ("-p", parent)]
    signed = git.having(**_identity(signature.author, signature.email))
    return (await signed.do("commit-tree", tree, *named, given=signature.message.encode())).text
