"""What a hostile agent, or a hostile check, tries from inside: a line for each that succeeds. Started there as a program.

``places.json`` beside it says where things are, as somebody inside could guess or find out.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

PLACES = json.loads(Path("places.json").read_text(encoding="utf-8"))
STATE, CHECKOUT, HOME, SECRET = (PLACES[name] for name in ("state", "checkout", "home", "secret"))
OWN = {"workspaces", "agents", "homes", "checks"}
"""Directories that lead to one's own."""
MANY = 40


def attempt(what: str, act: Callable[[], object]) -> None:
    try:
        found = act()
    except (OSError, subprocess.SubprocessError, ValueError):
        return
    if found:
        print(f"{what}: {str(found)[:80]}")  # noqa: T201  # that is what it is for


def written(name: str) -> str:
    path = Path(CHECKOUT, ".git", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write("evil")
    return "written"


def changed(path: Path) -> str:
    with path.open("a", encoding="utf-8") as stream:
        stream.write("# evil")
    return "written"


def metadata() -> str:
    with urlopen("http://169.254.169.254/latest/meta-data/", timeout=5) as answer:
        return str(answer.read())


def key() -> str:
    for path in Path("/proc").glob("*/environ"):
        try:
            if SECRET in path.read_text(errors="replace"):
                return str(path)
        except OSError:
            continue
    return ""


def leader() -> str:
    os.kill(int(Path(STATE, "lead.lock").read_text(encoding="ascii")), 0)
    return "it can be signalled"


def root() -> str:
    if os.getuid() != 0:
        os.setuid(0)
    return "root" if Path("/etc/shadow").exists() else ""


def git(*arguments: str) -> str:
    subprocess.run(["git", *arguments], check=True, capture_output=True)
    return "done"


def objects() -> list[Path]:
    found = [path for path in Path(CHECKOUT).glob(".git/objects/??/*") if path.stat().st_uid != os.getuid()]
    for path in found:
        path.unlink()
    return found


def others() -> list[Path]:
    return [path for path in Path(STATE).glob("workspaces/*/*") if not path.is_relative_to(Path.cwd())]


attempt("read /etc/shadow", lambda: Path("/etc/shadow").read_bytes())
attempt("read the store", lambda: Path(STATE, "store.db").read_bytes())
attempt("wrote the store", lambda: changed(Path(STATE, "store.db")))
attempt("changed .kapelle/agents.yml", lambda: changed(Path(CHECKOUT, ".kapelle", "agents.yml")))
if PLACES["closed"]:
    # From an open network it would be asked in earnest.
    attempt("reached the metadata address", metadata)
attempt("saw the state directory", lambda: [path.name for path in Path(STATE).iterdir() if path.name not in OWN])
attempt("saw other workspaces", others)
attempt("read the operator's home", lambda: Path(HOME, "private").read_text(encoding="utf-8"))
attempt("found the key", key)
attempt("reached the leader", leader)
attempt("became root", root)
attempt("saw processes outside", lambda: len(list(Path("/proc").glob("[0-9]*"))) > MANY)
for each in ("hooks/pre-commit", "hooks/post-checkout", "config", "refs/heads/evil", "HEAD"):
    attempt(f"wrote .git/{each}", lambda each=each: written(each))
attempt("changed git's settings", lambda: git("config", "core.fsmonitor", "touch evil"))
attempt("moved main", lambda: git("update-ref", "refs/heads/main", "HEAD"))
attempt("damaged objects", objects)
