"""`queue`, `receipt` and `verify`, on real git: what is shown of the merge queue, and whether a proof holds."""

import json
import os
import pty
import subprocess
import sys
import termios
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from kapelle.testing.places import Place, until

FLOW = """\
name: prove
defaults: {agent: script, gate: python}
tasks:
  one: {prompt: "echo 1 > one.txt", writes: "*.txt"}
  two: {prompt: "echo 2 > two.txt"}
"""
CI = """\
name: ci
defaults: {agent: script, gate: none}
tasks:
  ci: {prompt: "mkdir -p .github/workflows && echo on > .github/workflows/ci.yml"}
  other: {prompt: "echo 1 > other.txt"}
"""


def ran(place: Place, flow: str = FLOW) -> None:
    place.write("flow.yml", flow)
    answer = place.run("run", "../flow.yml")
    assert answer.code == 0, answer.out + answer.err


def test_an_empty_queue_says_so(place: Place) -> None:
    assert place.run("queue").out == "Nothing is in a merge queue.\n"
    assert place.run("queue", "--json").json == []


def test_a_receipt_says_what_was_run_on_what_and_how_it_ended(place: Place) -> None:
    ran(place)
    proof = place.run("receipt", "one", "--json").json
    assert (proof["task"], proof["declared"], proof["changed"]) == ("one", ["*.txt"], ["one.txt"])
    assert proof["merged_as"] in place.git("log", "--first-parent", "--format=%H", "main").split()
    merged = proof["merged"]
    assert merged["tree"] == place.git("rev-parse", f"{proof['merged_as']}^{{tree}}")
    check = merged["checks"][0]
    assert (check["state"], check["exit_code"]) == ("passed", 0)
    assert Path(check["log"]).exists()
    words = place.run("receipt", "one").out
    for fact in (merged["tree"], check["run"], check["log_sha256"][:16], "exit code 0", "changed:  one.txt", "declared: *.txt"):
        assert fact in words


def test_a_task_without_a_gate_that_passed_has_no_receipt(place: Place) -> None:
    place.write("flow.yml", "name: f\ndefaults: {agent: script, gate: none}\ntasks: {no: {prompt: 'false', max_attempts: 1}}\n")
    assert place.run("run", "../flow.yml").code == 1
    answer = place.run("receipt", "no")
    assert answer.code == 2
    assert "there is no receipt for no: it is failed" in answer.err


def test_what_the_queue_merged_is_verified_again(place: Place) -> None:
    ran(place)
    answer = place.run("verify", "main", "--json")
    assert answer.code == 0, answer.out
    assert (answer.json["holds"], answer.json["verdict"]) == (True, "holds")
    assert "python passes when it is run again" in [point["what"] for point in answer.json["points"]]
    assert not list((place.home / "workspaces").iterdir())
    assert place.git("worktree", "list").count("\n") == 0
    words = place.run("verify", "main").out
    assert f"The proof of {place.git('rev-parse', 'main')[:10]} holds." in words


def test_where_no_gate_ran_nothing_is_said_to_be_proven(place: Place) -> None:
    ran(place, "name: f\ndefaults: {agent: script, gate: none}\ntasks: {a: {prompt: 'echo 1 > a.txt'}}\n")
    answer = place.run("verify", "main")
    assert answer.code == 1
    assert f"No gate ran for {place.git('rev-parse', 'main')[:10]}: nothing is proven." in answer.out
    assert "The proof of" not in answer.out
    answer = place.run("verify", "main", "--json")
    assert (answer.code, answer.json["holds"], answer.json["verdict"]) == (1, False, "no_gate")


def test_a_commit_of_a_person_with_a_proven_tree_is_not_called_one_of_the_queue(place: Place) -> None:
    ran(place)
    place.git("commit", "-q", "--allow-empty", "-m", "by hand")
    answer = place.run("verify", "HEAD")
    assert answer.code == 0, answer.out
    commit = place.git("rev-parse", "HEAD")[:10]
    assert f"The tree of {commit} is proven, but the merge queue did not make this commit." in answer.out
    assert "its gates are not run again" in answer.out
    assert f"The proof of {commit}" not in answer.out
    assert place.run("verify", "HEAD", "--json").json["verdict"] == "tree_only"


def test_a_log_that_was_changed_is_found(place: Place) -> None:
    ran(place)
    proof = place.run("receipt", "two", "--json").json
    check = proof["merged"]["checks"][0]
    with Path(check["log"]).open("a") as log:
        log.write("all is well\n")
    answer = place.run("verify", proof["merged_as"], "--no-run")
    assert answer.code == 1
    assert f"✗ the log of python/{check['name']} is as it was" in answer.out


def test_a_log_that_is_gone_is_said_to_be(place: Place) -> None:
    ran(place)
    proof = place.run("receipt", "two", "--json").json
    check = proof["merged"]["checks"][0]
    Path(check["log"]).unlink()
    answer = place.run("verify", proof["merged_as"], "--no-run")
    assert answer.code == 0
    assert f"? the log of python/{check['name']} is gone" in answer.out


def test_a_commit_of_a_person_has_no_proof(place: Place) -> None:
    ran(place)
    place.git("commit", "-q", "--allow-empty", "-m", "by hand")
    (place.repository / "by-hand.txt").write_text("x")
    place.git("add", "-A")
    place.git("commit", "-q", "-m", "by hand too")
    answer = place.run("verify", "HEAD")
    assert answer.code == 2
    assert "the merge queue of this store did not make it" in answer.err
    assert place.run("verify", "nothing").code == 2


def test_a_change_of_ci_waits_for_a_person_and_the_queue_shows_it(place: Place) -> None:
    place.write("flow.yml", CI)
    leader = place.start("run", "../flow.yml")
    said = until(leader, "ci: waits for approval")
    assert ".github/workflows/ci.yml" in said
    (target,) = place.run("queue", "--json").json
    (held,) = target["queued"]
    assert (held["task"], held["standing"], held["protected"]) == ("ci", "waits for approval", [".github/workflows/ci.yml"])
    words = place.run("queue").out
    assert "waits for approval" in words
    shown = until(leader, "kapelle reject")
    (waiting,) = place.run("status", "--json").json["waiting_for_approval"]
    review = {"files": [".github/workflows/ci.yml"], "commit": held["head"], "target": "main"}
    assert (waiting["name"], waiting["review"]) == ("ci", review)
    assert place.run("show", "ci", "--json").json["review"] == review
    for told in (words, said + shown, place.run("status").out, place.run("show", "ci").out):
        assert "ci waits for your approval: it changes the protected files .github/workflows/ci.yml" in told
        assert f"git show {held['head'][:10]}" in told
        assert f"kapelle approve {held['task_id']}" in told
        assert f"kapelle reject {held['task_id']} --reason" in told
    for command in ("approve", "reject"):
        assert "protected files" in " ".join(place.run(command, "--help").out.split())
    assert place.run("approve", "ci").code == 0
    leader.communicate()
    assert leader.returncode == 0
    assert place.git("show", "main:.github/workflows/ci.yml") == "on"
    assert place.run("receipt", "ci", "--json").json["approved_by"].startswith("person:")


def test_the_live_view_says_uncut_how_to_review_a_protected_change(place: Place) -> None:
    place.write("flow.yml", CI)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 60))
    environment = {**place.environment, "TERM": "xterm"}
    command = [sys.executable, "-m", "kapelle", "run", "../flow.yml"]
    with subprocess.Popen(command, cwd=place.repository, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as leader:
        os.close(theirs)
        seen = ""
        while "--reason" not in seen:
            seen += os.read(ours, 65536).decode(errors="replace")
        (task,) = place.run("status", "--json").json["waiting_for_approval"]
        assert place.run("reject", "ci", "--reason", "no").code == 0
        with suppress(OSError):  # EIO: nobody has the other end any more
            while os.read(ours, 65536):
                pass
        os.close(ours)
    assert leader.returncode == 1
    text = " ".join(seen.split())
    assert "ci waits for your approval: it changes the protected files .github/workflows/ci.yml" in text
    assert f"git diff main...{task['review']['commit'][:10]}" in text
    assert f"kapelle approve {task['id']}" in text
    assert f"kapelle reject {task['id']} --reason" in text


def test_what_is_protected_is_configured(place: Place) -> None:
    place.write("flow.yml", CI)
    answer = place.run("run", "../flow.yml", env={"KAPELLE_PROTECT": "secret/**"})
    assert answer.code == 0, answer.out
    settings = {entry["name"]: entry["value"] for entry in json.loads(place.run("config", "--json").out)}
    assert ".github/workflows/**" in settings["protect"]
    assert (settings["merge_batch"], settings["merge_wait"]) == (16, "0.0s")


def test_a_run_that_begins_and_ends_meanwhile_leaves_the_checks_alone(place: Place) -> None:
    place = replace(place, sandbox="process")
    script = place.home.parent / "meanwhile.sh"
    script.write_text("")
    agents = place.repository / ".kapelle" / "agents.yml"
    gate = f'gates:\n  other: {{checks: [{{name: meanwhile, run: "sh {script}"}}]}}\n'
    agents.write_text(agents.read_text(encoding="utf-8").replace("gates:\n", gate, 1), encoding="utf-8")
    place.git("commit", "-q", "-a", "-m", "a gate")
    place.write("one.yml", "name: one\ntasks: {one: {agent: script, gate: other, prompt: 'echo 1 > one.txt'}}\n")
    place.write("two.yml", "name: two\ntasks: {two: {agent: script, gate: none, prompt: 'echo 2 > two.txt'}}\n")
    assert place.run("run", "../one.yml").code == 0
    commit = place.git("rev-parse", "HEAD")
    names = " ".join(f"{name}={value}" for name, value in place.environment.items())
    script.write_text(f"cd {place.repository} && env {names} setsid --wait {sys.executable} -m kapelle run ../two.yml\n")

    answer = place.run("verify", commit)

    assert answer.code == 0, answer.out + answer.err
    assert "two.txt" in place.git("ls-tree", "--name-only", "main").splitlines()
