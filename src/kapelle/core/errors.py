"""Every error of Kapelle: one tree, ordered by who must act.

The first line of an error class's docstring says what it is; ``code`` is stable and listed in docs/reference/errors.md with
cause and remedy. What an agent or a command does wrong is a value (an outcome, a verdict), never one of these.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from kapelle.core.frozen import frozen


class KapelleError(Exception):
    """Something Kapelle could not do."""

    code: ClassVar[str] = "KAP-0"
    cause: ClassVar[str] = "An error without a kind of its own; a fault of Kapelle."
    remedy: ClassVar[str] = "Report it with the output of the command."
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.advice = remedy if remedy is not None else self.remedy

    def __str__(self) -> str:
        return self.message

    @property
    def in_full(self) -> str:
        """What happened and what to do next, for places that keep only a text."""
        return f"{self.message}\n{self.advice}" if self.advice else self.message


# --- A person must act: what was given cannot be used. Nothing was changed. -------------------------------------------


class UsageError(KapelleError):
    """What was given cannot be used as it is."""

    code = "KAP-100"
    cause = "A flag, an id or an argument that does not fit."
    remedy = "See --help of the command."
    exit_code = 2


@frozen
class Mistake:
    """One mistake in a file: where it is, what is wrong, and what to write instead."""

    message: str
    advice: str
    path: tuple[str | int, ...] = ()
    """Keys and indexes that lead to the place in the document, such as ``("tasks", "api", "needs", 0)``."""
    file: str = ""
    line: int = 0
    column: int = 0

    @property
    def place(self) -> str:
        """Where it is, for people: ``FILE:LINE:COLUMN``, or what else gave the value, such as a variable."""
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part)

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


def closest(word: str, among: Iterable[str], otherwise: str = "there is none") -> str:
    """Return advice that names the likeliest of *among* for *word*, or lists them; *otherwise* when there are none."""
    from difflib import get_close_matches  # loaded when somebody has made a mistake

    known = sorted(among)
    if near := get_close_matches(word, known, n=1, cutoff=0.6):
        return f"write {near[0]}"
    return f"one of: {', '.join(known)}" if known else otherwise


class FileInvalid(UsageError):
    """A file has mistakes; all of them are listed."""

    code = "KAP-101"
    cause = "A workflow, configuration or rehearsal file does not say what it must."
    remedy = "Mend the places that are listed; nothing was done."

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes: Sequence[Mistake] = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


class FileMissing(UsageError):
    """A file that was named is not there or cannot be read."""

    code = "KAP-102"
    cause = "The path is wrong, or the file may not be read."
    remedy = "Check the path and its permissions."


class NotFound(UsageError):
    """Nothing has that id or name."""

    code = "KAP-103"
    cause = "The id or its prefix matches nothing in this store."
    remedy = "`kapelle list` shows what there is."


class Ambiguous(UsageError):
    """More than one thing matches the shortened id."""

    code = "KAP-104"
    cause = "The prefix of an id is too short."
    remedy = "Give more letters of the id."


class RepositoryRefused(UsageError):
    """This directory cannot be worked on."""

    code = "KAP-105"
    cause = "Not a git repository, a bare one, one without a commit, or one with something Kapelle cannot keep safe."
    remedy = "The message says what to do first."


class CredentialsMissing(UsageError):
    """There is no way to reach a model."""

    code = "KAP-106"
    cause = "Neither an API key nor a logged-in claude was found, and no rehearsal was given."
    remedy = (
        "Set ANTHROPIC_API_KEY or run `claude` once and log in (`kapelle doctor` says where it is); "
        "or try without a model: `kapelle run --rehearse FILE`."
    )


class NotPossibleNow(UsageError):
    """The thing is not in a state in which this can be done."""

    code = "KAP-107"
    cause = "For example, cancelling a run that has ended, or approving a task that waits for nothing."
    remedy = "`kapelle show ID` tells the state of a run or a task, `kapelle agents --all` that of an agent."


class ProgramMissing(UsageError):
    """A program that is needed is not installed."""

    code = "KAP-108"
    cause = "The program is neither on PATH nor in Kapelle's own environment."
    remedy = "Install it; the message names how."


class WouldOverwrite(UsageError):
    """Files are there already and would be overwritten."""

    code = "KAP-109"
    cause = "`kapelle init` in a repository that has a configuration."
    remedy = "Answer the question, or add --force to write them anew."


class TemplateFailed(UsageError):
    """A prompt or a condition could not be rendered."""

    code = "KAP-110"
    cause = "A template names something that is not there, such as a field that a structured result does not have."
    remedy = "Mend the template; `kapelle validate FILE` finds most of these before anything runs."


class PatternFailed(UsageError):
    """A regular expression could not be searched for."""

    code = "KAP-111"
    cause = "A pattern that takes ever longer the more text there is, such as (a+)+b."
    remedy = "Write the pattern so that there is one way only in which it can match."


class SecretMissing(UsageError):
    """A secret that is referenced is not to be had."""

    code = "KAP-112"
    cause = "The variable, the file or the entry of the keyring is not there for whoever leads, or its value will not do."
    remedy = "`kapelle secrets` shows every reference and what is wrong with it."


# --- Our world is wrong: a fault of the machine, of another program or of Kapelle. ------------------------------------


class WorldError(KapelleError):
    """Something outside did not work as it must."""

    code = "KAP-200"
    cause = "The machine, a file system or another program."
    remedy = "The message names what failed; try again when it is mended."


class GitFailed(WorldError):
    """A git command failed that should not have."""

    code = "KAP-201"
    cause = "git answered with an error that Kapelle did not expect."
    remedy = "Run the command that is quoted by hand to see more."


class StoreFailed(WorldError):
    """The store cannot be read or written."""

    code = "KAP-202"
    cause = "A full disk, wrong permissions, a damaged file, or a store of a newer Kapelle."
    remedy = "Free space or mend permissions under the state directory (`kapelle config --explain` names it)."


class StoreDamaged(StoreFailed):
    """The file of the store is damaged or gone."""

    code = "KAP-206"
    cause = "A disk that lies about what it has written, a copy made while Kapelle ran, or a hand on the file."
    remedy = "`kapelle restore` puts the last automatic backup in its place, keeps the damaged file, and names what is missing."


class HostFailed(WorldError):
    """A process could not be started or reached."""

    code = "KAP-203"
    cause = "No more processes or memory, or a program that cannot be executed."
    remedy = "The message quotes what the system said."


class WorkspaceFailed(WorldError):
    """A workspace could not be prepared."""

    code = "KAP-204"
    cause = "A set-up command failed, a file to copy is missing, or git could not add the worktree."
    remedy = "Run the set-up commands by hand in a fresh clone; `kapelle logs TASK` shows their output."


class GatewayFailed(WorldError):
    """The model gateway cannot listen or reach its upstream."""

    code = "KAP-205"
    cause = "The port is taken, or the upstream address is wrong."
    remedy = "Set KAPELLE_GATEWAY_PORT to a free port, or check ANTHROPIC_BASE_URL."


class NotStill(HostFailed):
    """What an agent has started could not be held still in time."""

    code = "KAP-207"
    cause = "A process that waits for a disk or a network file system stands still only when that answers."
    remedy = "Nothing: it is tried again until it does. `ps` shows what waits (state D), and for what."


# --- The leader must step back: somebody else leads. ------------------------------------------------------------------


class LeadLost(KapelleError):
    """Another process leads; this one may write nothing more."""

    code = "KAP-300"
    cause = "The process was stopped or cut off for longer than the lead lasts, and a follower took over."
    remedy = "Nothing: the new leader goes on with the work."


class NotLeading(LeadLost):
    """This process does not hold the lead."""

    code = "KAP-301"
    cause = "Another `kapelle` leads this store."
    remedy = "Nothing: requests are applied by the one that leads."


# --- Kapelle must be mended: a rule of our own was broken. ------------------------------------------------------------


class Defect(KapelleError):
    """A rule of Kapelle's own was broken: a defect."""

    code = "KAP-900"
    cause = "A defect in Kapelle or in a plug-in."
    remedy = "Report it with `kapelle events --json` of the run."


class IllegalTransition(Defect):
    """A transition that is not in the table."""

    code = "KAP-901"
    cause = "Something tried to move a task, run or agent in a way that does not exist."

    def __init__(self, kind: str, thing_id: str, before: str, after: str) -> None:
        super().__init__(f"{kind} {thing_id} cannot go from {before} to {after}")


def all_errors() -> list[type[KapelleError]]:
    """Return every error class, in the order of its code."""
    found: list[type[KapelleError]] = []
    todo: list[type[KapelleError]] = [KapelleError]
    while todo:
        kind = todo.pop()
        found.append(kind)
        todo.extend(kind.__subclasses__())
    return sorted(found, key=lambda kind: kind.code)
