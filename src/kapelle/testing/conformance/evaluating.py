"""The suite of the port of evaluating: ``core.evaluating.Evaluator``."""

import json

import pytest

from kapelle.core.errors import PatternFailed, TemplateFailed
from kapelle.core.evaluating import Evaluator
from kapelle.core.template import NeedView, Scope

PLAN = NeedView(name="plan", state="completed", summary="Two.", result={"risk": "low", "n": [1, 2]}, commit="c0ffee")
SCOPE = Scope(inputs={"issue": 7, "who": "Ä {{ x }}"}, tasks={"plan": PLAN, "part": [PLAN, PLAN]}, run="r", task="t", item=[1])


class EvaluatorSuite:
    """Everything that an evaluator owes, within its limits. Give it in ``evaluator``; the suite closes it."""

    def evaluator(self) -> Evaluator:
        """Return a new evaluator."""
        raise NotImplementedError

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", ""),
            ("nothing to fill in { } \r\n", "nothing to fill in { } \n"),
            ("{{ inputs.issue }}: {{ inputs.who }}", "7: Ä {{ x }}"),
            ("{{ tasks.plan.summary | upper }} {{ tasks.plan.result.n[1] + 1 }} {{ item[0] }}", "TWO. 3 1"),
            ("{% for each in tasks.part %}{{ each.commit }};{% endfor %}", "c0ffee;c0ffee;"),
            ("{{ tasks.plan.result | tojson }}", '{"risk": "low", "n": [1, 2]}'),
        ],
    )
    def test_it_renders(self, text: str, expected: str) -> None:
        """As ``core.template`` does."""
        evaluator = self.evaluator()
        assert evaluator.render(text, SCOPE) == expected
        evaluator.close()

    def test_it_decides_conditions(self) -> None:
        """With braces and without."""
        evaluator = self.evaluator()
        assert evaluator.holds("tasks.plan.result.risk == 'low'", SCOPE)
        assert not evaluator.holds("{{ inputs.issue > 7 }}", SCOPE)
        evaluator.close()

    def test_it_fills_in_names(self) -> None:
        """Those of a rehearsal, for example."""
        evaluator = self.evaluator()
        assert evaluator.fill("{{ cwd }}/{{ task | upper }}", {"cwd": "/w", "task": "api"}) == "/w/API"
        assert evaluator.fill("{{ cwd }}/x", {"cwd": "/w"}) == "/w/x"
        evaluator.close()

    def test_what_cannot_be_rendered_is_told_and_the_next_one_is_rendered(self) -> None:
        """The error names the task."""
        evaluator = self.evaluator()
        with pytest.raises(TemplateFailed, match=r"the prompt of task t cannot be rendered: .*nothing"):
            evaluator.render("{{ inputs.nothing }}", SCOPE)
        with pytest.raises(TemplateFailed, match="the condition of task t cannot be decided"):
            evaluator.holds("1 +", SCOPE)
        with pytest.raises(TemplateFailed):
            evaluator.fill("{{ 1 / 0 }}", {})
        assert evaluator.render("{{ 1 + 1 }}", SCOPE) == "2"
        evaluator.close()

    def test_it_finds_patterns(self) -> None:
        """Anywhere in the text; what is no pattern is told."""
        evaluator = self.evaluator()
        assert evaluator.finds("plain words", "some plain words here")
        assert not evaluator.finds("plain words", "others")
        assert evaluator.finds(r"(?i)^b\w+$", "Bee")
        assert not evaluator.finds(r"^b\w+$", "a bee")
        with pytest.raises(PatternFailed, match="is no regular expression"):
            evaluator.finds("(", "x")
        evaluator.close()

    def test_it_checks_results(self) -> None:
        """By their schema, JSON against JSON."""
        evaluator = self.evaluator()
        schema = json.dumps({"type": "object", "required": ["risk"], "properties": {"risk": {"pattern": "^(low|high)$"}}})
        assert not evaluator.result_problem(schema, '{"risk": "low"}')
        assert "risk" in evaluator.result_problem(schema, '{"risk": "none"}')
        assert "there was none" in evaluator.result_problem(schema, None)
        assert "not JSON" in evaluator.result_problem(schema, "{")
        evaluator.close()

    def test_it_may_be_used_again_after_it_was_closed(self) -> None:
        """And closed again, more than once."""
        evaluator = self.evaluator()
        for _ in range(2):
            assert evaluator.render("{{ 1 + 1 }}", SCOPE) == "2"
            evaluator.close()
            evaluator.close()
