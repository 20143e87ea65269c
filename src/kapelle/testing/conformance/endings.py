"""What every host owes about the ends of processes: by themselves, by force, after a restart of the leader; and commands."""

import asyncio
import hashlib
import os
import signal
import time
from datetime import timedelta

import pytest

from kapelle.core.agent import ProcessRef
from kapelle.core.errors import HostFailed
from kapelle.core.frozen import replace
from kapelle.core.ids import AttemptId, WorkspaceId
from kapelle.core.ports import Ended, Host
from kapelle.testing.conformance.processes import PATIENCE, SOON, Stage, Started, read_to_end, read_until
from kapelle.testing.conformance.spools import FOR_EVER, LONG, HostTests


async def only_left(host: Host, store_id: str, *expected: ProcessRef) -> None:
    """Wait until nothing but *expected* carries *store_id*: what was killed may be on its way out still, and nobody tells."""
    async with asyncio.timeout(PATIENCE):
        while list(await host.leftovers(store_id)) != list(expected):  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0)


class EndSuite(HostTests):
    """How processes are ended, and by what."""

    async def test_a_program_that_ends_with_its_input_is_not_disturbed(self, stage: Stage) -> None:
        """It gets the grace for that."""
        found = await stage.start('trap "exit 9" TERM; cat; echo bye; exit 5', stdin=True)
        assert await stage.host.end(found.process, found.folder, grace=LONG) == Ended(exit_code=5)
        assert await read_to_end(stage.host, found) == (b"bye\n", Ended(exit_code=5))

    async def test_a_program_may_tidy_up_when_it_is_asked_to_end(self, stage: Stage) -> None:
        """Its answer and its exit code count."""
        # Busy, so that it ends at once: a shell that is told of both at the same time must not take the signal for the code.
        found = await stage.start('trap "echo tidied; exit 3" TERM; echo up; while :; do :; done')
        await read_until(stage.host, found, b"up\n")
        assert await stage.host.end(found.process, found.folder, grace=timedelta(seconds=1)) == Ended(exit_code=3)
        assert await read_to_end(stage.host, found) == (b"up\ntidied\n", Ended(exit_code=3))

    async def test_a_program_that_does_not_listen_is_ended_by_force_with_all_its_children(self, stage: Stage) -> None:
        """When the grace is over."""
        lifeline = stage.lifeline()
        script = 'trap "" TERM INT HUP; exec 9>"$1"; echo up >&9; echo up; sleep 1000 & sleep 1000'
        found = await stage.start(script, lifeline.path)
        await read_until(stage.host, found, b"up\n")
        assert await stage.host.end(found.process, found.folder, grace=SOON) == Ended(exit_code=None)
        assert await lifeline.cut() == "up\n"

    async def test_ending_twice_is_ending_once(self, stage: Stage) -> None:
        """It says the same again."""
        found = await stage.start("cat; exit 5", stdin=True)
        for _ in range(2):
            assert await stage.host.end(found.process, found.folder, grace=LONG) == Ended(exit_code=5)

    async def test_ending_what_has_ended_says_how_it_did(self, stage: Stage) -> None:
        """With its own code."""
        found = await stage.start("exit 12")
        await read_to_end(stage.host, found)
        assert await stage.host.end(found.process, found.folder, grace=timedelta(0)) == Ended(exit_code=12)

    async def test_the_time_limit_ends_the_program_and_its_children(self, stage: Stage) -> None:
        """With nobody watching; what it wrote before is there."""
        lifeline = stage.lifeline()
        found = await stage.start(FOR_EVER, lifeline.path, limit=timedelta(seconds=0.4))
        assert await lifeline.cut() == "up\n"
        data, ended = await read_to_end(stage.host, found)
        assert data == b"up\n"
        assert ended.timed_out
        assert ended.exit_code != 0

    async def test_the_time_limit_stands_still_while_its_clock_does(self, stage: Stage) -> None:
        """However often it is told so; then the program has the time left that it had, and is ended after it."""
        lifeline = stage.lifeline()
        begun = time.monotonic()
        found = await stage.start(FOR_EVER, lifeline.path, limit=timedelta(seconds=1))
        for _ in range(2):
            await stage.host.stop_clock(found.folder)
        await asyncio.sleep(2.5)
        assert (await stage.host.look(found.process, found.folder, 0)).ended is None
        for _ in range(2):
            await stage.host.start_clock(found.folder)
        data, ended = await read_to_end(stage.host, found)
        assert (data, ended.timed_out) == (b"up\n", True)
        # A clock that stands still counts in whole seconds, to the program's advantage.
        assert time.monotonic() - begun >= 3

    async def test_the_time_limit_holds_for_a_program_that_does_not_listen(self, stage: Stage) -> None:
        """It is ended by force."""
        lifeline = stage.lifeline()
        script = 'trap "" TERM INT HUP; exec 9>"$1"; echo up >&9; sleep 1000 & sleep 1000'
        found = await stage.start(script, lifeline.path, limit=timedelta(seconds=0.2))
        assert await lifeline.cut() == "up\n"
        _, ended = await read_to_end(stage.host, found)
        assert ended.timed_out

    async def test_a_time_limit_that_is_set_later_holds_from_then_on(self, stage: Stage) -> None:
        """A process that has no task yet has no limit; it is given one with its task."""
        lifeline = stage.lifeline()
        found = await stage.start(FOR_EVER, lifeline.path, limit=None)
        await read_until(stage.host, found, b"up\n")
        await stage.host.bound(found.process, found.folder, timedelta(seconds=0.2))
        assert await lifeline.cut() == "up\n"
        _, ended = await read_to_end(stage.host, found)
        assert ended.timed_out

    async def test_a_time_limit_that_is_set_again_counts_from_then_on(self, stage: Stage) -> None:
        """A process that goes on to another task has that one's time."""
        lifeline = stage.lifeline()
        found = await stage.start(FOR_EVER, lifeline.path, limit=None)
        await read_until(stage.host, found, b"up\n")
        begun = time.monotonic()
        await stage.host.bound(found.process, found.folder, timedelta(seconds=1))
        await stage.host.bound(found.process, found.folder, timedelta(seconds=3))
        assert await lifeline.cut() == "up\n"
        _, ended = await read_to_end(stage.host, found)
        assert ended.timed_out
        assert time.monotonic() - begun >= 3

    async def test_what_waits_for_its_next_task_loses_no_time_and_gains_none(self, stage: Stage) -> None:
        """Its clock stands still for longer than its limit; then it has the time of the task that comes, and no more."""
        found = await stage.start(FOR_EVER, stage.lifeline().path, limit=None)
        await read_until(stage.host, found, b"up\n")
        await stage.host.bound(found.process, found.folder, timedelta(seconds=1))
        await stage.host.stop_clock(found.folder)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(8):
                await read_to_end(stage.host, found)
        await stage.host.start_clock(found.folder)
        begun = time.monotonic()
        await stage.host.bound(found.process, found.folder, timedelta(seconds=2))
        _, ended = await read_to_end(stage.host, found)
        assert ended.timed_out
        assert 2 <= time.monotonic() - begun < 7

    async def test_what_was_started_for_an_attempt_is_counted(self, stage: Stage) -> None:
        """By what it carries, wherever it went; what belongs to another attempt or store is not."""
        mine = (("KAPELLE_STORE", f"attempts-{os.getpid()}"), ("KAPELLE_ATTEMPT", "a-1"), ("PATH", "/usr/bin:/bin"))
        found = await stage.start("setsid sleep 1000 & echo up; read line", stdin=True, env=mine)
        await read_until(stage.host, found, b"up\n")
        store_id = mine[0][1]
        assert await stage.host.at_work_for(store_id, AttemptId("a-1")) >= 2
        assert await stage.host.at_work_for(store_id, AttemptId("a-10")) == 0
        assert await stage.host.at_work_for(f"{store_id}-2", AttemptId("a-1")) == 0
        await stage.host.end(found.process, found.folder, grace=timedelta(0))
        for process in await stage.host.leftovers(store_id):
            await stage.host.end(process, found.folder, grace=timedelta(0))
        assert await stage.host.at_work_for(store_id, AttemptId("a-1")) == 0

    async def test_a_program_that_ends_in_time_has_not_timed_out(self, stage: Stage) -> None:
        """And leaves no watch behind that would end another."""
        found = await stage.start("exit 0", limit=timedelta(seconds=0.3))
        _, ended = await read_to_end(stage.host, found)
        assert ended == Ended(exit_code=0, timed_out=False)


class AdoptionSuite(HostTests):
    """A new leader finds what an earlier one has started."""

    async def test_a_new_leader_reads_a_live_process_to_its_end(self, stage: Stage) -> None:
        """From where the earlier one left off."""
        found = await stage.start("echo one; read line; echo two; exit 21", stdin=True)
        await read_until(stage.host, found, b"one\n")
        new = self.host()
        spool = await new.look(found.process, found.folder, 4)
        assert (spool.data, spool.ended) == (b"", None)
        assert await stage.host.write(found.process, b"go\n")
        assert await read_to_end(new, found, offset=4) == (b"two\n", Ended(exit_code=21))

    async def test_the_exit_code_is_recorded_with_nobody_watching(self, stage: Stage) -> None:
        """Whoever looks later finds it."""
        lifeline = stage.lifeline()
        found = await stage.start('exec 9>"$1"; echo up >&9; echo alone; exit 33', lifeline.path)
        await lifeline.cut()
        assert await read_to_end(self.host(), found) == (b"alone\n", Ended(exit_code=33))

    async def test_a_new_leader_cannot_write_to_an_old_process_but_can_end_it(self, stage: Stage) -> None:
        """Its input belonged to the earlier leader."""
        lifeline = stage.lifeline()
        found = await stage.start(FOR_EVER, lifeline.path, stdin=True)
        await read_until(stage.host, found, b"up\n")
        new = self.host()
        assert not await new.write(found.process, b"hello\n")
        await new.close_input(found.process)
        ended = await new.end(found.process, found.folder, grace=SOON)
        assert await lifeline.cut() == "up\n"
        assert ended.exit_code != 0

    @pytest.mark.parametrize("other", ["started", "boot_id"])
    async def test_a_process_that_only_has_the_same_pid_is_another_one(self, stage: Stage, other: str) -> None:
        """It is neither taken for the one that is meant, nor ended in its place."""
        found = await stage.start("read line; echo alive", stdin=True)
        reference = replace(found.process, **{other: "something else"})
        mistaken = Started(process=reference, folder=str(stage.folder / "elsewhere"))
        new = self.host()
        assert await read_to_end(new, mistaken) == (b"", Ended(exit_code=None))
        assert await new.end(reference, mistaken.folder, grace=SOON) == Ended(exit_code=None)
        assert not await stage.host.write(reference, b"hello\n")
        assert await stage.host.write(found.process, b"go\n")
        assert await read_to_end(stage.host, found) == (b"alive\n", Ended(exit_code=0))

    async def test_processes_of_a_store_are_found_by_its_id(self, stage: Stage) -> None:
        """Those of other stores are not, nor those that have ended."""
        env = (("PATH", "/usr/bin:/bin"), ("KAPELLE_STORE", f"store-{os.getpid()}"))
        lifeline = stage.lifeline()
        mine = await stage.start(FOR_EVER, lifeline.path, env=env)
        other = await stage.start("cat", stdin=True, env=(("KAPELLE_STORE", f"other-{os.getpid()}"), ("PATH", "/usr/bin:/bin")))
        await read_until(stage.host, mine, b"up\n")
        new = self.host()
        assert list(await new.leftovers(env[1][1])) == [mine.process]
        await new.end(mine.process, mine.folder, grace=SOON)
        await lifeline.cut()
        await only_left(new, env[1][1])
        await stage.host.close_input(other.process)

    async def test_what_left_its_group_is_found_by_the_workspace_it_carries(self, stage: Stage) -> None:
        """It outlives its agent, and is nobody else's."""
        store_id = f"left-{os.getpid()}"
        lifeline = stage.lifeline()

        def env(workspace_id: str) -> tuple[tuple[str, str], ...]:
            return (("PATH", "/usr/bin:/bin"), ("KAPELLE_STORE", store_id), ("KAPELLE_WORKSPACE_ID", workspace_id))

        leaves = 'exec 9>"$1"; mkfifo there; (setsid sh -c "echo up >&9; : >there; exec sleep 1000" &) >/dev/null; : <there'
        gone = await stage.start(leaves, lifeline.path, env=env("w-1"))
        other = await stage.start("cat", stdin=True, env=env("w-10"))
        await read_to_end(stage.host, gone)
        host = self.host()
        assert list(await host.leftovers(store_id, [WorkspaceId("w-2")])) == []
        assert list(await host.leftovers(store_id, [WorkspaceId("w-10")])) == [other.process]
        for process in await host.leftovers(store_id, [WorkspaceId("w-1")]):
            await host.end(process, str(stage.folder / "left"), grace=SOON)
        await lifeline.cut()
        await only_left(host, store_id, other.process)
        await stage.host.close_input(other.process)

    async def test_what_a_living_process_has_started_is_not_left_over(self, stage: Stage) -> None:
        """Though it is in a group of its own, as the tools of an agent's program are, and though another leader looks."""
        store_id = f"tools-{os.getpid()}"
        env = (("PATH", "/usr/bin:/bin"), ("KAPELLE_STORE", store_id))
        lifeline = stage.lifeline()
        tool = 'setsid sh -c \'exec 9>"$1"; echo up; exec sleep 1000\' sh "$1" & wait'
        found = await stage.start(tool, lifeline.path, env=env)
        await read_until(stage.host, found, b"up\n")
        new = self.host()
        assert list(await new.leftovers(store_id, living=[found.process])) == []
        (left,) = {*await new.leftovers(store_id)} - {found.process}
        await new.end(found.process, found.folder, grace=SOON)
        await only_left(new, store_id, left)
        # Nothing living is above it any more.
        assert list(await new.leftovers(store_id, living=[found.process])) == [left]
        await new.end(left, str(stage.folder / "left"), grace=SOON)
        await lifeline.cut()
        await only_left(new, store_id)

    async def test_what_a_killed_leader_of_a_group_left_behind_is_found_and_can_be_ended(self, stage: Stage) -> None:
        """The system may have killed just that one, for want of memory."""
        store_id = f"orphans-{os.getpid()}"
        lifeline = stage.lifeline()
        found = await stage.start(FOR_EVER, lifeline.path, env=(("PATH", "/usr/bin:/bin"), ("KAPELLE_STORE", store_id)))
        await read_until(stage.host, found, b"up\n")
        os.kill(found.process.pid, signal.SIGKILL)
        orphans = await self.host().leftovers(store_id)
        assert orphans
        for orphan in orphans:
            await self.host().end(orphan, str(stage.folder / "orphan"), grace=SOON)
        # What it started meanwhile is ended by whoever watches.
        _, ended = await read_to_end(stage.host, found)
        assert ended == Ended(exit_code=None)
        assert await lifeline.cut() == "up\n"
        await only_left(self.host(), store_id)

    async def test_who_watches_a_group_whose_leader_is_killed_ends_the_rest_of_it(self, stage: Stage) -> None:
        """It has nobody left who keeps its time limit and its exit code."""
        store_id = f"group-{os.getpid()}"
        lifeline = stage.lifeline()
        found = await stage.start(FOR_EVER, lifeline.path, env=(("PATH", "/usr/bin:/bin"), ("KAPELLE_STORE", store_id)))
        await read_until(stage.host, found, b"up\n")
        os.kill(found.process.pid, signal.SIGKILL)
        _, ended = await read_to_end(stage.host, found)
        assert ended == Ended(exit_code=None)
        assert await lifeline.cut() == "up\n"
        await only_left(self.host(), store_id)


class RunSuite(HostTests):
    """Commands that run to their end: set-up and checks."""

    async def test_a_commands_output_is_kept_in_order(self, stage: Stage) -> None:
        """Both streams in one file, with its hash and its end."""
        output = stage.folder / "logs" / "check.log"
        result = await stage.host.run(stage.launch("echo one; echo two >&2; echo three; exit 4"), str(output))
        assert output.read_text() == "one\ntwo\nthree\n"
        assert (result.exit_code, result.timed_out, result.tail) == (4, False, "one\ntwo\nthree\n")
        assert result.output_path == str(output)
        assert result.output_hash == hashlib.sha256(b"one\ntwo\nthree\n").hexdigest()
        assert result.seconds >= 0

    async def test_running_again_writes_the_output_anew(self, stage: Stage) -> None:
        """The same output has the same hash, and nothing else is left beside it."""
        output = stage.folder / "logs" / "check.log"
        results = [await stage.host.run(stage.launch(script), str(output)) for script in ("echo a", "echo b", "echo a")]
        assert output.read_text() == "a\n"
        assert results[0].output_hash == results[2].output_hash != results[1].output_hash
        assert os.listdir(output.parent) == ["check.log"]  # noqa: PTH208  # in an async function

    async def test_commands_may_run_beside_each_other(self, stage: Stage) -> None:
        """Whatever their outputs are called."""
        names = ("check-1.0", "check-1.1", "check-1.d", "check")
        async with asyncio.TaskGroup() as group:
            running = [
                group.create_task(stage.host.run(stage.launch(f"echo {number}; exit {number}"), str(stage.folder / name)))
                for number, name in enumerate(names)
            ]
        results = [task.result() for task in running]
        assert [(result.exit_code, result.tail) for result in results] == [(number, f"{number}\n") for number in range(4)]

    async def test_the_tail_of_a_long_output_is_its_end(self, stage: Stage) -> None:
        """Decoded, whatever it is."""
        output = stage.folder / "check.log"
        (stage.folder / "bytes").write_bytes("世".encode() * 100_000 + b"\xff\xfeend")
        result = await stage.host.run(stage.launch("cat bytes"), str(output))
        assert output.stat().st_size == 300_005
        assert len(result.tail) <= 16_000
        assert result.tail.endswith("end")
        assert set(result.tail) <= {"世", "\N{REPLACEMENT CHARACTER}", "e", "n", "d"}

    async def test_a_command_that_takes_too_long_is_ended_with_its_children(self, stage: Stage) -> None:
        """Its output so far is kept."""
        lifeline = stage.lifeline()
        launch = stage.launch(FOR_EVER, lifeline.path, limit=timedelta(seconds=0.4))
        result = await stage.host.run(launch, str(stage.folder / "check.log"))
        assert (result.exit_code, result.timed_out, result.tail) == (None, True, "up\n")
        assert await lifeline.cut() == "up\n"

    async def test_what_a_command_leaves_behind_ends_with_it(self, stage: Stage) -> None:
        """A check does not wait for the server that it started."""
        lifeline = stage.lifeline()
        script = 'exec 9>"$1"; echo up >&9; sleep 1000 & exit 0'
        result = await stage.host.run(stage.launch(script, lifeline.path), str(stage.folder / "check.log"))
        assert result.exit_code == 0
        assert await lifeline.cut() == "up\n"

    async def test_a_command_that_nobody_waits_for_any_more_is_ended(self, stage: Stage) -> None:
        """With its children."""
        lifeline, output = stage.lifeline(), stage.folder / "check.log"
        os.mkfifo(stage.folder / "ready")
        script = f'exec 9>"$1"; echo up >&9; echo > "{stage.folder}/ready"; sleep 1000 & wait'
        async with asyncio.TaskGroup() as group:
            running = group.create_task(stage.host.run(stage.launch(script, lifeline.path), str(output)))
            await asyncio.to_thread((stage.folder / "ready").read_text)
            running.cancel()
        assert running.cancelled()
        assert await lifeline.cut() == "up\n"

    async def test_a_command_that_is_broken_off_at_any_moment_leaves_nothing(self, stage: Stage) -> None:
        """Also while it is being started."""
        store_id = f"broken-off-{os.getpid()}"
        launch = stage.launch("sleep 1000 & wait", env=(("PATH", "/usr/bin:/bin"), ("KAPELLE_STORE", store_id)))
        for rounds in range(15):
            async with asyncio.TaskGroup() as group:
                running = group.create_task(stage.host.run(launch, str(stage.folder / f"{rounds}.log")))
                for _ in range(rounds):
                    # Rounds of the loop, not time.
                    await asyncio.sleep(0)
                running.cancel()
            assert await self._all_gone(store_id)

    async def _all_gone(self, store_id: str) -> bool:
        """Say whether no process of *store_id* is left in a moment; what is left all the same is ended."""
        host = self.host()
        try:
            async with asyncio.timeout(5):
                while await host.leftovers(store_id):
                    pass  # each look takes a while
        except TimeoutError:
            for process in await host.leftovers(store_id):
                await host.end(process, "/nowhere", grace=timedelta(0))
            return False
        return True

    async def test_a_commands_output_is_told_to_who_asked(self, stage: Stage) -> None:
        """For people who look on."""
        told: list[str] = []
        await stage.host.run(stage.launch("echo hello"), str(stage.folder / "check.log"), told.append)
        assert "".join(told) == "hello\n"

    async def test_a_command_has_no_input_and_no_environment_but_its_own(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As agents have none."""
        monkeypatch.setenv("PLANTED_SECRET", "s3cr3t")
        result = await stage.host.run(stage.launch("cat; env"), str(stage.folder / "check.log"))
        assert "s3cr3t" not in result.tail
        assert "PATH=/usr/bin:/bin\n" in result.tail

    async def test_a_directory_that_is_gone_is_told(self, stage: Stage) -> None:
        """A command cannot run there."""
        with pytest.raises(HostFailed, match="gone-away"):
            await stage.host.run(stage.launch("true", cwd=str(stage.folder / "gone-away")), str(stage.folder / "check.log"))
