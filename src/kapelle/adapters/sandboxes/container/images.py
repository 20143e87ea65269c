"""Which image a container is made from: the machine's own programs, a Containerfile, or an image that has a name."""

import hashlib
import io
import re
import tarfile
from functools import cache
from pathlib import Path

from kapelle.adapters.sandboxes.programs import SYSTEM
from kapelle.core.containers import Image
from kapelle.core.errors import HostFailed

SHIPPED = Path(__file__).with_name("image")
"""The Containerfile that Kapelle brings: the agent's CLI, git and common tools."""
EMPTY_FOLDERS = ("etc", "tmp", "proc", "dev", "sys", "run", "var")
LARGEST = 64 * 1024 * 1024
"""Bytes of a folder with a Containerfile in it: it is read as a whole, again and again."""
NAME = re.compile(r"[a-z0-9][a-zA-Z0-9._/:@-]*")


class HostImages:
    """An empty image, in which the machine's own programs are mounted, read-only. It needs no registry and no network."""

    name = "host"

    def problem(self, argument: str) -> str:
        if not Path("/usr/bin").is_dir():
            return "the programs of this machine cannot be used in a container; name an image"
        return "it takes nothing more" if argument else ""

    def image(self, argument: str) -> Image:
        recipe = _skeleton()
        return Image(name=f"localhost/kapelle-host:{_digest(recipe)}", recipe=recipe, host_programs=True)


class ContainerfileImages:
    """An image that is built from a Containerfile, and everything beside it: the user's own, or the one that Kapelle brings."""

    name = "containerfile"

    def problem(self, argument: str) -> str:
        if argument and not Path(argument).is_file():
            return f"there is no file {argument}"
        try:
            self.image(argument)
        except HostFailed as error:
            return error.message
        return ""

    def image(self, argument: str) -> Image:
        recipe = _packed(Path(argument) if argument else SHIPPED / "Containerfile")
        return Image(name=f"localhost/kapelle:{_digest(recipe)}", recipe=recipe)


class NamedImages:
    """An image by its name: one that the runtime has already, or that it can fetch."""

    name = "name"

    def problem(self, argument: str) -> str:
        return "" if NAME.fullmatch(argument) else f"{argument or 'nothing'} is no name of an image"

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
    """Return *containerfile* and all that is beside and below it, in an archive that is always the same.

    Raises:
        HostFailed: it cannot be read, or is too much.
    """
    folder, size = containerfile.parent, 0
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        size += path.stat().st_size
        if size > LARGEST:
            remedy = "Give the Containerfile a folder of its own, with nothing in it but what it copies."
            raise HostFailed(f"{folder} is too large to build an image from (more than {LARGEST >> 20} MB)", remedy=remedy)
        found[str(path.relative_to(folder))] = path
    try:
        files = {name: path.read_bytes() for name, path in found.items()}
        executable = {name for name, path in found.items() if path.stat().st_mode & 0o100}
        files["Containerfile"] = containerfile.read_bytes()
    except OSError as error:
        raise HostFailed(f"{error.filename} cannot be read: {error.strerror}") from error
    return _archive(files, executable)


def _archive(files: dict[str, bytes], executable: set[str] | frozenset[str] = frozenset()) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755 if name in executable else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
