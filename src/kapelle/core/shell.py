"""Command lines of a shell, read for what they start and what they write. Nothing is run, expanded or looked up.

Read are simple commands behind ``&&``, ``||``, ``;``, ``|``, ``&`` and newlines, in ``$( )``, backticks, ``( )`` and ``<( )``,
what comes behind keywords, what ``sh -c``, ``eval`` and a here-document give to a shell, and what ``env``, ``xargs``,
``find -exec`` and their like start. A part of a word that only the running shell knows (a variable that was not set before,
what a command puts out) is ``UNKNOWN``. Whoever hides a command on purpose is not found out here; ``Script.sure`` says when
something was not understood.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from posixpath import basename, isabs, join, normpath

from kapelle.core.frozen import frozen, replace

UNKNOWN = "\0"
"""Stands in a word for a part that only the running shell knows."""
DEEPEST = 12
"""Commands within commands that are read; what is deeper is not understood."""
MOST, MOST_WORDS = 1_000, 50_000
"""Commands of one text that are read, and words of them all: whoever leads reads it, and has others to see to."""
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash", "fish"})
STARTERS = frozenset(
    {"env", "nohup", "setsid", "nice", "ionice", "time", "command", "builtin", "exec", "stdbuf", "timeout", "xargs", "watch"}
    | {"chrt", "taskset", "unbuffer", "script", "parallel", "busybox", "chronic", "flock", "strace", "unshare", "setpriv"}
)
"""Programs that start the program named behind their options."""
KEYWORDS = frozenset({"if", "then", "elif", "else", "do", "while", "until", "time", "!", "{", "}", "fi", "done", "esac"})
_ASSIGNS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COUNTS = re.compile(r"[0-9.:,+-]+[smhdk%]?$|\{\}$")
_ENDS_WORD = frozenset(" \t\n;&|()<>")
_EXPANDS = frozenset("*?[{")


@frozen
class Simple:
    """One simple command: a program and its arguments."""

    words: tuple[str, ...]
    writes: tuple[str, ...] = ()
    """Files that its output is sent to."""
    cwd: str = UNKNOWN
    """Where it runs."""
    fed_by: tuple[str, ...] = ()
    """The words of the command whose output it reads."""
    text: str = ""
    """What a here-document or a here-string gives it to read."""

    @property
    def program(self) -> str:
        """The name of the program, without the way to it."""
        return basename(self.words[0]) if self.words else ""

    def path(self, word: str) -> str:
        """Return the absolute path that *word* means, links not followed; ``UNKNOWN`` when only the shell knows its start."""
        whole = word if isabs(word) or word.startswith(UNKNOWN) else join(self.cwd, word)
        return UNKNOWN if whole.startswith(UNKNOWN) else normpath(whole)


@frozen
class Script:
    """All that a command line starts."""

    commands: tuple[Simple, ...]
    sure: bool = True
    """Whether all of it was understood."""


def read(text: str, cwd: str, variables: Mapping[str, str] | None = None) -> Script:
    """Return what *text* starts when a shell runs it in *cwd*; *variables* are those whose values are known."""
    reader = _Reader(text, cwd, dict(variables or {}), 0)
    reader.all()
    return Script(commands=tuple(reader.found), sure=reader.sure)


class _Found(list[Simple]):
    """The commands that were found, in the text and in all texts within it."""

    def __init__(self) -> None:
        super().__init__()
        self._words = 0

    def append(self, command: Simple, /) -> None:
        super().append(command)
        self._words += len(command.words)

    @property
    def full(self) -> bool:
        """Whether no more is to be read."""
        return len(self) >= MOST or self._words >= MOST_WORDS


class _Reader:
    """Reads one text from its beginning to its end; texts within it have readers of their own, which share what was found."""

    def __init__(self, text: str, cwd: str, variables: dict[str, str], depth: int, outer: "_Reader | None" = None) -> None:
        self.text = text
        self.at = 0
        self.cwd = cwd
        self.variables = variables
        self.depth = depth
        self.found: _Found = outer.found if outer is not None else _Found()
        self.sure = depth <= DEEPEST
        self._words: list[str] = []
        self._writes: list[str] = []
        self._given = ""
        self._open = 0
        """Parentheses that are open."""
        self._before: tuple[str, ...] = ()
        """The words of the last command, when its output goes into the next one."""
        self._bodies: list[tuple[str, int]] = []
        """Here-documents that begin at the end of the line: what ends each, and which command reads it (its place in found)."""

    # --- Commands ---

    def all(self) -> None:
        """Read to the end."""
        if not self.sure:
            return
        self._list("")

    def _list(self, closing: str) -> None:
        """Read commands up to *closing* (nothing: the end of the text)."""
        while self.at < len(self.text):
            if self.found.full:
                self.sure, self.at = False, len(self.text)
                break
            letter = self.text[self.at]
            if closing and letter == closing:
                self._flush(piped=False)
                self.at += 1
                return
            self._piece(letter)
        self._flush(piped=False)
        if closing:
            self.sure = False

    def _piece(self, letter: str) -> None:
        if self.text.startswith("\\\n", self.at):
            self.at += 2
        elif letter in " \t\r":
            self.at += 1
        elif letter == "#":
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end
        elif self.text.startswith("&>", self.at):
            self.at += 1
            self._redirect()
        elif letter in "\n;&|":
            self._separate(letter)
        elif letter == "(":
            self._parenthesis()
        elif letter == ")":
            # The end of a pattern of `case`: what stands before it is no command.
            self._words, self.at = [], self.at + 1
        elif letter in "<>":
            self._redirect()
        else:
            self._words.append(self._word())

    def _separate(self, letter: str) -> None:
        piped = letter == "|" and not self.text.startswith("||", self.at)
        self._flush(piped=piped)
        if letter == "\n":
            self.at += 1
            self._here_documents()
            return
        while self.at < len(self.text) and self.text[self.at] == letter:
            self.at += 1
        if piped and self.text.startswith("&", self.at):
            self.at += 1

    def _parenthesis(self) -> None:
        self.at += 1
        while self._words and self._words[0] in KEYWORDS:
            self._words.pop(0)
        if self._words:
            # `name() {`: a function; what it does is read when it is written down. Anything else was not understood.
            self.sure = self.sure and self.text.startswith(")", self.at)
            self._words = []
            return
        if self.depth + self._open >= DEEPEST:
            self.sure, self.at = False, len(self.text)
            return
        cwd, before = self.cwd, self._before
        self._open += 1
        self._list(")")
        self._open -= 1
        self.cwd, self._before = cwd, before

    def _flush(self, *, piped: bool) -> None:
        """A simple command ends here."""
        words, writes, given = self._words, self._writes, self._given
        self._words, self._writes, self._given = [], [], ""
        words = self._without_keywords(words)
        fed_by, self._before = self._before, tuple(words) if piped else ()
        if piped and not words:
            self._before = fed_by
        if not words and not writes:
            return
        found = Simple(words=tuple(words), writes=tuple(writes), cwd=self.cwd, fed_by=fed_by, text=given)
        self.found.append(found)
        if words and words[0] in {"cd", "pushd"}:
            self._go(words)
        self._inner(found)

    def _without_keywords(self, words: list[str]) -> list[str]:
        first, skipped = 0, {**dict.fromkeys(KEYWORDS, 1), "coproc": 1, "function": 2}
        while first < len(words) and words[first] in skipped:
            first += skipped[words[first]]
        words = words[first:]
        if words and words[0] in {"for", "select", "case"}:
            return []
        rest = words
        while rest and _ASSIGNS.match(rest[0]):
            name, _, value = rest[0].partition("=")
            if len(rest) == 1 and UNKNOWN not in value:
                self.variables[name] = value
            else:
                self.variables.pop(name, None)
            rest = rest[1:]
        if rest and rest[0] in {"export", "declare", "local", "readonly", "typeset"}:
            for word in rest[1:]:
                name, equals, value = word.partition("=")
                if equals and UNKNOWN not in value:
                    self.variables[name] = value
        return rest

    def _go(self, words: Sequence[str]) -> None:
        where = [word for word in words[1:] if not word.startswith("-")]
        if not where and words[0] == "cd":
            self.cwd = self.variables.get("HOME", UNKNOWN)
            return
        target = where[0] if where else UNKNOWN
        whole = target if isabs(target) else join(self.cwd, target)
        self.cwd = UNKNOWN if UNKNOWN in whole else normpath(whole)

    def _inner(self, command: Simple, deep: int = 0) -> None:
        """Read what *command* starts in its turn; *deep* is how many programs have led to it."""
        for words in started_by(command.words):
            if deep >= DEEPEST or self.found.full:
                self.sure = False
                break
            inner = replace(command, words=tuple(words), writes=())
            self.found.append(inner)
            self._inner(inner, deep + 1)
        texts = list(_scripts(command))
        if any(UNKNOWN in text for text in texts) or (command.program in SHELLS and command.fed_by):
            # What it is given to run is known to the running shell alone.
            self.sure = False
        for text in texts:
            self._within(text)

    def _within(self, text: str) -> None:
        inner = _Reader(text, self.cwd, dict(self.variables), self.depth + 1, self)
        inner.all()
        self.sure = self.sure and inner.sure

    # --- Words ---

    def _word(self) -> str:
        found: list[str] = []
        if self.text[self.at] == "~":
            name = re.compile(r"~[^/\s;&|()<>]*").match(self.text, self.at)
            whole = name[0] if name is not None else "~"
            self.at += len(whole)
            found.append(self.variables.get("HOME", UNKNOWN) if whole == "~" else UNKNOWN)
        while self.at < len(self.text) and self.text[self.at] not in _ENDS_WORD:
            found.append(self._part())
        return "".join(found)

    def _part(self) -> str:
        letter = self.text[self.at]
        match letter:
            case "'":
                return self._quoted()
            case '"':
                return self._double()
            case "\\":
                self.at += 2
                return self.text[self.at - 1 : self.at].replace("\n", "")
            case "$":
                return self._dollar()
            case "`":
                return self._backticks()
            case _:
                self.at += 1
                return letter

    def _quoted(self) -> str:
        end = self.text.find("'", self.at + 1)
        self.sure = self.sure and end >= 0
        end = len(self.text) if end < 0 else end
        found = self.text[self.at + 1 : end]
        self.at = end + 1
        return found

    def _double(self) -> str:
        self.at += 1
        found: list[str] = []
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter == '"':
                self.at += 1
                return "".join(found)
            if letter == "\\" and self.text[self.at + 1 : self.at + 2] not in set('$`"\\\n'):
                found.append(letter)
                self.at += 1
            elif letter in "\\$`":
                found.append(self._part())
            else:
                found.append(letter)
                self.at += 1
        self.sure = False
        return "".join(found)

    def _dollar(self) -> str:
        rest = self.text[self.at + 1 :]
        if rest.startswith("'"):
            self.at += 1
            found = self._quoted()
            # What `$'...'` spells with escapes is not spelled out here.
            self.sure = self.sure and "\\" not in found
            return found
        if rest.startswith("("):
            self.at += 2
            inner = _Reader(self.text, self.cwd, dict(self.variables), self.depth + 1, self)
            inner.at = self.at
            if inner.sure:
                inner._list(")")  # another of its own kind
            self.at = inner.at if inner.sure else len(self.text)
            self.sure = self.sure and inner.sure
            return UNKNOWN
        if rest.startswith("{"):
            end = self.text.find("}", self.at)
            self.sure = self.sure and end >= 0
            end = len(self.text) if end < 0 else end
            inside = self.text[self.at + 2 : end]
            self.at = end + 1
            if "$(" in inside or "`" in inside:
                self.sure = False
            return self.variables.get(inside, UNKNOWN)
        name = _NAME.match(rest)
        if name is None:
            self.at += 2 if rest and rest[0] in "?#@*!$-0123456789" else 1
            return UNKNOWN if rest and rest[0] in "?#@*!$-0123456789" else "$"
        self.at += 1 + len(name[0])
        return self.cwd if name[0] == "PWD" else self.variables.get(name[0], UNKNOWN)

    def _backticks(self) -> str:
        end = self.text.find("`", self.at + 1)
        self.sure = self.sure and end >= 0
        end = len(self.text) if end < 0 else end
        self._within(self.text[self.at + 1 : end].replace("\\`", "`"))
        self.at = end + 1
        return UNKNOWN

    # --- Redirections ---

    def _redirect(self) -> None:
        if self._words and self._words[-1].isdigit() and self.text[self.at - 1 : self.at].isdigit():
            self._words.pop()  # the number of a stream
        sign = re.compile(r"<<<|<<-?|<>|>>|>\||[<>]&|[<>]\(|[<>]").match(self.text, self.at)
        which = sign[0] if sign is not None else ">"
        self.at += len(which)
        if which in {"<(", ">("}:
            inner = self._words
            self._words = []
            self._list_aside()
            self._words = [*inner, UNKNOWN]
            return
        while self.at < len(self.text) and self.text[self.at] in " \t":
            self.at += 1
        target = self._word() if self.at < len(self.text) and self.text[self.at] not in _ENDS_WORD else ""
        if which.startswith("<<") and which != "<<<":
            self._bodies.append((target, len(self.found)))
        elif which == "<<<":
            self._given = target
        elif which != "<" and target and not (which.endswith("&") and (target.isdigit() or target == "-")):
            self._writes.append(target)

    def _list_aside(self) -> None:
        """Read the commands of ``<( )``, which are none of the pipeline."""
        inner = _Reader(self.text, self.cwd, dict(self.variables), self.depth + 1, self)
        inner.at = self.at
        if inner.sure:
            inner._list(")")  # another of its own kind
        self.at = inner.at if inner.sure else len(self.text)
        self.sure = self.sure and inner.sure

    def _here_documents(self) -> None:
        """Read the bodies of the here-documents that begin here, and give them to their commands."""
        bodies, self._bodies = self._bodies, []
        for mark, place in bodies:
            lines: list[str] = []
            while self.at < len(self.text):
                end = self.text.find("\n", self.at)
                end = len(self.text) if end < 0 else end
                line = self.text[self.at : end]
                self.at = end + 1
                if line.lstrip("\t") == mark:
                    break
                lines.append(line)
            body = "\n".join(lines)
            if "$(" in body or "`" in body:
                # Unless its mark was quoted, the shell runs what is in it.
                for piece in re.findall(r"\$\(([^()]*)\)|`([^`]*)`", body):
                    self._within(piece[0] or piece[1])
            if place < len(self.found) and self.found[place].program in SHELLS:
                self._within(body)


def _scripts(command: Simple) -> Iterator[str]:
    """Yield the texts that *command* runs as commands of a shell."""
    if command.program == "eval":
        yield " ".join(command.words[1:])
    if command.program in SHELLS or command.program in {"su", "script"}:
        for place, word in enumerate(command.words[1:-1], 1):
            if word == "--command" or re.fullmatch(r"-[a-z]*c", word):
                yield command.words[place + 1]
        if command.text:
            yield command.text


def started_by(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield the commands that the program of *words* starts, by their words; where that is not certain, all that it may be."""
    program = basename(words[0]) if words else ""
    if program == "find":
        for place, word in enumerate(words):
            if word in {"-exec", "-execdir", "-ok", "-okdir"}:
                rest = list(words[place + 1 :])
                yield rest[: next((end for end, other in enumerate(rest) if other in {";", "+"}), len(rest))]
        return
    if program not in STARTERS:
        return
    option = False
    for place, word in enumerate(words[1:], 1):
        if word.startswith("-"):
            option = True
        elif not _ASSIGNS.match(word) and not _COUNTS.match(word):
            yield list(words[place:])
            if not option:
                return
            # It may have been the value of an option.
            option = False


def expands(word: str) -> bool:
    """Say whether the shell makes something else of *word*, which was left as it is."""
    return UNKNOWN in word or bool(_EXPANDS & set(word))
