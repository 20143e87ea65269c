"""Command rules and questions, through the real CLI."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kapelle.adapters.system import cgroups
from kapelle.testing.places import Place, until
from kapelle.testing.terminals import read, terminal

FIXTURES = {"bubblewrap": "bubblewrap", "container": "podman"}
"""What must be there for a sandbox."""
WITH_SOAK = [pytest.param("process", marks=pytest.mark.soak), "bubblewrap", pytest.param("container", marks=pytest.mark.soak)]
"""Where the same is tried in several sandboxes, `make soak` tries the rest of it."""
AGENTS = """\
sandbox: SANDBOX
agents:
  coder: {program: claude, tools: {allow: [Read, Write, Bash]}RULES}
gates: {quick: {checks: [{name: there, run: "test -f a.txt"}]}}
"""
FLOW = """\
name: ruled
defaults: {agent: coder, gate: quick, max_attempts: 1}
tasks: {one: {prompt: Work}}
"""


def prepare(place: Place, *commands: str, sandbox: str = "process", rules: str = "") -> None:
    """Let an agent run *commands* one after the other, each whatever became of those before, and write a file."""
    agents = AGENTS.replace("SANDBOX", sandbox).replace("RULES", f", rules: {{{rules}}}" if rules else "")
    (place.repository / ".kapelle" / "agents.yml").write_text(agents)
    place.git("add", "-A")
    place.git("commit", "-qm", "rules")
    turns = [{"tools": [{"Bash": {"command": command}}]} for command in commands]
    turns += [{"tools": [{"Write": {"file_path": "{{ cwd }}/a.txt", "content": "a\n"}}]}, {"say": "Done."}]
    place.write("flow.yml", FLOW)
    place.write("rehearsal.yml", json.dumps({"rules": [{"when": {"prompt": "Work"}, "turns": turns}]}))


def events(place: Place, kind: str = "") -> list[dict[str, Any]]:
    said = [json.loads(line) for line in place.run("events", "--json").out.splitlines()]
    return [event for event in said if event["kind"].startswith(kind)]


@pytest.mark.parametrize("sandbox", WITH_SOAK)
def test_what_a_rule_denies_is_explained_to_the_agent_which_goes_on(
    place: Place, sandbox: str, request: pytest.FixtureRequest
) -> None:
    if sandbox in FIXTURES:
        request.getfixturevalue(FIXTURES[sandbox])
    prepare(place, "sudo id > root.txt", "echo hello > hello.txt", sandbox=sandbox)

    answer = place.run("run", "../flow.yml", "--rehearse", "../rehearsal.yml", "--json")

    assert answer.code == 0, answer.out + answer.err
    assert place.git("show", "main:hello.txt") == "hello"
    assert "root.txt" not in place.git("ls-tree", "--name-only", "main")
    (denied,) = events(place, "command.denied")
    assert (denied["tool"], denied["what"], denied["rule"]) == ("Bash", "sudo id > root.txt", "privilege")
    (told,) = events(place, "agent.tool_failed")
    assert "Kapelle's rule privilege" in told["about"]


def test_a_rule_about_reading_is_asked_about_before_it_is_read(place: Place) -> None:
    prepare(place, rules='deny: ["Read(notes.txt)"]')
    turns = [{"tools": [{"Read": {"file_path": "{{ cwd }}/notes.txt"}}]}]
    turns += [{"tools": [{"Write": {"file_path": "{{ cwd }}/a.txt", "content": "a\n"}}]}, {"say": "Done."}]
    place.write("rehearsal.yml", json.dumps({"rules": [{"when": {"prompt": "Work"}, "turns": turns}]}))

    answer = place.run("run", "../flow.yml", "--rehearse", "../rehearsal.yml", "--json")

    assert answer.code == 0, answer.out + answer.err
    (denied,) = events(place, "command.denied")
    assert (denied["tool"], denied["rule"]) == ("Read", "Read(notes.txt)")


@contextmanager
def running(place: Place, env: Mapping[str, str] | None = None) -> Iterator["subprocess.Popen[str]"]:
    leader = place.start("run", "../flow.yml", "--rehearse", "../rehearsal.yml", env=env)
    try:
        yield leader
    finally:
        leader.kill()
        leader.wait()
        if leader.stdout is not None:
            leader.stdout.close()


def inbox(place: Place) -> list[dict[str, Any]]:
    return place.run("inbox", "--json").json


ASKING = 'ask: ["Bash(touch *)"]'


@pytest.mark.parametrize("sandbox", WITH_SOAK[::2])
def test_what_is_asked_waits_for_a_person_and_goes_through(place: Place, sandbox: str, request: pytest.FixtureRequest) -> None:
    if sandbox in FIXTURES:
        request.getfixturevalue(FIXTURES[sandbox])
    prepare(place, "touch asked.txt", sandbox=sandbox, rules=ASKING)
    with running(place) as leader:
        until(leader, "asks: Bash: touch asked.txt")
        (item,) = inbox(place)
        assert (item["kind"], item["what"], item["default"]) == ("question", "Bash: touch asked.txt", "deny")
        assert item["always"] == ["Bash(touch *)"]
        assert item["id"] in place.run("inbox").out
        assert item["id"] in place.run("status").out
        (task,) = place.run("show", "ruled", "--json").json["tasks"]
        assert (task["state"], task["waits_for"]) == ("running", "approval")

        assert place.run("answer", item["id"], "allow", "--reason", "go on").code == 0

        leader.communicate()
        assert leader.returncode == 0
    assert "asked.txt" in place.git("ls-tree", "--name-only", "main")
    assert inbox(place) == []
    (answered,) = events(place, "question.answered")
    assert (answered["answer"], answered["reason"]) == ("allow", "go on")
    assert answered["principal"].startswith("person:")
    late = place.run("answer", item["id"], "deny")
    assert late.code != 0
    assert f"{item['id']} was answered already: allow (" in late.err


def test_a_terminal_shows_what_is_asked_with_the_command_that_answers_it(place: Place) -> None:
    prepare(place, "touch asked.txt", rules=ASKING)
    with terminal(place, "run", "../flow.yml", "--rehearse", "../rehearsal.yml", width=100) as (ours, process):
        seen = read(ours, "1 waits for you: kapelle inbox")
        (item,) = inbox(place)
        assert "one: asks: Bash: touch asked.txt (" in seen
        assert f"kapelle answer {item['id']} allow|deny|always; without an answer until " in seen
        assert "asks: Bash: touch asked.txt (i-" in seen
        assert place.run("answer", item["id"], "allow", "--reason", "go on").code == 0
        assert "said allow: go on" in read(ours, "1/1 task ")
        assert process.wait(timeout=30) == 0


def test_what_the_cli_would_prompt_for_is_a_question_and_always_holds_for_the_run(place: Place) -> None:
    prepare(place, "python3 -c 'print(1)' > one.txt", "python3 -c 'print(1)' > one.txt", "echo two > two.txt")
    agents = place.repository / ".kapelle" / "agents.yml"
    agents.write_text(agents.read_text().replace("[Read, Write, Bash]", '[Read, Write, "Bash(echo *)"]'))
    place.git("commit", "-qam", "fewer tools")
    with running(place) as leader:
        until(leader, "asks: Bash: python3")
        (item,) = inbox(place)
        assert place.run("answer", item["name"], "always").code == 0
        leader.communicate()
        assert leader.returncode == 0
    assert place.git("show", "main:one.txt") == "1"
    assert len(events(place, "question.asked")) == 1
    assert [event["reason"].partition(" ")[2] for event in events(place, "command.allowed")] == ["said always"]


def test_without_an_answer_it_is_denied_and_the_agent_goes_on(place: Place) -> None:
    prepare(place, "touch asked.txt", rules=f"{ASKING}, deadline: 1s")

    answer = place.run("run", "../flow.yml", "--rehearse", "../rehearsal.yml", "--json")

    assert answer.code == 0, answer.out + answer.err
    assert "asked.txt" not in place.git("ls-tree", "--name-only", "main")
    assert len(events(place, "question.expired")) == 1
    assert "nobody answered in time" in events(place, "agent.tool_failed")[0]["about"]


@pytest.mark.parametrize("sandbox", WITH_SOAK)
def test_a_question_survives_the_death_of_the_leader(place: Place, sandbox: str, request: pytest.FixtureRequest) -> None:
    if sandbox in FIXTURES:
        request.getfixturevalue(FIXTURES[sandbox])
    prepare(place, "touch asked.txt", sandbox=sandbox, rules=ASKING)
    with running(place) as leader:
        until(leader, "asks: Bash: touch asked.txt")
        leader.send_signal(signal.SIGKILL)
        leader.communicate()
    (item,) = inbox(place)
    # With nobody leading, the request takes the lead for a moment.
    assert place.run("answer", item["id"], "allow").code == 0

    resumed = place.run("resume")

    assert resumed.code == 0, resumed.out + resumed.err
    assert "asked.txt" in place.git("ls-tree", "--name-only", "main")
    assert len(events(place, "question.asked")) == 1


@pytest.mark.usefixtures("bubblewrap")
def test_who_ends_the_helper_is_asked_all_the_same(place: Place) -> None:
    # In a sandbox, where it meets nobody else's.
    kills = "(while :; do pkill -9 -f 'warden.py hook'; done > /dev/null 2>&1 < /dev/null &)"
    prepare(place, kills, "touch asked.txt", sandbox="bubblewrap", rules=f"{ASKING}, deadline: 3s")
    answer = place.run("run", "../flow.yml", "--rehearse", "../rehearsal.yml", "--json")
    assert answer.code == 0, answer.out + answer.err
    assert "asked.txt" not in place.git("ls-tree", "--name-only", "main")
    assert place.processes() == []


def test_a_question_is_answered_under_the_next_leader(place: Place) -> None:
    prepare(place, "touch asked.txt", rules=ASKING)
    with running(place) as leader:
        until(leader, "asks: Bash: touch asked.txt")
        leader.send_signal(signal.SIGKILL)
        leader.wait()
    successor = place.start("resume")
    try:
        while not events(place, "agent.adopted"):
            pass
        (item,) = inbox(place)
        assert place.run("answer", item["id"], "deny").code == 0
        until(successor, "run completed")
        assert successor.wait() == 0
    finally:
        successor.kill()
        successor.wait()
        if successor.stdout is not None:
            successor.stdout.close()
    # The helper that waits is no leftover: ended by the next leader, it would have let the tool through.
    assert "asked.txt" not in place.git("ls-tree", "--name-only", "main")
    assert [event["kind"] for event in events(place, "question.")] == ["question.asked", "question.answered"]


def test_a_leader_that_ends_in_order_does_not_wait_for_a_person(place: Place) -> None:
    prepare(place, "touch asked.txt", rules=ASKING)
    with running(place) as leader:
        until(leader, "asks: Bash: touch asked.txt")
        leader.send_signal(signal.SIGINT)
        leader.communicate(timeout=30)
    assert len(events(place, "question.withdrawn")) == 1
    assert place.processes() == []


EVIL = """\
import json, os, pathlib, socket, sqlite3, subprocess, sys
state, checkout, clean = sys.argv[1:]
base = [sys.executable, "-m", "kapelle"]
env = {**os.environ, "KAPELLE_HOME": state}


def kapelle(*words, **names):
    return subprocess.run([*base, *words, "-C", checkout], env={**env, **names}, capture_output=True, text=True)


def attempt(what, act):
    try:
        print(what, act(), flush=True)
    except (OSError, ValueError, KeyError, IndexError, sqlite3.Error) as error:
        print(what, "failed", type(error).__name__, flush=True)


def store():
    found = sqlite3.connect(f"file:{state}/store.db?mode=rw", uri=True)
    found.execute("UPDATE questions SET state = 'answered', answer = 'allow'")
    return "written"


def sockets(*more):
    for place in pathlib.Path(state).glob("agents/*/warden"):
        os.chdir(place)
        for said in ({"answer": "allow"}, {"token": "x", "call_id": "1", "tool": "Bash", "command": "ls"}, *more):
            with socket.socket(socket.AF_UNIX) as warden:
                warden.settimeout(5)
                warden.connect("ask")
                warden.sendall(json.dumps(said).encode() + b"\\n")
                print(place, warden.recv(1000), flush=True)
    return "spoken to"


def detached():
    # Nobody of the agent's is above it any more; its group is the same.
    words = [*base, "answer", item, "always", "-C", checkout]
    away = ["setsid", "--fork", "sh", "-c", '"$@" > said.tmp 2>&1; mv said.tmp said.txt', "sh", *words]
    subprocess.run(away, env=env)
    while not os.path.exists("said.txt"):
        pass
    return open("said.txt").read()


item = "i-0"
for _ in range(50):
    said = kapelle("inbox", "--json")
    if said.returncode == 0 and json.loads(said.stdout):
        item = json.loads(said.stdout)[0]["id"]
        break
attempt("answers", lambda: kapelle("answer", item, "allow").stderr)
names = [name for name in env if name.startswith("KAPELLE_") and name != "KAPELLE_HOME"]
for name in names:
    env.pop(name)
attempt("cleaned", lambda: kapelle("answer", item, "always").stderr)
attempt("detached", detached)
attempt("sockets", sockets)
if clean == "all":
    attempt("store", store)
print("all was tried", flush=True)
"""


def evil(place: Place, sandbox: str, tries: str) -> list[dict[str, Any]]:
    """Let an agent ask for something, and try to answer that itself in the meantime; return the events of it."""
    (place.repository / "evil.py").write_text(EVIL)
    command = f"python3 -u evil.py {place.home} {place.repository} {tries} > evil.txt 2>&1 &"
    prepare(place, command, "touch asked.txt", sandbox=sandbox, rules=ASKING)
    # Kapelle is installed where the agent looks for Python.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    with running(place, env={"PATH": path}) as leader:
        until(leader, "asks: Bash: touch asked.txt")
        (said,) = (workspace / "evil.txt" for workspace in (place.home / "workspaces").iterdir())
        while "all was tried" not in said.read_text():
            assert leader.poll() is None
        # Where it could answer for itself, which the one at the end tells, nothing is left to be answered.
        for item in inbox(place):
            assert place.run("answer", item["id"], "deny").code == 0
        leader.communicate()
        assert leader.returncode == 0
    return events(place)


def test_an_agent_of_which_everything_was_denied_has_done_nothing(place: Place) -> None:
    prepare(place, "sudo id > root.txt")
    turns = [{"tools": [{"Bash": {"command": "sudo id > root.txt"}}]}, {"say": "Done."}]
    rules = {"rules": [{"when": {"prompt": "Work"}, "turns": turns}], "otherwise": {"say": "Done, I said."}}
    place.write("rehearsal.yml", json.dumps(rules))

    answer = place.run("run", "../flow.yml", "--rehearse", "../rehearsal.yml", "--json")

    assert answer.code == 1
    (task,) = answer.json["tasks"]
    assert task["failure"]["kind"] == "no_work"
    assert "every tool that it called was denied" in task["failure"]["message"]


def test_an_agent_does_not_answer_its_own_question(place: Place) -> None:
    found = evil(place, "process", "some")

    tried = place.git("show", "main:evil.txt")
    groups = bool(cgroups.here().hierarchies)
    assert tried.count("only a person can answer") == (3 if groups else 2), tried
    refused = [event["reason"] for event in found if event["kind"] == "request.refused"]
    assert ["agent:one" in reason for reason in refused] == [True, True, *([False] if groups else [])]
    assert len(refused) == (3 if groups else 2)
    if groups:
        assert [event["kind"] for event in found if event["kind"].startswith("question.")] == [
            "question.asked",
            "question.answered",
        ]
        assert [event["answer"] for event in found if event["kind"] == "question.answered"] == ["deny"]
        assert "asked.txt" not in place.git("ls-tree", "--name-only", "main")
    assert len([event for event in found if event["kind"] == "warden.refused"]) == 2


@pytest.mark.parametrize("sandbox", WITH_SOAK[1:])
def test_in_a_sandbox_neither_the_store_nor_a_person_s_command_is_in_reach(
    place: Place, sandbox: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(FIXTURES[sandbox])
    found = evil(place, sandbox, "all")

    assert "asked.txt" not in place.git("ls-tree", "--name-only", "main")
    assert [event["kind"] for event in found if event["kind"].startswith("question.")] == [
        "question.asked",
        "question.answered",
    ]
    assert [event["answer"] for event in found if event["kind"] == "question.answered"] == ["deny"]
    tried = place.git("show", "main:evil.txt")
    assert "store failed" in tried
    # Of all sockets only its own is there, and that takes questions alone.
    assert len([event for event in found if event["kind"] == "warden.refused"]) == 2


TALKS = """\
import json, os, pathlib, socket, sys
while not os.path.exists("go"):
    pass
spoken = 0
for place in pathlib.Path(sys.argv[1]).glob("agents/*/warden"):
    for said in ({"verdict": "allow"}, {"token": "x", "call_id": "1", "tool": "Bash", "command": "ls"}):
        with socket.socket(socket.AF_UNIX) as warden:
            os.chdir(place)
            warden.settimeout(20)
            warden.connect("ask")
            warden.sendall(json.dumps(said).encode() + b"\\n")
            print(json.loads(warden.recv(1000))["verdict"], flush=True)
    spoken += 1
print(spoken, "wardens")
"""


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize("sandbox", ["process", pytest.param("bubblewrap", marks=pytest.mark.soak)])
def test_who_speaks_at_the_socket_of_another_agent_is_refused_where_it_is_in_reach(place: Place, sandbox: str) -> None:
    (place.repository / "talks.py").write_text(TALKS)
    (place.repository / ".gitignore").write_text("go\n")
    prepare(place, "touch asked.txt", sandbox=sandbox, rules=ASKING)
    place.write("flow.yml", FLOW.replace("one: {prompt: Work}", "one: {prompt: Work}, two: {prompt: Talk, gate: none}"))
    rules = json.loads((place.repository.parent / "rehearsal.yml").read_text())["rules"]
    talk = {"tools": [{"Bash": {"command": f"python3 talks.py {place.home} > said.txt 2>&1"}}]}
    rules.append({"when": {"prompt": "Talk"}, "turns": [talk, {"say": "Done."}]})
    place.write("rehearsal.yml", json.dumps({"rules": rules}))
    with running(place) as leader:
        until(leader, "asks: Bash: touch asked.txt")
        for workspace in (place.home / "workspaces").iterdir():
            (workspace / "go").touch()
        until(leader, "two: completed")
        # Nothing that was said there has answered it.
        (item,) = inbox(place)
        assert place.run("answer", item["id"], "deny").code == 0
        leader.communicate()
        assert leader.returncode == 0
    assert "asked.txt" not in place.git("ls-tree", "--name-only", "main")
    agents = {event["task_id"]: event["agent_id"] for event in events(place, "agent.deployed")}
    asking = agents[events(place, "question.asked")[0]["task_id"]]
    refused = [event["agent_id"] for event in events(place, "warden.refused")]
    (own,) = set(agents.values()) - {asking}
    reached = {"process": 2, "bubblewrap": 1}[sandbox]
    assert place.git("show", "main:said.txt").splitlines() == ["deny"] * 2 * reached + [f"{reached} wardens"]
    assert (refused.count(asking), refused.count(own)) == (2 * (reached - 1), 2)


def test_a_rule_tells_an_agent_that_it_may_not_answer(place: Place) -> None:
    prepare(place, "kapelle answer i-1 allow", "env -u KAPELLE_TASK python3 -m kapelle approve one")

    answer = place.run("run", "../flow.yml", "--rehearse", "../rehearsal.yml", "--json")

    assert answer.code == 0, answer.out + answer.err
    assert [event["rule"] for event in events(place, "command.denied")] == ["kapelle", "kapelle"]
