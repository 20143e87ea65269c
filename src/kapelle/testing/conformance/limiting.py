"""The suite of what sandboxes hold: limits that are declared hold, for everything that was started together."""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest

from kapelle.core.frozen import replace
from kapelle.core.isolation import Isolation, Limit, Mount, MountKind, Place, ProcessLimits, Remains
from kapelle.testing.conformance.boxes import BoxCase
from kapelle.testing.conformance.processes import PATIENCE, Stage, read_to_end, read_until


class LimitsSuite(BoxCase):
    """Limits of memory, processors, processes, disk and open files."""

    async def _limited(self, stage: Stage, place: Place, limits: ProcessLimits, script: str) -> tuple[str, Remains]:
        """Run a script of Python under *limits*; return what it said and what is to be said of it."""
        place = replace(place, isolation=Isolation(limits=limits))
        launch = replace(stage.launch("true"), argv=(sys.executable, "-I", "-c", script))
        found = await self._start(stage, place, launch)
        data, _ = await read_to_end(stage.host, found)
        return data.decode(), await self.sandbox().clear(place)

    async def test_what_needs_more_memory_than_it_may_is_ended_and_that_is_told(self, stage: Stage, place: Place) -> None:
        """A child of it, too; and what needs less is left alone."""
        if Limit.MEMORY not in self.sandbox().capabilities.limits:
            return
        script = """
            import subprocess, sys, time
            few = "x = bytearray(20_000_000); print(len(x), flush=True)"
            subprocess.run([sys.executable, "-c", few])
            many = "import time; x = bytearray(400_000_000); x[::4096] = b'x' * len(x[::4096]); time.sleep(1000)"
            print(subprocess.run([sys.executable, "-c", many]).returncode)
        """
        said, remains = await self._limited(stage, place, ProcessLimits(memory=150_000_000), dedent(script))
        # Either only the child is ended, or all of it.
        assert said in {"20000000\n-9\n", "20000000\n"}
        assert remains.out_of_memory or remains.full is Limit.MEMORY

    async def test_what_it_has_met_is_told_while_it_goes_on(self, stage: Stage, place: Place) -> None:
        """As it is at its end; before, there is nothing to be said."""
        if Limit.PIDS not in self.sandbox().capabilities.limits:
            return
        script = """
            import os, time
            print("up", flush=True)
            while not os.path.exists("go"):
                pass
            for number in range(60):
                try:
                    if os.fork() == 0:
                        time.sleep(1000)
                except OSError as error:
                    print(error, flush=True)
                    break
            time.sleep(1000)
        """
        place = replace(place, isolation=Isolation(limits=ProcessLimits(pids=40)))
        launch = replace(stage.launch("true"), argv=(sys.executable, "-I", "-c", dedent(script)))
        found = await self._start(stage, place, launch)
        await read_until(stage.host, found, b"up\n")
        assert await self.sandbox().met(place) == Remains()
        (Path(place.workspace) / "go").touch()
        async with asyncio.timeout(PATIENCE):
            while (met := await self.sandbox().met(place)) == Remains():  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0)
        assert met == Remains(full=Limit.PIDS)
        await stage.host.end(found.process, found.folder, grace=timedelta(0))
        await read_to_end(stage.host, found)
        assert await self.sandbox().clear(place) == met
        assert await self.sandbox().met(place) == Remains()

    async def test_what_processes_share_counts_once(self, stage: Stage, place: Place) -> None:
        """Whoever starts workers by forking has what it had before, however many they are."""
        if Limit.MEMORY not in self.sandbox().capabilities.limits:
            return
        script = """
            import os, time
            much = bytearray(60_000_000)
            much[::4096] = b"x" * len(much[::4096])
            workers = []
            for _ in range(5):
                workers.append(os.fork())
                if workers[-1] == 0:
                    time.sleep(1)
                    os._exit(0)
            print([os.waitpid(each, 0)[1] for each in workers])
        """
        said, remains = await self._limited(stage, place, ProcessLimits(memory=150_000_000), dedent(script))
        assert said == "[0, 0, 0, 0, 0]\n"
        assert remains == Remains()

    async def test_no_more_processes_than_it_may(self, stage: Stage, place: Place) -> None:
        """They cannot be started, or all of it is ended; either way that is told."""
        if Limit.PIDS not in self.sandbox().capabilities.limits:
            return
        script = """
            import os, time
            try:
                for number in range(200):
                    if os.fork() == 0:
                        time.sleep(1000)
            except OSError:
                print("no more after some" if number < 40 else "too many")
            else:
                time.sleep(1000)
        """
        said, remains = await self._limited(stage, place, ProcessLimits(pids=40), dedent(script))
        assert said in {"no more after some\n", ""}
        assert remains.full is Limit.PIDS

    async def test_no_more_processor_than_it_may(self, stage: Stage, place: Place) -> None:
        """It takes longer, that is all."""
        if Limit.CPUS not in self.sandbox().capabilities.limits:
            return
        script = """
            import time
            begun = time.monotonic()
            while time.process_time() < 0.2: pass
            print(time.monotonic() - begun)
        """
        said, remains = await self._limited(stage, place, ProcessLimits(cpus=0.2), dedent(script))
        # At full speed it would take 0.2 s or a little less; the first share is given at once.
        assert float(said) > 0.5  # half of what it must take
        assert remains.full is None

    async def test_what_writes_more_than_it_may_is_ended_and_that_is_told(self, stage: Stage, place: Place) -> None:
        """In many files, each of which is small."""
        if Limit.DISK not in self.sandbox().capabilities.limits:
            return
        script = """
            import os, time
            for folder in (".", os.environ["HOME"], os.environ["TMPDIR"]):
                for number in range(8):
                    open(os.path.join(folder, f"part-{number}"), "wb").write(os.urandom(1_000_000))
            print("written", flush=True)
            time.sleep(1000)
        """
        said, remains = await self._limited(stage, place, ProcessLimits(disk=20_000_000), dedent(script))
        assert said in {"written\n", ""}
        assert remains.full is Limit.DISK

    @pytest.mark.parametrize("where", ["deep", "mounted"])
    async def test_wherever_it_writes_it_counts(self, stage: Stage, place: Place, tmp_path: Path, where: str) -> None:
        """In directories deeper than a path is long, and in whatever else it alone may write."""
        if Limit.DISK not in self.sandbox().capabilities.limits or (
            where == "mounted" and not self.sandbox().capabilities.files
        ):
            return
        (tmp_path / "mounted").mkdir()
        mounts = (Mount(kind=MountKind.WRITE, path=str(tmp_path / "mounted")),)
        script = f"""
            import os, time
            if {where!r} == "mounted":
                os.chdir({str(tmp_path / "mounted")!r})
            for number in range(600 if {where!r} == "deep" else 0):
                os.mkdir("dddddddd")
                os.chdir("dddddddd")
            for number in range(8):
                open(f"part-{{number}}", "wb").write(os.urandom(1_000_000))
            time.sleep(1000)
        """
        _, remains = await self._limited(stage, replace(place, mounts=mounts), ProcessLimits(disk=5_000_000), dedent(script))
        assert remains.full is Limit.DISK

    async def test_what_it_writes_and_hides_counts_too(self, stage: Stage, place: Place) -> None:
        """A file that is open needs no name."""
        if Limit.DISK not in self.sandbox().capabilities.limits or not self.sandbox().capabilities.ends_all:
            return
        script = """
            import os, time
            files = []
            for number in range(8):
                files.append(open("hidden", "wb", buffering=0))
                os.unlink("hidden")
                files[-1].write(os.urandom(1_000_000))
            time.sleep(1000)
        """
        _, remains = await self._limited(stage, place, ProcessLimits(disk=5_000_000), dedent(script))
        assert remains.full is Limit.DISK

    async def test_no_file_grows_beyond_what_may_be_on_the_disk(self, stage: Stage, place: Place) -> None:
        """Nor in a file system in memory."""
        if Limit.DISK not in self.sandbox().capabilities.limits:
            return
        script = """
            try:
                with open("big", "wb", buffering=0) as file:
                    for _ in range(100):
                        file.write(bytes(100_000))
            except OSError as error:
                print(error.strerror)
        """
        said, _ = await self._limited(stage, place, ProcessLimits(disk=1_000_000), dedent(script))
        assert said in {"File too large\n", ""}
        assert (Path(place.workspace) / "big").stat().st_size <= 1_000_000  # the limit

    async def test_no_more_open_files_than_it_may(self, stage: Stage, place: Place) -> None:
        """Each process for itself."""
        if Limit.FILES not in self.sandbox().capabilities.limits:
            return
        script = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[1])"
        said, _ = await self._limited(stage, place, ProcessLimits(files=77), script)
        assert said == "77\n"

    async def test_without_limits_nothing_is_said_of_them(self, stage: Stage, place: Place) -> None:
        """And asked again, there is nothing more to say."""
        said, remains = await self._limited(stage, place, ProcessLimits(), "print('fine')")
        assert (said, remains) == ("fine\n", Remains())
        assert await self.sandbox().clear(place) == Remains()
