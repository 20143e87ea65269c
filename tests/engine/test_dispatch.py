from datetime import timedelta

import pytest

from kapelle.core.agent import AgentConfig, Asks
from kapelle.core.conversation import Trouble
from kapelle.core.errors import TemplateFailed
from kapelle.core.events import TaskMoved, TaskSkipped, TaskWaited
from kapelle.core.gate import Check, Gate
from kapelle.core.gateway import Upstream
from kapelle.core.placing import Strategy
from kapelle.core.ports import Measure
from kapelle.core.requests import Cancel
from kapelle.core.run import Limits, RunState
from kapelle.core.task import Priority, TaskState, Wait
from kapelle.core.template import Scope
from kapelle.core.workflow import WorkflowTask
from kapelle.engine import due
from kapelle.engine.due import FEW, WORD
from kapelle.testing.evaluating import PlainEvaluator
from kapelle.testing.factories import CODER, run_spec, task, workflow
from kapelle.testing.hosts import Script, ScriptedProcess, answers, crashes, troubled, writes
from kapelle.testing.worlds import SmallWorld


def at_work(here: SmallWorld) -> list[str]:
    return [process.task for process in here.host.live()]


async def test_no_more_agents_are_live_than_there_are_slots(here: SmallWorld) -> None:
    here.set(slots=2)
    await here.submit(run_spec(task("a"), task("b"), task("c")))
    leader = await here.lead()
    await leader.run()
    assert len(at_work(here)) == 2
    (waiting,) = [found for found in (await here.tasks()).values() if found.state is TaskState.PENDING]
    assert (waiting.waits_for, waiting.detail) == (Wait.CAPACITY, "all 2 slots of local are taken")


async def test_a_slot_that_becomes_free_is_given_to_who_waits(here: SmallWorld) -> None:
    here.set(slots=1)
    here.host.otherwise = lambda process, _: writes({f"{process.task}.py": "1"})(process, "")
    await here.submit(run_spec(task("a"), task("b"), task("c")))
    leader = await here.lead()
    await leader.run()
    assert {found.state for found in (await here.tasks()).values()} == {TaskState.COMPLETED}


async def test_what_a_task_waits_for_is_told_once(here: SmallWorld) -> None:
    here.set(slots=1)
    await here.submit(run_spec(task("a", priority=Priority.HIGH), task("b")))
    leader = await here.lead()
    await leader.run()
    await leader.step("dispatch", "dispatch")
    assert [event.waits_for for event in await here.events(TaskWaited, "b")] == [Wait.CAPACITY]


async def test_when_all_slots_are_taken_what_newcomers_wait_for_is_told_within_a_second(here: SmallWorld) -> None:
    here.set(slots=1)
    await here.submit(run_spec(*[task(f"t{number}") for number in range(FEW + 2)]))
    leader = await here.lead()
    await leader.run()
    await here.submit(run_spec(task("late", priority=Priority.LOW)))
    await leader.step("submit", "dispatch")
    assert (await here.task("late")).waits_for is None
    here.clock.move(WORD)
    await leader.step("dispatch")
    assert (await here.task("late")).waits_for is Wait.CAPACITY


async def test_tasks_go_by_priority_and_then_by_time(here: SmallWorld) -> None:
    here.set(slots=1)
    here.host.otherwise = answers()
    await here.submit(run_spec(task("low", priority=Priority.LOW, gate=None), task("first", gate=None)))
    here.clock.move(timedelta(seconds=1))
    leader = await here.lead()
    await leader.step("submit")
    here.clock.move(timedelta(seconds=1))
    await here.submit(run_spec(task("second", gate=None), task("high", priority=Priority.HIGH, gate=None)))
    await leader.run()
    assert [process.task for process in here.host.processes] == ["high", "first", "second", "low"]


async def test_a_run_has_no_more_agents_than_its_limit(here: SmallWorld) -> None:
    await here.submit(run_spec(task("a"), task("b"), limits=Limits(agents=1)))
    await here.submit(run_spec(task("other")))
    leader = await here.lead()
    await leader.run()
    assert max(at_work(here)) == "other"
    assert len(at_work(here)) == 2
    details = {found.detail for found in (await here.tasks()).values()}
    assert details == {"", "1 agent of this run is live, its limit"}


async def test_a_kind_of_agent_has_no_more_of_them_than_its_limit(here: SmallWorld) -> None:
    config = AgentConfig(name="coder", program="line", limit=1)
    await here.submit(run_spec(task("a"), task("b"), configs=(config,)))
    leader = await here.lead()
    await leader.run()
    assert len(at_work(here)) == 1
    details = {found.detail for found in (await here.tasks()).values()}
    assert details == {"", "1 agent of the kind coder is live, its limit"}


async def test_no_task_starts_before_its_needs_are_met(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec(task("ui", needs=("api",)), task("api")))
    leader = await here.lead()
    await leader.step("submit", "dispatch", "execute")
    assert (await here.task("ui")).state is TaskState.PENDING
    await leader.run()
    assert [process.task for process in here.host.processes] == ["api", "ui"]


async def test_work_without_a_process_takes_no_slot(here: SmallWorld) -> None:
    here.set(slots=1)
    run_id = await here.submit(run_spec(*[task(f"t{number}", agent="nobody") for number in range(5)]))
    leader = await here.lead()
    await leader.step("submit", "dispatch")
    assert {found.state for found in (await here.tasks()).values()} == {TaskState.COMPLETED}
    await leader.run()
    assert (await here.run(run_id)).state is RunState.COMPLETED


async def test_a_batch_that_is_full_is_followed_by_the_next_at_once(here: SmallWorld) -> None:
    here.set(batch=2, slots=2)
    await here.submit(run_spec(*[task(f"t{number}", agent="nobody") for number in range(5)]))
    leader = await here.lead()
    await leader.step("submit")
    assert await leader.step("dispatch") == here.clock.now()
    states = [found.state for found in (await here.tasks()).values()]
    assert states.count(TaskState.COMPLETED) == 2


async def test_many_tasks_of_a_kind_at_its_limit_do_not_keep_others_from_their_agents(here: SmallWorld) -> None:
    here.set(batch=3, slots=4)
    limited = AgentConfig(name="limited", program="line", limit=1)
    crowd = [task(f"t{number}", agent="limited", priority=Priority.HIGH) for number in range(10)]
    await here.submit(run_spec(*crowd, task("free"), configs=(limited, CODER)))
    leader = await here.lead()
    await leader.run()
    assert "free" in at_work(here)
    assert len(at_work(here)) == 2


async def test_a_task_waits_for_a_credential_that_is_not_there(here: SmallWorld) -> None:
    await here.submit(run_spec(upstream=Upstream(credential="env:SOME_KEY")))
    leader = await here.lead()
    await leader.run()
    waiting = await here.task()
    assert (waiting.waits_for, waiting.detail) == (Wait.CREDENTIALS, "env:SOME_KEY is not set where Kapelle leads")
    here.credentials.known["env:SOME_KEY"] = "secret"
    await leader.run()
    assert (await here.task()).state is TaskState.RUNNING


async def test_a_program_that_needs_no_model_waits_for_no_credential(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api", agent="once"), upstream=Upstream(credential="env:SOME_KEY")))
    leader = await here.lead()
    await leader.run()
    assert (await here.task()).state is TaskState.RUNNING


# --- Conditions and templates ---


async def test_a_task_whose_condition_is_false_is_skipped_and_meets_the_need_for_it(here: SmallWorld) -> None:
    await here.submit(
        run_spec(task("deploy", when="inputs.really"), task("after", needs=("deploy",)), inputs='{"really": false}')
    )
    leader = await here.lead()
    await leader.run()
    assert (await here.task("deploy")).state is TaskState.SKIPPED
    assert [event.note for event in await here.events(TaskSkipped)] == ["when: inputs.really is false"]
    assert (await here.task("after")).state is TaskState.RUNNING


async def test_what_needed_a_skipped_task_is_looked_at_at_once(here: SmallWorld) -> None:
    await here.submit(run_spec(task("deploy", when="false"), task("after", needs=("deploy",))))
    leader = await here.lead()
    await leader.step("submit")
    assert await leader.step("dispatch") == here.clock.now()


async def test_a_condition_sees_what_the_needs_gave(here: SmallWorld) -> None:
    here.host.plays("look", answers("two", result='{"count": 2}'))
    await here.submit(
        run_spec(
            task("look", result_schema='{"type": "object"}'),
            task("many", needs=("look",), when="tasks.look.result.count > 1"),
            task("none", needs=("look",), when="tasks.look.result.count == 0"),
        )
    )
    here.host.plays("look", answers())
    leader = await here.lead()
    here.host.plays("many", answers())
    await leader.run()
    tasks = await here.tasks()
    assert (tasks["many"].state, tasks["none"].state) == (TaskState.COMPLETED, TaskState.SKIPPED)


async def test_a_condition_that_cannot_be_decided_fails_the_task(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api", when="inputs.nothing")))
    leader = await here.lead()
    await leader.run()
    failed = await here.task()
    assert failed.state is TaskState.FAILED
    assert failed.failure is not None
    assert failed.failure.kind == "template"
    assert "the condition of task api cannot be decided" in failed.failure.message


async def test_a_prompt_that_cannot_be_rendered_fails_the_task_without_an_attempt(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api", prompt="{{ inputs.nothing }}")))
    leader = await here.lead()
    await leader.run()
    failed = await here.task()
    assert failed.state is TaskState.FAILED
    assert failed.failure is not None
    assert (failed.failure.kind, failed.attempts) == ("template", 0)
    assert list(await here.attempts()) == []


async def test_a_prompt_is_rendered_with_inputs_and_what_the_needs_gave(here: SmallWorld) -> None:
    here.host.plays("plan", answers("first this, then that", result='{"steps": ["this", "that"]}'))
    await here.submit(
        run_spec(
            task("plan", reads_only=True),
            task(
                "api",
                needs=("plan",),
                prompt="{{ inputs.what }}: {{ tasks.plan.summary }}, {{ tasks.plan.result.steps[1] }} ({{ run }}/{{ task }})",
            ),
            inputs='{"what": "shop"}',
        )
    )
    leader = await here.lead()
    await leader.run()
    assert here.process("api").prompts[0].text == "shop: first this, then that, that (run/api)"


async def test_a_task_for_each_item_sees_its_own_and_who_needs_them_sees_all_in_order(here: SmallWorld) -> None:
    here.host.otherwise = lambda process, text: answers(f"did {text}")(process, text)
    await here.submit(
        workflow(
            WorkflowTask(spec=task("port", prompt="{{ item }}", reads_only=True), foreach=('"b"', '"a"')),
            task("sum", needs=("port",), prompt="{% for one in tasks.port %}{{ one.item }}={{ one.summary }};{% endfor %}"),
        )
    )
    leader = await here.lead()
    await leader.run()
    assert sorted(process.prompts[0].text for process in here.host.processes[:2]) == ["a", "b"]
    assert here.process("sum").prompts[0].text == "b=did b;a=did a;"


async def test_a_phase_begins_when_the_one_before_is_completed(here: SmallWorld) -> None:
    here.host.otherwise = answers()
    await here.submit(
        workflow(
            task("build", phase="second", reads_only=True),
            task("think", phase="first", reads_only=True),
            phases=("first", "second"),
        )
    )
    leader = await here.lead()
    await leader.run()
    assert [process.task for process in here.host.processes] == ["think", "build"]


# --- Trying again, and coming back ---


async def test_an_attempt_that_failed_is_tried_again_after_its_delay(here: SmallWorld) -> None:
    here.host.plays("api", *[crashes()] * 3)
    await here.submit(run_spec())
    leader = await here.lead()
    later = await leader.run()
    waiting = await here.task()
    assert (waiting.state, waiting.waits_for, waiting.attempts) == (TaskState.PENDING, Wait.RETRY, 1)
    assert later == waiting.due_at
    assert later is not None
    assert timedelta(seconds=4) <= later - here.clock.now() <= timedelta(seconds=6)
    here.clock.move_to(later)
    await leader.run()
    assert [attempt.number for attempt in await here.attempts()] == [1, 2]
    assert (await here.task()).state is TaskState.RUNNING


async def test_attempts_never_exceed_the_limit(here: SmallWorld) -> None:
    here.host.otherwise = crashes()
    await here.submit(run_spec(task("api", max_attempts=2)))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert (failed.state, failed.attempts) == (TaskState.FAILED, 2)
    assert len(await here.attempts()) == 2


async def test_a_task_that_returns_to_its_agent_goes_before_new_ones(here: SmallWorld) -> None:
    here.set(slots=1)
    await here.submit(run_spec(task("api")))
    leader = await here.lead()
    await leader.run()
    here.repository.push({"api.py": "theirs"})
    here.points.hold("bring_in")
    writes({"api.py": "mine"})(here.process(), "")
    await leader.run()
    await here.submit(run_spec(task("seed", agent="nobody"), task("urgent", needs=("seed",), priority=Priority.CRITICAL)))
    await leader.step("submit", "dispatch")
    assert (await here.task("urgent")).unmet == 0
    here.points.release("bring_in")
    await leader.settle()
    await leader.step("merge", "dispatch", "execute", "execute")
    assert [process.task for process in here.host.live()] == ["api"]
    assert (await here.task("urgent")).waits_for is Wait.CAPACITY


async def test_of_two_tasks_the_one_that_touches_other_files_goes_first(here: SmallWorld) -> None:
    here.set(slots=2)
    await here.submit(
        run_spec(
            task("a", writes=("src/*",), priority=Priority.HIGH), task("b", writes=("src/*",)), task("c", writes=("docs/*",))
        )
    )
    leader = await here.lead()
    await leader.run()
    assert sorted(at_work(here)) == ["a", "c"]


@pytest.mark.parametrize("name", ["unheard-of", ""])
async def test_a_program_that_is_not_here_fails_its_task_and_not_the_leader(here: SmallWorld, name: str) -> None:
    config = AgentConfig(name="coder", program=name)
    await here.submit(
        run_spec(task("api"), task("ui", agent="known"), configs=(config, AgentConfig(name="known", program="line")))
    )
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task("api")
    assert failed.state is TaskState.FAILED
    assert (await here.task("ui")).state is TaskState.RUNNING


async def test_a_sandbox_that_is_not_here_fails_its_task_and_not_the_leader(here: SmallWorld) -> None:
    config = AgentConfig(name="coder", program="line", sandbox="unheard-of")
    await here.submit(
        run_spec(task("api"), task("ui", agent="known"), configs=(config, AgentConfig(name="known", program="line")))
    )
    leader = await here.lead()
    await leader.run_out()
    assert (await here.task("api")).state is TaskState.FAILED
    assert (await here.task("ui")).state is TaskState.RUNNING


async def test_an_attempt_that_did_not_count_still_has_a_number_of_its_own(here: SmallWorld) -> None:
    here.set(slots=1, interruptions=0)

    here.host.plays("api", troubled(Trouble.USAGE_LIMIT, "kapelle limit: until then"))
    await here.submit(run_spec(task("api", priority=Priority.HIGH), task("ui")))
    leader = await here.lead()
    later = await leader.run()
    assert (await here.task("api")).attempts == 0
    assert later is not None
    here.clock.move_to(later)
    await leader.run()
    assert (await here.task("api")).waits_for is Wait.CAPACITY
    here.process("ui").exit(0)
    here.host.otherwise = crashes()
    await leader.run_out()
    numbers = [attempt.number for attempt in await here.attempts("api")]
    assert numbers == sorted(set(numbers))


async def test_every_transition_is_told_with_where_it_came_from(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec(gates=(Gate(name="check", checks=(Check(name="test", run="true"),)),), configs=(CODER,)))
    leader = await here.lead()
    await leader.run()
    moves = [event.before for event in await here.events(TaskMoved, "api")]
    assert moves == [TaskState.PENDING, TaskState.ASSIGNED, TaskState.RUNNING, TaskState.VALIDATING, TaskState.MERGING]


class SlowEvaluator(PlainEvaluator):
    """Gives up every template, after a second of the world's own clock."""

    def __init__(self, here: SmallWorld) -> None:
        super().__init__()
        self._here = here

    def render(self, text: str, scope: Scope) -> str:
        del text
        self.evaluated += 1
        self._here.clock.move(timedelta(seconds=1))
        raise TemplateFailed(f"the prompt of task {scope.task} cannot be rendered: it took longer than 1 s")

    def holds(self, expression: str, scope: Scope) -> bool:
        return bool(self.render(expression, scope))


@pytest.mark.parametrize("slow", [{"prompt": "{{ 1 + 1 }}"}, {"when": "9 ** 9 > 1"}])
async def test_templates_that_take_too_long_fail_their_tasks_and_do_not_hold_up_the_others(
    here: SmallWorld, slow: dict[str, str]
) -> None:
    evaluator = SlowEvaluator(here)
    here.replace(evaluator=evaluator)
    here.set(slots=20)
    await here.submit(run_spec(*[task(f"t{number}", gate=None, **slow) for number in range(10)], task("good", gate=None)))
    leader = await here.lead()
    await leader.step("submit", "dispatch")
    assert evaluator.evaluated <= 4

    await leader.run()

    tasks = await here.tasks()
    assert evaluator.evaluated == 10
    assert tasks.pop("good").state is TaskState.RUNNING
    assert {found.state for found in tasks.values()} == {TaskState.FAILED}
    assert {found.failure.kind for found in tasks.values() if found.failure} == {"template"}


async def test_a_plain_prompt_is_not_evaluated(here: SmallWorld) -> None:
    evaluator = SlowEvaluator(here)
    here.replace(evaluator=evaluator)
    await here.submit(run_spec(task("a", prompt="mend {it}\r\n", when="true", gate=None)))
    leader = await here.lead()
    await leader.run()
    assert not evaluator.evaluated
    assert [prompt.text for prompt in await here.prompts("a")] == ["mend {it}\n"]


# --- Shares, choices, and what similar tasks took ---


async def test_a_run_that_comes_later_has_its_share_though_a_long_one_fills_the_first_page(here: SmallWorld) -> None:
    here.set(slots=2, batch=3)
    await here.submit(run_spec(*[task(f"long-{number}") for number in range(8)], name="long"))
    leader = await here.lead()
    await leader.step("submit")
    here.clock.move(timedelta(hours=1))
    await here.submit(run_spec(task("short"), name="short"))
    await leader.run()
    assert len(at_work(here)) == 2
    assert "short" in at_work(here)


async def test_more_runs_than_are_looked_at_in_one_step_all_have_their_turn(
    here: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "RUNS", 2)
    here.set(slots=1, batch=2)
    here.host.otherwise = answers()
    await here.submit(run_spec(*[task(f"long-{number}", gate=None) for number in range(4)], name="long"))
    for number in range(5):
        await here.submit(run_spec(task(f"short-{number}", gate=None), name=f"short-{number}"))
    leader = await here.lead()
    await leader.run()
    assert {found.state for found in (await here.tasks()).values()} == {TaskState.COMPLETED}


async def test_of_equal_tasks_the_one_that_more_depends_on_goes_first(here: SmallWorld) -> None:
    here.set(slots=1)
    tasks = [task("alone"), task("base"), task("then", needs=("base",)), task("end", needs=("then",))]
    await here.submit(run_spec(*tasks))
    leader = await here.lead()
    await leader.run()
    assert at_work(here) == ["base"]
    assert (await here.task("base")).path == 3 * 300


async def test_what_similar_tasks_took_goes_before_what_was_estimated(here: SmallWorld) -> None:
    def answers_after(minutes: int) -> Script:
        def play(process: ScriptedProcess, text: str) -> None:
            here.clock.move(timedelta(minutes=minutes))
            answers()(process, text)

        return play

    slow, fast = task("slow", gate=None, estimate=timedelta(minutes=1)), task("fast", gate=None, estimate=timedelta(hours=1))
    here.set(slots=1)
    here.host.plays("slow", answers_after(20))
    here.host.plays("fast", answers_after(1))
    await here.submit(run_spec(slow, fast, project="shop"))
    leader = await here.lead()
    await leader.run()
    took = await here.store.read(lambda view: view.history.of_project("shop"))
    assert [(each.name, each.config, each.times) for each in took] == [("fast", "coder", 1), ("slow", "coder", 1)]
    assert took[1].seconds > took[0].seconds >= 60
    here.host.processes.clear()
    await here.submit(run_spec(fast, slow, project="shop"))
    await leader.run()
    assert at_work(here) == ["slow"]


async def test_agents_of_the_same_config_of_two_projects_are_counted_apart(here: SmallWorld) -> None:
    limited = AgentConfig(name="coder", program="line", limit=1)
    for project in ("shop", "blog"):
        await here.submit(run_spec(task(f"{project}-a"), task(f"{project}-b"), configs=(limited,), project=project))
    leader = await here.lead()
    await leader.run()
    assert len(at_work(here)) == 2


async def test_the_limits_of_project_account_and_model_hold_over_all_runs(here: SmallWorld) -> None:
    model = AgentConfig(name="coder", program="line", model="big")
    for limits in (Limits(project=1), Limits(account=1), Limits(models=(("big", 1),))):
        ids = [
            await here.submit(run_spec(task(f"{number}"), configs=(model,), limits=limits, project="shop")) for number in "ab"
        ]
        leader = await here.lead()
        await leader.run()
        assert len(at_work(here)) == 1
        for run_id in ids:
            await here.ask(Cancel(run_id=run_id))
        await leader.run()
        await leader.die()


async def test_configs_that_fit_take_turns(here: SmallWorld) -> None:
    here.set(slots=4)
    configs = (AgentConfig(name="one", program="line"), AgentConfig(name="two", program="line"))
    tasks = [task(f"t{number}", agent="one", agents=("one", "two")) for number in range(4)]
    await here.submit(run_spec(*tasks, configs=configs, strategy=Strategy.ROUND_ROBIN))
    leader = await here.lead()
    await leader.run()
    used = [(await here.attempts(f"t{number}"))[0].config for number in range(4)]
    assert sorted(used) == ["one", "one", "two", "two"]


async def test_a_config_that_is_held_up_leaves_the_task_to_another(here: SmallWorld) -> None:
    configs = (CODER, AgentConfig(name="offline", program="once"))
    tasks = [task("api", agents=("coder", "offline"))]
    await here.submit(run_spec(*tasks, configs=configs, upstream=Upstream(credential="env:SOME_KEY")))
    leader = await here.lead()
    await leader.run()
    assert (await here.attempts())[0].config == "offline"


async def test_processors_and_memory_are_promised_once(here: SmallWorld) -> None:
    here.host.measured = Measure(memory=8_000_000_000, memory_free=8_000_000_000, cpus=2.0)
    asking = AgentConfig(name="coder", program="line", asks=Asks(memory=3_000_000_000, cpus=0.5))
    await here.submit(run_spec(task("a"), task("b"), task("c"), configs=(asking,)))
    leader = await here.lead()
    await leader.run()
    assert len(at_work(here)) == 2
    (waiting,) = [found for found in (await here.tasks()).values() if found.state is TaskState.PENDING]
    assert (waiting.waits_for, waiting.detail) == (
        Wait.CAPACITY,
        "local has 8 GB of memory for agents, 6 GB of it promised; coder asks for 3 GB",
    )
