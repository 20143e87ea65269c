"""Ten secrets of ten shapes, with the real claude: it prints, writes, commits and says them, and none is anywhere afterwards.

The values stand in no file of the test's own: the rehearsal spells them backwards.
"""

import json
import os
import signal
import sqlite3
import subprocess
import textwrap
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Self

import psutil
import pytest

from kapelle.core.hiding import forms
from kapelle.testing.places import Place, Said, until

FIXTURES = {"bubblewrap": "bubblewrap", "container": "podman"}
"""What must be there for a sandbox."""
WITH_SOAK = [pytest.param("process", marks=pytest.mark.soak), "bubblewrap", pytest.param("container", marks=pytest.mark.soak)]
"""Where the same was tried in a container once already, `make soak` tries the rest of it."""
MCP = Path(__file__).with_name("mcp_server.py")
# Put together here, so that nobody who looks for credentials finds them in this file.
SECRETS = {
    "ANTHROPIC": "sk-" + "ant-api03-" + "qX7" * 20,
    "GITHUB": "gh" + "p_" + "aB3dE5gH" * 4 + "iJ7k",
    "FINE": "github" + "_pat_" + "11ABCDEFG0" * 4,
    "AWS": "AKIA" + "IOSFODNN7EXAMPLF" + ":" + "wJalrXUtnFEMIbK7MDENGxbPxRfiCYEXAMPLEKEY",
    "SLACK": "xox" + "b-2345678901-abcDEFghiJKL",
    "STRIPE": "sk" + "_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "GOOGLE": "AI" + "zaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
    "PEM": "-----BEGIN PRIVATE" + " KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n"
    "MzEfYyjiWA4R4+M2bS1GB4t7NXp98C3SC6dVMvDuictGeurT8jNbvJZHtCSuYEvu\n-----END PRIVATE" + " KEY-----",
    "JWT": "eyJ" + "hbGciOiJIUzI1NiIsInR5cCI6.eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "NPM": "npm" + "_" + "zY9wX8vU7tS6rQ5pO4nM3lK2jI1hG0fE9dC8",
    "TELLER": "a plain pass-phrase, no shape at all",
}
AGENTS = """\
sandbox: SANDBOX
agents:
  coder:
    program: claude
    tools: {allow: [Read, Write, Bash, mcp__teller]}
    secrets: {SECRETS}
    git: {github.com: GITHUB}
    mcp:
      teller: {command: PYTHON, args: [MCP], env: {TELLER_TOKEN: "${secret:TELLER}"}}
gates: {tests: {checks: [{name: looks, run: "cat ignored.env 2>/dev/null; ls"}]}}
workspace: {setup: ["ls > /dev/null"]}
"""
FLOW = """\
name: secrets
defaults: {agent: coder, gate: tests, max_attempts: 1}
tasks: {good: {prompt: Be good at last}, bad: {prompt: Never be good}}
"""
SHOW = "for file in $(env | grep _FILE= | cut -d= -f2 | grep secrets -e agents); do cat $file; echo; base64 < $file; done"
COMMIT = (
    "cat $(env | grep -E '^(GITHUB|PEM|NPM)_FILE=' | cut -d= -f2) > deep.txt; cat $AWS_FILE > ignored.env; mkdir -p d; "
    "cp $JWT_FILE d/jwt; git config --global user.name a; git config --global user.email a@b; git add -f . ; "
    "git -c user.name=a -c user.email=a@b commit -qF $STRIPE_FILE; cat $SLACK_FILE >&2; "
    "printf 'protocol=https\\nhost=github.com\\n\\n' | git credential fill; echo said"
)
REHEARSAL = """\
rules:
  - when: {prompt: "is not accepted"}
    turns:
      - tools: [{Bash: {command: "test $KAPELLE_TASK = bad || rm -rf deep.txt ignored.env d; echo fine > fine.txt"}}]
      - {say: "Taken out: SAID"}
  - when: {prompt: "good"}
    turns:
      - tools: [{Bash: {command: SHOW}}]
      - tools: [{mcp__teller__tell: {}}]
      - tools:
          - {Write: {file_path: "{{ cwd }}/w.txt", content: "SAID"}}
          - {Bash: {command: COMMIT}}
          - {Bash: {command: "rm w.txt"}}
      - {say: "Done with SAID", delay: DELAY}
"""


def _set_up(place: Place, sandbox: str, delay: str = "0s") -> dict[str, str]:
    references = ", ".join(f"{name}: env:PLANTED_{name}" for name in SECRETS)
    agents = AGENTS.replace("SECRETS", references).replace("SANDBOX", sandbox)
    text = agents.replace("PYTHON", "python3").replace("[MCP]", "[mcp_server.py]").replace("GITHUB}", "{secret: GITHUB}}", 1)
    (place.repository / ".kapelle" / "agents.yml").write_text(text)
    (place.repository / "mcp_server.py").write_text(MCP.read_text())
    (place.repository / ".gitignore").write_text("*.env\n")
    place.git("add", "-A")
    place.git("commit", "-qm", "agents")
    place.write("flow.yml", FLOW)
    said = " ".join(f"{{{{ {backwards!r} | reverse }}}}" for value in SECRETS.values() for backwards in [value[::-1]])
    said = said.replace("\\n", "\\\\n")
    quoted = {"SHOW": _quoted(SHOW), "COMMIT": _quoted(COMMIT), "SAID": said, "DELAY": delay}
    rehearsal = REHEARSAL
    for word, by in quoted.items():
        rehearsal = rehearsal.replace(word, by)
    place.write("rehearsal.yml", rehearsal)
    return {f"PLANTED_{name}": value for name, value in SECRETS.items()}


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


FORMS = {name: forms(value) for name, value in SECRETS.items()}


def _found(data: bytes) -> list[str]:
    return [name for name, found in FORMS.items() if any(form in data for form in found)]


def _everything(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file below *folder*: as it is, unpacked where it can be, and all objects of the repository."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with suppress(FileNotFoundError):
                data = path.read_bytes()
                yield str(path), data
                with suppress(zlib.error):
                    yield f"{path} (unpacked)", zlib.decompress(data)
    asked = ["git", "cat-file", "--batch-all-objects", "--batch", "--unordered"]
    yield "objects", subprocess.run(asked, cwd=folder / "shop", capture_output=True, check=True).stdout


def _holding(place: Place) -> list[tuple[str, list[str]]]:
    """Return where below the test's folder there are values, and which."""
    return [(name, found) for name, data in _everything(place.home.parent) if (found := _found(data))]


class Watcher:
    """Looks at the arguments of all processes, again and again."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self.looks = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        seen: set[str] = set()
        while not self._over.wait(0.02):
            self.looks += 1
            for process in psutil.process_iter():
                with suppress(psutil.Error):
                    line = "\0".join(process.cmdline())
                    if line not in seen:
                        self.found |= {f"{name}: {process.name()}" for name in _found(line.encode(errors="replace"))}
                    seen.add(line)


def _outputs(place: Place) -> str:
    run_id = place.run("list", "--json").json[0]["id"]
    commands = (("events", "--json"), ("list", "--json"), ("show", run_id, "--json"), ("logs", run_id), ("events",))
    said = [place.run(*command) for command in commands]
    return "".join(answer.out + answer.err for answer in said)


def _vault(store_id: str) -> list[str]:
    """Return what is left in the vault of a store."""
    places = [Path(os.environ.get("XDG_RUNTIME_DIR") or "/nowhere"), Path("/dev/shm")]  # noqa: S108  # where vaults are
    return [str(path) for place in places for path in place.glob(f"kapelle-*/{store_id}/*/*")]


def _check(place: Place, answer: Said) -> None:
    assert _found((answer.out + answer.err).encode()) == []
    assert _holding(place) == []
    assert _found(_outputs(place).encode()) == []
    assert place.processes() == []
    assert place.git("show", "main:fine.txt") == "fine"
    assert place.git("fsck", "--no-dangling", "--no-progress") == ""
    with closing(sqlite3.connect(place.home / "store.db")) as store:
        kinds = dict(store.execute("select kind, count(*) from events group by kind").fetchall())
        bodies = " ".join(row[0] for row in store.execute("select body from events").fetchall())
    assert kinds["secret.found"] >= 5, kinds
    # It was all said, and is hidden: or this would prove nothing.
    for name in SECRETS:
        assert f"[secret {name}]" in bodies
    spools = "".join(path.read_text() for path in place.home.glob("agents/*/spool"))
    assert "username=x-access-token\\npassword=[secret GITHUB]" in spools
    assert "its token is [secret TELLER]" in spools
    refs = place.git("for-each-ref", "--format=%(refname)", "refs/kapelle").splitlines()
    kept = [ref for ref in refs if "/kept/" in ref]
    assert len(kept) == 1
    assert _vault(kept[0].split("/")[2]) == []
    assert "[secret GITHUB]" in place.git("show", f"{kept[0]}:deep.txt")


@pytest.mark.soak
@pytest.mark.parametrize("sandbox", WITH_SOAK)
def test_none_of_ten_secrets_is_anywhere(place: Place, sandbox: str, request: pytest.FixtureRequest) -> None:
    if sandbox in FIXTURES:
        request.getfixturevalue(FIXTURES[sandbox])
    variables = _set_up(place, sandbox)
    with Watcher() as watcher:
        answer = place.run("run", "../flow.yml", "--rehearse", "../rehearsal.yml", env=variables)
    assert answer.code == 1, answer.out + answer.err
    assert watcher.looks > 10
    assert watcher.found == set()
    _check(place, answer)


@pytest.mark.parametrize("sandbox", WITH_SOAK)
def test_nor_when_the_leader_is_killed(place: Place, sandbox: str, request: pytest.FixtureRequest) -> None:
    if sandbox in FIXTURES:
        request.getfixturevalue(FIXTURES[sandbox])
    variables = _set_up(place, sandbox, delay="2s")
    leader = place.start("run", "../flow.yml", "--rehearse", "../rehearsal.yml", env=variables)
    said = until(leader, "Write w.txt")
    leader.send_signal(signal.SIGKILL)
    said += leader.communicate()[0]
    # What the agents themselves have written, into their workspaces and with git, is there until those are cleared.
    theirs = ("/workspaces/", "/shop/.git/worktrees/", *(("/shop/.git/objects/", "objects") if sandbox == "process" else ()))
    meanwhile = [name for name, _ in _holding(place) if not any(part in name for part in theirs)]
    answer = place.run("resume", env=variables)
    assert answer.code == 1, answer.out + answer.err
    assert _found(said.encode()) == []
    assert meanwhile == []
    _check(place, answer)


@pytest.mark.parametrize("sandbox", WITH_SOAK[1:])
def test_an_agent_in_a_sandbox_finds_no_secret_but_its_own(place: Place, sandbox: str, request: pytest.FixtureRequest) -> None:
    """Neither those of an agent of another kind at work at the same time, nor what Kapelle keeps to hide them."""
    request.getfixturevalue(FIXTURES[sandbox])
    agents = f"""\
    sandbox: {sandbox}
    agents:
      one: {{program: command, secrets: {{MINE: env:PLANTED_NPM}}}}
      two: {{program: command, secrets: {{THEIRS: env:PLANTED_GITHUB}}}}
    """
    (place.repository / ".kapelle" / "agents.yml").write_text(textwrap.dedent(agents))
    place.write("flow.yml", TWO)
    variables = {f"PLANTED_{name}": SECRETS[name] for name in ("NPM", "GITHUB")}
    answer = place.run("run", "../flow.yml", env=variables)
    assert answer.code == 0, answer.out + answer.err
    with closing(sqlite3.connect(place.home / "store.db")) as store:
        said = [json.loads(row[0]).get("text", "") for row in store.execute("select body from events where kind='agent.said'")]
    assert [line for line in said if "[secret" in line] == ["[secret MINE]"]
    assert "Read-only file system" in "".join(said)
    assert "files: MINE" in said


TWO = """\
name: two
defaults: {gate: none, max_attempts: 1}
tasks:
  waits: {agent: two, prompt: "cat $THEIRS_FILE | wc -c; sleep 2", reads_only: true}
  looks:
    agent: one
    reads_only: true
    prompt: |
      echo files: $(ls /run/kapelle/secrets)
      cat /run/kapelle/secrets/*; echo
      cat $(find /dev/shm /run /tmp /proc/*/root -maxdepth 6 -path '*kapelle-*' -type f 2>/dev/null) 2>&1
      tr '\\0' '\\n' < /proc/self/environ | grep -v ^PATH
      touch /run/kapelle/secrets/new; rm -f /run/kapelle/secrets/MINE; true
"""
