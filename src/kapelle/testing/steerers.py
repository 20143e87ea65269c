"""What people ask of single agents and tasks in a world in which anything may happen; see ``simulation.py``."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from kapelle.core.ids import PromptId
from kapelle.core.requests import Pause, Resume
from kapelle.core.steering import Freeze, HandBack, Send, StopAgent, TakeOver, Thaw
from kapelle.core.task import Task
from kapelle.testing.worlds import SmallWorld

T = TypeVar("T")


class Steerers(RuleBasedStateMachine):
    """A part of the simulation: it steers what the rest of it lets live."""

    here: SmallWorld

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run *coroutine* to its end."""
        raise NotImplementedError

    def some_rounds(self, count: int) -> None:
        """Let the leader go round."""
        raise NotImplementedError

    def some_task(self, data: st.DataObject) -> Task:
        """Return a task that somebody means."""
        raise NotImplementedError

    @rule(data=st.data(), kind=st.sampled_from([Freeze, Thaw, StopAgent]), at_once=st.booleans(), rounds=st.integers(0, 3))
    def somebody_steers_an_agent(
        self, data: st.DataObject, kind: type[Freeze | Thaw | StopAgent], at_once: bool, rounds: int
    ) -> None:
        """Freeze an agent, let it go on, or stop it."""
        self.some_rounds(1)
        agents = self.do(self.here.store.read(lambda view: list(view.agents.live())))
        if agents:
            agent = data.draw(st.sampled_from(agents), label="agent")
            more = {"at_once": at_once} if kind is StopAgent else {}
            self.do(self.here.ask(kind(run_id=agent.run_id, agent_id=agent.agent_id, **more)))
        self.some_rounds(rounds)

    @rule(data=st.data(), number=st.integers(0, 10_000), rounds=st.integers(0, 2))
    def somebody_speaks_to_an_agent(self, data: st.DataObject, number: int, rounds: int) -> None:
        """Say something to an agent, perhaps twice under one id."""
        agents = self.do(self.here.store.read(lambda view: list(view.agents.live())))
        if agents:
            agent = data.draw(st.sampled_from(agents), label="agent")
            prompt_id = PromptId(f"said-{number}")
            self.do(self.here.ask(Send(run_id=agent.run_id, agent_id=agent.agent_id, prompt_id=prompt_id, text="and this")))
        self.some_rounds(rounds)

    @rule(data=st.data(), back=st.booleans(), rounds=st.integers(0, 3))
    def somebody_takes_a_conversation_over(self, data: st.DataObject, back: bool, rounds: int) -> None:
        """Take one over, or give one back."""
        chosen = self.some_task(data)
        newest = self.do(self.here.store.read(lambda view: view.agents.newest(1, chosen.task_id)))
        if back:
            self.do(self.here.ask(HandBack(run_id=chosen.run_id, task_id=chosen.task_id)))
        elif newest:
            self.do(self.here.ask(TakeOver(run_id=chosen.run_id, agent_id=newest[0].agent_id)))
        self.some_rounds(rounds)

    @rule(data=st.data(), kind=st.sampled_from([Pause, Resume]))
    def somebody_pauses_a_task(self, data: st.DataObject, kind: type[Pause | Resume]) -> None:
        """Pause one task, or let it go on."""
        chosen = self.some_task(data)
        self.do(self.here.ask(kind(run_id=chosen.run_id, task_id=chosen.task_id)))
