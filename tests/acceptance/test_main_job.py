"""The main job: a workflow through real claude processes, rehearsed, checked and merged."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kapelle.core.frozen import frozen
from kapelle.testing.places import Place, git, make_repository

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo"


@frozen
class Played:
    """The demo, played once: everybody looks at it, and nobody changes anything."""

    place: Place
    report: dict[str, Any]


COMMITS = range(6, 10)
"""First-parent commits of main: the first, and one for each change, or for those that were ready at the same time."""


def test_the_demo_ends_well_and_proves_it() -> None:
    done = subprocess.run(
        [sys.executable, str(DEMO / "run.py"), "--remove"], check=False, capture_output=True, text=True, cwd=ROOT
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "9/9 tasks" in done.stdout
    assert done.stdout.count("  ok     ") in COMMITS
    assert "its checkout is clean" in done.stdout


SOAKED = [pytest.param(name, marks=pytest.mark.soak) for name in ("process", "bubblewrap", "podman", "docker")]
"""The demo above is in a sandbox; `make soak` takes all of these."""


@pytest.mark.parametrize("sandbox", SOAKED)
def test_the_main_job_is_done_in_every_sandbox(
    request: pytest.FixtureRequest, program: Callable[[str], str], tmp_path: Path, sandbox: str
) -> None:
    if sandbox == "bubblewrap":
        program("bwrap")
    if sandbox in {"podman", "docker"}:
        request.getfixturevalue(sandbox)
        sandbox = "container"
    job = played(tmp_path, {"KAPELLE_SANDBOX": sandbox})
    main_holds_all_of_it_and_the_report_tells_the_story(job)
    the_sample_passes_its_own_tests_on_every_first_parent_commit(job, tmp_path)
    agents_work_at_the_same_time_each_in_a_worktree_and_a_conversation_of_its_own(job)
    commits_say_who_did_what(job)
    nothing_is_left_behind(job)


def played(folder: Path, env: dict[str, str]) -> Played:
    shutil.copytree(DEMO / "repository", folder / "shop")
    place = Place(repository=make_repository(folder / "shop"), home=folder / "state")
    arguments = (str(DEMO / "workflow.yml"), "--rehearse", str(DEMO / "rehearsal.yml"), "--json")
    answer = place.run("run", *arguments, env=env)
    assert answer.code == 0, answer.out + answer.err
    return Played(place=place, report=answer.json)


def main_holds_all_of_it_and_the_report_tells_the_story(played: Played) -> None:
    place, report = played.place, played.report

    tasks = {task["name"]: task for task in report["tasks"]}
    assert report["state"] == "completed"
    assert {task["state"] for task in tasks.values()} == {"completed"}
    assert tasks["tax"]["gate_rounds"] == 1
    assert tasks["tax"]["merge_returns"] + tasks["discount"]["merge_returns"] == 1
    assert all(tasks[name]["attempts"] == 1 for name in tasks)
    assert tasks["audit"]["result"] == {"verdict": "good", "files": 2}
    assert tasks["audit"]["commit"] is None
    assert tasks["tax"]["tokens"]["input"] > 0
    assert tasks["tax"]["cost_usd"] > 0
    assert report["delivered"] == place.git("rev-parse", "main")
    files = set(place.git("ls-tree", "-r", "--name-only", "main").splitlines())
    assert {"shop/catalogue.py", "shop/invoice.py", "docs/en.md", "docs/ja.md", "CHANGELOG.md"} <= files
    assert place.git("status", "--porcelain") == ""


def the_sample_passes_its_own_tests_on_every_first_parent_commit(played: Played, tmp_path: Path) -> None:
    place = played.place

    commits = place.git("rev-list", "--first-parent", "main").split()
    assert len(commits) in COMMITS
    for commit in commits:
        checkout = tmp_path / commit
        place.git("worktree", "add", "-q", "--detach", str(checkout), commit)
        tests = subprocess.run(
            [sys.executable, "-m", "unittest", "-q"], cwd=checkout, check=False, capture_output=True, text=True
        )
        place.git("worktree", "remove", "--force", str(checkout))
        assert tests.returncode == 0, f"{commit}: {tests.stderr}"


def agents_work_at_the_same_time_each_in_a_worktree_and_a_conversation_of_its_own(played: Played) -> None:
    place = played.place

    events = [json.loads(line) for line in place.run("events", "--json").out.splitlines()]
    names = {event["task_id"]: event["name"] for event in events if event["kind"] == "task.submitted"}
    started, ended, paths = {}, {}, {}
    for event in events:
        name = names.get(event["task_id"])
        if event["kind"] == "task.started":
            started.setdefault(name, event["seq"])
        elif event["kind"] == "task.completed":
            ended[name] = event["seq"]
        elif event["kind"] == "workspace.prepared":
            paths[name] = event["path"]
    assert started["tax"] < ended["discount"]
    assert started["discount"] < ended["tax"]
    assert len(set(paths.values())) == len(paths)
    assert not any(path.startswith(str(place.repository)) for path in paths.values())
    # Gate round and merge return are prompts of the same conversation, never a second attempt.
    prompts = [event for event in events if event["kind"] == "prompt.sent" and names[event["task_id"]] == "tax"]
    assert "the check python/test failed" in prompts[1]["text"]
    assert "AssertionError" in prompts[1]["text"]
    returned = next(name for name in ("tax", "discount") if conflicts(events, names, name))
    last = [event for event in events if event["kind"] == "prompt.sent" and names[event["task_id"]] == returned][-1]
    assert "is in conflict with what was merged into main" in last["text"]
    assert "shop/cart.py" in last["text"]


def conflicts(events: list[dict[str, object]], names: dict[object, object], name: str) -> bool:
    return any(event["kind"] == "change.conflicted" and names[event["task_id"]] == name for event in events)


def commits_say_who_did_what(played: Played) -> None:
    place, report = played.place, played.report

    merge = place.git("log", "-1", "--format=%B", "--grep", "Merge tax into main", "main")
    tax = next(task for task in report["tasks"] if task["name"] == "tax")
    assert f"Kapelle-Task: {tax['id']}" in merge
    assert f"Kapelle-Run: {report['id']}" in merge
    authors = set(place.git("log", "--format=%an <%ae>", "main").splitlines())
    assert "coder (Kapelle) <coder@agents.kapelle.invalid>" in authors


def nothing_is_left_behind(played: Played) -> None:
    place = played.place

    assert place.processes() == []
    assert list((place.home / "workspaces").iterdir()) == []
    assert len(git(place.repository, "worktree", "list").splitlines()) == 1
    assert git(place.repository, "for-each-ref", "--format=%(refname)", "refs/kapelle").count("/kept/") == 0


def test_no_credential_of_the_operator_reaches_agents_or_checks(place: Place) -> None:
    place.write(
        "workflow.yml",
        """\
        name: secrets
        defaults: {gate: none}
        tasks:
          look: {agent: script, workspace: scratch, prompt: "env"}
        """,
    )
    secrets = {"ANTHROPIC_API_KEY": "sk-planted-key", "GITHUB_TOKEN": "ghp_planted", "AWS_SECRET_ACCESS_KEY": "planted"}

    answer = place.run("run", "../workflow.yml", "--json", env=secrets)

    assert answer.code == 0
    told = place.run("logs", "look").out
    assert "KAPELLE_TASK=look" in told
    assert "planted" not in told
