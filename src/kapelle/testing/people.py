"""What people do in a world in which anything may happen; see ``simulation.py``."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from kapelle.core.ids import PromptId, RunId
from kapelle.core.requests import AnswerSpent, Approve, Cancel, Deploy, Halt, Pause, Reject, Resume, Retry, Unhalt
from kapelle.core.spent import SpentAnswer, SpentBudget
from kapelle.core.steering import Freeze, HandBack, Send, StopAgent, TakeOver, Thaw
from kapelle.testing.factories import CODER, ONCE
from kapelle.testing.living import PRICE, RUNS, Living, spent_budgets
from kapelle.testing.mischief import LONG, does_well


class People(Living):
    """Those who ask, decide, steer, and move the target."""

    @precondition(lambda self: len(self.runs) < RUNS)
    @rule(data=st.data())
    def somebody_submits_a_run(self, data: st.DataObject) -> None:
        """Ask for another run."""
        self.submit(data)

    @precondition(lambda self: len(self.runs) < RUNS)
    @rule(data=st.data(), whole=st.booleans())
    def somebody_retries(self, data: st.DataObject, whole: bool) -> None:
        """Ask for what ended without success once more."""
        chosen = self.some_task(data)
        new = RunId(f"r-again{len(self.runs)}")
        self.do(self.here.ask(Retry(run_id=chosen.run_id, new_run_id=new, task_id=None if whole else chosen.task_id)))
        self.runs.append(new)

    @rule(data=st.data(), kind=st.sampled_from([Cancel, Pause, Resume, Resume]), of_task=st.booleans())
    def somebody_asks_for_something(self, data: st.DataObject, kind: type[Cancel | Pause | Resume], of_task: bool) -> None:
        """Cancel, pause or resume."""
        chosen = self.some_task(data)
        if kind is Cancel and of_task:
            self.do(self.here.ask(Cancel(run_id=chosen.run_id, task_id=chosen.task_id)))
        else:
            self.do(self.here.ask(kind(run_id=chosen.run_id)))

    @rule(data=st.data(), kind=st.sampled_from([Approve, Approve, Reject]))
    def somebody_decides(self, data: st.DataObject, kind: type[Approve | Reject]) -> None:
        """Approve or refuse."""
        chosen = self.some_task(data)
        self.do(self.here.ask(kind(run_id=chosen.run_id, task_id=chosen.task_id)))

    @rule(wanted=st.sampled_from([None, 0, 1, 3]))
    def somebody_scales(self, wanted: int | None) -> None:
        """Want so many agents that converse, or leave it to the configuration."""
        self.do(self.here.ask(self.scale(wanted)))

    @rule(data=st.data(), rounds=st.integers(0, 3))
    def somebody_gives_a_task_to_an_agent(self, data: st.DataObject, rounds: int) -> None:
        """Have it go before all others."""
        chosen = self.some_task(data)
        config = data.draw(st.sampled_from([CODER.name, CODER.name, ONCE.name]), label="config")
        self.do(self.here.ask(Deploy(run_id=chosen.run_id, task_id=chosen.task_id, config=config)))
        self.some_rounds(rounds)

    @rule(more=st.sampled_from([PRICE, 5 * PRICE, 0.5 * PRICE, None]), rounds=st.integers(0, 3), all_of_them=st.booleans())
    def somebody_answers_for_the_money(self, more: float | None, rounds: int, all_of_them: bool) -> None:
        """Raise a budget that is spent, by more or less than it takes, or let what waits for it fail."""
        rows = self.do(self.here.store.read(spent_budgets))
        for row in rows if all_of_them else rows[:1]:
            self.do(self.here.ask(answer_to(row, more)))
        self.some_rounds(rounds)

    @rule(kind=st.sampled_from([Halt, Unhalt, Unhalt]), rounds=st.integers(0, 3))
    def somebody_turns_the_switch(self, kind: type[Halt | Unhalt], rounds: int) -> None:
        """Halt everything, or let it go on."""
        self.do(self.here.ask(kind(run_id=RunId(""))))
        self.some_rounds(rounds)

    @rule(data=st.data(), place=st.sampled_from(LONG), rounds=st.integers(2, 4))
    def somebody_cancels_in_the_middle_of_an_act(self, data: st.DataObject, place: str, rounds: int) -> None:
        """Cancel a task while something is being done for it."""
        process = self.with_an_agent(data)
        if process is None:
            return
        self.here.points.hold(place)
        does_well(process)
        self.some_rounds(rounds)
        chosen = self.do(self.here.task(process.task))
        self.do(self.here.ask(Cancel(run_id=chosen.run_id, task_id=chosen.task_id)))
        self.some_rounds(1)
        self.here.points.release(place)
        self.some_rounds(2)

    @rule(name=st.sampled_from(["theirs", "shared", "right"]), content=st.sampled_from(["1", "2"]), dirty=st.booleans())
    def somebody_moves_the_target(self, name: str, content: str, dirty: bool) -> None:
        """Commit on the target, and perhaps leave changes in the checkout."""
        self.here.repository.push({name: content})
        self.here.repository.in_the_way = "local changes are in the way" if dirty else ""

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


def answer_to(row: SpentBudget, more: float | None) -> AnswerSpent:
    """Return what raises a spent budget by *more*; with None, what lets it be."""
    said = SpentAnswer.STOP if more is None else SpentAnswer.RAISE
    return AnswerSpent(run_id=row.run_id, spent_id=row.spent_id, answer=said, more=more or 0.0)
