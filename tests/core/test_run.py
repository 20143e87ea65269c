"""A run keeps what it was submitted with."""

import pytest

from kapelle.core.agent import AgentConfig
from kapelle.core.budget import Allowance
from kapelle.core.gate import Check, Gate
from kapelle.core.merge import DeliveryMode
from kapelle.core.run import RUN_TERMINAL, RUN_TRANSITIONS, Limits, RunSpec, RunState
from kapelle.core.task import TaskSpec

GATE = Gate(name="python", checks=(Check(name="test", run="pytest"),))
SPEC = RunSpec(
    name="release",
    tasks=(TaskSpec(name="build"),),
    configs=(AgentConfig(name="dev"), AgentConfig(name="reviewer", model="opus")),
    gates=(GATE,),
)


def test_a_run_knows_its_agent_configs_by_name() -> None:
    assert SPEC.config("reviewer").model == "opus"


@pytest.mark.parametrize(("name", "expected"), [("python", GATE), ("rust", None), (None, None)])
def test_a_run_knows_its_gates_by_name_and_a_task_may_have_none(name: str | None, expected: Gate | None) -> None:
    assert SPEC.gate(name) is expected


def test_a_run_is_bounded_only_where_somebody_said_so() -> None:
    assert SPEC.limits == Limits(agents=None, budget=Allowance(), standing=(), merge_returns=3)


def test_a_run_delivers_each_change_and_begins_without_inputs() -> None:
    assert SPEC.delivery is DeliveryMode.EACH
    assert SPEC.inputs == "{}"


def test_a_run_delivers_before_it_ends_and_never_runs_again_after() -> None:
    assert RUN_TRANSITIONS[RunState.RUNNING] == {RunState.DELIVERING, *RUN_TERMINAL}
    assert RUN_TRANSITIONS[RunState.DELIVERING] == RUN_TERMINAL


def test_two_specs_do_not_share_what_they_are_made_with() -> None:
    one, other = RunSpec(name="one", tasks=()), RunSpec(name="other", tasks=())
    assert one.workspace is not other.workspace
    assert one.upstream == other.upstream
