"""Mistakes in a workflow: each with its place and what to write instead, all of them at once."""

from dataclasses import replace
from typing import Any

import pytest

from kapelle.core.errors import Mistake
from kapelle.core.task import TaskSpec, WorkspaceKind
from kapelle.core.workflow import Surroundings, WorkflowTask, closest, mistakes

AROUND = Surroundings(
    agents=frozenset({"dev", "reviewer"}),
    gates=frozenset({"python", "docs"}),
    phases=("plan", "build", "check"),
    inputs=frozenset({"issue"}),
    in_repository=True,
)


def _task(name: str, *needs: str, foreach: tuple[str, ...] | None = None, **more: Any) -> WorkflowTask:
    fields = {"prompt": "do it", "agent": "dev", **more}
    return WorkflowTask(spec=TaskSpec(name=name, needs=needs, **fields), foreach=foreach)


def _only(*tasks: WorkflowTask, around: Surroundings = AROUND) -> Mistake:
    found = mistakes(tasks, around)
    assert len(found) == 1, found
    return found[0]


def test_a_workflow_that_makes_sense_has_no_mistake() -> None:
    tasks = [
        _task("plan", phase="plan", reads_only=True),
        _task("api", "plan", gate="python", phase="build", prompt="{{ tasks.plan.summary }} for {{ inputs.issue }}"),
        _task("part", "plan", foreach=('"a"', '"b"'), prompt="{{ item }}", when="tasks.plan.result.risk == 'low'"),
        _task(
            "check", "api", "part", agent="reviewer", phase="check", prompt="{{ tasks.part[0].summary }}{{ tasks.plan.state }}"
        ),
    ]
    assert mistakes(tasks, AROUND) == []


def test_an_unknown_need_is_told_with_the_closest_name() -> None:
    found = _only(_task("build-api"), _task("test", "bild-api"))
    assert found.message == "test needs bild-api, which is no task here"
    assert found.advice == "write build-api"
    assert found.path == ("tasks", "test", "needs", 0)


def test_the_closest_name_is_never_the_task_itself() -> None:
    assert _only(_task("test"), _task("tests", "test1")).advice == "write test"
    assert "tests1" not in _only(_task("tests1", "tests2"), _task("api")).advice


@pytest.mark.parametrize(
    ("change", "message", "advice", "path"),
    [
        ({"agent": "reviewr"}, "there is no agent reviewr", "write reviewer", ("agent",)),
        ({"agent": ""}, "api names no agent", "one of: dev, reviewer", ("agent",)),
        ({"gate": "pyton"}, "there is no gate pyton", "write python", ("gate",)),
        ({"phase": "biuld"}, "there is no phase biuld", "write build", ("phase",)),
        ({"prompt": " \n"}, "api has no prompt", "say what is to be done", ("prompt",)),
        ({"workspace": WorkspaceKind.PATH}, "api names no path", "add path", ("path",)),
        ({"prompt": "{{ inputs.isue }}"}, "the prompt of api uses inputs.isue, which is no input", "write issue", ("prompt",)),
        ({"when": "inputs.isue"}, "the when of api uses inputs.isue, which is no input", "write issue", ("when",)),
        ({"prompt": "{{ user }}"}, "the prompt of api uses user, which no template sees", "inputs, tasks, item", ("prompt",)),
        ({"prompt": "{{ user"}, "the prompt of api is no template: ", "Jinja2 syntax", ("prompt",)),
        ({"when": "{{ inputs.issue }} and true"}, "the when of api is no template: ", "Jinja2 syntax", ("when",)),
    ],
)
def test_a_mistake_in_a_task_says_what_is_wrong_what_to_write_and_where(
    change: dict[str, Any], message: str, advice: str, path: tuple[str, ...]
) -> None:
    found = _only(_task("api", **change))
    assert found.message.startswith(message)
    assert advice in found.advice
    assert found.path == ("tasks", "api", *path)


@pytest.mark.parametrize("name", ["1st", "", "a b", "a/b", "ä", "a" * 65, "-a", "a\n"])
def test_a_name_that_cannot_be_a_ref_or_a_path_is_a_mistake(name: str) -> None:
    assert _only(_task(name)).message == f"{name!r} is no name for a task"


@pytest.mark.parametrize("name", ["a", "A9", "api-v2_final", "a" * 64])
def test_a_plain_name_is_a_name(name: str) -> None:
    assert mistakes([_task(name)], AROUND) == []


def test_outside_of_a_repository_a_task_cannot_work_in_a_worktree() -> None:
    outside = replace(AROUND, in_repository=False)
    assert "this is no repository" in _only(_task("api"), around=outside).message
    assert mistakes([_task("api", workspace=WorkspaceKind.SCRATCH)], outside) == []


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ((), "foreach of part is empty"),
        (('"a"', '"b"', '"a"'), "foreach of part names an item twice"),
        (("1", '"1"'), "foreach of part names an item twice"),
        (('{"a": 1, "b": 2}', '{"b": 2, "a": 1}'), "foreach of part names an item twice"),
    ],
    ids=["empty", "twice", "number and text", "order of keys"],
)
def test_each_item_of_foreach_makes_a_task_of_its_own_name(items: tuple[str, ...], message: str) -> None:
    found = _only(_task("part", foreach=items))
    assert found.message == message
    assert found.path == ("tasks", "part", "foreach")


def test_a_prompt_may_use_what_the_task_needs_at_any_distance() -> None:
    tasks = [_task("a"), _task("b", "a"), _task("c", "b", prompt="{{ tasks.a.summary }}")]
    assert mistakes(tasks, AROUND) == []


def test_a_prompt_that_uses_a_task_it_does_not_need_is_told_to_need_it() -> None:
    found = _only(_task("a"), _task("b", prompt="{{ tasks.a.summary }}"))
    assert found.message == "the prompt of b uses tasks.a, which is not among its needs"
    assert found.advice == "add a to needs of b"


def test_a_prompt_that_names_no_task_is_told_the_closest_need() -> None:
    assert _only(_task("plan"), _task("b", "plan", prompt="{{ tasks.plna.summary }}")).advice == "write plan"


def test_all_mistakes_are_told_together() -> None:
    tasks = [
        _task("a", "nowhere", agent="nobody", gate="none", phase="never", prompt="{{ x }}{{ inputs.y }}"),
        _task("b", "c", prompt=""),
        _task("c", "b", foreach=()),
    ]
    paths = [mistake.path[1:] for mistake in mistakes(tasks, AROUND)]
    assert paths == [
        ("a", "needs", 0),
        ("a", "agent"),
        ("a", "gate"),
        ("a", "phase"),
        ("a", "prompt"),
        ("a", "prompt"),
        ("b", "prompt"),
        ("c", "foreach"),
        ("b", "needs"),
    ]


def test_a_name_that_is_near_is_written_and_otherwise_all_are_listed() -> None:
    assert closest("revewer", ["dev", "reviewer"]) == "write reviewer"
    assert closest("zzz", ["reviewer", "dev"]) == "one of: dev, reviewer"
    assert closest("zzz", [])
