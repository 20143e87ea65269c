"""`doctor`: what is not in order is found, named with what to do, and mended when that is asked for."""

import hashlib
import os
import re
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from kapelle.adapters.sandboxes.container.runner import Api
from kapelle.adapters.system import cgroups
from kapelle.apps.clock import SystemClock
from kapelle.apps.doctor import Finding, Standing, examine
from kapelle.apps.settings import load
from kapelle.core.account import account_of
from kapelle.core.gateway import Upstream
from kapelle.testing.places import Place, git, make_repository, until

KEY = {"ANTHROPIC_API_KEY": "sk-test"}
FLOW = "name: f\ndefaults: {agent: script, gate: none}\ntasks: {a: {prompt: 'echo 1 > a.txt'}}\n"
LONG_AGO = 10**9
IMAGES = {
    "a": "image: hots",
    "b": "image: {name: -x}",
    "c": "image: host, sandbox: process",
    "trusted": "sandbox: process",
}


def found(place: Place, area: str, *arguments: str, env: dict[str, str] | None = None) -> list[dict[str, object]]:
    answer = place.run("doctor", "--json", *arguments, env={**KEY, **(env or {})})
    problems = [entry for entry in answer.json["findings"] if entry["standing"] == "problem" and not entry["mended"]]
    assert answer.code == (1 if problems else 0)
    assert answer.json["in_order"] is not bool(problems)
    return [entry for entry in answer.json["findings"] if entry["area"] == area]


def ran(place: Place) -> Place:
    place.write("flow.yml", FLOW)
    assert place.run("run", "../flow.yml").code == 0
    return place


def test_a_machine_that_is_in_order_is_said_to_be(place: Place) -> None:
    answer = ran(place).run("doctor", env=KEY)
    assert answer.code == 0, answer.out
    assert answer.out.rstrip().endswith("All is in order.")
    for area in ("git", "claude", "credentials", "disk", "sandbox", "repository", "store", "ports", "orphans"):
        assert area in answer.out


def test_where_nothing_was_done_yet_all_is_in_order_and_nothing_is_made(place: Place) -> None:
    assert found(place, "store")[0]["standing"] == "ok"
    assert not (place.home / "store.db").exists()


def test_a_missing_key_is_a_problem_with_a_remedy(place: Place) -> None:
    answer = place.run("doctor")
    assert answer.code == 1
    assert "env:ANTHROPIC_API_KEY is not set and claude is not logged in" in answer.out
    assert "--rehearse" in answer.out
    assert "1 problem." in answer.out


def test_where_claude_is_not_on_the_path_the_advice_names_it(place: Place) -> None:
    """As where a package has brought it."""
    empty = place.home.parent / "bin"
    empty.mkdir()
    (empty / "git").symlink_to(shutil.which("git") or "git")
    path = {"PATH": str(empty), "ANTHROPIC_API_KEY": ""}
    (entry,) = found(place, "claude", env=path)
    bundled = str(entry["what"]).partition("(")[2].partition(",")[0]
    assert Path(bundled).is_file()
    assert str(entry["what"]).endswith(f"which is not on your PATH: log in with `{bundled}`)")
    assert f"run `{bundled}` and log in" in str(found(place, "credentials", env=path)[0]["remedy"])
    agents = place.repository / ".kapelle" / "agents.yml"
    agents.write_text("agents: {coder: {program: claude}}\n")
    place.write("flow.yml", "name: f\ndefaults: {agent: coder, gate: none}\ntasks: {a: {prompt: x}}\n")
    assert f"run `{bundled}` once and log in" in " ".join(place.run("run", "../flow.yml", env=path).err.split())
    (empty / "claude").symlink_to(bundled)
    assert "PATH" not in str(found(place, "claude", env=path)[0]["what"])


ALL_HELD = "memory, cpus, pids, disk, files"
HELD = r"memory, pids, disk, files \(not: cpus\)"
"""What is held without control groups."""


@pytest.mark.usefixtures("bubblewrap")
def test_what_a_sandbox_does_not_isolate_is_said(place: Place, runtime: str) -> None:
    bubblewrap, container, process = found(place, "sandbox")
    groups = cgroups.promised()
    held = f"{ALL_HELD}, by control.*" if groups else rf"{HELD}, by a guard that looks from outside"
    assert re.fullmatch(f"bubblewrap isolates files, network, processes; it holds limits of {held}", str(bubblewrap["what"]))
    assert str(process["what"]).startswith(
        "process isolates nothing (not: files, network, processes); it holds limits of memory,"
    )
    assert re.fullmatch(
        rf"container \((Podman|Docker) [0-9.]+\S* at {runtime.removeprefix('unix://')}{'' if groups else '.*'}\) "
        rf"isolates files, network, processes; it holds limits of {ALL_HELD if groups else HELD}",
        str(container["what"]),
    )
    remedy = "bubblewrap works here, and is taken where `sandbox` says nothing else."
    assert process["remedy"] == remedy if groups else str(process["remedy"]).startswith(f"{remedy} Log in where")


def test_without_a_container_runtime_it_is_said_what_to_do(place: Place) -> None:
    env = {"CONTAINER_HOST": f"unix://{place.home}/none.sock", "DOCKER_HOST": ""}
    (told,) = (each for each in found(place, "sandbox", env=env) if str(each["what"]).startswith("container cannot be used: "))
    assert "Podman does not answer" in str(told["what"])
    assert "see that it answers there" in str(told["remedy"])
    assert "Start Podman: " in str(told["remedy"])
    agents = place.repository / ".kapelle" / "agents.yml"
    agents.write_text("sandbox: container\nagents: {script: {program: command}}\n")
    (entry,) = found(place, "project", env=env)
    assert "the sandbox container cannot be used: Podman does not answer" in str(entry["what"])
    assert "Start Podman: " in str(entry["remedy"])


@pytest.mark.usefixtures("podman")
def test_an_image_that_cannot_be_had_is_a_mistake_with_its_place(place: Place) -> None:
    agents = place.repository / ".kapelle" / "agents.yml"
    lines = "".join(f"  {name}: {{program: command, {said}}}\n" for name, said in IMAGES.items())
    agents.write_text(f"sandbox: container\nimage: {{containerfile: none/Containerfile}}\nagents:\n{lines}")
    told = {str(entry["what"]).removeprefix(f"{agents}:") for entry in found(place, "project")}
    assert told == {
        f"2:1: there is no file {place.repository}/none/Containerfile",
        "4:25: there is no image policy hots",
        "5:25: -x is no name of an image",
        "6:25: the sandbox process takes its programs from this machine, not from an image",
    }


def test_the_configuration_of_the_project_is_checked(place: Place) -> None:
    (entry,) = found(place, "project")
    assert (entry["standing"], entry["what"]) == ("ok", f"{place.repository}: 3 agents, 1 gate, no mistakes")
    agents = place.repository / ".kapelle" / "agents.yml"
    right = agents.read_text()
    agents.write_text("agents: {script: {program: comand}}\n")
    (entry,) = found(place, "project")
    assert entry["standing"] == "problem"
    assert entry["what"] == f"{agents}:1:19: there is no driver for the program comand"
    assert "command" in str(entry["remedy"])
    agents.write_text(right)
    (place.repository / ".kapelle" / "project.yml").write_text("descripton: x\nagents: 3\n")
    entries = found(place, "project")
    assert {entry["standing"] for entry in entries} == {"problem"}
    assert "descripton" in str(entries[0]["what"])
    assert found(place, "store"), "and the rest is looked at all the same"


def test_a_project_without_agents_is_told_what_writes_them(place: Place) -> None:
    folder = place.repository / ".kapelle"
    (folder / "agents.yml").unlink()
    (folder / "project.yml").write_text("description: x\n")
    (entry,) = found(place, "project")
    assert (entry["standing"], entry["remedy"]) == ("problem", "`kapelle init` writes a beginning.")
    (folder / "project.yml").unlink()
    assert found(place, "project") == []


def test_a_lock_that_a_dead_git_left_is_found_and_removed(place: Place) -> None:
    lock = place.repository / ".git" / "index.lock"
    lock.touch()
    assert found(place, "locks") == []
    os.utime(lock, (LONG_AGO, LONG_AGO))
    (entry,) = found(place, "locks")
    assert str(lock) in str(entry["what"])
    assert entry["remedy"] == "kapelle doctor --fix"
    (mended,) = found(place, "locks", "--fix")
    assert mended["mended"]
    assert not lock.exists()


def test_a_damaged_store_is_found_and_left_alone(place: Place) -> None:
    store = ran(place).home / "store.db"
    content = bytearray(store.read_bytes())
    content[5000:9000] = b"\xff" * 4000
    store.write_bytes(content)
    (entry,) = found(place, "store", "--fix")
    assert (entry["standing"], entry["remedy"]) == ("problem", "kapelle restore")
    assert store.read_bytes() == content


def test_a_store_that_is_gone_is_told_and_restored_without_naming_a_file_that_is_not_there(place: Place) -> None:
    store = ran(place).home / "store.db"
    store.unlink()
    (entry,) = found(place, "store", "--fix")
    told = place.run("status").err
    assert f"the store {store} is gone, and there are backups of it" in told
    assert f"the store {store} is gone, and there are backups of it" == entry["what"]
    assert str(entry["remedy"]) in told
    assert not store.exists()
    answer = place.run("restore")
    assert answer.code == 0, answer.err
    assert "The store was gone: there is no damaged one to keep." in answer.out
    assert "damaged-" not in answer.out
    store.unlink()
    assert place.run("restore", "--json").json["damaged"] is None
    (place.home / "backups").rename(place.home / "old")
    (place.home / "backups").mkdir()
    store.unlink()
    assert found(place, "store")[0]["standing"] == "ok"


def test_restore_names_the_process_that_leads(place: Place) -> None:
    ran(place)
    place.write("flow.yml", "name: w\ndefaults: {agent: script, gate: none}\ntasks: {b: {prompt: x, approval: true}}\n")
    # Its store is left whole: a leader that meets damage ends by itself.
    with place.start("run", "../flow.yml") as leader:
        until(leader, "b: waits for approval")
        answer = place.run("restore")
        leader.kill()
    assert answer.code == 2
    assert f"another process leads: {leader.pid}" in answer.err
    assert f"kill {leader.pid}" in answer.err
    assert "status" not in answer.err
    assert "is in order" in place.run("restore").err


def test_a_port_that_somebody_has_is_a_problem(place: Place) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        (entry,) = found(place, "ports", env={"KAPELLE_GATEWAY_PORT": port})
    assert entry["standing"] == "problem"
    assert port in str(entry["what"])
    (entry,) = found(place, "ports", env={"KAPELLE_GATEWAY_PORT": port})
    assert entry["standing"] == "ok"


def test_the_port_of_a_live_leader_is_its_own_and_named(place: Place) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = str(free.getsockname()[1])
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        other = str(taken.getsockname()[1])
        place.write("flow.yml", "name: w\ndefaults: {agent: script, gate: none}\ntasks: {b: {prompt: x, approval: true}}\n")
        with place.start("run", "../flow.yml", env={"KAPELLE_GATEWAY_PORT": port}) as leader:
            until(leader, "b: waits for approval")
            settings = [{"KAPELLE_GATEWAY_PORT": port}, {}, {"KAPELLE_GATEWAY_PORT": other}]
            fixed, free_one, wrong = (found(place, "ports", env=env)[0] for env in settings)
            leader.kill()
    own = f"process {leader.pid}, which leads, has its gateway on port {port}"
    assert (fixed["standing"], fixed["what"]) == ("ok", own)
    assert (free_one["standing"], free_one["what"]) == ("ok", own)
    assert (wrong["standing"], wrong["what"]) == ("problem", f"{own}; whoever leads next takes port {other}, which is taken")


def shut(place: Place, state: str, trouble: str, *, key: str = "", hours: int | None = None) -> None:
    """Write down that the account of the key is not let through."""
    account = account_of(Upstream(credential="env:ANTHROPIC_API_KEY"))
    until_ = int((SystemClock().now() + timedelta(hours=hours)).timestamp() * 1e6) if hours is not None else None
    values = (account.account_id, account.name, state, trouble, "so it said", 0, until_, until_, 1, None, 0, key)
    with closing(sqlite3.connect(place.home / "store.db")) as store, store:
        store.execute("insert or replace into accounts values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)


def test_an_account_at_its_limit_is_named_with_its_reset_time(place: Place) -> None:
    assert found(ran(place), "accounts") == []
    shut(place, "limited", "usage_limit", hours=2)
    (entry,) = found(place, "accounts")
    assert entry["standing"] == "note"
    assert re.search(r"env:ANTHROPIC_API_KEY at \S+ is at its limit until \d{4}-.* UTC \(so it said\)", str(entry["what"]))
    shut(place, "limited", "usage_limit", hours=-2)
    assert found(place, "accounts") == []


def test_an_account_that_is_refused_is_a_problem_until_its_credentials_are_others(place: Place) -> None:
    with closing(sqlite3.connect(ran(place).home / "store.db")) as store:
        (store_id,) = store.execute("select value from about where name = 'store_id'").fetchone()
    key = hashlib.sha256(f"{store_id}:{KEY['ANTHROPIC_API_KEY']}".encode()).hexdigest()[:16]
    shut(place, "refused", "invalid_key", key=key)
    (entry,) = found(place, "accounts")
    assert entry["standing"] == "problem"
    assert "is refused: the key is not valid" in str(entry["what"])
    shut(place, "refused", "invalid_key", key="another")
    (entry,) = found(place, "accounts")
    assert entry["standing"] == "note"
    assert "those are tried next" in str(entry["what"])


def test_a_process_that_belongs_to_no_agent_is_found_and_ended(place: Place) -> None:
    with closing(sqlite3.connect(ran(place).home / "store.db")) as store:
        (store_id,) = store.execute("select value from about where name = 'store_id'").fetchone()
    with subprocess.Popen(["sleep", "600"], env={**os.environ, "KAPELLE_STORE": store_id}, start_new_session=True) as orphan:
        (entry,) = found(place, "orphans")
        assert entry["what"] == f"process {orphan.pid} carries this store's id and belongs to no agent"
        (mended,) = found(place, "orphans", "--fix")
        assert mended["mended"]
        assert orphan.wait() != 0


def test_a_container_that_belongs_to_no_agent_is_found_and_removed(place: Place, runtime: str) -> None:
    place.write("flow.yml", FLOW)
    assert place.run("run", "../flow.yml", env={"KAPELLE_SANDBOX": "container"}).code == 0
    with closing(sqlite3.connect(place.home / "store.db")) as store:
        (store_id,) = store.execute("select value from about where name = 'store_id'").fetchone()
    api = Api(runtime.removeprefix("unix://"))
    images = [name for image in api.ask("GET", "/images/json")[1] for name in image["RepoTags"]]
    (image,) = (name for name in images if name.startswith("localhost/kapelle-host:"))
    labels = {"kapelle.store": store_id, "kapelle.key": "a-lost"}
    assert api.ask("POST", "/containers/create?name=lost", {"Image": image, "Cmd": ["true"], "Labels": labels})[0] == 201
    (entry,) = found(place, "orphans")
    assert entry["what"] == "the sandbox container holds something for a-lost, which is over"
    (mended,) = found(place, "orphans", "--fix")
    assert mended["mended"]
    assert api.ask("GET", "/containers/lost/json")[0] == 404


@pytest.mark.soak
def test_a_container_of_a_live_agent_is_left_alone_by_who_mends(place: Place, podman: str) -> None:
    place.write(
        "flow.yml", FLOW.replace("echo 1 > a.txt", ": > up; until [ -e go ]; do sleep 0.05; done; rm up go; echo 1 > a.txt")
    )
    leader = place.start("run", "../flow.yml", env={"KAPELLE_SANDBOX": "container"})
    until(leader, "a: started")
    while not list(place.home.glob("workspaces/*/up")):
        assert leader.poll() is None
    leader.kill()
    leader.communicate()
    api = Api(podman.removeprefix("unix://"))
    (container,) = api.ask("GET", "/containers/json")[1]
    assert [entry["standing"] for entry in found(place, "orphans", "--fix")] == ["ok"]
    with closing(sqlite3.connect(place.home / "store.db")) as store:
        (store_id,) = store.execute("select value from about where name = 'store_id'").fetchone()
    with subprocess.Popen(["sleep", "600"], env={**os.environ, "KAPELLE_STORE": store_id}, start_new_session=True) as orphan:
        (mended,) = found(place, "orphans", "--fix")
        assert str(orphan.pid) in str(mended["what"])
        assert orphan.wait() != 0
    # What answers is gone: then nothing is said to be nobody's, and nothing is ended.
    nowhere = {"CONTAINER_HOST": "unix:///nowhere/podman.sock"}
    (unknown,) = found(place, "orphans", "--fix", env=nowhere)
    assert "cannot be told" in str(unknown["what"])
    assert [each["Id"] for each in api.ask("GET", "/containers/json")[1]] == [container["Id"]]
    (workspace,) = (path for path in (place.home / "workspaces").iterdir() if path.is_dir())
    (workspace / "go").touch()
    assert place.run("resume").code == 0
    assert place.git("show", "main:a.txt") == "1"
    assert place.run("events", "--json").out.count('"agent.deployed"') == 1


def test_a_workspace_that_belongs_to_no_task_is_kept_and_cleared_away(place: Place) -> None:
    orphan = ran(place).home / "workspaces" / "lost-w-1"
    place.git("worktree", "add", "-q", "--detach", str(orphan))
    (orphan / "work.txt").write_text("half done")
    (entry,) = found(place, "orphans")
    assert entry["what"] == f"{orphan} is a workspace that belongs to no task"
    (mended,) = found(place, "orphans", "--fix")
    assert mended["mended"]
    assert not orphan.exists()
    (kept,) = place.run("recover", "--json").json
    assert place.git("show", f"{kept['ref']}:work.txt") == "half done"


def test_a_folder_that_is_no_worktree_is_moved_aside_and_told(place: Place) -> None:
    for content in ("half done", "again"):
        orphan = ran(place).home / "workspaces" / "zz-w-abc"
        orphan.mkdir()
        (orphan / "work.txt").write_text(content)
        (entry,) = found(place, "orphans", "--fix")
        assert entry["mended"]
        assert not orphan.exists()
        assert [entry["standing"] for entry in found(place, "orphans")] == ["ok"]
        (moved,) = [path.parent for path in place.home.glob("orphan/*/work.txt") if path.read_text() == content]
        assert str(moved) in str(entry["what"])


def test_the_record_of_a_worktree_whose_state_directory_is_gone_is_removed_and_no_work_is_lost(place: Place) -> None:
    """`git worktree list` would show it for ever."""
    ran(place)
    lost = {
        name: place.home.parent / "old" / "workspaces" / name for name in ("merged-w-1", "work-w-2", "staged-w-3", "away-w-4")
    }
    own = place.home.parent / "of-a-person"
    for path in (*lost.values(), own):
        place.git("worktree", "add", "-q", "--detach", str(path))
        if path != own:
            (place.repository / ".git" / "worktrees" / path.name / "kapelle-copied").touch()
    for name in ("work-w-2", "staged-w-3"):
        (lost[name] / "work.txt").write_text(name)
        place.git("-C", str(lost[name]), "add", "work.txt")
    place.git("-C", str(lost["work-w-2"]), "commit", "-q", "-m", "Work")
    place.git("worktree", "lock", str(lost["away-w-4"]))
    assert found(place, "worktrees") == []
    shutil.rmtree(place.home.parent / "old")
    shutil.rmtree(own)
    listed = place.git("worktree", "list")
    entries = found(place, "worktrees")
    assert [str(entry["what"]) for entry in entries] == [
        f"git records a worktree of Kapelle at {lost[name]}, which is gone" for name in ("merged-w-1", "staged-w-3", "work-w-2")
    ]
    assert place.git("worktree", "list") == listed
    mended = found(place, "worktrees", "--fix")
    assert [entry["mended"] for entry in mended] == [True] * 3
    left = place.git("worktree", "list")
    assert [name for name in (*lost, "of-a-person") if name in left] == ["away-w-4", "of-a-person"]
    kept = {str(entry["subject"]): entry["ref"] for entry in place.run("recover", "--json").json}
    assert set(kept) == {"Work", "What was staged in a workspace that is gone"}
    assert place.git("show", f"{kept['Work']}:work.txt") == "work-w-2"
    assert place.git("show", f"{kept['What was staged in a workspace that is gone']}:work.txt") == "staged-w-3"
    assert found(place, "worktrees") == []


def test_the_record_of_a_workspace_that_a_task_still_has_is_left_alone(place: Place) -> None:
    go = place.home.parent / "go"
    os.mkfifo(go)
    place.write("flow.yml", f"name: w\ndefaults: {{agent: script, gate: none}}\ntasks: {{b: {{prompt: 'read x < {go}'}}}}\n")
    # Opened when the agent has opened it, too.
    with replace(place, sandbox="process").start("run", "../flow.yml") as leader, go.open("w") as goes:
        (workspace,) = (place.home / "workspaces").iterdir()
        workspace.rename(place.home / "moved")
        assert found(place, "worktrees", "--fix") == []
        leader.kill()
        leader.wait()
        assert found(place, "worktrees", "--fix") == []
        assert str(workspace) in place.git("worktree", "list")
        (place.home / "moved").rename(workspace)
        goes.write("on\n")
    assert place.run("resume").code == 0


def a_worktree_of_nobody(place: Place) -> tuple[Path, Path]:
    """Return a workspace of a repository that the store does not know, and that repository."""
    other = make_repository(place.home.parent / "other repository")
    orphan = ran(place).home / "workspaces" / "lost-w-1"
    git(other, "worktree", "add", "-q", "--detach", str(orphan))
    (other / ".git" / "worktrees" / "lost-w-1" / "kapelle-copied").touch()
    (orphan / "work.txt").write_text("half done")
    return orphan, other


def test_git_works_in_a_worktree_that_was_moved_aside(place: Place) -> None:
    _, other = a_worktree_of_nobody(place)
    (entry,) = found(place, "orphans", "--fix")
    (moved,) = (place.home / "orphan").iterdir()
    assert str(entry["what"]).endswith(f"it could not be kept as a commit and is now {moved}")
    assert "work.txt" in git(moved, "status", "--short")
    assert str(moved) in git(other, "worktree", "list")


def test_the_command_after_which_git_works_in_a_worktree_that_was_moved_aside_is_told(place: Place) -> None:
    """Its repository may be on a disk that is away just now."""
    orphan, other = a_worktree_of_nobody(place)
    away = other.rename(other.with_name("away"))
    (entry,) = found(place, "orphans", "--fix")
    (moved,) = (place.home / "orphan").iterdir()
    command = f"git -C '{other}' worktree repair {moved}"
    assert f"(git works in it after `{command}`, once that repository is at hand)" in str(entry["what"])
    away.rename(other)
    there = Place(repository=other, home=place.home)
    (entry,) = found(there, "worktrees")
    assert entry["what"] == f"the worktree {moved} was set aside, and git takes it to be at {orphan} still"
    assert entry["remedy"] == command
    subprocess.run(command, shell=True, check=True)  # noqa: S602  # as a person would
    assert "work.txt" in git(moved, "status", "--short")
    assert found(there, "worktrees") == []


def test_a_worktree_that_was_moved_aside_is_repaired(place: Place) -> None:
    _, other = a_worktree_of_nobody(place)
    away = other.rename(other.with_name("away"))
    found(place, "orphans", "--fix")
    away.rename(other)
    there = Place(repository=other, home=place.home)
    (entry,) = found(there, "worktrees", "--fix")
    assert entry["mended"]
    (moved,) = (place.home / "orphan").iterdir()
    assert "work.txt" in git(moved, "status", "--short")


# --- With another machine ---


class OtherMachine:
    """A machine on which everything is as a test says."""

    def __init__(self, **versions: str | None) -> None:
        self.versions = versions

    def version_of(self, program: str) -> str | None:
        return self.versions.get(Path(program).name)

    def port_is_free(self, port: int) -> bool:
        return port > 0

    def stale_locks(self, git_dir: str) -> Sequence[str]:
        return [] if git_dir else ()

    def remove_lock(self, path: str) -> None:
        raise AssertionError(path)

    def store_problems(self, path: str) -> Sequence[str]:
        return [] if path else ()

    def writable(self, folder: str) -> bool:
        return not folder


async def of(area: str, place: Place, machine: OtherMachine) -> Finding:
    configuration = load(place.repository, given={"home": place.home}, environment={})
    everything = [finding async for finding in examine(configuration, machine, fix=False)]
    return next(finding for finding in everything if finding.area == area)


GITS = [(None, Standing.PROBLEM), ("2.37.9", Standing.PROBLEM), ("1.9", Standing.PROBLEM), ("2.38", Standing.OK)]


@pytest.mark.parametrize(("git", "expected"), GITS)
async def test_a_git_that_is_missing_or_too_old_is_a_problem(place: Place, git: str | None, expected: Standing) -> None:
    assert (await of("git", place, OtherMachine(git=git))).standing is expected


@pytest.mark.parametrize(
    ("claude", "expected"),
    [(None, Standing.PROBLEM), ("2.1.329", Standing.OK), ("2.1.4", Standing.NOTE), ("3.0.0", Standing.NOTE)],
)
async def test_a_claude_of_another_version_than_the_tested_one_is_noted(
    place: Place, claude: str | None, expected: Standing
) -> None:
    assert (await of("claude", place, OtherMachine(claude=claude))).standing is expected


async def test_a_disk_that_cannot_be_written_to_is_a_problem(place: Place) -> None:
    finding = await of("disk", place, OtherMachine())
    assert finding.standing is Standing.PROBLEM
    assert "KAPELLE_HOME" in finding.remedy


@pytest.mark.usefixtures("bubblewrap")
def test_a_login_that_a_sandbox_would_hide_is_an_error_when_the_run_is_submitted(place: Place) -> None:
    (place.home.parent / "flow.yml").write_text("name: one\ntasks: {one: {agent: coder, gate: none, prompt: hello}}\n")
    login = {"CLAUDE_CODE_OAUTH_TOKEN": "token", "KAPELLE_SANDBOX": "bubblewrap"}
    answer = place.run("run", "../flow.yml", env=login)
    assert answer.code == 2
    assert "agents in a sandbox do not see: coder" in answer.err
    assert "ANTHROPIC_API_KEY" in answer.err


def test_a_sandbox_that_cannot_be_used_here_is_no_sandbox(place: Place) -> None:
    """Neither for doctor nor for a run: there is no quiet way to another."""
    programs = place.home.parent / "programs"
    programs.mkdir()
    for name in ("git", "sh", "env"):
        (programs / name).symlink_to(shutil.which(name) or name)
    without = {"PATH": str(programs)}
    answer = place.run("doctor", "--json", env=without)
    said = [entry["what"] for entry in answer.json["findings"] if entry["area"] == "sandbox"]
    assert said[0].startswith("bubblewrap cannot be used: bwrap")
    (place.home.parent / "flow.yml").write_text("name: one\ntasks: {one: {agent: script, gate: none, prompt: echo}}\n")
    answer = place.run("run", "../flow.yml", env={**without, "KAPELLE_SANDBOX": "bubblewrap"})
    assert answer.code == 2
    assert "the sandbox bubblewrap cannot be used: bwrap" in answer.err
    assert "kapelle doctor" in answer.err
