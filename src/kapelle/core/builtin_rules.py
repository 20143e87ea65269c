"""The rules that hold unless a person switches them off, and what they look at.

==============  ======  ===============================================================================================
rm-outside      deny    A recursive ``rm`` outside of the workspace: how agents lost more than their own work.
privilege       deny    ``sudo`` and its like: an agent needs no rights but its own.
force-push      deny    ``git push`` with --force, --mirror, --delete, or a refspec with ``+`` or without a source: it takes
                        away what others may build on (git-push(1)).
git-internals   deny    Writes below ``.git``, and settings by which git runs programs (git-config(1): core.hooksPath,
                        core.fsmonitor, ...): whoever runs git there next would run them.
agent-settings  deny    ``.claude/settings*.json``, ``.claude/hooks``, ``.mcp.json``: what the agent's own program runs.
kapelle-files   review  ``.kapelle/**``: what Kapelle runs for everybody.
hook-files      review  Files of hook managers (.githooks, .husky, ...): they run on other people's machines.
ci-files        review  Files of CI services: they run with rights that an agent does not have.
kapelle         deny    ``kapelle answer`` and all else that steers: an agent does not answer its own question.
pipe-to-shell   ask     What was downloaded goes straight into a shell or an interpreter (``curl ... | sh``).
==============  ======  ===============================================================================================

``review``: a person is asked, unless the change waits for a person in the merge queue anyway (``merge.protect``): there it is
seen whole, and nobody has to be asked twice.
"""

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from posixpath import basename, isabs, join

from kapelle.core.frozen import frozen
from kapelle.core.rules import Scope, Verdict
from kapelle.core.shell import SHELLS, UNKNOWN, Simple


@frozen
class Deed:
    """What a call does, as far as it can be seen."""

    tool: str
    commands: tuple[Simple, ...]
    writes: tuple[str, ...]
    """Absolute paths."""
    scope: Scope


@frozen
class Hit:
    """Why a rule applies, and to what."""

    reason: str
    command: Simple | None = None
    path: str = ""
    """The file, relative to the workspace, for rules about files."""


Applies = Callable[[Deed], Iterator[Hit]]


@frozen
class Builtin:
    """A built-in rule: what it is called, what it does by default, and the reasons for which it applies to a deed."""

    name: str
    verdict: Verdict
    about: str
    applies: Applies
    hints: tuple[tuple[str, ...], ...] = ()
    """Words that are in a command which this rule may be about, for those that cannot be read: any one of these sets."""


# --- What commands write and read ---------------------------------------------------------------------------------------

ALL_WRITTEN = frozenset({"tee", "rm", "rmdir", "unlink", "shred", "touch", "truncate", "mkdir", "chmod", "chown", "chgrp"})
LAST_WRITTEN = frozenset({"cp", "mv", "ln", "install", "rsync", "scp"})
READ_BY = frozenset({"cat", "less", "more", "head", "tail", "grep", "rg", "nl", "od", "xxd", "strings", "base64", "wc", "sort"})


def _plain(command: Simple) -> list[str]:
    return [word for word in command.words[1:] if not word.startswith("-")]


def writes(command: Simple) -> Iterator[str]:
    """Yield the files that *command* visibly writes, moves or removes, as absolute paths."""
    for word in (*command.writes, *_written(command)):
        path = command.path(word)
        if path != UNKNOWN:
            yield path


def _written(command: Simple) -> Iterator[str]:
    program, plain = command.program, _plain(command)
    if program in ALL_WRITTEN:
        yield from plain
    elif program in LAST_WRITTEN and plain:
        given = [word.partition("=")[2] for word in command.words if word.startswith("--target-directory=")]
        words = command.words
        given += [words[at + 1] for at, word in enumerate(words[:-1]) if word == "-t"]
        target = given[0] if given else plain[-1]
        yield target
        # It may be a directory: then it is what is put there.
        yield from (join(target, basename(source)) for source in (plain if given else plain[:-1]))
        if program == "mv":
            yield from plain[:-1]
    elif program in {"sed", "perl"} and any(word.startswith(("-i", "--in-place", "-pi")) for word in command.words[1:]):
        yield from plain
    elif program == "dd":
        yield from (word.removeprefix("of=") for word in plain if word.startswith("of="))
    elif program == "git" and git_words(command)[0][1:2] in {("mv",), ("rm",)}:
        yield from git_words(command)[0][2:]
    elif program == "find" and "-delete" in command.words:
        yield from plain[:1]


def reads(command: Simple) -> Iterator[str]:
    """Yield the files that *command* visibly reads, as absolute paths."""
    if command.program in READ_BY:
        yield from (path for word in _plain(command) for path in [command.path(word)] if path != UNKNOWN)


def git_words(command: Simple) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return a git command without the options that stand before it, and the settings (``-c``) among those."""
    words = list(command.words[1:])
    settings: list[str] = []
    if command.program != "git":
        return command.words, ()
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in {"-c", "--config-env"} and words:
            settings.append(words.pop(0))
        elif option in {"-C", "--git-dir", "--work-tree", "--namespace"} and words:
            words.pop(0)
    return ("git", *words), tuple(settings)


# --- The rules ----------------------------------------------------------------------------------------------------------


def _rm_outside(deed: Deed) -> Iterator[Hit]:
    for command in deed.commands:
        options = "".join(word.lstrip("-") for word in command.words[1:] if word.startswith("-") and not word.startswith("--"))
        recursive = "r" in options.lower() or "--recursive" in command.words
        if (command.program == "rm" and recursive) or (command.program == "find" and "-delete" in command.words):
            targets = _plain(command) if command.program == "rm" else _plain(command)[:1]
            for word in targets:
                path = command.path(word)
                if path == UNKNOWN:
                    reason = f"only the shell knows what `{command.program}` would remove; name what is below the workspace"
                    yield Hit(reason=reason, command=command)
                elif not deed.scope.holds(path):
                    yield Hit(reason=f"{path} is not below the workspace; remove only what is", command=command)


def _privilege(deed: Deed) -> Iterator[Hit]:
    for command in deed.commands:
        if command.program in {"sudo", "su", "doas", "pkexec", "run0", "sudoedit"}:
            yield Hit(reason=f"`{command.program}`: an agent works with its own rights", command=command)


FORCING = frozenset({"-f", "--force", "--mirror", "-d", "--delete", "--prune"})


def _force_push(deed: Deed) -> Iterator[Hit]:
    for command in deed.commands:
        words, _ = git_words(command)
        if words[:2] != ("git", "push"):
            continue
        for word in words[2:]:
            short = word.startswith("-") and not word.startswith("--") and bool({"f", "d"} & set(word))
            if word in FORCING or short or word.startswith(("--force", "+", ":")):
                reason = f"`git push {word}` takes away what others may have; nothing is pushed by force"
                yield Hit(reason=reason, command=command)
                break


RUNS = (
    *("core.hookspath", "core.fsmonitor", "core.sshcommand", "core.gitproxy", "core.pager", "core.editor", "core.askpass"),
    *("sequence.editor", "diff.external", "diff.*.command", "diff.*.textconv", "filter.*", "merge.*.driver", "credential.*"),
    *("credential.helper", "gpg.program", "gpg.*.program", "include.path", "includeif.*", "alias.*", "uploadpack.*"),
)
"""Settings of git by which it runs programs, or reads more settings."""


VERBS = frozenset({"set", "unset", "get", "list", "edit"})
LOOKS = frozenset({"--get", "--get-all", "--get-regexp", "-l", "--list", "get", "list"})


def _runs(setting: str) -> bool:
    name = setting.partition("=")[0].lower()
    return any(fnmatchcase(name, pattern) for pattern in RUNS)


def _git_internals(deed: Deed) -> Iterator[Hit]:
    for path in deed.writes:
        if "/.git/" in f"{path}/" and not path.endswith(("/.git/info/exclude", "/.git/COMMIT_EDITMSG")):
            yield Hit(reason=f"{path} is git's own: hooks and settings there run in the hands of others")
    for command in deed.commands:
        words, settings = git_words(command)
        given = list(settings)
        if words[:2] == ("git", "config"):
            plain = [word for word in words[2:] if not word.startswith("-") and word not in VERBS]
            looking = any(word in LOOKS for word in words[2:])
            given += plain[:1] if not looking and len(plain) > 1 else []
        for setting in given:
            if _runs(setting):
                yield Hit(reason=f"git would run what {setting.partition('=')[0]} names", command=command)


def _files(patterns: Sequence[str], why: str) -> Applies:
    def applies(deed: Deed) -> Iterator[Hit]:
        for path in deed.writes:
            within = path.removeprefix(f"{deed.scope.workspace.rstrip('/')}/")
            if path == within and isabs(path):
                continue
            if any(_below(within, pattern) for pattern in patterns):
                yield Hit(reason=f"{within} {why}", path=within)

    return applies


def _below(path: str, pattern: str) -> bool:
    if pattern.endswith("/**"):
        folder = pattern.removesuffix("/**")
        return path == folder or path.startswith(f"{folder}/")
    return fnmatchcase(path, pattern)


CI = (
    *(".github/workflows/**", ".github/actions/**", ".gitlab-ci.yml", ".gitlab/ci/**", ".circleci/**", ".buildkite/**"),
    *(".forgejo/**", ".gitea/**", ".woodpecker/**", ".woodpecker.yml", ".drone.yml", ".travis.yml", ".cirrus.yml"),
    *("Jenkinsfile", "azure-pipelines.yml", "bitbucket-pipelines.yml", "appveyor.yml"),
)
HOOKS = (".githooks/**", ".husky/**", ".pre-commit-config.yaml", "lefthook.yml")
AGENT = (".claude/settings*.json", ".claude/hooks/**", ".mcp.json")

STEERS = frozenset(
    {"answer", "approve", "reject", "cancel", "pause", "resume", "retry", "run", "submit", "clean", "recover", "restore"}
)


def _kapelle(deed: Deed) -> Iterator[Hit]:
    for command in deed.commands:
        words = list(command.words)
        if command.program != "kapelle" and not _is_module(words):
            continue
        for word in words[1:]:
            if word in STEERS:
                yield Hit(reason=f"`kapelle {word}` is for people: an agent neither answers nor steers", command=command)
                break


def _is_module(words: Sequence[str]) -> bool:
    return any(words[at : at + 2] == ["-m", "kapelle"] for at in range(1, len(words) - 1))


FETCHERS = frozenset({"curl", "wget", "fetch", "http", "https", "aria2c"})
INTERPRETERS = SHELLS | {"python", "python3", "perl", "ruby", "node", "php", "deno", "bun", "source", "."}


def _pipe_to_shell(deed: Deed) -> Iterator[Hit]:
    fetched = any(command.program in FETCHERS for command in deed.commands)
    for command in deed.commands:
        if command.program not in INTERPRETERS:
            continue
        piped = bool(command.fed_by) and basename(command.fed_by[0]) in FETCHERS
        # `bash <(curl ...)` and `sh -c "$(curl ...)"`: what is run is known to the shell alone.
        if piped or (fetched and any(word == UNKNOWN for word in command.words[1:])):
            reason = f"what is downloaded would be run by {command.program} unseen; save it, read it, then run it"
            yield Hit(reason=reason, command=command)


BUILTIN: tuple[Builtin, ...] = (
    Builtin(
        name="rm-outside",
        verdict=Verdict.DENY,
        about="`rm -r` (and `find -delete`) outside of the workspace",
        applies=_rm_outside,
        hints=(("rm ", "-r"), ("rm ", "-f"), ("rm ", "-R")),
    ),
    Builtin(
        name="privilege",
        verdict=Verdict.DENY,
        about="sudo, su, doas, pkexec, run0",
        applies=_privilege,
        hints=(("sudo",), ("doas",), ("pkexec",)),
    ),
    Builtin(
        name="force-push",
        verdict=Verdict.DENY,
        about="`git push` by force, of a mirror, or that deletes",
        applies=_force_push,
        hints=(("push", "-f"), ("push", "+"), ("push", "--mirror"), ("push", "-d")),
    ),
    Builtin(
        name="git-internals",
        verdict=Verdict.DENY,
        about="writes below `.git`, and settings by which git runs programs (`core.hooksPath`, `core.fsmonitor`, ...)",
        applies=_git_internals,
        hints=(("core.hooksPath",), ("core.fsmonitor",), (".git/hooks",), (".git/config",)),
    ),
    Builtin(
        name="agent-settings",
        verdict=Verdict.DENY,
        about="`.claude/settings*.json`, `.claude/hooks`, `.mcp.json`",
        applies=_files(AGENT, "tells the agent's own program what to run"),
        hints=((".claude/settings",), (".mcp.json",)),
    ),
    Builtin(
        name="kapelle-files",
        verdict=Verdict.REVIEW,
        about="`.kapelle/**`",
        applies=_files((".kapelle/**",), "is Kapelle's own configuration"),
    ),
    Builtin(
        name="hook-files",
        verdict=Verdict.REVIEW,
        about="`.githooks`, `.husky`, `.pre-commit-config.yaml`, `lefthook.yml`",
        applies=_files(HOOKS, "runs on the machines of others"),
    ),
    Builtin(
        name="ci-files", verdict=Verdict.REVIEW, about="files of CI services", applies=_files(CI, "runs with the rights of CI")
    ),
    Builtin(
        name="kapelle",
        verdict=Verdict.DENY,
        about="`kapelle answer` and all else that steers",
        applies=_kapelle,
        hints=(("kapelle", "answer"), ("kapelle", "approve"), ("kapelle", "reject")),
    ),
    Builtin(
        name="pipe-to-shell",
        verdict=Verdict.ASK,
        about="what is downloaded goes straight into a shell or an interpreter",
        applies=_pipe_to_shell,
        hints=(("curl", "sh"), ("wget", "sh")),
    ),
)
