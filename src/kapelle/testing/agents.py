"""What agents do in a world in which anything may happen; see ``simulation.py``."""

from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from kapelle.core.conversation import Trouble
from kapelle.core.ids import RunId
from kapelle.core.requests import Cancel, Halt
from kapelle.engine.spares import NO_TASK
from kapelle.testing.fakes import Flight
from kapelle.testing.hosts import ScriptedProcess
from kapelle.testing.living import HEARTBEAT, PRICE, Living
from kapelle.testing.mischief import GRIEF, STILL, does_well, ends_at_once, fails_again, goes_deaf, hangs


class Agents(Living):
    """They do well or badly, hang, come to grief, and pay for what they ask their model."""

    @rule(data=st.data(), rounds=st.integers(0, 3))
    def a_spare_ends_by_itself(self, data: st.DataObject, rounds: int) -> None:
        """End a program that waits for a task."""
        waiting = [process for process in self.here.host.live() if process.task == NO_TASK]
        if waiting:
            data.draw(st.sampled_from(waiting), label="spare").exit(1)
        self.some_rounds(rounds)

    @rule(data=st.data(), rounds=st.integers(0, 3))
    def an_agent_does_well(self, data: st.DataObject, rounds: int) -> None:
        """Do what was asked for."""
        process = self.with_an_agent(data)
        if process is not None:
            does_well(process)
        self.some_rounds(rounds)

    @rule(rounds=st.integers(0, 4), backwards=st.booleans())
    def all_agents_are_done_at_once(self, rounds: int, backwards: bool) -> None:
        """Fill the merge queue."""
        for process in reversed(self.at_work()) if backwards else self.at_work():
            does_well(process)
        self.some_rounds(rounds)

    @rule(data=st.data(), place=st.sampled_from(["merge", "merge:done", "move_ref", "deliver"]))
    def agents_are_done_while_another_is_merged(self, data: st.DataObject, place: str) -> None:
        """Let the merge queue fill while the first in it takes its time."""
        process = self.with_an_agent(data)
        if process is None:
            return
        self.here.points.hold(place)
        does_well(process)
        self.some_rounds(3)
        for process in self.at_work():
            does_well(process)
            self.some_rounds(2)
        self.here.points.release(place)
        self.some_rounds(3)

    @rule(data=st.data(), name=st.sampled_from(["shared", "shared", "left"]), rounds=st.integers(0, 4))
    def an_agent_gets_into_anothers_way(self, data: st.DataObject, name: str, rounds: int) -> None:
        """Change what others change, or what does not fit what others change."""
        process = self.with_an_agent(data)
        if process is None:
            return
        process.write(name, f"as {process.task} likes it" if name == "shared" else "2")
        process.done("done")
        self.some_rounds(rounds)

    @rule(data=st.data(), name=st.sampled_from(["shared", "own"]), answers=st.booleans(), rounds=st.integers(0, 3))
    def an_agent_does_badly(self, data: st.DataObject, name: str, answers: bool, rounds: int) -> None:
        """Break something, and perhaps say that all is well."""
        process = self.with_an_agent(data)
        if process is None:
            return
        process.write(f"{process.task}.py" if name == "own" else name, "broken")
        if answers:
            process.done("All done!")
        self.some_rounds(rounds)

    @rule(data=st.data(), how=st.sampled_from(GRIEF), rounds=st.integers(0, 3))
    def an_agent_comes_to_grief(self, data: st.DataObject, how: Trouble | str, rounds: int) -> None:
        """End without an answer, or with one that has nothing behind it."""
        process = self.with_an_agent(data)
        if process is None:
            return
        if isinstance(how, Trouble):
            process.trouble(how)
        elif how == "claim":
            process.done("All done!")
        else:
            process.exit(1, timed_out=how == "time")
        self.some_rounds(rounds)

    @rule(data=st.data(), deaf=st.booleans(), how=st.sampled_from(["crash", Trouble.OVERLOADED]))
    def an_agent_comes_back_to_no_avail(self, data: st.DataObject, deaf: bool, how: Trouble | str) -> None:
        """Come to grief, and let the program that takes its place read nothing, or end at once."""
        process = self.with_an_agent(data)
        if process is None:
            return
        self.here.host.starts(process.task, goes_deaf if deaf else ends_at_once)
        if isinstance(how, Trouble):
            process.trouble(how)
        else:
            process.exit(1)
        self.here.clock.move(timedelta(minutes=1))
        self.some_rounds(5)
        for other in self.here.host.of_task(process.task):
            if other.unread:
                other.exit(1)

    @rule(data=st.data(), how=st.sampled_from(STILL), beats=st.integers(1, 22))
    def an_agent_hangs(self, data: st.DataObject, how: str, beats: int) -> None:
        """Do nothing for a while: stopped by a signal, deaf, in a tool, in a model call, or going round in a circle."""
        process = self.with_an_agent(data)
        if process is None:
            return
        hangs(process, how)
        for _ in range(beats):
            self.here.clock.move(HEARTBEAT)
            if how == "loop" and process.alive and process.in_turn:
                fails_again(process)
            self.some_rounds(1)

    @rule(data=st.data(), rounds=st.integers(0, 2))
    def an_agent_goes_on_after_its_task_was_cancelled(self, data: st.DataObject, rounds: int) -> None:
        """Write and answer as if nothing had happened, while it is being ended: a late writer."""
        process = self.with_an_agent(data)
        if process is None:
            return
        chosen = self.do(self.here.task(process.task))
        self.here.points.hold("end")
        self.do(self.here.ask(Cancel(run_id=chosen.run_id, task_id=chosen.task_id)))
        self.some_rounds(rounds)
        if process.in_turn:
            does_well(process)
        self.some_rounds(2)
        self.here.points.release("end")
        self.some_rounds(2)

    @rule(data=st.data(), calls=st.sampled_from([1, 3, 6]))
    def an_agent_calls_its_model(self, data: st.DataObject, calls: int) -> None:
        """Make model calls, one after the other; the last one ends some time later."""
        process = self.with_an_agent(data)
        if process is not None:
            self.call_the_model(process, calls)

    def call_the_model(self, process: ScriptedProcess, calls: int) -> None:
        """See the rule."""
        for number in range(calls):
            if any(other is process for other, _ in self.flights):
                break
            flight = self.here.gateway.begin(process.token)
            if not isinstance(flight, Flight):
                if "budget" in flight:
                    process.trouble(Trouble.BUDGET, flight)
                elif "halted" in flight or "working hours" in flight:
                    process.trouble(Trouble.HALTED, flight)
                break
            halted = self.do(self.here.store.read(lambda view: view.brakes.halt()))
            assert halted is None, "a call was let through, and everything is halted"
            if number + 1 < calls:
                self.here.gateway.end(flight, usd=PRICE)
            else:
                self.flights.append((process, flight))
        self.some_rounds(1)

    @rule(data=st.data(), halts=st.booleans(), stages=st.sampled_from([(), ("submit",), ("submit", "execute"), ("execute",)]))
    def a_call_waits_before_it_goes_out(self, data: st.DataObject, halts: bool, stages: tuple[str, ...]) -> None:
        """Be let through, and go out some time later: perhaps everything is halted by then."""
        process = self.with_an_agent(data)
        if process is not None:
            self.let_a_call_wait(process, stages, halts=halts)

    def let_a_call_wait(self, process: ScriptedProcess, stages: tuple[str, ...], *, halts: bool) -> None:
        """See the rule."""
        if any(other is process for other, _ in self.flights):
            return
        flight = self.here.gateway.begin(process.token)
        if not isinstance(flight, Flight):
            return
        if halts:
            self.do(self.here.ask(Halt(run_id=RunId(""))))
        self.do(self.leader.step(*stages))
        halted = self.do(self.here.store.read(lambda view: view.brakes.halt()))
        if self.here.gateway.goes_out(flight) is None:
            assert halted is None, "a call went out, and everything is halted"
            self.flights.append((process, flight))
        self.some_rounds(1)

    @precondition(lambda self: self.flights)
    @rule(all_of_them=st.booleans())
    def model_calls_end(self, all_of_them: bool) -> None:
        """End calls that were in flight: what an agent that is gone had asked for was broken off with it."""
        ending, self.flights = (self.flights, []) if all_of_them else (self.flights[:1], self.flights[1:])
        for process, flight in ending:
            if process.alive:
                self.here.gateway.end(flight, usd=PRICE)
        self.some_rounds(1)
