"""What a commit holds and comes from, read from the file that git keeps it in.

Formats: gitformat-loose(5) and git-commit-tree(1). Of a commit that is packed, or may be seen as another (replaced, grafted,
cut off by a shallow clone), git has to be asked.
"""

import hashlib
import re
import zlib

from kapelle.adapters.workspaces.own_files import FULL, LONGEST, NotKnown, bytes_of, git_dir, is_there, text_of
from kapelle.core.frozen import frozen

HEADER = re.compile(rb"commit (\d+)\x00tree ([0-9a-f]{40}|[0-9a-f]{64})\n((?:parent (?:[0-9a-f]{40}|[0-9a-f]{64})\n)*)")
PARENT = len("parent ")
SHA1 = 40
"""Letters of a name by SHA-1; the others are by SHA-256."""
SEEN_OTHERWISE = ("shallow", "info/grafts", "refs/replace")
"""What makes git see other parents than a commit has, or another commit."""


@frozen
class Origin:
    """What a commit holds, and what it comes from."""

    tree: str
    parents: tuple[str, ...]


def read_commit(repository: str, commit: str) -> Origin:
    """Return what *commit*, a full name, of the checkout *repository* holds and comes from.

    Raises:
        NotKnown: it cannot be told from files alone.
    """
    if not FULL.fullmatch(commit):
        raise NotKnown
    folder = git_dir(repository)
    if any(is_there(folder / name) for name in SEEN_OTHERWISE) or "refs/replace/" in (text_of(folder / "packed-refs") or ""):
        raise NotKnown
    packed = bytes_of(folder / "objects" / commit[:2] / commit[2:])
    if packed is None:
        raise NotKnown
    try:
        whole = zlib.decompressobj().decompress(packed, LONGEST)
    except zlib.error as error:
        raise NotKnown from error
    # What its name does not vouch for is not believed, nor what is too long to be read whole.
    name = hashlib.new("sha1" if len(commit) == SHA1 else "sha256", whole, usedforsecurity=False).hexdigest()
    found = HEADER.match(whole)
    if found is None or name != commit or whole.startswith(b"parent ", found.end()):
        raise NotKnown
    tree, parents = found[2].decode(), tuple(line[PARENT:] for line in found[3].decode().splitlines())
    if any(len(other) != len(commit) for other in (tree, *parents)):
        raise NotKnown
    return Origin(tree=tree, parents=parents)
