"""What is filled in without computing is filled in as the template would be."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kapelle.core.errors import TemplateFailed
from kapelle.core.rendering import fill
from kapelle.core.template import NeedView, Scope, looked_up

NAMES: dict[str, Any] = Scope(
    inputs={"text": "{{ x }}\r\n", "number": -7, "yes": True, "list": [1], "items": "own", "deep": {"er": "x"}, "ratio": 0.5},
    tasks={"plan": NeedView(name="plan", state="completed", summary="Two.", result={"n": 3}, commit=None), "several": []},
    run="r",
    task="t",
).names()
LOOKUPS = (
    "{{ inputs.text }} {{inputs.number}} {{ inputs.yes }} {{ inputs.list }} {{ inputs.items }} {{ inputs.deep.er }} "
    "{{ inputs.ratio }} {{ inputs.keys }} {{ inputs.nothing }} {{ tasks.plan.summary }} {{ tasks.plan.result.n }} "
    "{{ tasks.plan.commit }} {{ tasks.several.summary }} {{ run }} {{ none }} {{ true }} {{- run -}} {# run #}"
)
WHOLE = ["{{ " + name + " }}" for name in ("inputs.text", "inputs.number", "inputs.items", "tasks.plan.result.n", "run")]
PARTS = [*LOOKUPS.split(" "), "{{", "}}", "run", "{% raw %}", "{% endraw %}", *"{}%#\r\n a"]
pieces = st.sampled_from(PARTS) | st.sampled_from(WHOLE)


@settings(max_examples=400, deadline=None)
@given(st.lists(pieces, max_size=8).map("".join) | st.text(alphabet="{}%# run.\r\n", max_size=20))
@example("{{{ run }}")
@example("{{ run }}}}")
@example("{{ '{{ run }}' }}")
@example("{% raw %}{{ run }}{% endraw %}")
def test_a_lookup_gives_what_the_template_gives(text: str) -> None:
    found = looked_up(text, NAMES)
    if found is not None:
        assert found == fill(text, NAMES)


@pytest.mark.parametrize("text", ["plain", "{{ run }}", "a {{ inputs.text }} b", "{{ inputs.number }}", "{ {{ run }} }"])
def test_texts_and_numbers_are_looked_up(text: str) -> None:
    assert looked_up(text, NAMES) is not None


def test_what_becomes_too_long_is_not_put_together() -> None:
    names = {"inputs": {"big": "x" * 1000}}
    text = "{{ inputs.big }}" * 2000
    assert looked_up(text, names) is None
    with pytest.raises(TemplateFailed, match="becomes longer"):
        fill(text, names)
