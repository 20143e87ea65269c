"""Steering from the command line: submit, resume, pause, cancel, approve, reject, retry; and what `--json` gives."""

import json
from dataclasses import replace
from subprocess import TimeoutExpired

import pytest

from kapelle.testing.places import Place, until

HEAD = "name: steer\ndefaults: {agent: script, gate: none}\n"


def submit(place: Place, tasks: str) -> str:
    place.write("flow.yml", HEAD + tasks)
    answer = place.run("submit", "../flow.yml", "--json")
    assert answer.code == 0, answer.err
    return answer.json["id"]


def test_what_is_submitted_waits_for_a_leader_and_says_so(place: Place) -> None:
    run_id = submit(place, "tasks: {one: {prompt: 'true'}}\n")

    status = place.run("status", "--json").json
    assert status["leader"] is None
    assert [run["id"] for run in status["runs"]] == [run_id]
    assert "kapelle resume" in place.run("status").out

    assert place.run("resume").code == 0
    assert place.run("status", "--json").json["runs"] == []
    assert place.run("resume").code == 0


def test_an_approval_is_waited_for_and_given_while_another_process_leads(place: Place) -> None:
    run_id = submit(place, "tasks: {ask: {approval: true, prompt: 'echo yes > yes.txt'}, other: {prompt: 'true'}}\n")
    leader = place.start("resume")
    until(leader, "other: completed")

    waiting = place.run("status", "--json").json["waiting_for_approval"]
    assert [entry["name"] for entry in waiting] == ["ask"]
    assert place.run("approve", waiting[0]["id"][:8]).code == 0

    leader.communicate()
    assert leader.returncode == 0
    assert place.run("show", run_id, "--json").json["state"] == "completed"
    again = place.run("approve", "ask")
    assert again.code == 2
    assert "does not wait for an approval" in again.err


def test_what_is_rejected_fails_those_who_need_it_with_the_reason(place: Place) -> None:
    submit(place, "tasks: {ask: {approval: true, prompt: 'true'}, next: {needs: [ask], prompt: 'true'}}\n")

    assert place.run("reject", "ask", "--reason", "not this way").code == 0

    assert place.run("resume").code in {0, 1}
    ask, following = (place.run("show", name, "--json").json for name in ("ask", "next"))
    assert ask["state"] == "rejected"
    assert ask["failure"]["message"] == "not this way"
    assert following["failure"]["message"] == "it needs ask, which was rejected"


def test_a_paused_run_begins_nothing_until_it_is_resumed(place: Place) -> None:
    run_id = submit(place, "tasks: {one: {prompt: 'true'}}\n")
    other = submit(place, "tasks: {two: {prompt: 'true'}}\n")
    assert place.run("pause", run_id).code == 0

    assert place.run("resume", other).code == 0
    assert place.run("show", run_id, "--json").json["tasks"][0]["attempts"] == 0
    assert place.run("show", run_id, "--json").json["paused"] is True

    assert place.run("resume", run_id).code == 0
    assert place.run("show", run_id, "--json").json["state"] == "completed"


def test_a_paused_task_begins_nothing_until_it_is_resumed(place: Place) -> None:
    run_id = submit(place, "tasks: {one: {prompt: 'true'}, two: {prompt: 'true'}}\n")
    assert place.run("pause", "one").out.startswith("Paused one (t-")
    leader = place.start("resume")
    until(leader, "two: completed")
    assert place.run("show", "one", "--json").json["waits_for"] == "paused"
    again = place.run("resume", "one")
    assert (again.code, again.out[:11]) == (0, "Resumed one")
    assert leader.wait(timeout=60) == 0
    leader.communicate()
    assert place.run("show", run_id, "--json").json["state"] == "completed"


def test_cancelling_ends_a_run_or_one_task_of_it(place: Place) -> None:
    run_id = submit(place, "tasks: {a: {prompt: 'true'}, b: {needs: [a], prompt: 'true'}, c: {prompt: 'true'}}\n")

    assert place.run("cancel", "a").code == 0
    states = {task["name"]: task["state"] for task in place.run("show", run_id, "--json").json["tasks"]}
    assert states == {"a": "cancelled", "b": "failed", "c": "pending"}

    assert place.run("cancel", run_id).code == 0
    again = place.run("cancel", run_id)
    assert again.code == 2
    assert "has ended already" in again.err


def test_cancelling_ends_agents_at_work_and_keeps_what_they_did(place: Place) -> None:
    run_id = submit(place, "tasks: {long: {prompt: 'echo half > half.txt; echo begun; sleep 600'}}\n")
    leader = place.start("resume")
    follow = place.start("logs", run_id, "--follow")
    until(follow, "| begun")
    follow.terminate()
    follow.communicate()

    assert place.run("cancel", run_id).code == 0
    said = leader.communicate()[0]

    assert leader.returncode == 1, said
    assert place.processes() == []
    kept = [ref for ref in place.git("for-each-ref", "--format=%(refname)", "refs/kapelle").splitlines() if "/kept/" in ref]
    assert place.git("show", f"{kept[0]}:half.txt") == "half"


def whole(place: Place, *arguments: str) -> str:
    """Return all that a command says that should end by itself; one that does not is ended, and fails the test."""
    process = place.start(*arguments)
    try:
        return process.communicate(timeout=30)[0]
    except TimeoutExpired:
        pytest.fail(f"kapelle {' '.join(arguments)} does not end")
    finally:
        process.kill()
        process.communicate()


def test_following_what_has_ended_shows_all_of_it_and_ends(place: Place) -> None:
    run_id = submit(place, "tasks: {one: {prompt: 'echo hello'}, two: {prompt: 'exit 1', max_attempts: 1}}\n")
    assert place.run("resume").code == 1

    for command in (("logs", run_id), ("logs", "one"), ("logs", "two", "--json"), ("events", run_id), ("events", "one")):
        assert whole(place, *command, "--follow") == place.run(*command).out != ""
    events = [json.loads(line) for line in place.run("events", run_id, "--json").out.splitlines()]
    one = place.run("show", "one", "--json").json["id"]
    agent = next(event["agent_id"] for event in events if "agent_id" in event and event["task_id"] == one)
    assert whole(place, "logs", agent, "-f") == place.run("logs", "one").out


def test_following_ends_with_what_is_followed(place: Place) -> None:
    run_id = submit(
        place,
        "tasks: {first: {prompt: 'true'}, ask: {approval: true, prompt: 'echo done'},"
        " other: {needs: [ask], max_attempts: 1, prompt: x}}\n",
    )
    leader = place.start("resume")
    follows = [place.start("logs", run_id, "--follow"), place.start("logs", "first", "-f"), place.start("logs", "ask", "-f")]
    assert "first: completed" in follows[1].communicate(timeout=60)[0]
    until(follows[0], "ask: waits for approval")
    assert place.run("approve", "ask").code == 0

    assert leader.wait(timeout=60) == 1
    assert "ask: completed" in follows[2].communicate(timeout=60)[0]
    assert "run failed: 2 completed, 1 failed" in follows[0].communicate(timeout=60)[0]
    leader.communicate()


def test_retry_submits_only_what_did_not_complete(place: Place) -> None:
    marker = place.home.parent / "ok"
    place = replace(place, sandbox="process")
    run_id = submit(
        place,
        f"""\
tasks:
  good: {{prompt: "echo 1 > 1.txt"}}
  bad: {{prompt: "test -e {marker}", max_attempts: 1}}
  next: {{needs: [bad, good], prompt: "cat 1.txt"}}
""",
    )
    assert place.run("resume").code == 1
    marker.touch()

    answer = place.run("retry", run_id, "--json")

    assert answer.code == 0, answer.err
    assert {task["name"] for task in answer.json["tasks"]} == {"bad", "next"}
    assert answer.json["id"] != run_id
    nothing = place.run("retry", answer.json["id"])
    assert nothing.code == 2
    assert "nothing in run" in nothing.err


def test_every_looking_command_gives_json(place: Place) -> None:
    run_id = submit(place, "tasks: {one: {prompt: 'echo hello'}}\n")
    assert place.run("resume").code == 0

    assert place.run("list", "--json").json[0]["id"] == run_id
    assert place.run("show", run_id, "--json").json["tasks"][0]["summary"] == "hello"
    assert place.run("show", "one", "--json").json["state"] == "completed"
    events = [json.loads(line) for line in place.run("events", run_id, "--json").out.splitlines()]
    assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)
    assert all(json.loads(line)["task_id"] for line in place.run("logs", "one", "--json").out.splitlines())
    assert place.run("config", "--json").json[0]["name"] == "home"
    assert place.run("validate", "--json").json["gates"] == ["python"]


def test_ids_can_be_shortened_while_they_are_unambiguous(place: Place) -> None:
    first = submit(place, "tasks: {one: {prompt: 'true'}}\n")
    submit(place, "tasks: {two: {prompt: 'true'}}\n")

    assert place.run("show", first[:9], "--json").json["id"] == first
    ambiguous = place.run("show", "r-")
    assert ambiguous.code == 2
    assert "more than one" in ambiguous.err


def test_output_in_a_pipe_is_plain(place: Place) -> None:
    submit(place, "tasks: {'one': {foreach: [a], prompt: 'echo [bold]hello[/bold]'}}\n")

    answer = place.run("resume")

    assert "\x1b" not in answer.out
    assert "one[a]" in answer.out
    assert "[bold]hello[/bold]" in place.run("show", "one[a]").out


def test_resume_ends_what_a_leader_that_is_gone_has_left_of_ended_runs(place: Place) -> None:
    place.write("flow.yml", HEAD + "tasks: {one: {prompt: 'echo work > work.txt; mkfifo fifo; read answer < fifo'}}\n")
    leader = place.start("run", "../flow.yml")
    until(leader, "started")
    leader.kill()
    leader.communicate()
    cancelled = place.run("cancel", "steer")
    assert "Nobody leads just now; 1 agent at work is ended when somebody does: kapelle resume" in cancelled.out
    assert place.processes() != []

    answer = place.run("resume")

    assert answer.code == 0, answer.err
    assert "1 agent of runs that have ended cleared away" in answer.out
    assert place.processes() == []
    assert list((place.home / "workspaces").iterdir()) == []
    assert place.run("resume").out == "There is nothing to resume.\n"
