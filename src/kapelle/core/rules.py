"""Command rules: what an agent may not do, and what a person is asked about first.

A rule is written as ``Tool`` or ``Tool(pattern)``, in the notation of the agent's own program: ``WebFetch``, ``mcp__*``,
``Bash(git push *)``, ``Edit(migrations/**)``. The pattern of a shell command is compared with every simple command that is
started; the pattern of a path with every file that is written (``Edit`` and ``Write`` mean the same) or read (``Read``), and is
relative to the workspace, or absolute.

The sandbox is what protects; rules are what explains. A program that an agent writes and then runs is not read here, and who
hides a command on purpose is not found out: what cannot be read for sure is asked about when a word of a rule is in it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import field
from datetime import timedelta
from enum import StrEnum

from kapelle.core.frozen import frozen

ABOUT = 2_000
"""Characters of what a call is about that are kept."""
EVERY = "*"
"""In the place of the name of a built-in rule: all that are not named."""


class Verdict(StrEnum):
    """What a rule says, the strongest last; ``off`` says nothing."""

    PASS = "off"  # noqa: S105  # no password
    ALLOW = "allow"
    REVIEW = "review"
    ASK = "ask"
    DENY = "deny"


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the strongest of *verdicts*."""
    order = list(Verdict)
    return max(verdicts, key=order.index, default=Verdict.PASS)


@frozen
class Scope:
    """Where a call is made."""

    workspace: str
    own: tuple[str, ...] = ()
    """Other directories that are the agent's own: its home, its temporary files."""
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    """Variables of its environment whose values are known."""
    protect: tuple[str, ...] = ()
    """Globs of files whose change waits for a person before it is merged; none where nothing is merged."""

    def holds(self, path: str) -> bool:
        """Say whether the absolute *path* is below a directory of the agent's (that directory itself is not)."""
        return any(path.startswith(f"{folder.rstrip('/')}/") for folder in (self.workspace, *self.own) if folder)


class Fallback(StrEnum):
    """What becomes of a question that nobody has answered in time."""

    DENY = "deny"
    ALLOW = "allow"


@frozen
class Rules:
    """The command rules of an agent config."""

    deny: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    builtin: tuple[tuple[str, str], ...] = ()
    """What built-in rules do that do not do what they do by default: name, and deny, ask, review or off. ``*``: all others."""
    deadline: timedelta = timedelta(minutes=10)
    """How long a question waits for an answer."""
    default: Fallback = Fallback.DENY

    def verdict(self, name: str, default: Verdict) -> Verdict:
        """Return what the built-in rule *name*, which does *default* unless it is told otherwise, does here."""
        changed = dict(self.builtin)
        return Verdict(changed.get(name, changed.get(EVERY, default)))


@frozen
class Call:
    """Something that an agent's program is about to do."""

    call_id: str
    """The program's own name for it: asked again after a crash, it is the same question."""
    tool: str
    command: str | None = None
    """The command line, for tools that run one."""
    paths: tuple[str, ...] = ()
    """Files that it names."""
    about: str = ""
    """What it is called with, in few words, for tools with neither."""
    cwd: str = ""
    prompted: bool = False
    """Whether the program would ask a person by itself."""
    cut: bool = False
    """Whether the command was too long to be passed on whole."""

    @property
    def what(self) -> str:
        """What it is about, for people."""
        return (self.command or ", ".join(self.paths) or self.about)[:ABOUT]


@frozen
class Ruling:
    """What the rules say about a call."""

    verdict: Verdict
    rule: str = ""
    """The rule that says so: its name or its text."""
    reason: str = ""
    keys: tuple[str, ...] = ()
    """What a person who says `always` lets through from then on."""
    whole: bool = True
    """Whether that is all of the call: nothing else in it would be let through unseen."""


def parse(rule: str) -> tuple[str, str | None]:
    """Return the tool and the pattern of *rule*; None for a rule about the tool as a whole.

    Raises:
        ValueError: it is no rule; the message says how to write one.
    """
    tool, bracket, rest = rule.strip().partition("(")
    if not tool or not all(letter.isalnum() or letter in "_-*?." for letter in tool) or (bracket and not rest.endswith(")")):
        raise ValueError(f"{rule!r} is no rule; write Tool or Tool(pattern), for example Bash(git push *) or Edit(docs/**)")
    pattern = rest[:-1].strip() if bracket else ""
    return tool, pattern if pattern and pattern != "*" else None


def rule_problem(rule: str) -> str:
    """Return what is wrong with *rule*, or nothing."""
    try:
        parse(rule)
    except ValueError as error:
        return str(error)
    return ""
