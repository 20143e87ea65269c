"""A simulation in which agents ask before they do something: rules deny, people answer late or never, leaders die in between.

An agent whose leader died asks the next one the same thing, as its program does. What always holds, besides everything else:

- what was once answered is answered the same to whoever asks again;
- a question is open for a live agent only, and its task says that it waits;
- no agent ever answers;
- what a person did not allow, and no default did, is not done.
"""

from asyncio import Future
from dataclasses import dataclass
from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from kapelle.core.agent import AgentState
from kapelle.core.frozen import replace
from kapelle.core.ids import AgentId, RequestId
from kapelle.core.question import AnswerKind, Question, QuestionState
from kapelle.core.requests import Answer, Request
from kapelle.core.rules import Call, Fallback, Rules, Ruling, Verdict
from kapelle.core.store import View
from kapelle.core.task import TaskState, Wait
from kapelle.testing.hosts import ScriptedProcess
from kapelle.testing.simulation import Simulation

COMMANDS = ("make", "sudo make", "npm publish", "helm upgrade", "npm publish && helm upgrade")
RULES = Rules(ask=("Bash(npm publish *)", "Bash(helm *)"), deadline=timedelta(minutes=5))


@dataclass
class Asking:
    """A call that an agent waits for, or waited for."""

    agent_id: AgentId
    call: Call
    process: ScriptedProcess
    answer: "Future[Ruling]"
    told: Ruling | None = None


class Questioning(Simulation):
    """See the module."""

    def compose(self) -> None:
        """Give the agents rules."""
        self.asking: list[Asking] = []
        self.calls = 0

    def submit(self, data: st.DataObject) -> None:
        """Ask for a run whose agents have rules."""
        rules = replace(RULES, default=data.draw(st.sampled_from(Fallback), label="default"))
        self.configs = tuple(replace(config, rules=rules) for config in self.configs)
        super().submit(data)

    def with_an_agent(self, data: st.DataObject) -> ScriptedProcess | None:
        """Return one of the agents whose turn is open; perhaps it asks for something first."""
        process = super().with_an_agent(data)
        if process is not None and data.draw(st.booleans(), label="asks"):
            self.ask(data, process)
        return process

    def ask(self, data: st.DataObject, process: ScriptedProcess) -> None:
        """Let an agent ask before something is done."""
        self.some_rounds(1)
        agent_id = self._agent(process)
        if agent_id is None or agent_id not in self.here.warden.admitted:
            return
        command = data.draw(st.sampled_from(COMMANDS), label="command")
        self.calls += 1
        call = Call(
            call_id=f"c-{self.calls}", tool="Bash", command=command, prompted=data.draw(st.booleans(), label="prompted")
        )
        answer = self.do(self.here.warden.ask(agent_id, call))
        self.asking.append(Asking(agent_id=agent_id, call=call, process=process, answer=answer))
        self.some_rounds(1)
        self.questions_hold()
        match data.draw(st.sampled_from(["answer", "answer", "time", "wait", "wait"]), label="then"):
            case "answer":
                self.answer(data, late=False)
            case "time":
                self.here.clock.move(timedelta(minutes=6))
                self.some_rounds(1)
            case _:
                return

    @rule(data=st.data())
    def the_leader_dies_while_an_agent_waits(self, data: st.DataObject) -> None:
        """Ask, and ask the next leader again."""
        process = super().with_an_agent(data)
        if process is not None:
            self.ask(data, process)
            self.succeed()

    def _agent(self, process: ScriptedProcess) -> AgentId | None:
        live = self.do(self.here.store.read(lambda view: view.agents.live()))
        return next((agent.agent_id for agent in live if agent.process == process.ref), None)

    @rule(data=st.data(), late=st.booleans())
    def somebody_answers(self, data: st.DataObject, late: bool) -> None:
        """Answer a question, perhaps one that is settled already."""
        self.answer(data, late=late)

    def answer(self, data: st.DataObject, *, late: bool) -> None:
        """Answer a question in any way, perhaps as one who may not."""
        kind = data.draw(st.sampled_from(AnswerKind), label="answer")
        agent = data.draw(st.sampled_from([False, False, False, True]), label="by an agent")
        questions = self.do(self.here.store.read(_questions))
        chosen = [question for question in questions if late or question.state is QuestionState.OPEN]
        if not chosen:
            return
        question = data.draw(st.sampled_from(chosen), label="question")
        body = Answer(run_id=question.run_id, question_id=question.question_id, answer=kind)
        by = "agent:somebody" if agent else "person:you"
        identity = RequestId(self.here.ports.new_id("q"))
        request = Request(request_id=identity, body=body, principal=by, asked_at=self.here.clock.now())
        self.do(self.here.store.ask([request]))
        self.some_rounds(1)
        refusal = self.do(self.here.refusal(identity))
        assert refusal is not None or (question.state is QuestionState.OPEN and not agent)

    @precondition(lambda self: self.asking)
    @rule()
    def nobody_answers(self) -> None:
        """Let the deadlines pass."""
        self.here.clock.move(timedelta(minutes=6))
        self.some_rounds(1)

    def succeed(self) -> None:
        """Let the agents that wait ask the next leader the same."""
        waiting = [entry for entry in self.asking if entry.told is None]
        super().succeed()
        self.some_rounds(1)
        for entry in waiting:
            if entry.process.alive and entry.agent_id in self.here.warden.admitted:
                entry.answer = self.do(self.here.warden.ask(entry.agent_id, entry.call))
        self.some_rounds(1)

    @invariant()
    def questions_hold(self) -> None:
        """Check what holds of questions."""
        if not self.rounds:
            return
        problems: list[str] = []
        for entry in self.asking:
            if entry.answer.done() and not entry.answer.cancelled() and entry.told is None:
                entry.told = entry.answer.result()
                asked = self.do(self.here.store.read(lambda view, of=entry: view.questions.asked(of.agent_id, of.call.call_id)))
                problems += _judged(entry, asked)
                if "said always" in entry.told.reason and not self.do(
                    self.here.store.read(lambda view, of=entry: _always(view, of))
                ):
                    problems.append(f"nobody said always to {entry.call.command}")
        problems += self.do(self.here.store.read(_state))
        assert not problems, "\n".join(problems)

    def heal(self) -> None:
        """Nothing is asked any more in the end."""
        super().heal()
        left = self.do(self.here.store.read(lambda view: view.questions.open()))
        assert not left, f"questions are open though all has ended: {left}"


def _judged(entry: Asking, question: Question | None) -> list[str]:
    """Return what is wrong with what an agent was told."""
    told, what = entry.told, f"{entry.call.command} of {entry.agent_id}"
    if told is None:
        return []
    if entry.call.command is not None and "sudo" in entry.call.command:
        return [] if told.verdict is Verdict.DENY else [f"{what} was not denied"]
    if question is not None:
        right = Verdict.ALLOW if question.allows else Verdict.DENY
        return [] if told.verdict is right else [f"{what} was told {told.verdict}, and the answer is {right}"]
    if told.verdict is Verdict.PASS and entry.call.command == "make" and not entry.call.prompted:
        return []
    # Without a question of its own it was let through by `always`, or its agent had been stopped.
    known = "said always" in told.reason or "stopped" in told.reason
    return [] if known else [f"{what} was told {told.verdict} by nobody: {told.reason}"]


def _questions(view: View) -> list[Question]:
    # The newest two for each letter or digit that an id may begin with, and all that are open: enough to choose from.
    found = {question.question_id: question for question in view.questions.open()}
    for letter in "0123456789abcdefghjkmnpqrstvwxyz":
        found |= {question.question_id: question for question in view.questions.find(f"i-{letter}")}
    return sorted(found.values(), key=lambda question: (question.asked_at, question.question_id))


def _always(view: View, entry: Asking) -> bool:
    """Say whether a person has always allowed all that rules ask about in this call."""
    agent = view.agents.get(entry.agent_id)
    keys = (
        {key for question in view.questions.always(agent.run_id) for key in question.keys} if agent is not None else set[str]()
    )
    command = entry.call.command or ""
    asked = {rule for rule in RULES.ask if rule.removeprefix("Bash(").removesuffix(" *)") in command}
    return (asked or {f"Bash({command})"}) <= keys


def _state(view: View) -> list[str]:
    problems: list[str] = []
    live = {agent.agent_id for agent in view.agents.live() if agent.state is not AgentState.COMPLETING}
    for question in view.questions.open():
        task = view.tasks.get(question.task_id)
        if question.agent_id not in live:
            problems.append(f"{question.question_id} is open, and its agent has ended")
        elif task is not None and task.state is TaskState.RUNNING and task.waits_for is not Wait.APPROVAL:
            problems.append(f"{question.question_id} is open, and its task waits for {task.waits_for}")
    problems += [f"{entry.question_id} was answered by an agent" for entry in _questions(view) if "agent" in entry.answered_by]
    return problems


__all__ = ["COMMANDS", "RULES", "Questioning"]
