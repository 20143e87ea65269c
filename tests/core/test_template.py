"""Prompts and conditions: what they see, and what happens when it is not there."""

import pytest

from kapelle.core.errors import TemplateFailed
from kapelle.core.rendering import holds, render
from kapelle.core.template import NeedView, Scope

PLAN = NeedView(
    name="plan", state="completed", summary="Two endpoints.", result={"risk": "low", "files": ["a.py", "b.py"]}, commit="c0ffee"
)
PARTS = [
    NeedView(name=f"part[{item}]", state="completed", summary=f"Did {item}.", result=None, commit=None, item=item)
    for item in ("one", "two")
]
SCOPE = Scope(inputs={"issue": 7, "names": ["x", "y"]}, tasks={"plan": PLAN, "part": PARTS}, run="release", task="api")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mend issue {{ inputs.issue }}.", "Mend issue 7."),
        ("{{ run }}/{{ task }}", "release/api"),
        ("{{ tasks.plan.summary }} ({{ tasks.plan.state }})", "Two endpoints. (completed)"),
        ("{{ tasks.plan.result.risk }}", "low"),
        ("{{ tasks['plan'].commit }}", "c0ffee"),
        ("{% for part in tasks.part %}{{ part.item }}: {{ part.summary }} {% endfor %}", "one: Did one. two: Did two. "),
        ("{{ tasks.plan.result | tojson }}", '{"risk": "low", "files": ["a.py", "b.py"]}'),
        ("{{ inputs.names | join(', ') }}", "x, y"),
        ("{{ inputs.get('missing', 'none') }}", "none"),
        ("nothing to fill in", "nothing to fill in"),
        ("", ""),
    ],
)
def test_a_prompt_is_filled_in_with_what_the_task_may_see(text: str, expected: str) -> None:
    assert render(text, SCOPE) == expected


def test_a_prompt_is_text_for_a_model_so_nothing_is_escaped() -> None:
    scope = Scope(inputs={"code": "<a href='x'>&</a> ä"}, tasks={}, run="r", task="t")
    assert render("{{ inputs.code }}", scope) == "<a href='x'>&</a> ä"
    assert "ä" in render("{{ inputs.code | tojson }}", scope)


def test_the_newline_at_the_end_of_a_prompt_stays() -> None:
    assert render("do it\n", SCOPE) == "do it\n"


def test_what_an_agent_wrote_is_never_taken_for_a_template() -> None:
    sly = NeedView(name="plan", state="completed", summary="{{ inputs.secret }}", result=None, commit=None)
    scope = Scope(inputs={"secret": "s3"}, tasks={"plan": sly}, run="r", task="t")
    assert render("{{ tasks.plan.summary }}", scope) == "{{ inputs.secret }}"


def test_each_task_of_foreach_sees_its_item() -> None:
    scope = Scope(inputs={}, tasks={}, run="r", task="t", item={"path": "src/a.py", "depth": 2})
    assert render("{{ item.path }} {{ item['depth'] + 1 }}", scope) == "src/a.py 3"


@pytest.mark.parametrize("name", ["items", "keys", "values", "get", "update", "copy", "pop", "clear"])
def test_a_task_or_a_field_may_be_called_like_a_method_of_a_mapping(name: str) -> None:
    view = NeedView(name=name, state="completed", summary="done", result={name: "inner"}, commit=None)
    scope = Scope(inputs={name: "given"}, tasks={name: view}, run="r", task="t")
    text = f"{{{{ tasks.{name}.summary }}}} {{{{ tasks.{name}.result.{name} }}}} {{{{ inputs.{name} }}}}"
    assert render(text, scope) == "done inner given"


def test_a_mapping_can_be_walked_by_its_methods() -> None:
    text = "{% for name, value in inputs.items() %}{{ name }} {% endfor %}"
    assert render(text, SCOPE) == "issue names "


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{{ inputs.isue }}", "isue"),
        ("{{ tasks.plan.result.rsik }}", "rsik"),
        ("{{ tasks.build.summary }}", "build"),
        ("{{ tasks.plan.sumary }}", "sumary"),
        ("{{ nobody }}", "nobody"),
        ("{{ inputs.issue.deep.deeper }}", "deep"),
    ],
)
def test_what_is_not_there_fails_with_its_name_and_the_task(text: str, named: str) -> None:
    with pytest.raises(TemplateFailed, match=f"prompt of task api cannot be rendered: .*'{named}'"):
        render(text, SCOPE)


def test_a_result_that_was_not_given_fails_where_it_is_used() -> None:
    scope = Scope(inputs={}, tasks={"part": PARTS[0]}, run="r", task="t")
    with pytest.raises(TemplateFailed, match="has no attribute 'risk'"):
        render("{{ tasks.part.result.risk }}", scope)


@pytest.mark.parametrize(
    "text",
    [
        "{{ inputs.issue / 0 }}",
        "{{ inputs.issue + 'x' }}",
        "{{ inputs.issue | dictsort }}",
        "{{ 'x' | truncate(1) }}",
        "{{ inputs.names | nothing }}",
        "{% for x in inputs.issue %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'x' * 10 ** 15 }}",
        "{% if %}",
        "{{",
    ],
)
def test_whatever_goes_wrong_in_a_template_is_told_and_never_ends_the_leader(text: str) -> None:
    with pytest.raises(TemplateFailed, match=r"prompt of task api cannot be rendered: .+"):
        render(text, SCOPE)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("inputs.issue == 7", True),
        ("{{ inputs.issue == 7 }}", True),
        ("  {{inputs.issue > 7}}  ", False),
        ("tasks.plan.result.risk == 'low' and tasks.plan.state == 'completed'", True),
        ("'a.py' in tasks.plan.result.files", True),
        ("inputs.missing is defined", False),
        ("item", False),
        ("true", True),
        ("false", False),
        ("[]", False),
        ("inputs.names", True),
    ],
)
def test_a_condition_is_an_expression_with_or_without_braces(expression: str, *, expected: bool) -> None:
    assert holds(expression, SCOPE) is expected


@pytest.mark.parametrize(
    "expression",
    ["inputs.missing", "inputs.missing == 1", "nobody", "tasks.plan.result.x > 1", "inputs.issue | dictsort", "1 +", ""],
)
def test_a_condition_that_cannot_be_decided_is_neither_true_nor_false(expression: str) -> None:
    with pytest.raises(TemplateFailed, match=r"condition of task api cannot be decided: .+"):
        holds(expression, SCOPE)
