"""When the model API says no: what is the whole account's, what is one conversation's, and what passes by itself."""

from datetime import timedelta

import pytest

from kapelle.core.account import SPACING, Account, AccountState
from kapelle.core.account_events import AccountLimited, AccountRefused, AccountRestored
from kapelle.core.attempt import Outcome, PromptState
from kapelle.core.conversation import Trouble
from kapelle.core.events import ConversationForked, TaskWaited
from kapelle.core.gateway import Upstream
from kapelle.core.requests import Resume
from kapelle.core.task import Priority, TaskState, Wait
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import Script, ScriptedProcess, hangs, troubled, writes
from kapelle.testing.worlds import SmallWorld

KEY = Upstream(credential="env:KEY")
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


async def account(here: SmallWorld, name: str = "env:KEY@https://api.anthropic.com") -> Account:
    (found,) = [row for row in await here.store.read(lambda view: view.accounts.not_open()) if row.account_id == name]
    return found


def limited(here: SmallWorld, resets_in: timedelta | None = HOUR, trouble: Trouble = Trouble.USAGE_LIMIT) -> Script:
    """Return a script whose model call runs into the account's limit: the gateway hears it, and tells the agent."""

    def script(process: ScriptedProcess, _: str) -> None:
        resets_at = None if resets_in is None else here.clock.now() + resets_in
        told = here.gateway.fail(process.token, trouble, "You've hit your usage limit", resets_at=resets_at)
        words = "credentials" if trouble in {Trouble.LOGIN_EXPIRED, Trouble.INVALID_KEY} else "limit"
        process.trouble(trouble, f"API Error: kapelle {words}: {told or 'You have hit your usage limit'}")

    return script


def calls(here: SmallWorld, then: Script) -> Script:
    """Return a script whose model call goes well."""

    def script(process: ScriptedProcess, text: str) -> None:
        refusal = here.gateway.call(process.token, usd=0.01)
        if refusal is not None:
            process.trouble(Trouble.USAGE_LIMIT, f"API Error: kapelle limit: {refusal}")
            return
        then(process, text)

    return script


@pytest.fixture
def with_key(here: SmallWorld) -> SmallWorld:
    here.credentials.known["env:KEY"] = "secret-1"
    return here


# --- A limit with a reset time ---


async def test_a_limit_pauses_everything_of_its_account_until_its_reset(with_key: SmallWorld) -> None:
    here = with_key
    here.set(slots=1)
    here.host.plays("api", limited(here), calls(here, writes({"api.py": "1"})))
    here.host.plays("ui", calls(here, writes({"ui.py": "1"})))
    await here.submit(run_spec(task("api", priority=Priority.HIGH), task("ui"), upstream=KEY))
    leader = await here.lead()
    later = await leader.run()
    reset = here.clock.now() + HOUR
    assert later == reset
    for name, state in (("api", TaskState.RUNNING), ("ui", TaskState.PENDING)):
        waiting = await here.task(name)
        assert (waiting.state, waiting.waits_for, waiting.due_at) == (state, Wait.LIMIT, reset)
        assert "env:KEY at api.anthropic.com is at its limit until" in waiting.detail
        assert f"{reset:%H:%M:%S} UTC" in waiting.detail
    assert here.host.live() == []
    assert len(here.host.processes) == 1
    (event,) = await here.events(AccountLimited)
    assert (event.account, event.resets_at) == ("env:KEY at api.anthropic.com", reset)
    await leader.run_out()
    assert {found.state for found in (await here.tasks()).values()} == {TaskState.COMPLETED}
    assert [found.attempts for found in (await here.tasks()).values()] == [1, 1]
    assert len(await here.events(AccountRestored)) == 1


async def test_an_account_that_comes_back_starts_its_agents_one_after_the_other(with_key: SmallWorld) -> None:
    here = with_key
    names = ["a", "b", "c", "d"]
    for name in names:
        here.host.plays(name, limited(here), calls(here, hangs()))
    await here.submit(run_spec(*[task(name) for name in names], upstream=KEY))
    leader = await here.lead()
    later = await leader.run()
    assert here.host.live() == []
    live: list[int] = []
    for _ in names:
        assert later is not None
        here.clock.move_to(later)
        later = await leader.run()
        live.append(len(here.host.live()))
    assert live == [1, 2, 3, 4]


async def test_other_accounts_go_on(with_key: SmallWorld) -> None:
    here = with_key
    here.host.plays("api", limited(here))
    here.host.plays("ui", calls(here, writes({"ui.py": "1"})))
    await here.submit(run_spec(task("api"), upstream=KEY))
    leader = await here.lead()
    await leader.run()
    await here.submit(run_spec(task("ui"), upstream=Upstream(rehearsal="/r.yml")))
    await leader.run()
    assert (await here.task("ui")).state is TaskState.COMPLETED


async def test_tasks_without_a_model_go_on(with_key: SmallWorld) -> None:
    here = with_key
    here.host.plays("api", limited(here))
    here.host.plays("script", writes({"script.py": "1"}))
    await here.submit(run_spec(task("api"), upstream=KEY))
    leader = await here.lead()
    await leader.run()
    await here.submit(run_spec(task("script", agent="once"), upstream=KEY))
    await leader.run()
    assert len(here.host.of_task("script")) == 1


async def test_an_agent_in_mid_turn_is_refused_by_the_gateway_before_anything_is_written_down(with_key: SmallWorld) -> None:
    here = with_key
    here.host.plays("api", hangs())
    here.host.plays("ui", hangs())
    await here.submit(run_spec(task("api"), task("ui"), upstream=KEY))
    leader = await here.lead()
    await leader.run()
    assert here.gateway.fail(here.process("api").token, Trouble.USAGE_LIMIT, resets_at=here.clock.now() + HOUR) is None
    refusal = here.gateway.call(here.process("ui").token, usd=1.0)
    assert refusal is not None
    await leader.step("execute")
    again = here.gateway.call(here.process("ui").token, usd=1.0)
    assert again is not None
    assert "is at its limit until" in again


async def test_an_idle_agent_of_a_shut_account_gives_its_slot_back(with_key: SmallWorld) -> None:
    here = with_key
    here.points.hold("run")
    here.host.plays("api", writes({"api.py": "broken"}), calls(here, writes({"api.py": "1"})))
    here.host.plays("ui", hangs())
    await here.submit(run_spec(task("api"), task("ui"), upstream=KEY))
    leader = await here.lead()
    await leader.run()
    assert (await here.task("api")).state is TaskState.VALIDATING
    here.gateway.fail(here.process("ui").token, Trouble.USAGE_LIMIT, resets_at=here.clock.now() + HOUR)
    here.process("ui").trouble(Trouble.USAGE_LIMIT, "kapelle limit: no")
    here.points.release("run")
    await leader.run()
    returned = await here.task("api")
    assert (returned.state, returned.waits_for) == (TaskState.RUNNING, Wait.LIMIT)
    assert here.host.live() == []
    assert [prompt.state for prompt in await here.prompts("api")] == [PromptState.ANSWERED, PromptState.PENDING]
    await leader.run_out(5)
    assert (await here.task("api")).state is TaskState.COMPLETED


async def test_a_limit_outlives_its_leader(with_key: SmallWorld) -> None:
    here = with_key
    here.host.plays("api", limited(here), calls(here, writes({"api.py": "1"})))
    await here.submit(run_spec(upstream=KEY))
    first = await here.lead()
    await first.run()
    await first.die()
    second = await here.lead()
    later = await second.run()
    assert here.host.live() == []
    assert later == (await account(here)).next_at
    await second.run_out()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_a_person_may_let_an_account_try_before_its_time(with_key: SmallWorld) -> None:
    here = with_key
    here.host.plays("api", limited(here), calls(here, writes({"api.py": "1"})))
    run_id = await here.submit(run_spec(upstream=KEY))
    leader = await here.lead()
    await leader.run()
    await here.ask(Resume(run_id=run_id))
    await leader.run()
    assert (await here.task()).state is TaskState.COMPLETED


# --- A limit without one ---


async def test_where_no_reset_is_known_one_agent_tries_before_the_rest_go(with_key: SmallWorld) -> None:
    here = with_key
    for name in ("a", "b", "c"):
        here.host.plays(name, limited(here, None), limited(here, None), calls(here, hangs()))
    await here.submit(run_spec(task("a"), task("b"), task("c"), upstream=KEY))
    leader = await here.lead()
    later = await leader.run()
    assert later is not None
    first = later - here.clock.now()
    assert 0.8 * MINUTE <= first <= 1.2 * MINUTE
    started = len(here.host.processes)
    here.clock.move_to(later)
    later = await leader.run()
    assert len(here.host.processes) == started + 1
    assert here.host.live() == []
    assert later is not None
    assert later - here.clock.now() > first
    here.host.forget()
    here.host.otherwise = calls(here, hangs())
    here.clock.move_to(later)
    later = await leader.run()
    assert len(here.host.live()) == 1
    assert (await account(here)).state is AccountState.RESTARTING
    for live in (2, 3):
        here.clock.move(SPACING)
        await leader.run()
        assert len(here.host.live()) == live


async def test_while_one_agent_tries_nobody_else_starts(with_key: SmallWorld) -> None:
    here = with_key
    here.host.plays("a", limited(here, None), hangs())
    here.host.plays("b", limited(here, None), hangs())
    await here.submit(run_spec(task("a"), task("b"), upstream=KEY))
    leader = await here.lead()
    later = await leader.run()
    assert later is not None
    here.clock.move_to(later)
    await leader.run()
    here.clock.move(HOUR)
    await leader.run()
    (trying,) = here.host.live()
    other = await here.task("b" if trying.task == "a" else "a")
    assert (other.waits_for, "one agent tries" in other.detail) == (Wait.LIMIT, True)
    # It is gone without having tried: another one may.
    trying.exit(1)
    await leader.run()
    assert len(here.host.live()) == 1


# --- Credentials that are refused ---


@pytest.mark.parametrize("trouble", [Trouble.LOGIN_EXPIRED, Trouble.INVALID_KEY])
async def test_a_person_is_asked_once_about_refused_credentials(with_key: SmallWorld, trouble: Trouble) -> None:
    here = with_key
    names = ["a", "b", "c"]
    for name in names:
        here.host.plays(name, limited(here, trouble=trouble))
    await here.submit(run_spec(*[task(name) for name in names], task("later", needs=("a",)), upstream=KEY))
    leader = await here.lead()
    assert await leader.run() is None
    here.clock.move(HOUR)
    await leader.run()
    (event,) = await here.events(AccountRefused)
    assert event.remedy
    for name in names:
        waiting = await here.task(name)
        assert (waiting.waits_for, waiting.attempts) == (Wait.CREDENTIALS, 1)
        assert event.remedy in waiting.detail
    assert len(await here.events(TaskWaited)) <= 2 * len(names)
    assert here.host.live() == []


async def test_other_credentials_let_everything_go_on(with_key: SmallWorld) -> None:
    here = with_key
    here.host.plays("api", limited(here, trouble=Trouble.INVALID_KEY), calls(here, writes({"api.py": "1"})))
    here.host.plays("ui", limited(here, trouble=Trouble.INVALID_KEY), calls(here, writes({"ui.py": "1"})))
    await here.submit(run_spec(task("api"), task("ui"), upstream=KEY))
    leader = await here.lead()
    await leader.run()
    assert "secret-1" not in (await account(here)).key
    here.credentials.known["env:KEY"] = "secret-2"
    await leader.run_out()
    assert {found.state for found in (await here.tasks()).values()} == {TaskState.COMPLETED}
    assert {attempt.outcome for attempt in await here.attempts("api")} == {Outcome.SUCCEEDED}


async def test_a_person_may_say_that_the_login_is_good_again(here: SmallWorld) -> None:
    # What the program itself says without having called: only its stream knows.
    here.host.plays("api", troubled(Trouble.LOGIN_EXPIRED, "Not logged in · Please run /login"), writes({"api.py": "1"}))
    run_id = await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    assert await leader.run() is None
    assert "log in again with `claude`" in (await here.task()).detail
    await here.ask(Resume(run_id=run_id))
    await leader.run_out()
    completed = await here.task()
    assert (completed.state, completed.attempts) == (TaskState.COMPLETED, 1)


async def test_credentials_that_are_still_bad_ask_again(here: SmallWorld) -> None:
    here.host.otherwise = troubled(Trouble.LOGIN_EXPIRED, "Please run /login")
    run_id = await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    await here.ask(Resume(run_id=run_id))
    await leader.run()
    assert len(await here.events(AccountRefused)) == 2
    assert len(here.host.processes) == 2


# --- What passes by itself ---


@pytest.mark.parametrize("trouble", [Trouble.OVERLOADED, Trouble.UNREACHABLE, Trouble.API_ERROR, Trouble.RATE_LIMITED])
async def test_a_night_without_an_answer_fails_nothing(here: SmallWorld, trouble: Trouble) -> None:
    here.host.otherwise = troubled(trouble, "no answer")
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    begun = here.clock.now()
    while here.clock.now() - begun < timedelta(hours=8):
        later = await leader.run()
        assert later is not None
        # It comes back soon after the API does.
        assert later - here.clock.now() <= timedelta(minutes=12)
        waiting = await here.task()
        assert (waiting.state, waiting.detail, waiting.attempts) == (TaskState.RUNNING, "no answer", 1)
        here.clock.move_to(later)
    here.host.otherwise = writes({"api.py": "1"})
    await leader.run_out()
    completed = await here.task()
    assert (completed.state, completed.attempts) == (TaskState.COMPLETED, 1)
    assert len(await here.attempts()) == 1


async def test_a_whole_day_without_an_answer_ends_the_task_with_its_own_reason(here: SmallWorld) -> None:
    here.host.otherwise = troubled(Trouble.OVERLOADED, "Overloaded")
    await here.submit(run_spec(task("api", max_attempts=3)))
    leader = await here.lead()
    await leader.run_out(1000)
    failed = await here.task()
    assert failed.failure is not None
    assert (failed.failure.kind, failed.attempts) == ("unreachable", 0)
    assert failed.failure.message == "the model API did not answer for 24 hours: Overloaded"


async def test_a_tool_call_shows_that_the_model_answers_again(here: SmallWorld) -> None:
    here.set(outage=HOUR)

    def tool_then_trouble(process: ScriptedProcess, _: str) -> None:
        process.tool()
        process.trouble(Trouble.OVERLOADED, "overloaded")

    here.host.otherwise = tool_then_trouble
    await here.submit(run_spec())
    leader = await here.lead()
    for _ in range(20):
        later = await leader.run()
        assert later is not None
        here.clock.move_to(later + HOUR)
    assert (await here.task()).state is TaskState.RUNNING


# --- What is one conversation's own ---


async def test_a_refusal_of_the_model_is_named_and_not_tried_again(here: SmallWorld) -> None:
    here.host.plays("api", troubled(Trouble.REFUSED, "safeguards flagged this message"))
    await here.submit(run_spec(task("api", max_attempts=3)))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert failed.failure is not None
    assert (failed.failure.kind, failed.failure.message) == ("refused", "safeguards flagged this message")
    assert failed.attempts == 0
    assert len(here.host.processes) == 1


async def test_a_conversation_that_became_too_long_goes_on_in_a_fresh_one(here: SmallWorld) -> None:
    def works_then_overflows(process: ScriptedProcess, _: str) -> None:
        process.write("api.py", "half")
        process.say("I wrote the first half.")
        process.trouble(Trouble.CONTEXT_OVERFLOW, "Prompt is too long")

    here.host.plays("api", works_then_overflows, writes({"api.py": "whole"}))
    await here.submit(run_spec(task("api", prompt="Write the API", max_attempts=1)))
    leader = await here.lead()
    await leader.run_out()
    completed = await here.task()
    assert (completed.state, completed.attempts) == (TaskState.COMPLETED, 1)
    first, second = here.host.of_task("api")
    assert first.conversation_id != second.conversation_id
    assert not second.resumed
    assert first.launch.cwd == second.launch.cwd
    (prompt,) = second.prompts
    for part in ("Write the API", "- api.py", "I wrote the first half."):
        assert part in prompt.text
    assert len(await here.events(ConversationForked)) == 1
    assert not [ref for ref in here.repository.refs if "looked-at" in ref]


async def test_what_was_asked_last_is_handed_over_too(here: SmallWorld) -> None:
    def overflows(process: ScriptedProcess, _: str) -> None:
        process.tool()
        process.trouble(Trouble.CONTEXT_OVERFLOW, "Prompt is too long")

    here.host.plays("api", writes({"api.py": "broken"}), overflows, writes({"api.py": "1"}))
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    (prompt,) = here.process().prompts
    assert "do api" in prompt.text
    assert "the check check/test failed" in prompt.text


async def test_a_fresh_conversation_that_is_too_long_at_once_ends_the_task(here: SmallWorld) -> None:
    here.host.otherwise = troubled(Trouble.CONTEXT_OVERFLOW, "Prompt is too long")
    await here.submit(run_spec(task("api", max_attempts=3)))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert failed.failure is not None
    assert (failed.failure.kind, failed.failure.message) == ("context_overflow", "Prompt is too long")
    assert (failed.attempts, len(here.host.processes)) == (0, 2)


async def test_fresh_conversations_are_bounded(here: SmallWorld) -> None:
    here.set(overflows=3)

    def overflows(process: ScriptedProcess, _: str) -> None:
        process.tool()
        process.trouble(Trouble.CONTEXT_OVERFLOW, "Prompt is too long")

    here.host.otherwise = overflows
    await here.submit(run_spec(task("api", max_attempts=3)))
    leader = await here.lead()
    await leader.run_out()
    assert (await here.task()).state is TaskState.FAILED
    assert len(here.host.processes) == 4


@pytest.mark.parametrize("after", [False, True])
async def test_a_leader_that_dies_when_a_fresh_conversation_is_to_begin_loses_nothing(here: SmallWorld, after: bool) -> None:
    def overflows(process: ScriptedProcess, _: str) -> None:
        process.tool()
        process.trouble(Trouble.CONTEXT_OVERFLOW, "Prompt is too long")

    here.host.plays("api", overflows, writes({"api.py": "1"}))
    await here.submit(run_spec(task("api", max_attempts=1)))
    first = await here.lead()
    if after:
        here.points.hold("start")
    for _ in range(4 if after else 8):
        await first.round()
        if await here.events(ConversationForked):
            break
    await first.die()
    here.points.release("start")
    second = await here.lead()
    await second.run_out()
    completed = await here.task()
    assert (completed.state, completed.attempts) == (TaskState.COMPLETED, 1)


# --- Where no gateway hears ---


async def test_without_the_gateway_the_program_says_when_the_limit_ends(here: SmallWorld) -> None:
    reset = here.clock.now() + HOUR
    message = f"Claude AI usage limit reached|{int(reset.timestamp())}"
    here.host.plays("api", troubled(Trouble.USAGE_LIMIT, message), writes({"api.py": "1"}))
    here.host.plays("ui", troubled(Trouble.USAGE_LIMIT, message), writes({"ui.py": "1"}))
    await here.submit(run_spec(task("api"), task("ui"), upstream=Upstream(bypass=True)))
    leader = await here.lead()
    assert await leader.run() == reset
    await leader.run_out()
    assert {found.state for found in (await here.tasks()).values()} == {TaskState.COMPLETED}
    assert len(await here.events(AccountLimited)) == 1
