"""The second git directory of a workspace, for those who work in it from inside a sandbox.

Host git never works in a git directory that an agent can write. The worktree's own stays closed to it; in its place the agent
sees a copy (HEAD, index, a merge that is under way), and in place of the repository's objects a directory of its own, in front
of them. The rest of the repository it may read. So an agent commits as it likes, and can harm nothing but its own work.

What it committed is taken in by its HEAD alone, read as text: the commits that lead there are copied into the repository, and
checked by git. What is done here (a commit, another state of the workspace, a merge to be resolved) is then shown inside.
"""

import os
import re
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from kapelle.adapters.system.git import Git
from kapelle.adapters.system.ownership import give_like
from kapelle.adapters.system.removal import clear_tree
from kapelle.adapters.system.walking import walk
from kapelle.adapters.workspaces.shown import shown_of
from kapelle.core.errors import GitFailed, WorkspaceFailed
from kapelle.core.isolation import Mount, MountKind

INSIDE = "kapelle-inside"
OBJECTS = "kapelle-objects"
BEHIND = "/run/kapelle/objects"
"""Where the repository's own objects are, for those inside."""
SHOWN = ("HEAD", "index", "ORIG_HEAD", "AUTO_MERGE", "MERGE_HEAD", "MERGE_MODE", "MERGE_MSG", "MERGE_RR")
"""What of the worktree's git directory is shown inside."""
FIXED = ("commondir", "gitdir")
"""What leads from there to the repository and back: read-only inside."""
COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
LONGEST = 4096
KNOWN = ("--not", "--branches", "--tags", "--glob=refs/kapelle", "HEAD")
"""What the repository has already, as git's rev-list takes it."""


@contextmanager
def _told() -> Generator[None]:
    """Let what the system says come out as an error of the workspace: those inside may have closed what is theirs."""
    try:
        yield
    except OSError as error:
        raise WorkspaceFailed(f"what is inside cannot be looked at: {error.filename}: {error.strerror}") from error


async def open_inside(git_dir: Path, path: str) -> list[Mount]:
    """Make the second git directory of the worktree at *path*, unless it is there; return what is to be mounted for it."""
    common = (git_dir / (git_dir / "commondir").read_text(encoding="utf-8").strip()).resolve()
    inside, objects = git_dir / INSIDE, git_dir / OBJECTS
    if not inside.exists():
        (objects / "info").mkdir(parents=True, exist_ok=True)
        behind = [BEHIND, *[f"{BEHIND}-{number}" for number, _ in enumerate(_alternates(common / "objects"), start=1)]]
        (objects / "info" / "alternates").write_text("".join(f"{place}\n" for place in behind), encoding="utf-8")
        fresh = git_dir / f"{INSIDE}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        for name in FIXED:
            shutil.copyfile(git_dir / name, fresh / name)
        show(git_dir, fresh)
        fresh.rename(inside)
    further = [
        Mount(kind=MountKind.READ, path=f"{BEHIND}-{number}", source=place)
        for number, place in enumerate(_alternates(common / "objects"), start=1)
    ]
    return [
        Mount(kind=MountKind.READ, path=str(common)),
        *await shown_of(common, git_dir),
        Mount(kind=MountKind.WRITE, path=str(git_dir), source=str(inside)),
        *[Mount(kind=MountKind.READ, path=str(git_dir / name), source=str(inside / name)) for name in FIXED],
        Mount(kind=MountKind.READ, path=BEHIND, source=str(common / "objects")),
        *further,
        Mount(kind=MountKind.WRITE, path=str(common / "objects"), source=str(objects)),
        Mount(kind=MountKind.READ, path=str(common / "objects" / "info"), source=str(objects / "info")),
        Mount(kind=MountKind.READ, path=str(Path(path) / ".git")),
    ]


def _alternates(objects: Path) -> list[str]:
    """Return the further directories of objects that those in *objects* need (of a clone with ``--shared``, for example)."""
    try:
        lines = (objects / "info" / "alternates").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    places = [(objects / line).resolve() for line in lines if line and not line.startswith("#")]
    return [place for found in places if found.is_dir() for place in (str(found), *_alternates(found))]


def is_open_inside(git_dir: Path) -> bool:
    """Say whether somebody works in the worktree from inside a sandbox, or has."""
    return (git_dir / INSIDE).exists()


def show(git_dir: Path, inside: Path) -> None:
    """Let those inside see where the worktree is: exactly that, and nothing of what they had begun."""
    for entry in os.scandir(inside):
        if entry.name in FIXED:
            continue
        clear_tree(Path(entry.path))
    for name in SHOWN:
        if (git_dir / name).exists():
            fresh = git_dir / f"{INSIDE}.{name}"
            shutil.copyfile(git_dir / name, fresh)
            fresh.rename(inside / name)


@_told()
def show_again(git_dir: Path, path: str) -> None:
    """Show those inside, if there are any, what was done to the workspace at *path* from outside."""
    inside = git_dir / INSIDE
    if inside.exists():
        show(git_dir, inside)
        give_like(str(inside), path)
        give_like(path, path)


async def take_in(git: Git, git_dir: Path, path: str, *, only: str | None = None) -> None:
    """Take in what was committed inside; the worktree is then where those inside had brought theirs.

    With *only*, nothing but that commit: whatever was committed after it had been looked through waits for another look.

    Raises:
        WorkspaceFailed: what is there is no commit that git can read, with everything that belongs to it.
    """
    inside = git_dir / INSIDE
    if not inside.exists():
        return
    if (git_dir / "MERGE_HEAD").exists() and not _merging_inside(inside):
        # It was concluded, or given up, inside: with it begun here, whatever comes would be taken for its result.
        await git.ask("merge", "--quit")
    head = await _head(git, inside)
    if head is None or only not in {None, head} or head == (await git.do("rev-parse", "HEAD")).text:
        return
    problem = f"what the agent committed in {path} cannot be taken in"
    _refuse_links(git_dir, problem)
    reading = git.having(GIT_ALTERNATE_OBJECT_DIRECTORIES=str(git_dir / OBJECTS))
    try:
        listed = await reading.do("rev-list", "--objects", head, *KNOWN)
        packed = await reading.do("pack-objects", "--quiet", "--stdout", given=listed.out)
        await git.do("unpack-objects", "-q", "--strict", given=packed.out)
        await git.do("update-ref", "--no-deref", "HEAD", head)
        await git.do("read-tree", head)
    except GitFailed as error:
        raise WorkspaceFailed(f"{problem}: {error.message}") from error


@_told()
def _merging_inside(inside: Path) -> bool:
    return (inside / "MERGE_HEAD").exists()


@_told()
def _refuse_links(git_dir: Path, problem: str) -> None:
    if any(stat.S_ISLNK(facts.st_mode) for _, _, facts in walk(str(git_dir / OBJECTS))):
        raise WorkspaceFailed(f"{problem}: there are links among its objects")


async def head_inside(git: Git, git_dir: Path, path: str) -> str | None:
    """Return the commit that those inside have brought theirs to, or None where nobody is inside or it is none.

    Raises:
        WorkspaceFailed: its objects cannot be read safely.
    """
    inside = git_dir / INSIDE
    if not inside.exists():
        return None
    _refuse_links(git_dir, f"what the agent committed in {path} cannot be looked through")
    return await _head(git, inside)


@_told()
def undo_inside(git_dir: Path, path: str) -> None:
    """Forget what was committed and staged inside: those inside see where the worktree is, and their files as they are."""
    if (git_dir / OBJECTS).exists():
        for entry in os.scandir(git_dir / OBJECTS):
            if entry.name != "info":
                clear_tree(Path(entry.path))
    show_again(git_dir, path)


async def _head(git: Git, inside: Path) -> str | None:
    """Return the commit that HEAD names inside, or None when it names none."""
    try:
        handle = os.open(inside / "HEAD", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        text = os.read(handle, LONGEST).decode(errors="replace").strip()
    except OSError:  # a directory, or a pipe that nobody writes to
        return None
    finally:
        os.close(handle)
    if COMMIT.fullmatch(text):
        return text
    # It can have put itself on a branch that there is, but on none of its own: it makes no refs.
    name = text.removeprefix("ref:").strip()
    if not name.startswith("refs/heads/"):
        return None
    found = await git.ask("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    return found.text if found.code == 0 else None
