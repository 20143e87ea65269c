"""What every host owes about starting processes: what they are given, what they write, what is written to them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from kapelle.core.errors import HostFailed
from kapelle.core.frozen import replace
from kapelle.core.ports import Ended, Host
from kapelle.testing.conformance.processes import Stage, contents, read_to_end, read_until

LONG = timedelta(minutes=5)
FOR_EVER = 'exec 9>"$1"; echo up >&9; echo up; sleep 1000 & wait'
"""A script that goes on with a child of its own; both hold the lifeline."""
ALL_BYTES = bytes(range(256))


class HostTests:
    """What the tests of a host begin from."""

    def host(self) -> Host:
        """Return a new host object for the same machine, as a new leader has it."""
        raise NotImplementedError

    @pytest.fixture
    async def stage(self, tmp_path: Path) -> AsyncIterator[Stage]:
        """Give a host and room for what it starts."""
        stage = Stage(host=self.host(), folder=tmp_path)
        yield stage
        await stage.clear()


class OutputSuite(HostTests):
    """The spool, and how a process ended."""

    async def test_output_is_read_from_an_offset_while_it_grows(self, stage: Stage) -> None:
        """Nothing of it comes twice, and there is no end before the end."""
        found = await stage.start("echo one; read line; echo $line", stdin=True)
        assert await read_until(stage.host, found, b"one\n") == b"one\n"
        spool = await stage.host.look(found.process, found.folder, 4)
        assert (spool.data, spool.ended) == (b"", None)
        assert await stage.host.write(found.process, b"two\n")
        assert await read_to_end(stage.host, found, offset=4) == (b"two\n", Ended(exit_code=0))
        assert (await stage.host.look(found.process, found.folder, 6)).data == b"o\n"

    async def test_output_is_given_in_pieces_and_the_end_with_the_last(self, stage: Stage) -> None:
        """No more at once than asked for, and nothing lost at the end."""
        found = await stage.start("printf 123456789; exit 3")
        await read_to_end(stage.host, found)
        first = await stage.host.look(found.process, found.folder, 0, 4)
        assert (first.data, first.ended) == (b"1234", None)
        assert await read_to_end(stage.host, found, piece=3) == (b"123456789", Ended(exit_code=3))

    async def test_output_is_kept_byte_by_byte(self, stage: Stage) -> None:
        """Whatever it is; it may be no text at all."""
        (stage.folder / "bytes").write_bytes(ALL_BYTES * 1000)
        found = await stage.start("cat bytes")
        data, _ = await read_to_end(stage.host, found)
        assert data == ALL_BYTES * 1000

    async def test_complaints_are_kept_apart_from_the_output(self, stage: Stage) -> None:
        """In the same folder, for people."""
        found = await stage.start("echo said; echo complained >&2")
        data, _ = await read_to_end(stage.host, found)
        assert data == b"said\n"
        assert "complained\n" in contents(Path(found.folder))

    @pytest.mark.parametrize(
        ("script", "code"),
        [
            ("exit 0", 0),
            ("exit 1", 1),
            ("exit 77", 77),
            ("exit 255", 255),
            ("kill -TERM $$", 128 + 15),
            ("kill -KILL $$", 128 + 9),
        ],
    )
    async def test_the_exit_code_is_the_programs(self, stage: Stage, script: str, code: int) -> None:
        """As shells give it, when a signal ended it."""
        found = await stage.start(script)
        assert await read_to_end(stage.host, found) == (b"", Ended(exit_code=code))

    async def test_whoever_waits_is_woken_by_output_and_by_the_end(self, stage: Stage) -> None:
        """And does not wait at all for what is there already."""
        found = await stage.start("read line; echo $line; read line; exit 4", stdin=True)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            waiting = group.create_task(stage.host.wait(found.process, found.folder, 0))
            assert await stage.host.write(found.process, b"woken\n")
            await waiting
        async with asyncio.timeout(20):
            await stage.host.wait(found.process, found.folder, 3)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(stage.host.wait(found.process, found.folder, 6))
            assert await stage.host.write(found.process, b"end\n")
        async with asyncio.timeout(20):
            await stage.host.wait(found.process, found.folder, 1000)

    async def test_what_a_program_leaves_behind_ends_with_it(self, stage: Stage) -> None:
        """A server in the background, say; it does not keep the end from being seen."""
        lifeline = stage.lifeline()
        found = await stage.start('exec 9>"$1"; (trap "" TERM HUP INT; echo up >&9; sleep 1000) & exit 6', lifeline.path)
        assert await read_to_end(stage.host, found) == (b"", Ended(exit_code=6))
        await lifeline.cut()


class LaunchSuite(HostTests):
    """How processes are started."""

    async def test_a_program_gets_its_arguments_to_the_letter(self, stage: Stage) -> None:
        """No shell reads them."""
        arguments = ("", " ", "$HOME", "a'b\"c", "*", "-n", "zwei\nZeilen", "世界", "\\")
        found = await stage.start('for word; do printf "%s|" "$word"; done', *arguments)
        data, _ = await read_to_end(stage.host, found)
        assert data.decode() == "".join(f"{word}|" for word in arguments)

    async def test_a_program_has_the_environment_it_was_given_and_no_other(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing of this process's own."""
        monkeypatch.setenv("PLANTED_SECRET", "s3cr3t")
        found = await stage.start("env", env=(("PATH", "/usr/bin:/bin"), ("GIVEN", "ja = ü")))
        data, _ = await read_to_end(stage.host, found)
        assert "GIVEN=ja = ü\n" in data.decode()
        assert "s3cr3t" not in data.decode()
        names = {line.partition("=")[0] for line in data.decode().splitlines()}
        assert names <= {"PATH", "GIVEN", "PWD", "OLDPWD", "SHLVL", "_"}

    async def test_a_program_needs_no_path(self, stage: Stage) -> None:
        """What watches over it does not depend on the environment that it was given."""
        found = await stage.start("echo here; exit 3", env=(("PATH", "/nowhere"),))
        assert await read_to_end(stage.host, found) == (b"here\n", Ended(exit_code=3))

    async def test_a_program_works_in_its_directory(self, stage: Stage) -> None:
        """With a name of any kind, as has the folder that holds its output."""
        place, folder = stage.folder / "wörk 'n' \"spåce\" 世界", stage.folder / "földer $HOME"
        place.mkdir()
        found = await stage.start_launch(stage.launch("pwd; echo x > made", cwd=str(place)), folder)
        data, ended = await read_to_end(stage.host, found)
        assert (data.decode(), ended) == (f"{place}\n", Ended(exit_code=0))
        assert (place / "made").exists()

    async def test_files_are_written_for_their_owner_alone_before_the_start(self, stage: Stage) -> None:
        """Also over what an earlier start left there."""
        folder = stage.folder / "process"
        for content in ("first", "zweiter ü"):
            launch = stage.launch('cat "$1/settings.json"', str(folder), files=(("settings.json", content),))
            found = await stage.start_launch(launch, folder)
            data, _ = await read_to_end(stage.host, found)
            assert data.decode().endswith(content)
            assert (folder / "settings.json").stat().st_mode & 0o777 == 0o600

    async def test_a_program_that_does_not_exist_is_told_by_name(self, stage: Stage) -> None:
        """Before anything is started."""
        for argv in (("no-such-program", "-x"), (str(stage.folder / "nothing"),)):
            with pytest.raises(HostFailed, match=argv[0]):
                await stage.start_launch(replace(stage.launch(""), argv=argv))

    async def test_a_file_that_is_no_program_is_told_by_name(self, stage: Stage) -> None:
        """It may not be executed."""
        (stage.folder / "notes.txt").write_text("no program")
        with pytest.raises(HostFailed, match=r"notes\.txt"):
            await stage.start_launch(replace(stage.launch(""), argv=(str(stage.folder / "notes.txt"),)))

    async def test_a_directory_that_is_gone_is_told_by_name(self, stage: Stage) -> None:
        """And not the program, which is there."""
        with pytest.raises(HostFailed, match="gone-away"):
            await stage.start("true", cwd=str(stage.folder / "gone-away"))

    async def test_a_program_beside_its_directory_is_found(self, stage: Stage) -> None:
        """A path that is not absolute begins at the working directory of the program."""
        script = stage.folder / "tool"
        script.write_text("#!/bin/sh\necho found\n")
        script.chmod(0o755)
        found = await stage.start_launch(replace(stage.launch(""), argv=("./tool",)))
        assert await read_to_end(stage.host, found) == (b"found\n", Ended(exit_code=0))


class InputSuite(HostTests):
    """What is written to a process."""

    async def test_a_large_prompt_arrives_whole(self, stage: Stage) -> None:
        """More than any pipe holds."""
        prompt = ALL_BYTES * 1200
        found = await stage.start("cat", stdin=True)
        async with asyncio.timeout(20):
            assert await stage.host.write(found.process, prompt)
        await stage.host.close_input(found.process)
        assert await read_to_end(stage.host, found) == (prompt, Ended(exit_code=0))

    async def test_prompts_arrive_one_after_the_other(self, stage: Stage) -> None:
        """Each whole, however many."""
        found = await stage.start("cat", stdin=True)
        lines = [f"prompt {number}\n".encode() * 50 for number in range(200)]
        for line in lines:
            assert await stage.host.write(found.process, line)
        await stage.host.close_input(found.process)
        data, _ = await read_to_end(stage.host, found)
        assert data == b"".join(lines)

    async def test_writing_to_a_program_that_ends_before_it_has_read_says_no(self, stage: Stage) -> None:
        """And does not wait for ever."""
        found = await stage.start("echo up; read line; exit 2", stdin=True)
        await read_until(stage.host, found, b"up\n")
        async with asyncio.timeout(20):
            assert not await stage.host.write(found.process, b"line\n" + b"x" * 3_000_000)
        _, ended = await read_to_end(stage.host, found)
        assert ended == Ended(exit_code=2)

    async def test_what_is_still_being_written_when_the_input_is_closed_goes_nowhere(self, stage: Stage) -> None:
        """Least of all to another program that is started just then."""
        found = await stage.start("sleep 1000", stdin=True)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            writing = group.create_task(stage.host.write(found.process, b"x" * 3_000_000))
            for _ in range(10):
                # Rounds of the loop, in which the pipe is filled.
                await asyncio.sleep(0)
            await stage.host.close_input(found.process)
            other = await stage.start("cat", stdin=True)
        assert not writing.result()
        await stage.host.close_input(other.process)
        assert await read_to_end(stage.host, other) == (b"", Ended(exit_code=0))

    async def test_a_program_sees_that_its_input_was_closed(self, stage: Stage) -> None:
        """Closing it once more has no effect, and writing is not possible any more."""
        found = await stage.start("cat; echo closed; exit 8", stdin=True)
        await stage.host.close_input(found.process)
        await stage.host.close_input(found.process)
        assert not await stage.host.write(found.process, b"too late")
        assert await read_to_end(stage.host, found) == (b"closed\n", Ended(exit_code=8))
        await stage.host.close_input(found.process)

    async def test_a_program_without_input_finds_it_empty(self, stage: Stage) -> None:
        """And cannot be written to."""
        found = await stage.start("cat; echo empty")
        assert not await stage.host.write(found.process, b"hello")
        assert await read_to_end(stage.host, found) == (b"empty\n", Ended(exit_code=0))

    async def test_a_program_that_has_ended_cannot_be_written_to(self, stage: Stage) -> None:
        """Nor is that an error."""
        found = await stage.start("exit 0", stdin=True)
        await read_to_end(stage.host, found)
        assert not await stage.host.write(found.process, b"hello")
