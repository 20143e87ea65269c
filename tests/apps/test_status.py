"""What `kapelle status` says of what is stuck and of who is alive: the truth, and what to do."""

import os
import signal
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from kapelle.testing.places import Place, until

HEAD = "name: stuck\ndefaults: {agent: script, gate: none}\n"
THEIRS = "tasks: {one: {prompt: 'echo \"# theirs\" >> shop/cart.py'}}\n"


def hold_up(place: Place) -> str:
    """Run something whose delivery a dirty checkout holds up; return the id of the run."""
    (place.repository / "shop" / "cart.py").write_text("# mine, not committed\n", encoding="utf-8")
    place.write("flow.yml", HEAD + THEIRS)
    assert place.run("run", "../flow.yml").code == 1
    return place.run("list", "--json").json[0]["id"]


def explained(place: Place, run_id: str, why: str, what_to_do: str) -> None:
    """Check that every command that looks says why the target stays, and what to do, in words and as JSON."""
    (held,) = place.run("status", "--json").json["held_up"]
    assert (held["target"], held["runs"]) == ("main", [run_id])
    assert why in held["why"]
    assert what_to_do in held["what_to_do"]
    assert place.run("show", run_id, "--json").json["what_to_do"] == held["what_to_do"]
    (line,) = place.run("queue", "--json").json[0]["lines"]
    assert (line["held_up"], line["what_to_do"]) == (held["why"], held["what_to_do"])
    for command in (("status",), ("show", run_id), ("queue",)):
        told = place.run(*command).out
        assert f"main was not moved: {held['why']}\n  → {held['what_to_do']}\n" in told
        assert "\\n" not in told
        assert f"  → then: kapelle resume {run_id}\n" in told


def test_a_dirty_checkout_is_named_with_what_to_do(place: Place) -> None:
    run_id = hold_up(place)

    explained(place, run_id, "shop/cart.py", f"Commit or stash what is in the way in {place.repository}.")


def test_a_target_that_went_another_way_is_named_with_how_to_bring_both_together(place: Place) -> None:
    run_id = hold_up(place)
    place.git("commit", "-qam", "mine")
    assert place.run("resume").code == 1

    explained(place, run_id, "main has moved on and conflicts with merged work in shop/cart.py", "git merge ")

    (held,) = place.run("status", "--json").json["held_up"]
    commit = held["what_to_do"].partition("git merge ")[2].split()[0]
    with pytest.raises(Exception, match="git"):
        place.git("merge", commit)
    place.git("checkout", "-q", "--theirs", "shop/cart.py")
    place.git("commit", "-qam", "both")
    assert place.run("resume").code == 0
    assert place.run("status", "--json").json["held_up"] == []


def test_a_lock_of_git_is_named_with_what_to_do(place: Place) -> None:
    (place.repository / ".git" / "index.lock").touch()
    place.write("flow.yml", HEAD + THEIRS)
    assert place.run("run", "../flow.yml").code == 1

    explained(place, place.run("list", "--json").json[0]["id"], "index.lock", "kapelle doctor --fix")


def test_a_target_that_is_gone_is_named_with_how_to_make_it_again(place: Place) -> None:
    run_id = hold_up(place)
    place.git("checkout", "-q", "--detach")
    place.git("checkout", "-q", "shop/cart.py")
    place.git("branch", "-q", "-D", "main")
    assert place.run("resume").code == 1

    explained(place, run_id, "the branch main is gone", "git branch main ")

    (held,) = place.run("status", "--json").json["held_up"]
    place.git(*held["what_to_do"].partition(": git ")[2].split())
    assert place.run("resume").code == 0


def test_what_failed_is_not_counted_as_done(place: Place) -> None:
    place.write(
        "flow.yml",
        HEAD + "tasks: {good: {prompt: 'true'}, no: {prompt: 'true', when: '1 > 2'}, bad: {prompt: 'exit 1', max_attempts: 1},"
        " next: {needs: [bad], prompt: 'true'}}\n",
    )

    ran = place.run("run", "../flow.yml")

    assert ran.code == 1
    assert "2/4 tasks, 2 failed · " in ran.out
    (row,) = place.run("list").out.splitlines()[1:]
    assert "2/4, 2 failed" in row
    assert place.run("cancel", place.write("flow.yml", HEAD + "tasks: {a: {prompt: 'true'}}\n") and submitted(place)).code == 0
    assert "0/1, 1 cancelled" in place.run("list").out.splitlines()[1]


def submitted(place: Place) -> str:
    return place.run("submit", "../flow.yml", "--json").json["id"]


def test_a_gate_that_is_red_on_the_merged_tree_has_no_check_mark(place: Place) -> None:
    (place.repository / ".kapelle" / "agents.yml").write_text(
        "agents: {script: {program: command}}\n"
        "gates: {apart: {checks: [{name: both, run: 'test ! -e one.txt || test ! -e two.txt'}]}}\n"
    )
    place.git("commit", "-qam", "gates")
    place.write(
        "flow.yml",
        "name: apart\ndefaults: {agent: script, gate: apart, max_attempts: 1}\n"
        "tasks: {one: {prompt: 'echo 1 > one.txt'}, two: {prompt: 'echo 2 > two.txt'},"
        " three: {prompt: 'touch one.txt two.txt'}}\n",
    )

    ran = place.run("run", "../flow.yml")

    assert ran.code == 1
    assert "1/3 tasks, 2 failed" in ran.out
    tasks = place.run("show", place.run("list", "--json").json[0]["id"], "--json").json["tasks"]
    for task in tasks:
        (row,) = (line for line in ran.out.splitlines() if line.startswith(f"{task['name']} "))
        done = task["state"] == "completed"
        assert ("apart ✓" in row, "apart ✗" in row) == (done, not done)
        assert task["gate"]["passed"] is done
    bad = next(task["name"] for task in tasks if task["name"] != "three" and task["state"] == "failed")
    told = place.run("show", bad).out
    assert "passed on tree" in told
    assert "merged: the check apart/both fails on the merged tree" in told


def test_agents_that_died_with_their_leader_are_not_called_live(place: Place) -> None:
    place.write("flow.yml", HEAD + "tasks: {a: {prompt: 'echo begun; sleep 600'}, b: {prompt: 'echo begun; sleep 600'}}\n")
    leader = place.start("run", "../flow.yml")
    run_id = until(leader, "run r-").split()[1].rstrip(":")
    follow = place.start("logs", run_id, "--follow")
    until(follow, "| begun")
    until(follow, "| begun")
    follow.terminate()
    follow.communicate()
    assert place.run("status", "--json").json["agents"] == 2

    leader.send_signal(signal.SIGKILL)
    leader.communicate()
    told = place.run("status")
    assert "nobody leads · 2/" in told.out  # they outlive it
    agents = [process.pid for process in psutil.process_iter() if carries(process, place)]
    for pid in agents:
        # What is in a sandbox ends with it.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid) for pid in agents if psutil.pid_exists(pid)], timeout=10)

    status = place.run("status", "--json").json
    assert (status["agents"], status["agents_gone"]) == (0, 2)
    told = place.run("status")
    assert "nobody leads · 0/" in told.out
    assert "2 agents have ended, and nobody has looked at what was done: kapelle resume" in told.out
    assert place.run("cancel", run_id).code == 0


def carries(process: psutil.Process, place: Place) -> bool:
    try:
        return process.environ().get("KAPELLE_WORKSPACE", "").startswith(str(place.home))
    except psutil.Error:
        return False


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("status",), 0),
        (("list",), 0),
        (("show", "something"), 2),
        (("logs", "something", "--follow"), 2),
        (("events",), 0),
        (("queue",), 0),
        (("receipt", "something"), 2),
        (("verify", "HEAD"), 2),
        (("recover",), 0),
        (("clean", "--dry-run"), 0),
        (("doctor",), 1),
        (("config",), 0),
        (("validate",), 0),
        (("cancel", "something"), 2),
        (("resume",), 0),
        (("retry", "something"), 2),
    ],
)
def test_where_nothing_was_ever_kept_looking_leaves_nothing_behind(
    place: Place, tmp_path: Path, command: tuple[str, ...], code: int, *, there: bool
) -> None:
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    if there:
        place.home.mkdir()

    answer = place.run(*command, env={"TMPDIR": str(elsewhere)})

    assert answer.code == code, answer.err
    assert place.home.exists() is there
    assert list(elsewhere.iterdir()) == []
    assert not there or list(place.home.iterdir()) == []
    assert place.git("for-each-ref", "refs/kapelle") == ""


def test_what_somebody_asked_for_who_was_killed_then_is_told_and_gone_on_with(place: Place) -> None:
    """It is in the store, and so is accepted by whoever leads next."""
    place.write("flow.yml", "name: work\ntasks: {one: {agent: script, gate: none, prompt: 'true', workspace: scratch}}\n")
    first = place.run("submit", "../flow.yml", "--json").json["id"]
    assert place.run("cancel", first).code == 0
    with closing(sqlite3.connect(place.home / "store.db")) as store, store:
        store.execute(
            "insert into requests (request_id, kind, body, principal, asked_at)"
            " select 'q-111111111111', kind, replace(body, ?, 'r-111111111111'), principal, asked_at"
            " from requests where kind = 'Submit'",
            (first,),
        )

    assert "1 request was made by somebody who ended before that was applied: kapelle resume" in place.run("status").out
    assert place.run("status", "--json").json["requests_open"] == 1
    assert "goes on" in place.run("resume").out

    assert {run["id"]: run["state"] for run in place.run("list", "--json").json} == {
        first: "cancelled",
        "r-111111111111": "completed",
    }
    assert place.run("status", "--json").json["requests_open"] == 0
