r"""Inbox: what agents' programs ask becomes events and questions; what people answer, or nobody in time, goes back to them.

    asked -> a rule denies ---------------------------------> event -> told
         \-> a person said `always` in this run ------------> event -> goes through
         \-> a question is open --answered, expired, withdrawn (its agent has ended)--> event -> told

A question is a row; who waits for it is known to this leader alone. When it dies, the program asks the next one the same thing,
and finds the same question, whether it was answered meanwhile or not.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from kapelle.core.agent import Agent, AgentState
from kapelle.core.frozen import replace
from kapelle.core.ids import QuestionId
from kapelle.core.judging import about
from kapelle.core.question import AnswerKind, Question, QuestionState, deadline, detail, settle
from kapelle.core.rule_events import (
    CommandAllowed,
    CommandDenied,
    QuestionAsked,
    QuestionExpired,
    QuestionWithdrawn,
)
from kapelle.core.rules import ABOUT, Call, Fallback, Ruling, Verdict
from kapelle.core.store import Tx
from kapelle.core.task import TERMINAL, Wait
from kapelle.engine.asking import no_longer_asks, still_asks
from kapelle.engine.ending import wait
from kapelle.engine.warden import EngineWarden, Waiting, Watched, fact, words
from kapelle.engine.world import World

Told = tuple[Waiting, Ruling]
AT_ONCE = timedelta(seconds=10)
"""How long after its hook was answered a program may take to prompt for the same call."""


class InboxStage:
    """Looks after what waits for a person in the middle of an agent's turn."""

    name = "inbox"

    def __init__(self, world: World, warden: EngineWarden) -> None:
        self._world = world
        self._warden = warden
        self._waiting: dict[QuestionId, list[Waiting]] = {}
        """Who waits for which question, on this leader."""

    async def step(self, now: datetime) -> datetime | None:  # noqa: ARG002  # the transaction says when it is
        """See ``engine.stage.Stage``."""
        taken = self._warden.take()
        before = {question_id: list(waiting) for question_id, waiting in self._waiting.items()}

        def decide(tx: Tx) -> tuple[list[Told], datetime | None]:
            self._waiting = {question_id: list(waiting) for question_id, waiting in before.items()}
            for event in taken[1]:
                tx.log(event)
            told = [said for waiting in taken[0] for said in self._take_in(tx, waiting)]
            wake = self._settle_due(tx)
            return [*told, *self._settled(tx)], wake

        try:
            told, wake = await self._world.store.transact(decide, term=self._world.term)
        except BaseException:
            self._warden.give_back(taken)
            self._waiting = before
            raise
        for waiting, ruling in told:
            waiting.settle(ruling)
        return wake

    # --- Deciding, inside the transaction ---

    def _take_in(self, tx: Tx, waiting: Waiting) -> list[Told]:
        agent, call, ruling = waiting.agent, waiting.call, waiting.ruling
        if ruling.verdict is Verdict.DENY:
            tx.log(fact(CommandDenied, agent, call, ruling, ruling.reason))
            return [(waiting, replace(ruling, reason=words(ruling)))]
        if ruling.verdict is Verdict.ALLOW:
            tx.log(fact(CommandAllowed, agent, call, ruling, ruling.reason))
            return []
        known = _known(tx, agent, call, ruling)
        # In the place of the program's own prompt there is no passing: it is all of the call, or it is asked about.
        enough = ruling.whole or not call.prompted
        if known is None and enough and (granted := _granted(tx, agent, ruling)):
            tx.log(fact(CommandAllowed, agent, call, ruling, f"{granted} said always"))
            verdict = Verdict.ALLOW if ruling.whole else Verdict.PASS
            return [(waiting, Ruling(verdict=verdict, reason=f"{granted} said always"))]
        if known is None and not agent.rules.deadline:
            return [_unasked(tx, waiting)]
        question = known or self._ask(tx, waiting)
        if question is None:
            return [(waiting, Ruling(verdict=Verdict.DENY, reason="this agent is being stopped"))]
        self._waiting.setdefault(question.question_id, []).append(waiting)
        return []

    def _ask(self, tx: Tx, waiting: Waiting) -> Question | None:
        agent, call, ruling = waiting.agent, waiting.call, waiting.ruling
        live, task = tx.agents.get(agent.agent_id), tx.tasks.get(agent.task_id)
        if live is None or live.stopped_at is not None or task is None or task.state in TERMINAL:
            return None
        question = Question(
            question_id=QuestionId(self._world.new_id("i")),
            run_id=agent.run_id,
            task_id=agent.task_id,
            attempt_id=agent.attempt_id,
            agent_id=agent.agent_id,
            call_id=call.call_id,
            tool=call.tool,
            what=about(call, agent.scope),
            rule=ruling.rule,
            reason=ruling.reason,
            keys=ruling.keys,
            default=agent.rules.default,
            asked_at=tx.now,
            deadline_at=deadline(tx.now, agent.rules.deadline, live.deadline_at, live.created_at),
        )
        tx.questions.put(question)
        tx.log(
            QuestionAsked(
                run_id=question.run_id,
                task_id=question.task_id,
                question_id=question.question_id,
                agent_id=question.agent_id,
                tool=question.tool,
                what=question.what,
                rule=question.rule,
                reason=question.reason,
                deadline_at=question.deadline_at,
                default=question.default.value,
            )
        )
        wait(tx, task, Wait.APPROVAL, detail(question))
        return question

    def _settle_due(self, tx: Tx) -> datetime | None:
        """Settle what nobody answered in time, and what nobody asks any more; return when the next one is due."""
        later: list[datetime] = []
        for question in tx.questions.open():
            run_id, task_id, question_id = question.run_id, question.task_id, question.question_id
            if not _still_asked(tx.agents.get(question.agent_id)):
                over = settle(question, QuestionState.WITHDRAWN, tx.now)
                tx.log(QuestionWithdrawn(run_id=run_id, task_id=task_id, question_id=question_id))
            elif question.deadline_at <= tx.now:
                over = settle(question, QuestionState.EXPIRED, tx.now)
                default = question.default.value
                tx.log(QuestionExpired(run_id=run_id, task_id=task_id, question_id=question_id, default=default))
            else:
                still_asks(tx, question)
                later.append(question.deadline_at)
                continue
            tx.questions.put(over)
            no_longer_asks(tx, over)
        return min(later, default=None)

    def _settled(self, tx: Tx) -> list[Told]:
        """Return who waits for what is settled now."""
        told: list[Told] = []
        for question_id in list(self._waiting):
            question = tx.questions.get(question_id)
            if question is None or question.state is QuestionState.OPEN:
                continue
            told += [(waiting, _decision(question)) for waiting in self._waiting.pop(question_id)]
        return told


def _known(tx: Tx, agent: Watched, call: Call, ruling: Ruling) -> Question | None:
    """Return the question that this call is about, if it was asked already: to an earlier leader, or before the tool.

    A program that prompts does not always say which call it does so for; it prompts right after the hook before the tool was
    answered. So what the same rule has asked about the same just now is about this call. An answer of longer ago is about
    another call, and so is one in the place of which the hook went by what a person said `always` to.
    """
    known = tx.questions.asked(agent.agent_id, call.call_id) if call.call_id else None
    what = about(call, agent.scope)
    if known is not None or not call.prompted or not ruling.rule or call.cut or len(what) >= ABOUT:
        return known
    found = tx.questions.ruled(agent.agent_id, call.tool, what)
    if found is None or (found.rule, found.attempt_id) != (ruling.rule, agent.attempt_id):
        return None
    if found.settled_at is not None and found.settled_at < tx.now - AT_ONCE:
        return None
    return None if found.answer is not AnswerKind.ALWAYS and _granted(tx, agent, ruling) else found


def _unasked(tx: Tx, waiting: Waiting) -> Told:
    """Do what the rules say for a question that nobody answers, since nobody is to be asked."""
    agent, call, ruling, why = waiting.agent, waiting.call, waiting.ruling, "nobody is asked here (deadline: 0s)"
    if agent.rules.default is Fallback.ALLOW:
        tx.log(fact(CommandAllowed, agent, call, ruling, why))
        return waiting, Ruling(verdict=Verdict.ALLOW, reason=why)
    denied = replace(ruling, verdict=Verdict.DENY, reason=f"{ruling.reason}, and {why}")
    tx.log(fact(CommandDenied, agent, call, ruling, denied.reason))
    return waiting, replace(denied, reason=words(denied) if denied.rule else denied.reason)


def _still_asked(agent: Agent | None) -> bool:
    # One that is being ended asks nothing any more, whatever it was told: its turn is over, or somebody has stopped it.
    return agent is not None and agent.stopped_at is None and agent.state is not AgentState.COMPLETING


def _granted(tx: Tx, agent: Watched, ruling: Ruling) -> str:
    """Return who let all that *ruling* asks about through for the rest of the run, or nothing."""
    always: Sequence[Question] = tx.questions.always(agent.run_id)
    by_key = {key: question.answered_by for question in always for key in question.keys}
    if not ruling.keys or not all(key in by_key for key in ruling.keys):
        return ""
    return by_key[ruling.keys[0]]


def _decision(question: Question) -> Ruling:
    """Return what the program is told."""
    if question.state is QuestionState.EXPIRED:
        verdict = Verdict.ALLOW if question.allows else Verdict.DENY
        return Ruling(
            verdict=verdict, reason="nobody answered in time: go on without it, and say in your answer what is missing"
        )
    if question.state is QuestionState.WITHDRAWN:
        return Ruling(verdict=Verdict.DENY, reason="this agent is being stopped")
    if question.allows:
        return Ruling(verdict=Verdict.ALLOW, reason=question.note or f"{question.answered_by} allowed it")
    said = f"{question.answered_by} said no" + (f": {question.note}" if question.note else "")
    return Ruling(verdict=Verdict.DENY, reason=f"{said}. Go on without it.")
