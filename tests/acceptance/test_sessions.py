"""A run in one login session whose leader is killed goes on in another: nothing of it is lost, held or left behind."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kapelle.testing.managers import SESSIONS, USER, UserManager
from kapelle.testing.places import git, make_repository

AGENTS = "agents: {script: {program: command}}\n"
WORKFLOW = """\
name: session
defaults: {agent: script, gate: none}
tasks:
  wait: {prompt: "echo up > FOLDER/up; (setsid env -i sleep 1000 >/dev/null 2>&1 &); cat FOLDER/go > made"}
"""


class Account:
    """What the user has: a repository, a state directory, and Kapelle in a login session."""

    def __init__(self, manager: UserManager, folder: Path) -> None:
        self.manager = manager
        self.folder = folder
        (folder / "shop" / ".kapelle").mkdir(parents=True)
        (folder / "shop" / ".kapelle" / "agents.yml").write_text(AGENTS)
        (folder / "workflow.yml").write_text(WORKFLOW.replace("FOLDER", str(folder)))
        for name in ("up", "go"):
            os.mkfifo(folder / name)
        make_repository(folder / "shop")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, USER, USER)

    def start(self, session: str, *arguments: str) -> subprocess.Popen[str]:
        more = {"HOME": str(self.folder), "KAPELLE_HOME": str(self.folder / "state"), "KAPELLE_SANDBOX": "process"}
        return subprocess.Popen(
            self.manager.in_session([sys.executable, "-m", "kapelle", *arguments], session, cwd=str(self.folder / "shop")),
            env=self.manager.environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, session: str, *arguments: str) -> str:
        done = self.start(session, *arguments)
        out, err = done.communicate()
        assert done.returncode == 0, out + err
        return out


@pytest.fixture
def account(manager: UserManager) -> Iterator[Account]:
    with manager.home() as folder:
        yield Account(manager, folder)


def below(manager: UserManager) -> list[str]:
    """Return all groups that are in the scope, or were made for a store anywhere."""
    top = manager.outside(str(manager.slice.relative_to("/sys/fs/cgroup")))
    return sorted(path.name for path in top.rglob("*") if path.is_dir() and ("kapelle" in path.name or path.name == "leaders"))


@pytest.mark.soak
def test_a_run_goes_on_in_another_session(account: Account, manager: UserManager) -> None:
    first, second = SESSIONS
    # It is not all in order: there is no key.
    said, _ = account.start(first, "doctor", "--json").communicate()
    assert "in a scope that systemd gives to your user" in said
    assert below(manager) == []
    leader = account.start(first, "run", "../workflow.yml")
    assert (account.folder / "up").read_text() == "up\n"
    account.run(second, "status")
    assert {"kapelle.scope", "leaders"} < set(below(manager))
    leader.kill()
    leader.communicate()

    (account.folder / "up").unlink()
    resumed = account.start(second, "resume")
    (account.folder / "go").write_text("went on\n")
    out, err = resumed.communicate()
    assert resumed.returncode == 0, out + err
    (report,) = json.loads(account.run(second, "list", "--json"))
    assert report["state"] == "completed"
    events = [json.loads(line) for line in account.run(second, "events", "--json").splitlines()]
    assert [event["kind"] for event in events].count("attempt.ended") == 1
    assert git(account.folder / "shop", "-c", "safe.directory=*", "show", "main:made") == "went on"
    # What had left its process group and thrown its environment away, too.
    assert below(manager) == []
