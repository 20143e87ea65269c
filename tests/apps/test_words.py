"""What a person writes is taken as meant: names before ids, the command line before files, inputs by their default."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kapelle.apps import models
from kapelle.apps.settings import load
from kapelle.apps.workflows import input_values
from kapelle.core.errors import UsageError
from kapelle.testing.places import Place

HEAD = "name: words\ndefaults: {agent: script, gate: none}\n"


def submit(place: Place, tasks: str, *arguments: str) -> dict[str, Any]:
    place.write("flow.yml", HEAD + tasks)
    answer = place.run("submit", "../flow.yml", "--json", *arguments)
    assert answer.code == 0, answer.err
    return answer.json


def test_a_short_name_never_means_the_beginning_of_an_id(place: Place) -> None:
    names = [*"abcdefghjkmnpqrstvwxyz"]
    submit(place, f"tasks: {{{', '.join(f'{name}: {{approval: true, prompt: x}}' for name in names)}}}\n")

    for name in ("a", "r", "t"):
        assert place.run("show", name, "--json").json["name"] == name
    assert place.run("approve", "b", "--json").json["name"] == "b"
    assert place.run("show", "zz").code == 2


def test_the_newest_run_that_has_a_name_is_meant(place: Place) -> None:
    submit(place, "tasks: {same: {prompt: x}}\n")
    newer = submit(place, "tasks: {same: {prompt: y}}\n")

    shown = place.run("show", newer["id"], "--json").json["tasks"][0]
    assert place.run("show", "same", "--json").json["id"] == shown["id"]


def test_a_run_is_found_by_its_name_wherever_one_is_asked_for(place: Place) -> None:
    run_id = submit(place, "tasks: {one: {prompt: 'true'}, two: {prompt: 'exit 1', max_attempts: 1}}\n")["id"]

    assert place.run("show", "words", "--json").json["id"] == run_id
    assert place.run("pause", "words", "--json").json["id"] == run_id
    assert place.run("resume", "words").code == 1
    assert place.run("logs", "words").out == place.run("logs", run_id).out != ""
    assert place.run("events", "words").out == place.run("events", run_id).out != ""
    assert place.run("retry", "words", "--no-wait", "--json").json["retry_of"] == run_id


def test_a_name_that_several_runs_have_is_refused_with_their_ids(place: Place) -> None:
    ids = [submit(place, "tasks: {one: {prompt: x}}\n")["id"] for _ in range(2)]

    for command in ("show", "cancel", "pause", "retry", "logs", "events", "resume"):
        answer = place.run(command, "words")
        assert answer.code == 2
        assert "KAP-104" in answer.err
        assert all(run_id in answer.err for run_id in ids)
    assert [run["state"] for run in place.run("list", "--json").json] == ["running", "running"]


def test_a_task_and_a_run_of_one_name_are_told_apart_by_what_is_asked_for(place: Place) -> None:
    run_id = submit(place, "tasks: {words: {prompt: x}}\n")["id"]

    assert place.run("show", "words", "--json").json["name"] == "words"
    assert place.run("show", "words", "--json").json["id"] != run_id
    assert place.run("pause", "words", "--json").json["id"] == run_id


def test_the_command_line_goes_before_the_workflow_and_that_before_the_project(place: Place) -> None:
    (place.repository / ".kapelle" / "project.yml").write_text("delivery: never\nlimits: {budget_usd: 9}\n", encoding="utf-8")
    place.git("add", "-A")
    place.git("commit", "-q", "-m", "settings")
    flow = "delivery: each\nbudget_usd: 5\ntasks: {one: {prompt: 'echo 1 > 1.txt'}}\n"

    place.write("flow.yml", HEAD + flow)
    assert place.run("run", "../flow.yml", "--delivery", "never").code == 0
    assert "1.txt" not in place.git("ls-tree", "--name-only", "main")
    assert place.run("run", "../flow.yml", env={"KAPELLE_DELIVERY": "never"}).code == 0
    assert "1.txt" not in place.git("ls-tree", "--name-only", "main")
    assert place.run("run", "../flow.yml").code == 0
    assert "1.txt" in place.git("ls-tree", "--name-only", "main")


@pytest.mark.parametrize(
    ("default", "text", "value"),
    [
        (False, "yes", True),
        (True, "false", False),
        (3, "4", 4),
        (0.5, "2", 2.0),
        ("a", "false", "false"),
        (["a"], '["b", "c"]', ["b", "c"]),
        ({"a": 1}, '{"b": 2}', {"b": 2}),
    ],
)
def test_an_input_has_the_type_of_its_default(default: Any, text: str, value: Any) -> None:
    workflow = models.Workflow.model_validate(
        {
            "name": "x",
            "inputs": {"it": default if not isinstance(default, dict | list) else {"default": default}},
            "tasks": {"a": {"prompt": "x"}},
        }
    )

    assert input_values(workflow, {"it": text}) == {"it": value}


@pytest.mark.parametrize(("default", "text"), [(False, "perhaps"), (3, "many"), (0.5, "x")])
def test_an_input_of_the_wrong_type_is_told(default: Any, text: str) -> None:
    workflow = models.Workflow.model_validate({"name": "x", "inputs": {"it": default}, "tasks": {"a": {"prompt": "x"}}})

    with pytest.raises(UsageError, match="the input it cannot be"):
        input_values(workflow, {"it": text})


def test_an_input_without_a_default_must_be_given() -> None:
    workflow = models.Workflow.model_validate(
        {"name": "x", "inputs": {"it": {"description": "?"}}, "tasks": {"a": {"prompt": "x"}}}
    )

    with pytest.raises(UsageError, match="needs the input it"):
        input_values(workflow, {})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KAPELLE_SLOTS", "0"),
        ("KAPELLE_AGENTS", "-1"),
        ("KAPELLE_BUDGET_USD", "0"),
        ("KAPELLE_MERGE_RETURNS", "-1"),
        ("KAPELLE_PORTS", "-1"),
        ("KAPELLE_GATEWAY_PORT", "70000"),
    ],
)
def test_a_setting_out_of_bounds_is_told(tmp_path: Path, variable: str, value: str) -> None:
    with pytest.raises(UsageError, match=variable):
        load(tmp_path, environment={variable: value})


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (("run", "../flow.yml", "--agent", "coder"), {}, "belong to --prompt"),
        (("run", "../flow.yml", "--record", "x.yml", "--no-gateway"), {}, "nothing can be recorded"),
    ],
)
def test_flags_that_do_not_go_together_are_told(
    place: Place, arguments: tuple[str, ...], env: dict[str, str], said: str
) -> None:
    place.write("flow.yml", HEAD + "tasks: {one: {prompt: x}}\n")

    answer = place.run(*arguments, env=env)

    assert answer.code == 2
    assert said in answer.err


def test_the_state_directory_may_not_lie_in_the_repository(place: Place) -> None:
    place.write("flow.yml", HEAD + "tasks: {one: {prompt: x}}\n")

    answer = place.run("run", "../flow.yml", env={"KAPELLE_HOME": str(place.repository / ".state")})

    assert answer.code == 2
    assert "lies inside the repository" in answer.err
    assert not (place.repository / ".state").exists()


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ("tasks: {a: {prompt: '{{ item }}'}}\n", "has no foreach"),
        ("tasks: {a: {prompt: x}, b: {needs: [a], prompt: '{{ tasks.a.sumary }}'}}\n", "write summary"),
        (
            "tasks: {a: {foreach: [1, 2], prompt: x}, b: {needs: [a], prompt: '{{ tasks.a.summary }}'}}\n",
            "made several by foreach",
        ),
    ],
)
def test_what_a_template_cannot_see_is_told_before_anything_runs(place: Place, tasks: str, said: str) -> None:
    place.write("flow.yml", HEAD + tasks)

    answer = place.run("validate", "../flow.yml")

    assert answer.code == 2
    assert said in answer.err


def test_a_port_that_is_taken_is_one_message_and_no_traceback(place: Place) -> None:
    import socket

    place.write("flow.yml", HEAD + "tasks: {one: {prompt: 'true'}}\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        answer = place.run("run", "../flow.yml", env={"KAPELLE_GATEWAY_PORT": str(taken.getsockname()[1])})

    assert answer.code == 1
    assert "cannot be listened on" in answer.err
    assert "Traceback" not in answer.err


def test_a_long_command_line_is_run(place: Place) -> None:
    place.write("flow.yml", HEAD + f'tasks: {{one: {{prompt: "true {"x" * 300_000}; echo done"}}}}\n')

    answer = place.run("run", "../flow.yml", "--json")

    assert answer.code == 0, answer.err
    assert answer.json["tasks"][0]["summary"] == "done"


def test_agents_are_told_what_the_project_says_of_itself(place: Place) -> None:
    (place.repository / ".kapelle" / "project.yml").write_text(
        "name: shop\ndescription: a small shop\ndirectories: {shop: the package}\n", encoding="utf-8"
    )
    place.write("flow.yml", "name: x\ntasks: {one: {agent: coder, gate: python, prompt: x, max_attempts: 1}}\n")
    place.write("reh.yml", "otherwise: {say: nothing}\n")

    assert place.run("run", "../flow.yml", "--rehearse", "../reh.yml").code == 1

    spec = next(iter(_specs(place.home / "store.db")))
    coder = next(config for config in spec["configs"] if config["name"] == "coder")
    assert "Project: shop, a small shop\n- shop: the package\nTechnologies: python" in coder["prompt"]


def _specs(path: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as store:
        return [json.loads(row[0]) for row in store.execute("select spec from run_specs")]


def test_a_program_that_is_not_installed_is_told_before_anything_is_submitted(place: Place, tmp_path: Path) -> None:
    agents = place.repository / ".kapelle" / "agents.yml"
    agents.write_text("agents: {coder: {program: claude}}\n", encoding="utf-8")
    place.write("flow.yml", "name: x\ntasks: {one: {agent: coder, prompt: x}}\n")
    place.write("reh.yml", "otherwise: {say: nothing}\n")
    # An interpreter that sees everything but the package that brings the CLI.
    (tmp_path / "claude_agent_sdk.py").write_text("", encoding="utf-8")

    answer = place.run("run", "../flow.yml", "--rehearse", "../reh.yml", env={"PYTHONPATH": str(tmp_path)})

    assert answer.code == 2, answer.out
    assert "claude) is not installed" in answer.err
    assert "pip install" in answer.err
    assert place.runs() == 0


def test_logs_show_what_a_failing_check_printed(place: Place) -> None:
    place.write(
        "flow.yml",
        "name: x\ntasks: {one: {agent: script, gate: python, max_attempts: 1, prompt: \"echo 'oops(' > tests/test_x.py\"}}\n",
    )
    assert place.run("run", "../flow.yml").code == 1

    said = place.run("logs", "one").out

    assert "check python/compile failed (workspace)" in said
    assert "SyntaxError" in said


def test_a_run_that_has_ended_is_not_resumed_but_retried(place: Place) -> None:
    place.write("flow.yml", HEAD + "tasks: {one: {prompt: 'true'}}\n")
    run_id = place.run("run", "../flow.yml", "--json").json["id"]

    answer = place.run("resume", run_id)

    assert answer.code == 2
    assert f"kapelle retry {run_id}" in answer.err


def test_a_rehearsed_run_says_that_nothing_was_paid(place: Place) -> None:
    place.write("flow.yml", "name: x\ntasks: {one: {agent: coder, prompt: x, gate: none, reads_only: true}}\n")
    place.write("reh.yml", "otherwise: {say: looked}\n")

    answer = place.run("run", "../flow.yml", "--rehearse", "../reh.yml")

    assert answer.code == 0, answer.out
    assert "nothing was paid" in answer.out
