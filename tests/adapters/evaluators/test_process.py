"""What takes too long or too much, in the process that can be killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from kapelle.adapters.evaluators.process import ProcessEvaluator
from kapelle.core.errors import PatternFailed, TemplateFailed
from kapelle.core.template import Scope

SCOPE = Scope(inputs={"big": "x" * 1000}, tasks={}, run="r", task="api")
# Loops that the sandbox's own bound of a range does not stop, and that no thread could be stopped in.
FOR_EVER = "{% for a in range(99999) %}{% for b in range(99999) %}{% if a + b < 0 %}x{% endif %}{% endfor %}{% endfor %}"
SCHEMA = json.dumps({"type": "string", "pattern": "^(a+)+$"})
BACKTRACKS = "a" * 40 + "b"


@pytest.fixture
def evaluator() -> Iterator[ProcessEvaluator]:
    made = ProcessEvaluator()
    yield made
    made.close()


def children() -> list[psutil.Process]:
    found = psutil.Process().children()
    return [child for child in found if any("evaluators.child" in word for word in child.cmdline())]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (FOR_EVER, "it took longer than 1 s"),
        ("{{ 9 ** (9 ** 9) }}", "it took longer than 1 s"),
        ("{{ ('x' * 100000) | wordwrap(1) | length }}{{ 7 ** 9999999 % 3 }}" + FOR_EVER, "it took longer than 1 s"),
        ("{{ 'x' * 10 ** 10 }}", "MemoryError"),
        ("{{ ('x' * 10 ** 9) }}", "MemoryError"),
        ("{% for n in range(99999) %}{{ inputs.big }}{% endfor %}", "becomes longer than 1048576 characters"),
        ("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}", "recursion"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", ""),
    ],
)
def test_a_template_without_end_fails_by_itself(evaluator: ProcessEvaluator, text: str, why: str) -> None:
    with pytest.raises(TemplateFailed) as failed:
        evaluator.render(text, SCOPE)

    assert str(failed.value).startswith("the prompt of task api ")
    assert why in str(failed.value)
    assert evaluator.render("{{ 1 + 1 }}", SCOPE) == "2"


def test_a_condition_without_end_fails_by_itself(evaluator: ProcessEvaluator) -> None:
    with pytest.raises(TemplateFailed, match="the condition of task api cannot be decided: it took longer than 1 s"):
        evaluator.holds("9 ** (9 ** 9) > 1", SCOPE)


def test_a_pattern_that_backtracks_is_told(evaluator: ProcessEvaluator) -> None:
    with pytest.raises(PatternFailed, match=r"searching for '\(a\+\)\+\$' took longer than 1 s"):
        evaluator.finds("(a+)+$", BACKTRACKS)


def test_a_pattern_of_a_schema_that_backtracks_is_wrong_with_the_result(evaluator: ProcessEvaluator) -> None:
    assert evaluator.result_problem(SCHEMA, json.dumps(BACKTRACKS)) == "checking it by its schema took longer than 1 s"


def test_a_result_that_is_too_long_is_not_even_looked_at(evaluator: ProcessEvaluator) -> None:
    assert "characters long" in evaluator.result_problem("{}", json.dumps("x" * 2_000_000))
    assert not children()


@pytest.mark.parametrize("schema", [{"pattern": "("}, {"$ref": "#"}, {"patternProperties": {"(": {}}}, {"multipleOf": 0}])
def test_a_schema_that_cannot_be_used_is_told(evaluator: ProcessEvaluator, schema: dict[str, object]) -> None:
    results = [evaluator.result_problem(json.dumps(schema), result) for result in ('"x"', "7", '{"a": 1}')]

    assert any("cannot be used" in result for result in results)


def test_plain_text_and_lookups_start_no_process(evaluator: ProcessEvaluator) -> None:
    assert evaluator.render("do it", SCOPE) == "do it"
    assert evaluator.render("do {{ inputs.big }} of {{ run }}", SCOPE) == f"do {'x' * 1000} of r"
    assert evaluator.finds("do", "do it")
    assert not children()


def test_the_process_is_kept_and_ended_at_the_end(evaluator: ProcessEvaluator) -> None:
    evaluator.render("{{ 1 + 1 }}", SCOPE)
    (child,) = children()
    evaluator.holds("1 > 2", SCOPE)
    assert children() == [child]

    evaluator.close()

    assert not child.is_running()


def test_one_that_was_killed_while_idle_is_started_anew(evaluator: ProcessEvaluator) -> None:
    evaluator.render("{{ 1 + 1 }}", SCOPE)
    (child,) = children()
    os.kill(child.pid, signal.SIGKILL)
    psutil.wait_procs([child], timeout=10)

    assert evaluator.render("{{ 1 + 1 }}", SCOPE) == "2"


def test_it_knows_no_secret_of_its_leader(evaluator: ProcessEvaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    evaluator.render("{{ 1 + 1 }}", SCOPE)

    assert "ANTHROPIC_API_KEY" not in children()[0].environ()


def test_several_threads_do_not_wait_for_each_other(evaluator: ProcessEvaluator) -> None:
    def work(number: int) -> str:
        return evaluator.render("{{ " + str(number) + " + 1 }}", SCOPE)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(work, range(50))) == [str(number + 1) for number in range(50)]
    assert len(children()) <= 2


LEADER = """
import sys
from kapelle.adapters.evaluators.process import ProcessEvaluator
from kapelle.core.template import Scope
import psutil, threading
evaluator = ProcessEvaluator()
scope = Scope(inputs={}, tasks={}, run="r", task="t")
evaluator.render("{{ 1 + 1 }}", scope)
print(psutil.Process().children()[0].pid, flush=True)
if sys.argv[1] == "busy":
    evaluator.holds("9 ** (9 ** 9) > 1", scope)
threading.Event().wait()
"""


@pytest.mark.parametrize("how", ["idle", "busy"])
def test_it_ends_by_itself_when_its_leader_is_killed(how: str, until_gone: Callable[[psutil.Process], None]) -> None:
    leader = subprocess.Popen([sys.executable, "-c", LEADER, how], stdout=subprocess.PIPE, text=True)
    assert leader.stdout is not None
    child = psutil.Process(int(leader.stdout.readline()))
    leader.kill()
    leader.wait()
    leader.stdout.close()

    until_gone(child)


@pytest.fixture
def until_gone() -> Callable[[psutil.Process], None]:
    def wait(process: psutil.Process) -> None:
        try:
            process.wait(timeout=10)
        except psutil.NoSuchProcess:
            return

    return wait
