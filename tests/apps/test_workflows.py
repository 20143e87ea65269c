"""What a workflow file says is what happens: needs, phases, foreach, when, failure, retry, time limits, workspaces."""

import json
from dataclasses import replace
from typing import Any

import pytest

from kapelle.testing.places import Place

HEAD = "name: flow\ndefaults: {agent: script, gate: none}\n"


def run(place: Place, tasks: str, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    place.write("flow.yml", HEAD + tasks)
    answer = place.run("run", "../flow.yml", "--json", *arguments)
    assert answer.code in {0, 1}, answer.err
    return answer.code, {task["name"]: task for task in answer.json["tasks"]}


def states(tasks: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: task["state"] for name, task in tasks.items()}


def events(place: Place) -> list[dict[str, Any]]:
    return [json.loads(line) for line in place.run("events", "--json").out.splitlines()]


def test_a_failed_task_fails_what_needs_it_by_name_and_everything_else_goes_on(place: Place) -> None:
    code, tasks = run(
        place,
        """\
tasks:
  bad: {prompt: "echo the reason >&2; exit 3", max_attempts: 1}
  next: {needs: [bad], prompt: "true"}
  last: {needs: [next], prompt: "true"}
  other: {prompt: "echo fine"}
""",
    )

    assert code == 1
    assert states(tasks) == {"bad": "failed", "next": "failed", "last": "failed", "other": "completed"}
    assert tasks["next"]["failure"]["message"] == "it needs bad, which failed"
    assert tasks["last"]["failure"]["message"] == "it needs next, which failed"
    assert "exit code 3" in tasks["bad"]["failure"]["message"]
    assert "the reason" in tasks["bad"]["failure"]["message"]


def test_on_failure_continue_meets_the_need(place: Place) -> None:
    _, tasks = run(
        place,
        """\
tasks:
  bad: {prompt: "exit 1", max_attempts: 1, on_failure: continue}
  next: {needs: [bad], prompt: "true"}
""",
    )

    assert states(tasks) == {"bad": "failed", "next": "completed"}


def test_a_failed_attempt_is_tried_again_and_what_it_did_does_not_stay(place: Place) -> None:
    code, tasks = run(
        replace(place, sandbox="process"),  # it leaves a mark outside
        """\
tasks:
  flaky:
    retry: {initial: 100ms}
    prompt: "ls; test -e ../tried || { touch ../tried half.txt; exit 1; }; test ! -e half.txt && echo x > whole.txt"
""",
    )

    assert code == 0
    assert tasks["flaky"]["attempts"] == 2
    files = place.git("ls-tree", "--name-only", "main").splitlines()
    assert "whole.txt" in files
    assert "half.txt" not in files


def test_a_task_that_runs_too_long_is_ended_with_everything_it_started(place: Place) -> None:
    code, tasks = run(place, "tasks: {long: {prompt: 'sleep 600 & sleep 600', timeout: 1s, max_attempts: 1}}\n")

    assert code == 1
    assert tasks["long"]["failure"]["kind"] == "timed_out"
    assert place.processes() == []


def test_when_is_false_the_task_is_skipped_and_the_need_is_met(place: Place) -> None:
    flow = """\
inputs: {deploy: {default: "no"}}
tasks:
  ask: {when: "{{ inputs.deploy == 'yes' }}", prompt: "echo asked > asked.txt"}
  next: {needs: [ask], prompt: "true"}
"""
    _, tasks = run(place, flow)
    assert states(tasks) == {"ask": "skipped", "next": "completed"}

    _, tasks = run(place, flow, "--input", "deploy=yes")
    assert states(tasks) == {"ask": "completed", "next": "completed"}


def test_foreach_makes_a_task_of_each_item_and_who_needs_it_needs_all(place: Place) -> None:
    code, tasks = run(
        place,
        """\
tasks:
  docs: {foreach: [en, ja], prompt: "echo {{ item }} > {{ item }}.md; echo wrote {{ item }}"}
  all: {needs: [docs], prompt: "cat en.md ja.md"}
""",
    )

    assert code == 0
    assert set(tasks) == {"docs[en]", "docs[ja]", "all"}
    assert tasks["all"]["summary"].split() == ["en", "ja"]


FOREACH = """\
inputs: {{langs: {{default: [en, ja]}}, all: {{default: 'en, ja'}}}}
tasks: {{docs: {{foreach: "{}", prompt: 'true'}}}}
"""


@pytest.mark.parametrize(
    "template",
    [
        "{{ ['en', 'ja'] }}",
        "{{ inputs.langs }}",
        "{{inputs.all}}",
        "{{ inputs.langs[:1] + ['ja'] }}",
        "{{ inputs['langs'] | sort }}",
        "{{ inputs.all.split(', ') }}",
        "{{ ('en', 'ja') }}",
    ],
)
def test_foreach_may_be_any_template_that_gives_a_list(place: Place, template: str) -> None:
    code, tasks = run(place, FOREACH.format(template))
    assert (code, set(tasks)) == (0, {"docs[en]", "docs[ja]"})


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ inputs.lang }}", "lang"),
        ("{{ tasks.x.result }}", "'tasks' is undefined"),
        ("{{ 3 }}", "foreach of docs is neither a list nor a template that gives one"),
        ("{{ {'a': 1} }}", "foreach of docs is neither a list nor a template that gives one"),
        ("en, ja", "foreach of docs is neither a list nor a template that gives one"),
        ("{{ ['en' }}", "foreach of docs: "),
        ("{{ 'a' }}{{ 'b' }}", "foreach of docs: "),
        ("{{ range(100000) | map('string') | map('length') | list * 1000 }}", "foreach of docs: "),
        ("{{ [] }}", "foreach of docs is empty"),
    ],
)
def test_a_foreach_that_gives_no_list_is_a_mistake(place: Place, template: str, says: str) -> None:
    path = place.write("flow.yml", f"name: f\ndefaults: {{agent: script, gate: none}}\n{FOREACH.format(template)}")
    answer = place.run("run", str(path))
    assert answer.code == 2
    assert says in " ".join(answer.err.split())
    assert "flow.yml:4:" in answer.err


def test_a_phase_starts_when_the_one_before_is_completed(place: Place) -> None:
    run(
        place,
        """\
phases: [first, second]
tasks:
  b: {phase: second, prompt: "true"}
  a1: {phase: first, prompt: "true"}
  a2: {phase: first, prompt: "true"}
""",
    )

    told = events(place)
    names = {event["task_id"]: event["name"] for event in told if event["kind"] == "task.submitted"}
    order = [(event["kind"], names[event["task_id"]]) for event in told if event["kind"] in {"task.assigned", "task.completed"}]
    assert order.index(("task.assigned", "b")) > max(order.index(("task.completed", name)) for name in ("a1", "a2"))


def test_templates_see_results_and_inputs(place: Place) -> None:
    _, tasks = run(
        place,
        """\
inputs: {plan: basic}
tasks:
  first: {prompt: "echo the table"}
  next: {needs: [first], prompt: "echo '{{ tasks.first.summary }} for {{ inputs.plan }}'"}
""",
        "--input",
        "plan=gold",
    )

    assert tasks["next"]["summary"] == "the table for gold"


def test_tasks_without_a_repository_work(place: Place) -> None:
    outside = place.home.parent / "outside"
    (outside / ".kapelle").mkdir(parents=True)
    (outside / ".kapelle" / "agents.yml").write_text("agents: {script: {program: command}}\n", encoding="utf-8")
    elsewhere = place.home.parent / "elsewhere"
    elsewhere.mkdir()
    place.write(
        "flow.yml",
        HEAD + f"tasks:\n  here: {{workspace: scratch, prompt: 'pwd; echo x > x'}}\n"
        f"  there: {{workspace: path, path: {elsewhere}, prompt: 'echo y > y'}}\n",
    )

    answer = place.run("run", "../flow.yml", "--json", cwd=outside)

    assert answer.code == 0, answer.err
    assert (elsewhere / "y").read_text() == "y\n"
    assert [path.name for path in elsewhere.iterdir()] == ["y"]
    assert list((place.home / "workspaces").iterdir()) == []
    assert list(outside.iterdir()) == [outside / ".kapelle"]


def test_a_gate_holds_for_programs_too_and_what_did_not_pass_is_kept(place: Place) -> None:
    place.write(
        "flow.yml",
        """\
        name: flow
        defaults: {agent: script, gate: python, max_attempts: 1}
        tasks: {bad: {prompt: "echo 'nonsense(' > tests/test_x.py"}}
        """,
    )

    answer = place.run("run", "../flow.yml", "--json")

    assert answer.code == 1
    task = answer.json["tasks"][0]
    assert task["failure"]["kind"] == "gate_failed"
    assert "compile" in task["failure"]["message"]
    kept = place.git("for-each-ref", "--format=%(refname)", "refs/kapelle").splitlines()
    ref = next(name for name in kept if "/kept/" in name)
    assert place.git("show", f"{ref}:tests/test_x.py") == "nonsense("
    assert place.git("log", "--format=%s", "main") == "begin"


def test_workspaces_are_set_up_as_configured(place: Place) -> None:
    (place.repository / ".env").write_text("SECRET=1\n", encoding="utf-8")
    (place.repository / ".gitignore").write_text(".env\n__pycache__/\n", encoding="utf-8")
    path = place.repository / ".kapelle" / "agents.yml"
    path.write_text(
        path.read_text(encoding="utf-8") + "workspace: {copy: [.env], setup: ['echo ready > set-up.txt'], ports: 2}\n",
        encoding="utf-8",
    )
    place.git("add", "-A")
    place.git("commit", "-q", "-m", "rules")

    code, tasks = run(place, "tasks: {look: {prompt: 'cat .env set-up.txt; echo $PORT $PORT_1; git add -f .env'}}\n")

    assert code == 0
    secret, ready, ports = tasks["look"]["summary"].splitlines()[-3:]
    assert (secret, ready) == ("SECRET=1", "ready")
    first, second = (int(port) for port in ports.split())
    assert second == first + 1
    assert ".env" not in place.git("ls-tree", "--name-only", "main").splitlines()


def test_delivery_never_leaves_the_target_also_when_a_later_run_delivers(place: Place) -> None:
    tasks = "tasks: {one: {prompt: 'echo 1 > one.txt'}, more: {needs: [one], prompt: 'cat one.txt > more.txt'}}\n"
    run(place, f"delivery: never\n{tasks}")
    assert place.git("log", "--format=%s", "main") == "begin"

    code, _ = run(place, "tasks: {two: {prompt: 'echo 2 > two.txt'}}\n")

    assert code == 0
    files = place.git("ls-tree", "--name-only", "main").splitlines()
    assert "two.txt" in files
    assert "one.txt" not in files
    (ref,) = place.git("for-each-ref", "--format=%(refname)", "refs/kapelle/*/integration/main@*").splitlines()
    assert {"one.txt", "more.txt"} <= set(place.git("ls-tree", "--name-only", ref).splitlines())


def test_what_was_cancelled_while_it_was_held_up_is_set_aside(place: Place) -> None:
    (place.repository / "shop" / "cart.py").write_text("# mine, not committed\n", encoding="utf-8")
    place.write("flow.yml", HEAD + "tasks: {one: {prompt: 'echo \"# theirs\" >> shop/cart.py'}}\n")
    assert place.run("run", "../flow.yml").code == 1
    assert place.run("cancel", place.run("list", "--json").json[0]["id"]).code == 0
    place.git("checkout", "-q", "shop/cart.py")

    run(place, "tasks: {two: {prompt: 'echo 2 > two.txt'}}\n")

    assert "theirs" not in place.git("show", "main:shop/cart.py")
    (ref,) = place.git("for-each-ref", "--format=%(refname)", "refs/kapelle/*/integration/main@*").splitlines()
    assert "theirs" in place.git("show", f"{ref}:shop/cart.py")


def test_delivery_at_the_end_moves_the_target_once(place: Place) -> None:
    run(place, "delivery: end\ntasks: {one: {prompt: 'echo 1 > 1.txt'}, two: {needs: [one], prompt: 'cat 1.txt > 2.txt'}}\n")

    assert len([event for event in events(place) if event["kind"] == "target.delivered"]) == 1
    assert {"1.txt", "2.txt"} <= set(place.git("ls-tree", "--name-only", "main").splitlines())


def test_a_dirty_checkout_is_never_touched_and_holds_up_only_the_delivery(place: Place) -> None:
    (place.repository / "shop" / "cart.py").write_text("# mine, not committed\n", encoding="utf-8")
    place.write("flow.yml", HEAD + "tasks: {one: {prompt: 'echo \"# theirs\" >> shop/cart.py'}}\n")

    answer = place.run("run", "../flow.yml")

    assert answer.code == 1
    assert "main was not moved" in answer.out
    assert "kapelle resume" in answer.out
    assert (place.repository / "shop" / "cart.py").read_text() == "# mine, not committed\n"

    place.git("checkout", "-q", "shop/cart.py")
    assert place.run("resume").code == 0
    assert (place.repository / "shop" / "cart.py").read_text().endswith("# theirs\n")
    assert place.git("status", "--porcelain") == ""


def test_a_target_that_nobody_has_checked_out_is_moved_and_the_checkout_stays(place: Place) -> None:
    place.git("branch", "release")

    code, _ = run(place, "target: release\ntasks: {one: {prompt: 'echo 1 > one.txt'}}\n")

    assert code == 0
    assert "one.txt" in place.git("ls-tree", "--name-only", "release").splitlines()
    assert not (place.repository / "one.txt").exists()
    assert place.git("log", "--format=%s", "main") == "begin"


def test_work_taken_off_the_target_does_not_come_back(place: Place) -> None:
    run(place, "tasks: {one: {prompt: 'echo 1 > one.txt'}}\n")
    place.git("reset", "-q", "--hard", "HEAD~1")

    run(place, "tasks: {two: {prompt: 'echo 2 > two.txt'}}\n")

    assert "one.txt" not in place.git("ls-tree", "--name-only", "main").splitlines()
    assert "two.txt" in place.git("ls-tree", "--name-only", "main").splitlines()
