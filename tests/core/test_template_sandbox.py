"""Templates compute and do nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.errors import TemplateFailed
from kapelle.core.rendering import holds, render
from kapelle.core.template import NeedView, Scope

quick = settings(max_examples=100, deadline=None)
PLAN = NeedView(name="plan", state="completed", summary="s", result={"a": [1]}, commit=None)


def _scope() -> Scope:
    return Scope(inputs={"name": "x", "names": ["a"], "table": {"k": 1}}, tasks={"plan": PLAN}, run="r", task="t", item=[1])


WAYS_OUT = [
    "''.__class__.__mro__[1].__subclasses__()",
    "().__class__",
    "inputs.__class__",
    "tasks.plan.__class__.__init__.__globals__",
    "tasks.plan.result.__class__",
    "run.__class__",
    "run | attr('__class__')",
    "inputs['name'].__class__",
    "lipsum.__globals__['os']",
    "cycler.__init__.__globals__",
    "namespace.__init__",
    "self.__init__.__globals__",
    "'{0.__class__.__mro__}'.format(run)",
    "'{x.__class__}'.format_map({'x': run})",
    "[run] | map(attribute='__class__') | join",
    "inputs.names.append.__self__.__class__",
]
CHANGES = [
    "inputs.names.append('b')",
    "inputs.table.update({'k': 2})",
    "inputs.table.pop('k')",
    "inputs.table.clear()",
    "item.append(2)",
    "tasks.plan.result.a.insert(0, 2)",
]


@pytest.mark.parametrize("expression", WAYS_OUT)
def test_a_way_out_of_the_sandbox_is_refused(expression: str) -> None:
    with pytest.raises(TemplateFailed):
        render("{{ " + expression + " }}", _scope())
    with pytest.raises(TemplateFailed):
        holds(expression, _scope())


@pytest.mark.parametrize("expression", CHANGES)
def test_a_template_cannot_change_what_it_sees(expression: str) -> None:
    scope = _scope()
    with pytest.raises(TemplateFailed, match="unsafe"):
        render("{{ " + expression + " }}", scope)
    assert scope == _scope()


@pytest.mark.parametrize("text", ["{% include '/etc/passwd' %}", "{% import 'os' as os %}", "{% extends 'base.html' %}"])
def test_a_template_reads_no_other_file(text: str) -> None:
    with pytest.raises(TemplateFailed, match="no loader"):
        render(text, _scope())


def test_a_template_cannot_count_for_ever() -> None:
    with pytest.raises(TemplateFailed, match="Range too big"):
        render("{% for x in range(10 ** 9) %}{% endfor %}", _scope())


def test_what_python_offers_is_not_there() -> None:
    for name in ("open", "__import__", "eval", "exec", "getattr", "globals"):
        with pytest.raises(TemplateFailed, match="undefined"):
            render("{{ " + name + "('x') }}", _scope())


@quick
@given(
    name=st.sampled_from(
        ["__class__", "__globals__", "__init__", "__dict__", "__subclasses__", "__reduce__", "__getattribute__"]
    ),
    of=st.sampled_from(
        ["run", "inputs", "tasks", "item", "inputs.name", "tasks.plan", "tasks.plan.result", "range", "lipsum", "joiner"]
    ),
    by=st.sampled_from(["{0}.{1}", "({0} | attr('{1}'))"]),
)
def test_no_underscored_attribute_of_anything_is_given_away(name: str, of: str, by: str) -> None:
    with pytest.raises(TemplateFailed):
        render("{{ " + by.format(of, name) + " }}", _scope())


pieces = st.sampled_from(
    [
        "{{",
        "}}",
        "{%",
        "%}",
        "inputs",
        ".name",
        "tasks.plan",
        "|",
        "upper",
        "for x in",
        "if",
        "endif",
        "(",
        ")",
        "[0]",
        " ",
        "'",
        "1",
    ]
)


@quick
@given(text=st.lists(pieces, max_size=12).map("".join))
def test_any_text_is_either_rendered_or_refused_in_words(text: str) -> None:
    problem = ""
    try:
        render(text, _scope())
    except TemplateFailed as error:
        problem = error.message
    assert not problem or problem.startswith("the prompt of task t cannot be rendered: ")
