"""Looking through what an agent made for the values of its secrets, before any of it comes into the repository.

What is staged and what was committed inside is put together in a *quarantine*: a directory of objects in memory, in front of
the repository's. What is clean is copied into the repository from there; what is not never gets in.
"""

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kapelle.adapters.system.git import Git, plain
from kapelle.adapters.system.private import made, private_place
from kapelle.adapters.system.processes import exists
from kapelle.adapters.workspaces.inside import OBJECTS
from kapelle.core.frozen import frozen
from kapelle.core.hiding import Hiding, Leak
from kapelle.core.shapes import shapes_in

SEARCHED = "kapelle-searched"
"""Where it is written down, in the git directory of a worktree, from which commits on nothing was looked through yet."""
AT_ONCE = 200
"""How many objects are read at once."""
NO_FILE = "a commit message"
ROOM = "objects"


@frozen
class Entry:
    """A file of a tree."""

    mode: str
    oid: str
    path: str


def searched(git_dir: Path) -> list[str]:
    """Return the commits that need not be looked through: what was there before, and what was found clean."""
    try:
        return (git_dir / SEARCHED).read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []


def note_searched(git_dir: Path, commits: Sequence[str]) -> None:
    """Write down that *commits*, with all that led to them, need not be looked through; the last is where to go back to."""
    fresh = git_dir / f"{SEARCHED}.new"
    fresh.write_text("".join(f"{found}\n" for found in dict.fromkeys(commits)), encoding="ascii")
    fresh.replace(git_dir / SEARCHED)


@contextmanager
def quarantine(git: Git, git_dir: Path) -> Generator[Git]:
    """Yield git with a directory of objects of its own, which is gone afterwards.

    It reads what the repository and those inside have, and writes nothing there.

    Raises:
        HostFailed: there is no private place for it.
    """
    room = made(private_place() / ROOM)
    _clear_dead(room)
    place = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=room))
    try:
        behind = [common_objects(git_dir), *([git_dir / OBJECTS] if (git_dir / OBJECTS).exists() else [])]
        alternates = os.pathsep.join(map(str, behind))
        yield git.having(GIT_OBJECT_DIRECTORY=str(place), GIT_ALTERNATE_OBJECT_DIRECTORIES=alternates)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def common_objects(git_dir: Path) -> Path:
    """Return the repository's objects."""
    return (git_dir / (git_dir / "commondir").read_text(encoding="utf-8").strip()).resolve() / "objects"


def _clear_dead(room: Path) -> None:
    """Remove the quarantines of processes that are gone."""
    for path in room.iterdir():
        pid = path.name.partition("-")[0]
        if pid.isdecimal() and int(pid) != os.getpid() and not exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


async def search(git: Git, commit: str, known: Sequence[str], hiding: Hiding) -> list[Leak]:
    """Return where in all that leads to *commit* and not to *known* there is a value, or what looks like one."""
    listed = await git.do("rev-list", "--objects", commit, "--not", *known, "--glob=refs/kapelle")
    paths: dict[str, str] = {}
    for line in listed.out.split(b"\n"):
        oid, _, path = line.partition(b" ")
        if oid:
            paths[oid.decode("ascii")] = plain(os.fsdecode(path))
    leaks: list[Leak] = []
    oids = list(paths)
    for start in range(0, len(oids), AT_ONCE):
        for oid, kind, content in await read_objects(git, oids[start : start + AT_ONCE]):
            leaks += leaks_in(hiding, kind, paths[oid], content)
    return list(dict.fromkeys(leaks))


def leaks_in(hiding: Hiding, kind: str, path: str, content: bytes) -> Iterator[Leak]:
    """Yield what is found in one object; also what only looks like a credential, in a file."""
    where = {"commit": NO_FILE, "tag": NO_FILE, "tree": f"the name of a file in {path or 'the top directory'}"}.get(kind, path)
    where = hiding.hide_text(where)
    names = hiding.found(content)
    for name in names:
        yield Leak(secret=name, file=where)
    if kind == "blob" and not names:
        for shape in shapes_in(content.decode(errors="replace")):
            yield Leak(shape=shape, file=where)


async def read_objects(git: Git, oids: Sequence[str]) -> list[tuple[str, str, bytes]]:
    """Return name, kind and content of each of the objects *oids* that is there."""
    given = "".join(f"{oid}\n" for oid in oids).encode("ascii")
    out = (await git.do("cat-file", "--batch", given=given)).out
    found: list[tuple[str, str, bytes]] = []
    position = 0
    while position < len(out):
        end = out.index(b"\n", position)
        head = out[position:end].decode("ascii").split(" ")
        position = end + 1
        if len(head) != 3:  # noqa: PLR2004  # NAME missing
            continue
        size = int(head[2])
        found.append((head[0], head[1], out[position : position + size]))
        position += size + 1
    return found


async def without_values(git: Git, index: Path, tree: str, base: str, hiding: Hiding) -> str:
    """Return *tree* with names in the place of values, in files and in the names of files that differ from *base*.

    *index* is where it is put together.
    """
    changed = [entry for entry in await _changed(git, base, tree) if entry.mode != "160000"]
    contents = {oid: content for oid, _, content in await read_objects(git, sorted({entry.oid for entry in changed}))}
    lines: list[bytes] = []
    for entry in changed:
        content, path = contents[entry.oid], os.fsencode(entry.path)
        clean, called = hiding.hide(content), hiding.hide(path)
        if clean == content and called == path:
            continue
        oid = entry.oid
        if clean != content:
            oid = (await git.do("hash-object", "-w", "--stdin", given=clean)).text
        lines += [b"0 " + b"0" * len(oid) + b"\t" + path, f"{entry.mode} {oid}\t".encode() + called]
    if not lines:
        return tree
    beside = git.having(GIT_INDEX_FILE=str(index))
    await beside.do("read-tree", tree)
    await beside.do("update-index", "-z", "--index-info", given=b"".join(line + b"\0" for line in lines))
    return (await beside.do("write-tree")).text


async def _changed(git: Git, base: str, tree: str) -> list[Entry]:
    fields = (await git.do("diff-tree", "-r", "-z", "--no-renames", "--diff-filter=d", base, tree)).fields
    return [
        Entry(mode=about.split(" ")[1], oid=about.split(" ")[3], path=path)
        for about, path in zip(fields[::2], fields[1::2], strict=True)
    ]


async def bring_across(apart: Git, git: Git, commit: str, known: Sequence[str], *, itself: bool = True) -> None:
    """Copy *commit*, with all that it needs and the repository has not, out of the quarantine into the repository.

    Without *itself* only what it needs.
    """
    listed = await apart.do("rev-list", "--objects", commit, "--not", *known, "--glob=refs/kapelle")
    lines = [line for line in listed.out.split(b"\n") if line and (itself or line != commit.encode("ascii"))]
    packed = await apart.do("pack-objects", "--quiet", "--stdout", given=b"".join(line + b"\n" for line in lines))
    await git.do("unpack-objects", "-q", given=packed.out)
