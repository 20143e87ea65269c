"""The inbox: what waits for a person, by every door."""

import json
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest

from kapelle.apps import models
from kapelle.apps.cli.inbox import print_items
from kapelle.apps.cli.output import Plain
from kapelle.apps.inbox import answer_to, inbox, item_json
from kapelle.apps.ruling import rules_of
from kapelle.core.account import Account, AccountState, account_of
from kapelle.core.agent import AgentConfig
from kapelle.core.conversation import Trouble
from kapelle.core.errors import Ambiguous, KapelleError, NotFound, UsageError
from kapelle.core.ids import QuestionId
from kapelle.core.merge import hold_up
from kapelle.core.question import AnswerKind, QuestionState, settle
from kapelle.core.requests import Answer, Approve, Reject, Resume
from kapelle.core.rules import Call, Fallback, Rules
from kapelle.core.store import Tx
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import writes
from kapelle.testing.places import Place
from kapelle.testing.worlds import Leader, SmallWorld, world

CI = ".github/workflows/ci.yml"
ASKING = AgentConfig(name="coder", program="line", rules=Rules(ask=("Bash(npm *)",)))


async def waiting(here: SmallWorld) -> Leader:
    """Let something of each kind wait."""
    here.host.plays("ci", writes({CI: "on: push"}))
    tasks = task("ci", max_attempts=1), task("release", approval=True), task("api")
    await here.submit(run_spec(*tasks, configs=(ASKING,)))
    leader = await here.lead()
    await leader.run()
    task_id = await here.task_id("api")
    live = await here.store.read(lambda view: view.agents.live())
    agent = next(agent for agent in live if agent.task_id == task_id)
    await here.warden.ask(agent.agent_id, Call(call_id="c-1", tool="Bash", command="npm publish"))
    await leader.run()
    return leader


async def test_all_that_waits_is_in_it_and_can_be_answered(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await waiting(here)
        items = {item.kind: item for item in await here.store.read(inbox)}
        assert set(items) == {"question", "change", "approval"}
        assert (items["question"].what, items["question"].always) == ("Bash: npm publish", ("Bash(npm *)",))
        assert items["question"].default is Fallback.DENY
        assert CI in items["change"].what
        bodies = {
            kind: await here.store.read(lambda view, item=item: answer_to(view, item.item_id, AnswerKind.ALLOW, "")[1])
            for kind, item in items.items()
        }
        assert {kind: type(body) for kind, body in bodies.items()} == {
            "question": Answer,
            "change": Approve,
            "approval": Approve,
        }
        no = await here.store.read(lambda view: answer_to(view, "release", AnswerKind.DENY, "not today")[1])
        assert isinstance(no, Reject)
        assert no.reason == "not today"


@pytest.mark.parametrize("width", [80, 100, 200])
async def test_what_a_rule_asks_about_is_told_in_few_words_on_any_terminal(tmp_path: Path, width: int) -> None:
    async with world(tmp_path) as here:
        await waiting(here)
        items = await here.store.read(inbox)
        stream = StringIO()
        print_items(Plain(file=stream, width=width, color_system=None), items, here.clock.now())
        told = stream.getvalue()
        item = items[0]
        assert "is asked about" in item.why
        assert "is asked about" not in told
        if width == 200:
            assert [*told.splitlines()[0].split()] == ["ID", "FOR", "WHAT", "WHY", "UNTIL", "ANSWERS"]
            words = "api Bash: npm publish Bash(npm *) 10m00s, then deny allow deny always"
            assert " ".join(told.splitlines()[1].split()[1:]) == words
        else:
            assert told.splitlines()[:4] == [
                item.item_id,
                "  FOR      api",
                "  WHAT     Bash: npm publish",
                "  WHY      Bash(npm *)",
            ]


async def test_it_is_named_by_its_task_or_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await waiting(here)
        question = next(item for item in await here.store.read(inbox) if item.kind == "question")
        for word in (question.item_id, question.item_id[:8], question.item_id[2:8], "api"):
            found, _ = await here.store.read(lambda view, word=word: answer_to(view, word, AnswerKind.ALWAYS, ""))
            assert found == question
        with pytest.raises(Ambiguous, match=r"t-\w+ \(ci\), t-\w+ \(release\)"):
            await here.store.read(lambda view: answer_to(view, "t-", AnswerKind.ALLOW, ""))
        with pytest.raises(NotFound, match="nothing in the inbox is called other"):
            await here.store.read(lambda view: answer_to(view, "other", AnswerKind.ALLOW, ""))
        with pytest.raises(UsageError, match="cannot be answered with always"):
            await here.store.read(lambda view: answer_to(view, "release", AnswerKind.ALWAYS, ""))


async def test_what_became_of_a_question_that_waits_no_more_is_told(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        leader = await waiting(here)
        (question,) = await here.store.read(lambda view: list(view.questions.open()))

        async def said(*states: QuestionState, word: str = "") -> str:
            def put(tx: Tx) -> None:
                for number, state in enumerate(states):
                    kind = AnswerKind.DENY if state is QuestionState.ANSWERED else None
                    over = settle(question, state, here.clock.now(), answer=kind, by="person:ann")
                    new = f"{question.question_id}{'x' * number}"
                    tx.questions.put(replace(over, question_id=QuestionId(new), call_id=f"c{number}"))

            await here.store.transact(put, term=leader.term)
            name = word or question.question_id
            with pytest.raises(KapelleError) as raised:
                await here.store.read(lambda view: answer_to(view, name, AnswerKind.ALLOW, ""))
            return f"{raised.value} | {raised.value.advice}"

        name = question.question_id
        assert (await said(QuestionState.ANSWERED)).startswith(f"{name} was answered already: deny (ann)")
        assert (await said(QuestionState.EXPIRED)).startswith(f"nobody answered {name} in time: deny")
        withdrawn = await said(QuestionState.WITHDRAWN)
        assert withdrawn.startswith(f"{name} was withdrawn when its agent was ended; api asks again when it goes on")
        assert "kapelle resume r-" in withdrawn
        several = await said(QuestionState.WITHDRAWN, QuestionState.ANSWERED, word="i-")
        assert several.startswith("nothing in the inbox is called i-")


async def test_accounts_and_targets_that_wait_for_a_person_are_in_it(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.host.plays("api", writes({"api.py": "1"}))
        run_id = await here.submit(run_spec(task(), task("ui")))
        leader = await here.lead()
        await leader.run()
        run = await here.run(run_id)
        integration = await here.integration()

        def shut(tx: Tx) -> None:
            account: Account = account_of(run.spec.upstream)
            refused = Account(
                account_id=account.account_id, name=account.name, state=AccountState.REFUSED, trouble=Trouble.LOGIN_EXPIRED
            )
            tx.accounts.put(refused)
            tx.changes.put_integration(hold_up(integration, "main is dirty", "commit it"))

        await here.store.transact(shut, term=leader.term)
        items = {item.kind: item for item in await here.store.read(inbox)}
        assert set(items) == {"account", "target"}
        assert "log in again" in items["account"].why
        assert items["target"].why == "main is dirty; commit it"
        assert items["target"].answers == (AnswerKind.ALLOW,)
        assert item_json(items["target"])["answers"] == ["allow"]


async def test_accounts_are_tried_again_by_an_answer(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        run_id = await here.submit(run_spec())
        leader = await here.lead()
        await leader.run()
        run = await here.run(run_id)
        account = account_of(run.spec.upstream)
        refused = Account(account_id=account.account_id, name=account.name, state=AccountState.REFUSED)
        await here.store.transact(lambda tx: tx.accounts.put(refused), term=leader.term)
        _, body = await here.store.read(lambda view: answer_to(view, run_id, AnswerKind.ALLOW, ""))
        assert body == Resume(run_id=run_id)


def test_an_empty_inbox_says_so(place: Place) -> None:
    assert place.run("inbox").out == "Nothing waits for you.\n"
    assert place.run("inbox", "--json").json == []
    assert not place.home.exists()


def test_answering_what_is_not_there_is_told(place: Place) -> None:
    said = place.run("answer", "i-none", "allow")
    assert said.code == 2
    assert "nothing in the inbox is called i-none" in said.err
    perhaps = place.run("answer", "i-none", "perhaps")
    assert perhaps.code == 2
    assert "said cannot be 'perhaps'" not in perhaps.err
    assert "Write allow, deny, always, raise or stop." in perhaps.err


def test_a_task_is_approved_from_the_inbox(place: Place) -> None:
    place.write("flow.yml", "name: flow\ntasks: {one: {agent: script, gate: none, approval: true, prompt: 'true'}}\n")
    assert place.run("submit", "../flow.yml").code == 0
    (item,) = place.run("inbox", "--json").json
    assert (item["kind"], item["name"]) == ("approval", "one")
    assert place.run("answer", "one", "allow").out == "Allowed: one: start the task\n"
    assert place.run("inbox", "--json").json == []


@pytest.mark.parametrize("word", ["answer", "approve", "reject"])
def test_what_comes_from_below_an_agent_is_the_agent_s_and_is_refused(place: Place, word: str) -> None:
    place.write("flow.yml", "name: flow\ntasks: {one: {agent: script, gate: none, approval: true, prompt: 'true'}}\n")
    assert place.run("submit", "../flow.yml").code == 0
    (event,) = [json.loads(line) for line in place.run("events", "--json").out.splitlines() if "run.submitted" in line]
    assert event["principal"].startswith("person:")
    arguments = (word, "one", "allow") if word == "answer" else (word, "one")
    refused = place.run(*arguments, env=carried(place))
    assert refused.code != 0
    assert "only a person can answer, and this is agent:one" in refused.err
    assert len(place.run("inbox", "--json").json) == 1


def test_an_agent_of_another_store_is_somebody_like_any_other(place: Place) -> None:
    place.write("flow.yml", "name: flow\ntasks: {one: {agent: script, gate: none, approval: true, prompt: 'true'}}\n")
    assert place.run("submit", "../flow.yml").code == 0
    assert place.run("answer", "one", "allow", env={**carried(place), "KAPELLE_STORE": "other"}).code == 0


def carried(place: Place) -> dict[str, str]:
    """Return what processes of an agent carry in their environment."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(place.home / "store.db")) as store:
        (store_id,) = store.execute("SELECT value FROM about WHERE name = 'store_id'").fetchone()
    return {"KAPELLE_STORE": store_id, "KAPELLE_WORKSPACE_ID": "w-1", "KAPELLE_TASK": "one"}


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ({}, Rules()),
        ({"builtin": "off"}, Rules(builtin=(("*", "off"),))),
        ({"builtin": False}, Rules(builtin=(("*", "off"),))),
        ({"builtin": {"privilege": "ask", "ci-files": False}}, Rules(builtin=(("privilege", "ask"), ("ci-files", "off")))),
        ({"deny": "WebFetch", "ask": ["Bash(a *)"]}, Rules(deny=("WebFetch",), ask=("Bash(a *)",))),
        ({"deadline": "0s", "default": "allow"}, Rules(deadline=timedelta(0), default=Fallback.ALLOW)),
    ],
)
def test_rules_are_written_as_people_write_them(written: dict[str, object], found: Rules) -> None:
    assert rules_of(models.Rules.model_validate(written)) == found


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("deny: ['Bash(']", "is no rule"),
        ("builtin: {sudo: off}", "there is no built-in rule sudo"),
        ("builtin: {privilege: perhaps}", "perhaps"),
        ("default: maybe", "maybe"),
    ],
)
def test_what_is_wrong_with_rules_is_told_with_its_place(place: Place, rules: str, said: str) -> None:
    agents = place.repository / ".kapelle" / "agents.yml"
    agents.write_text(f"agents:\n  coder:\n    program: claude\n    rules: {{{rules}}}\n")
    checked = place.run("validate")
    assert checked.code == 2
    assert said in checked.err
    assert "agents.yml:4" in checked.err


def test_rules_for_a_program_that_does_not_ask_are_a_mistake(place: Place) -> None:
    agents = place.repository / ".kapelle" / "agents.yml"
    agents.write_text("agents:\n  script: {program: command, rules: {deny: [WebFetch]}}\n")
    checked = place.run("validate")
    assert checked.code == 2
    assert "command does not ask before it does something" in checked.err
