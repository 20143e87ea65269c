"""What the commands share: options, opening the desk, finding what an id stands for."""

import asyncio
import gc
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from kapelle.apps.settings import Configuration, load
from kapelle.core.errors import Mistake, UsageError

T = TypeVar("T")
LONGEST_SHOWN = 300
"""Characters of a path that an error shows."""
INTERRUPTED = 3
"""The exit code of what a person broke off."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Folder = Annotated[
    Path | None, typer.Option("--repository", "-C", help="The repository; default: the current directory.", show_default=False)
]


_told: set[Mistake] = set()
"""The mistakes that this process has told of."""


def configuration(folder: Path | None, **given: Any) -> Configuration:
    """Return the configuration for *folder* (default: the current directory)."""
    return load(directory(folder), given=given)


def valid_configuration(folder: Path | None) -> Configuration:
    """Return what is valid of the configuration for *folder*, for commands that only look or steer.

    A file that somebody is just editing must not keep people from what runs: one with mistakes counts for nothing, and that
    is said on standard error. What agents work by was fixed when their run was submitted.
    """
    wrong: list[Mistake] = []
    found = load(directory(folder), wrong=wrong)
    # Some commands come here again, for each thing that they do.
    if fresh := [mistake for mistake in wrong if mistake not in _told]:
        # Colours are loaded for what they are needed for.
        from kapelle.apps.cli.output import print_disregarded

        _told.update(fresh)
        print_disregarded(fresh)
    return found


def directory(folder: Path | None) -> Path:
    """Return *folder* (default: the current directory), which must be there."""
    place = folder or Path.cwd()
    try:
        there = place.is_dir()
    except (OSError, ValueError):  # too long, for example
        there = False
    if not there:
        shown = str(place) if len(str(place)) <= LONGEST_SHOWN else f"{str(place)[:LONGEST_SHOWN]}..."
        raise UsageError(f"{shown} is no directory", remedy="Give the path of a repository with --repository.")
    return place


def go(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* to its end; Ctrl-C ends it with exit code 3."""
    gc.freeze()
    gc.enable()
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """Return inputs that were given as ``NAME=VALUE``.

    Raises:
        UsageError: one is not written like that.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{text!r} is no input", remedy="Write --input NAME=VALUE.")
        found[name] = value
    return found
