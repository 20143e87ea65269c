"""A world in which anything may happen, at any moment, and whose invariants are checked after everything that does.

What hypothesis chooses: which agent does what, when the leader dies and where, what fails, who moves the target, who sets the
clock, who cancels or pauses or resumes. Nothing here waits for a hint: the stages are stepped, as by a loop that lost every
one, and out of turn, as by one that heard some twice. At the end everything is healed, and all tasks must come to an end.

For those who write adapters, too: ``compose`` puts their own in place of the fakes::

    class WithMyWorkspaces(Simulation):
        def compose(self) -> None:
            self.here.replace(workspaces=MyWorkspaces(self.here.git))

    def test_my_workspaces_lose_nothing() -> None:
        simulate(WithMyWorkspaces, worlds=20)

It needs hypothesis (``pip install 'kapelle[testing]'``), which nothing else of ``kapelle.testing`` does.
"""

import os
import sys
from contextlib import suppress
from datetime import timedelta

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from kapelle.core.errors import LeadLost, StoreFailed
from kapelle.core.ids import RunId
from kapelle.core.requests import Approve, Resume, Unhalt
from kapelle.core.run import RUN_TERMINAL
from kapelle.core.steering import HandBack, Thaw
from kapelle.core.task import TaskState, Wait
from kapelle.testing.agents import Agents
from kapelle.testing.living import LOOKING, PRICE, STAGES, all_tasks, spent_budgets
from kapelle.testing.mischief import ACTS, PLACES, does_well, fits, goes_deaf, mended
from kapelle.testing.people import People, answer_to
from kapelle.testing.stores import LeaderDied
from kapelle.testing.worlds import Leader

STEPS = 25


class Simulation(People, Agents):
    """See the module; here is what becomes of the leader, what always holds, and the end."""

    @rule(seconds=st.sampled_from([0, 10, 60, 600]), jump=st.sampled_from([0, 0, 0, -1, 1, 24]), count=st.integers(1, 4))
    def time_passes(self, seconds: int, jump: int, count: int) -> None:
        """Move the clock; sometimes somebody sets it, also back."""
        self.here.clock.move(timedelta(seconds=seconds))
        self.here.clock.jump(timedelta(hours=jump))
        self.some_rounds(count)

    @rule(stages=st.lists(st.sampled_from((*STAGES, *LOOKING)), min_size=1, max_size=4))
    def hints_come_twice(self, stages: list[str]) -> None:
        """Step stages out of turn, and again though there is nothing to do."""
        self.do(self.leader.step(*stages))

    @rule(data=st.data(), commits=st.integers(0, 5), after=st.booleans(), telling=st.booleans(), in_recovery=st.booleans())
    def the_leader_dies(self, data: st.DataObject, commits: int, after: bool, telling: bool, in_recovery: bool) -> None:
        """Let it die in a commit, or just after it; perhaps the next one too, while it recovers."""
        self.with_an_agent(data)
        for process in self.at_work():
            does_well(process)
        if commits:
            self.here.store.die(commits=commits, after=after, telling=telling)
            with suppress(LeaderDied):
                self.some_rounds(4)
        if in_recovery:
            self.do(self.leader.die())
            self.here.store.heal()
            self.here.points.heal()
            self.here.store.die(after=after)
            with suppress(LeaderDied):
                self.do(self.here.lead())
            self.leader = self.here.leaders[-1]
        self.succeed()
        self.some_rounds(1)

    @rule(place=st.sampled_from(PLACES), rounds=st.integers(1, 4))
    def the_leader_dies_in_an_act(self, place: str, rounds: int) -> None:
        """Let it die while it does something in the world."""
        self.here.points.hold(place)
        for process in self.at_work()[:1]:
            does_well(process)
        self.some_rounds(rounds)
        self.succeed()
        self.some_rounds(1)

    @rule(data=st.data(), place=st.sampled_from(["start", "start:done"]))
    def the_leader_dies_while_an_agent_comes_back(self, data: st.DataObject, place: str) -> None:
        """Let it die when a process is there, and nobody has written down which."""
        process = self.with_an_agent(data)
        if process is None:
            return
        self.here.points.hold(place)
        self.here.host.starts(process.task, goes_deaf)
        process.exit(1)
        self.some_rounds(2)
        self.here.clock.move(timedelta(minutes=1))
        self.some_rounds(2)
        self.succeed()
        self.some_rounds(1)

    @rule(stages=st.lists(st.sampled_from(STAGES), min_size=1, max_size=3), rounds=st.integers(0, 2), works=st.booleans())
    def an_old_leader_wakes_again(self, stages: list[str], rounds: int, works: bool) -> None:
        """Stop the leader, let another take over, and let the old one go on where it was: it is refused."""
        self.wake_an_old_leader(stages, rounds, works=works)

    def wake_an_old_leader(self, stages: list[str], rounds: int, *, works: bool) -> None:
        """See the rule."""
        late = self.leader
        for process in self.at_work()[:1] if works else []:
            does_well(process)
        self.do(late.settle())
        self.leader, self.rounds = self.do(self.here.lead()), 0
        self.some_rounds(rounds)
        for stage in stages:
            before = self.do(self.here.store.read(lambda view: view.last_seq()))
            assert self.do(_refused(late, stage)), f"an old leader was not refused when it wrote as {stage}"
            assert self.do(self.here.store.read(lambda view: view.last_seq())) == before
        self.do(late.die())
        self.some_rounds(1)

    @rule(commits=st.integers(1, 3), dies=st.booleans())
    def commits_are_refused(self, commits: int, dies: bool) -> None:
        """Let the disk be full for a while; the leader ends of it, or its stages are stepped again."""
        for process in self.at_work():
            does_well(process)
        self.here.store.refuse(commits)
        for _ in range(commits + 2):
            with suppress(StoreFailed):
                self.some_rounds(1)
        self.here.store.heal()
        if dies:
            self.succeed()
        self.some_rounds(1)

    @rule(act=st.sampled_from(sorted(ACTS)), times=st.integers(1, 2))
    def an_act_fails(self, act: str, times: int) -> None:
        """Let something that is done in the world fail."""
        self.here.points.fail(act, ACTS[act], times=times)
        for process in self.at_work()[:1]:
            does_well(process)
        self.some_rounds(3)

    @invariant()
    def everything_holds(self) -> None:
        """Check all invariants."""
        broken = [*self.do(self.watch.check()), *self.workspaces.lost]
        if self.rounds:
            broken += self.do(self.watch.left_unadopted(self.leader.term))
        assert not broken, "\n".join(broken)

    def teardown(self) -> None:
        """Heal everything and run to quiet; then nothing may be open, and nothing left.

        In a world that has broken already nothing is healed: what is wrong there may never come to rest.
        """
        try:
            if sys.exception() is None:
                self.heal()
        finally:
            self.close()

    def close(self) -> None:
        """Give back what the world has of this machine."""
        self.do(self.opened.__aexit__(None, None, None))
        self.runner.close()
        self.folder.cleanup()

    def heal(self) -> None:
        """Heal every fault, do what waits for a person, and go on until all is at rest."""
        here = self.here
        here.repository.in_the_way = ""
        here.host.forget()
        here.host.otherwise = does_well
        for process in here.host.live():
            if process.unread or process.stopped:
                process.exit(1)
        self.succeed()
        self.do(here.ask(self.scale(None)))
        for _ in range(60):
            self.do(here.ask(Unhalt(run_id=RunId(""))))
            for row in self.do(here.store.read(spent_budgets)):
                self.do(here.ask(answer_to(row, 100 * PRICE)))
            for run_id in self.runs:
                self.do(here.ask(Resume(run_id=run_id)))
            for found in self.do(here.store.read(all_tasks)):
                if found.state is TaskState.PENDING and found.spec.approval and not found.approved:
                    self.do(here.ask(Approve(run_id=found.run_id, task_id=found.task_id)))
            for agent in self.do(here.store.read(lambda view: view.agents.live())):
                if agent.frozen_by:
                    self.do(here.ask(Thaw(run_id=agent.run_id, agent_id=agent.agent_id)))
            for found in self.do(here.store.read(all_tasks)):
                if found.waits_for is Wait.PERSON:
                    self.do(here.ask(HandBack(run_id=found.run_id, task_id=found.task_id)))
            for process in self.at_work():
                does_well(process)
            self.settle_with_the_target()
            self.do(self.leader.run())
            here.clock.move(timedelta(minutes=10))
            self.everything_holds()
            if self.do(self.at_rest()):
                break
        # Those that nothing asks for any more go last.
        self.do(self.leader.run())
        left = self.do(self.watch.left_over())
        assert not left, "\n".join(left)

    def settle_with_the_target(self) -> None:
        """Do what a person must: mend what others broke on the target, and bring it and merged work together as told."""
        repository = self.here.repository
        files = repository.files("main")
        if fits(files) is not None:
            repository.push(mended(files))
        for entry in self.do(self.here.store.read(lambda view: view.changes.integrations())):
            told = f"git merge {entry.tip[:10]} " in entry.remedy
            # What fits is for the leader to bring together: a person who did it too would hide that it does not.
            if told and fits(repository.merge_files("main", entry.tip)[0]) is not None:
                repository.merge_by_hand(entry.tip, mended)

    async def at_rest(self) -> bool:
        """Say whether every run has ended."""
        overviews = await self.here.store.read(lambda view: view.runs.overviews(limit=1000))
        return all(overview.run.state in RUN_TERMINAL for overview in overviews)


async def _refused(late: Leader, stage: str) -> bool:
    try:
        await late.step(stage)
    except LeadLost:
        return True
    return False


# A failure is shown as it was found: to make it smaller takes minutes, and is asked for by hand.
SETTINGS = settings(
    stateful_step_count=STEPS,
    deadline=None,
    phases=[phase for phase in Phase if phase is not Phase.shrink or "KAPELLE_SHRINK" in os.environ],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    report_multiple_bugs=False,
)


def simulate(kind: type[Simulation] = Simulation, *, worlds: int = 12, same: bool = True) -> None:
    """Let *worlds* worlds live, the *same* ones every time, or others.

    Raises:
        AssertionError: one of them broke an invariant; hypothesis prints what had happened in it. With KAPELLE_SHRINK set it
            looks for the shortest story first, which takes minutes.
    """
    chosen = settings(SETTINGS, max_examples=worlds, derandomize=same, database=None)
    run_state_machine_as_test(kind, settings=chosen)  # pyright: ignore[reportUnknownMemberType]


__all__ = ["SETTINGS", "Simulation", "simulate"]
