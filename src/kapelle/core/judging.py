"""Judging: what the rules say about what an agent's program is about to do. See ``core.rules`` for the words."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from posixpath import isabs, join, normpath, relpath

from kapelle.core import shell
from kapelle.core.builtin_rules import BUILTIN, Deed, git_words, reads, writes
from kapelle.core.frozen import frozen
from kapelle.core.merge import protected
from kapelle.core.rules import ABOUT, Call, Rules, Ruling, Scope, Verdict, parse, worst
from kapelle.core.shell import Script, Simple

EDITS = frozenset({"Edit", "Write", "MultiEdit", "NotebookEdit"})
READS = frozenset({"Read", "Grep", "Glob", "LS"})
SHELL_TOOLS = frozenset({"Bash", "Monitor"})
LOOKS = READS | {"NotebookRead", "TodoWrite", "TaskCreate", "TaskGet", "TaskList", "TaskUpdate"}
"""Tools that neither write a file nor start a program."""
LONGEST_COMMAND = 100_000
"""Characters of a command that are read; of a longer one only its words are looked at."""


@frozen
class _Found:
    verdict: Verdict
    rule: str
    reason: str
    command: Simple | None = None


def judge(rules: Rules, call: Call, scope: Scope) -> Ruling:
    """Return what *rules* say about *call*, made at *scope*."""
    script = _script(call, scope)
    deed = Deed(
        tool=call.tool,
        commands=script.commands if script is not None else (),
        writes=tuple(_paths(call, script, scope, EDITS)),
        scope=scope,
    )
    found = [*_own(rules, call, deed, scope), *_builtin(rules, deed)]
    if script is not None and (not script.sure or call.cut):
        found += _hinted(rules, call.command or "", frozenset())
    elif script is not None and any(_hidden(command) for command in script.commands):
        # What a program is about that can be seen was judged with it.
        found += _hinted(rules, call.command or "", frozenset(command.program for command in script.commands))
    strongest = worst([entry.verdict for entry in found])
    if call.prompted and strongest in {Verdict.PASS, Verdict.ALLOW}:
        return _prompted(call)
    if strongest is Verdict.PASS:
        return Ruling(verdict=Verdict.PASS)
    said = next(entry for entry in found if entry.verdict is strongest)
    asking = [entry for entry in found if entry.verdict is strongest]
    covered = {id(entry.command) for entry in asking}
    whole = all(id(command) in covered for command in deed.commands)
    keys = tuple(dict.fromkeys(entry.rule for entry in asking))
    return Ruling(verdict=strongest, rule=said.rule, reason=said.reason, keys=keys, whole=whole)


def unspoken(rules: Rules) -> tuple[str, ...]:
    """Return tools about which *rules* say nothing, whatever they are called with: their calls need not be judged."""
    named = [parse(text)[0] for text in (*rules.deny, *rules.ask)]

    def spoken(tool: str) -> bool:
        return any(fnmatchcase(tool, name) or (name in READS and tool in READS) for name in named)

    return tuple(sorted(tool for tool in LOOKS if not spoken(tool)))


def _prompted(call: Call) -> Ruling:
    """The rules say nothing, and the program itself would ask: a person is asked in its place."""
    key = f"{call.tool}({call.what})"
    return Ruling(verdict=Verdict.ASK, reason=f"the agent's permissions do not cover {call.tool} here", keys=(key,))


def _script(call: Call, scope: Scope) -> Script | None:
    if call.command is None:
        return None
    if len(call.command) > LONGEST_COMMAND:
        return Script(commands=(), sure=False)
    return shell.read(call.command, call.cwd or scope.workspace, scope.variables)


def _hidden(command: Simple) -> bool:
    """Say whether only the running shell knows which program this is."""
    return bool(command.words) and shell.expands(command.words[0])


def _paths(call: Call, script: Script | None, scope: Scope, tools: frozenset[str]) -> Iterator[str]:
    cwd = call.cwd or scope.workspace
    if call.tool in tools:
        yield from (normpath(path if isabs(path) else join(cwd, path)) for path in call.paths)
    for command in script.commands if script is not None and tools is EDITS else ():
        yield from writes(command)


# --- The person's own rules -------------------------------------------------------------------------------------------


def _own(rules: Rules, call: Call, deed: Deed, scope: Scope) -> Iterator[_Found]:
    for verdict, texts in ((Verdict.DENY, rules.deny), (Verdict.ASK, rules.ask)):
        for text in texts:
            tool, pattern = parse(text)
            words = "is not allowed here" if verdict is Verdict.DENY else "is asked about"
            if pattern is None:
                if fnmatchcase(call.tool, tool) or (tool in EDITS and call.tool in EDITS):
                    yield _Found(verdict=verdict, rule=text, reason=f"{call.tool} {words} ({text})")
            elif tool in SHELL_TOOLS:
                for command in deed.commands:
                    if matches(pattern, command):
                        reason = f"`{shown(command)}` {words} ({text})"
                        yield _Found(verdict=verdict, rule=text, reason=reason, command=command)
            elif tool in EDITS or tool in READS:
                paths = deed.writes if tool in EDITS else [*_paths(call, None, scope, READS), *_read(deed)]
                for path in paths:
                    if path_matches(pattern, path, scope.workspace):
                        yield _Found(verdict=verdict, rule=text, reason=f"{within(path, scope.workspace)} {words} ({text})")
            elif fnmatchcase(call.tool, tool) and fnmatchcase(call.what, pattern):
                yield _Found(verdict=verdict, rule=text, reason=f"{call.tool} {words} ({text})")


def _read(deed: Deed) -> Iterator[str]:
    for command in deed.commands:
        yield from reads(command)


def shown(command: Simple) -> str:
    """Return *command* as people read it."""
    return " ".join(command.words).replace(shell.UNKNOWN, "…")[:200]


def matches(pattern: str, command: Simple) -> bool:
    """Say whether the simple *command* fits *pattern*; ``git push *`` fits ``git push`` as well."""
    pattern = f"{pattern.removesuffix(':*')} *" if pattern.endswith(":*") else pattern
    forms = [command.words, (command.program, *command.words[1:]), git_words(command)[0]]
    for words in forms:
        text = " ".join(words)
        if fnmatchcase(text, pattern) or (pattern.endswith(" *") and text == pattern[:-2]):
            return True
    return False


def within(path: str, workspace: str) -> str:
    """Return the absolute *path* as a rule names it: relative to the workspace when it is below that."""
    return relpath(path, workspace) if Scope(workspace=workspace).holds(path) else path


def about(call: Call, scope: Scope) -> str:
    """Return what *call* is about, for people: as ``Call.what``, with paths as rules name them. A command stays as it is."""
    if call.command is not None or not call.paths:
        return call.what
    cwd = call.cwd or scope.workspace
    whole = [normpath(path if isabs(path) else join(cwd, path)) for path in call.paths]
    return ", ".join(within(path, scope.workspace) for path in whole)[:ABOUT]


def path_matches(pattern: str, path: str, workspace: str) -> bool:
    """Say whether the absolute *path* fits *pattern*, a glob relative to the workspace unless it is absolute itself."""
    if isabs(pattern):
        return glob_matches(pattern, path)
    within = relpath(path, workspace) if isabs(path) else path
    return not within.startswith("../") and glob_matches(pattern, within)


def glob_matches(pattern: str, path: str) -> bool:
    """Say whether *path* fits *pattern*: ``**`` stands for any directories, also none, and at the end for all that is below."""
    return _glob(pattern.strip("/").split("/"), path.strip("/").split("/"))


def _glob(pattern: Sequence[str], path: Sequence[str]) -> bool:
    # All places of the pattern that what was read of the path may have led to: the agent chose the path, and how long it is.
    places = _onward({0}, pattern)
    for name in path:
        staying = {place for place in places if place < len(pattern) and pattern[place] == "**"}
        going = {place + 1 for place in places - staying if place < len(pattern) and fnmatchcase(name, pattern[place])}
        places = _onward(staying | going, pattern)
    return len(pattern) in places


def _onward(places: set[int], pattern: Sequence[str]) -> set[int]:
    """Return *places* and those behind any `**` in them, which may stand for nothing."""
    found = set(places)
    for place in range(min(places, default=0), len(pattern)):
        if place in found and pattern[place] == "**":
            found.add(place + 1)
    return found


# --- Built-in rules ---------------------------------------------------------------------------------------------------


def _builtin(rules: Rules, deed: Deed) -> Iterator[_Found]:
    for builtin in BUILTIN:
        verdict = rules.verdict(builtin.name, builtin.verdict)
        if verdict is Verdict.PASS:
            continue
        for hit in builtin.applies(deed):
            said = verdict
            if verdict is Verdict.REVIEW:
                # What the merge queue asks a person about anyway need not be asked twice.
                said = Verdict.ALLOW if protected([hit.path], deed.scope.protect) else Verdict.ASK
            yield _Found(verdict=said, rule=builtin.name, reason=hit.reason, command=hit.command)


def _hinted(rules: Rules, text: str, seen: frozenset[str]) -> Iterator[_Found]:
    """Ask about a command that was not understood when all the words of a rule are in it, unless it is about *seen*."""
    for hints, name in _hints(rules):
        if hints and hints[0].strip() not in seen and all(hint in text for hint in hints):
            yield _Found(verdict=Verdict.ASK, rule=name, reason=f"it cannot be read for sure, and may be what {name} is about")


def _hints(rules: Rules) -> Iterator[tuple[tuple[str, ...], str]]:
    for builtin in BUILTIN:
        if rules.verdict(builtin.name, builtin.verdict) in {Verdict.DENY, Verdict.ASK}:
            for hints in builtin.hints:
                yield hints, builtin.name
    for rule in (*rules.deny, *rules.ask):
        tool, pattern = parse(rule)
        if tool in SHELL_TOOLS and pattern is not None:
            yield tuple(word for word in pattern.removesuffix(":*").split() if not set("*?[") & set(word)), rule
