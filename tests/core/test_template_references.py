"""What a template names, found before anything runs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.errors import TemplateFailed
from kapelle.core.references import references
from kapelle.core.rendering import parsed
from kapelle.core.template import References, lookups


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text", References()),
        ("{{ tasks.plan.summary }} {{ tasks['api'].result.x }}", References(tasks=("plan", "api"))),
        ("{{ inputs.issue }} {{ inputs['name'] }}", References(inputs=("issue", "name"))),
        ("{{ tasks.b }}{{ tasks.a }}{{ tasks.b }}", References(tasks=("b", "a"))),
        ("{{ tasks.plan.summary.upper() }}", References(tasks=("plan",))),
        ("{% if inputs.a %}{{ tasks.b.summary }}{% endif %}", References(tasks=("b",), inputs=("a",))),
        ("{{ item }} {{ run }} {{ task }}", References()),
        ("{{ nobody }} {{ neither.this }} {{ nobody }}", References(unknown=("nobody", "neither"))),
        ("{% for need in tasks.part %}{{ loop.index }} {{ need.summary }}{% endfor %}", References(tasks=("part",))),
        ("{% for x in inputs.list %}{% endfor %}{{ x }}", References(inputs=("list",), unknown=("x",))),
        ("{% set word = inputs.a %}{{ word }}", References(inputs=("a",))),
        ("{% macro line(x) %}- {{ x }}{% endmacro %}{{ line(inputs.a) }}", References(inputs=("a",))),
        ("{{ range(3) | list }}{% set n = namespace(x=1) %}{{ n.x }}", References()),
        ("{% for name, need in tasks.items() %}{{ name }}{% endfor %}{{ inputs.get('a') }}", References()),
        ("{# {{ tasks.commented }} #}{% raw %}{{ tasks.raw }}{% endraw %}", References()),
    ],
)
def test_a_template_names_tasks_and_inputs_once_in_their_order(text: str, expected: References) -> None:
    found = references(text)
    assert (found.tasks, found.inputs, found.unknown) == (expected.tasks, expected.inputs, expected.unknown)


@pytest.mark.parametrize("text", ["tasks.plan.result.risk == inputs.risk", "{{ tasks.plan.result.risk == inputs.risk }}"])
def test_a_condition_names_them_too(text: str) -> None:
    found = references(text, expression=True)
    assert (found.tasks, found.inputs, found.fields) == (("plan",), ("risk",), (("plan", "result"),))


def test_fields_of_tasks_and_the_item_are_named_too() -> None:
    found = references("{{ tasks.a.sumary }}{{ tasks['b'].result.x }}{{ item }}{% for t in tasks.c %}{{ t.name }}{% endfor %}")
    assert found.fields == (("a", "sumary"), ("b", "result"))
    assert found.item
    assert not references("{% for item in inputs.list %}{{ item }}{% endfor %}").item


@pytest.mark.parametrize(
    ("text", "line"),
    [("{{ tasks.plan", 1), ("ok\n{% if %}\n", 2), ("a\nb\n{{ inputs.x | nofilter }}", 3), ("{% endfor %}", 1)],
)
def test_what_is_no_template_is_told_with_its_line(text: str, line: int) -> None:
    with pytest.raises(TemplateFailed, match=rf"\(line {line} of the template\)"):
        references(text)


@pytest.mark.parametrize("text", ["", "{{ }}", "1 +", "{{ inputs.a }} and {{ inputs.b }}", "{{ inputs.a }} == 1", "a b"])
def test_what_is_not_one_expression_is_no_condition(text: str) -> None:
    with pytest.raises(TemplateFailed):
        references(text, expression=True)


@pytest.mark.parametrize("text", ["{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "{{ " + "9" * 5000 + " }}"])
def test_a_template_beyond_all_measure_is_a_mistake_and_no_crash(text: str) -> None:
    with pytest.raises(TemplateFailed, match=r".+"):
        references(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'x' * 10 ** 12 }}",
        "{% if 9 ** (9 ** 9) %}{{ inputs.a }}{% endif %}",
        "{% set x = 9 ** (9 ** 9) %}",
        "{% autoescape 9 ** (9 ** 9) %}{% endautoescape %}",
        "{{ 'x' | center(10 ** 12) }}",
        "{% for a in range(9 ** (9 ** 9)) %}{% endfor %}",
        "{% call(x=9 ** (9 ** 9)) foo() %}{% endcall %}",
        "{% include 'x' * 10 ** 12 %}",
    ],
)
def test_nothing_is_computed_to_see_what_a_template_names(text: str) -> None:
    references(text)


def test_nothing_is_computed_to_see_what_a_condition_names() -> None:
    assert references("9 ** (9 ** 9) > inputs.a", expression=True).inputs == ("a",)


WORDS = ("tasks", "inputs", "item", "run", "task", "other", "a", "none", "range", "self", "loop", "True")
PATHS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(".".join)
PIECES = PATHS.map("{{{{ {} }}}}".format) | st.sampled_from(["{{", "}}", "{%", "{", "}", "#", " words ", "{{ 1 }}", "{# x #}"])


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=6).map("".join))
def test_what_only_looks_up_is_read_as_jinja_reads_it(text: str) -> None:
    found = lookups(text)
    if found is None:
        return
    read = parsed(text)
    assert (found.item, *map(set, (found.tasks, found.inputs, found.unknown, found.fields))) == (
        (read.item, *map(set, (read.tasks, read.inputs, read.unknown, read.fields)))
    )


@pytest.mark.parametrize("text", ["{{ run }}", "a {{ tasks.plan.summary }} b {{ inputs.x }}", "plain"])
def test_most_templates_are_read_without_jinja(text: str) -> None:
    assert lookups(text) is not None
