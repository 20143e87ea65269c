"""What a store owes of questions; a part of the suite of ``core.store.Store``."""

from datetime import timedelta
from typing import Any

from kapelle.core.frozen import replace
from kapelle.core.ids import AgentId, QuestionId, RunId
from kapelle.core.question import AnswerKind, Question, QuestionState
from kapelle.core.store import Tx
from kapelle.testing.conformance.samples import NOON, some
from kapelle.testing.conformance.tables import comes_back
from kapelle.testing.conformance.transactions import Led, StoreTests


def _questions() -> list[Question]:
    """Return questions that differ in everything but what a test says of them."""
    return [
        replace(question, question_id=QuestionId(f"i-{number}"), asked_at=NOON + timedelta(seconds=number))
        for number, question in enumerate(some(Question, examples=6))
    ]


class QuestionSuite(StoreTests):
    """Questions come back, and are found by what they are asked for."""

    async def test_a_question_comes_back(self, led: Led) -> None:
        """With its answer, if it has one."""
        await comes_back(
            led,
            Question,
            lambda tx, question: tx.questions.put(question),
            lambda tx, question: tx.questions.get(question.question_id),
        )

    async def test_open_questions_are_found_the_oldest_first(self, led: Led) -> None:
        """And no other."""
        states = [
            QuestionState.OPEN,
            QuestionState.ANSWERED,
            QuestionState.EXPIRED,
            QuestionState.WITHDRAWN,
            QuestionState.OPEN,
        ]
        questions = [replace(one, state=state) for one, state in zip(_questions(), states, strict=False)]

        def work(tx: Tx) -> None:
            for question in reversed(questions):
                tx.questions.put(question)
            assert list(tx.questions.open()) == [questions[0], questions[4]]
            tx.questions.put(replace(questions[0], state=QuestionState.EXPIRED))
            assert list(tx.questions.open()) == [questions[4]]

        await led.do(work)

    async def test_a_question_is_found_by_who_asked_and_of_what(self, led: Led) -> None:
        """The same call of another agent is another question."""
        one, other, *_ = _questions()
        one = replace(one, agent_id=AgentId("g-1"), call_id="call")
        other = replace(other, agent_id=AgentId("g-2"), call_id="call")

        def work(tx: Tx) -> None:
            tx.questions.put(one)
            tx.questions.put(other)
            assert tx.questions.asked(AgentId("g-1"), "call") == one
            assert tx.questions.asked(AgentId("g-2"), "call") == other
            assert tx.questions.asked(AgentId("g-1"), "other") is None

        await led.do(work)

    async def test_what_a_rule_asked_is_found_by_what_it_was_about(self, led: Led) -> None:
        """The last of an agent; what its program asked by itself is none."""
        mine = AgentId("g-1")
        same: dict[str, Any] = {"agent_id": mine, "tool": "Bash", "what": "npm publish", "rule": "publish"}
        old, new, unruled, others, elsewhere, *_ = _questions()
        old, new = replace(old, **same), replace(new, **same)
        unruled = replace(unruled, **{**same, "rule": ""})
        others = replace(others, **{**same, "agent_id": AgentId("g-2")})
        elsewhere = replace(elsewhere, **{**same, "what": "npm"})

        def work(tx: Tx) -> None:
            assert tx.questions.ruled(mine, "Bash", "npm publish") is None
            for question in (new, old, unruled, others, elsewhere):
                tx.questions.put(question)
            assert tx.questions.ruled(mine, "Bash", "npm publish") == new
            assert tx.questions.ruled(mine, "Write", "npm publish") is None

        await led.do(work)

    async def test_what_was_always_allowed_is_found_by_its_run(self, led: Led) -> None:
        """And nothing that was allowed once."""
        kinds = [AnswerKind.ALWAYS, AnswerKind.ALLOW, AnswerKind.DENY, None, AnswerKind.ALWAYS]
        questions = [replace(one, answer=kind, run_id=RunId("r-1")) for one, kind in zip(_questions(), kinds, strict=False)]
        questions[4] = replace(questions[4], run_id=RunId("r-2"))

        def work(tx: Tx) -> None:
            for question in questions:
                tx.questions.put(question)
            assert list(tx.questions.always(RunId("r-1"))) == [questions[0]]

        await led.do(work)

    async def test_questions_are_found_by_the_beginning_of_their_id(self, led: Led) -> None:
        """At most two, the newest first; what means anything in a pattern means itself."""
        questions = _questions()

        def work(tx: Tx) -> None:
            for question in questions:
                tx.questions.put(question)
            assert list(tx.questions.find("i-")) == [questions[-1], questions[-2]]
            assert list(tx.questions.find("i-3")) == [questions[3]]
            assert list(tx.questions.find("%")) == []

        await led.do(work)
