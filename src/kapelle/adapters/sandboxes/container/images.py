"""Which image a container is made from: the machine's own programs, a Containerfile, or an image that has a name."""

import hashlib
import io
import re
import sys
import tarfile
from collections.abc import Collection
from functools import cache
from pathlib import Path

from kapelle.adapters.sandboxes.container.context import files_in
from kapelle.adapters.sandboxes.programs import SYSTEM
from kapelle.core.containers import Image, ImageRefused

SHIPPED = Path(__file__).with_name("image")
"""The Containerfile that Kapelle brings: the agent's CLI, git and common tools."""
EMPTY_FOLDERS = ("etc", "tmp", "proc", "dev", "sys", "run", "var")
LARGEST = 64 * 1024 * 1024
"""Bytes of a folder with a Containerfile in it: it is read as a whole, again and again."""
TOO_LARGE = (
    "give the Containerfile a folder of its own with nothing in it but what it copies, or name in a file .containerignore "
    "beside it what is to be left out"
)
NAME = re.compile(r"[a-z0-9][a-zA-Z0-9._/:@-]*")


class HostImages:
    """An empty image, in which the machine's own programs are mounted, read-only. It needs no registry and no network."""

    name = "host"

    def settle(self, argument: str, root: str) -> str:
        if argument:
            raise ImageRefused("host takes nothing more: the programs are those of this machine")
        if sys.platform != "linux":
            raise ImageRefused("the programs of this machine cannot run in a container; name an image")
        return ""

    def image(self, argument: str) -> Image:
        recipe = _skeleton()
        return Image(name=f"localhost/kapelle-host:{_digest(recipe)}", recipe=recipe, host_programs=True)


class ContainerfileImages:
    """An image that is built from a Containerfile and everything beside it: the user's own, or the one that Kapelle brings.

    What is settled holds a digest of it all: an image that was built from something else is never taken for it.
    """

    name = "containerfile"

    def settle(self, argument: str, root: str) -> str:
        path = Path(root, argument).resolve() if argument else SHIPPED / "Containerfile"
        if not path.is_file():
            raise ImageRefused(f"there is no file {path}")
        return f"{_digest(_packed(path))}:{path}"

    def image(self, argument: str) -> Image:
        digest, _, path = argument.partition(":")
        recipe, lost = None, ""
        try:
            recipe = _packed(Path(path))
        except ImageRefused as error:
            lost = str(error)
        if recipe is not None and _digest(recipe) != digest:
            recipe, lost = None, f"{path}, or what is beside it, was changed since the run was submitted"
        return Image(name=f"localhost/kapelle:{digest}", recipe=recipe, containerfile=path, lost=lost)


class NamedImages:
    """An image by its name: one that the runtime has already, or that it can fetch."""

    name = "name"

    def settle(self, argument: str, root: str) -> str:
        if not NAME.fullmatch(argument):
            raise ImageRefused(f"{argument[:100] or 'nothing'} is no name of an image")
        return argument

    def image(self, argument: str) -> Image:
        return Image(name=argument)


def _digest(recipe: bytes) -> str:
    return hashlib.sha256(recipe).hexdigest()[:16]


@cache
def _skeleton() -> bytes:
    """Return how an image with nothing in it but the shape of this machine's system is built."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        for name in EMPTY_FOLDERS:
            _add_folder(archive, name)
        for path in SYSTEM:
            if Path(path).is_symlink():
                link = tarfile.TarInfo(path.lstrip("/"))
                link.type, link.linkname = tarfile.SYMTYPE, str(Path(path).readlink())
                archive.addfile(link)
            elif Path(path).is_dir():
                _add_folder(archive, path.lstrip("/"))
    return _archive({"Containerfile": b"FROM scratch\nADD skeleton.tar /\n", "skeleton.tar": inner.getvalue()})


def _add_folder(archive: tarfile.TarFile, name: str) -> None:
    folder = tarfile.TarInfo(name)
    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
    archive.addfile(folder)


def _packed(containerfile: Path) -> bytes:
    """Return *containerfile* and what is beside and below it, in an archive that is always the same.

    Raises:
        ImageRefused: it cannot be read, or is too much.
    """
    folder, size = containerfile.parent, 0
    files: dict[str, bytes] = {}
    executable: set[str] = set()
    try:
        for path in files_in(folder):
            facts = path.stat()
            size += facts.st_size
            if size > LARGEST:
                raise ImageRefused(f"{folder} is too large to build an image from (over {LARGEST >> 20} MB): {TOO_LARGE}")
            name = str(path.relative_to(folder))
            files[name] = path.read_bytes()
            executable |= {name} if facts.st_mode & 0o100 else set()
        files["Containerfile"] = containerfile.read_bytes()
    except OSError as error:
        raise ImageRefused(f"{error.filename} cannot be read: {error.strerror}") from error
    return _archive(files, executable)


def _archive(files: dict[str, bytes], executable: Collection[str] = ()) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755 if name in executable else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
