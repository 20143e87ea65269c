"""What every host owes about measuring what agents do; a part of the suite of ``core.ports.Host``."""

import asyncio
import os
import signal

from kapelle.core.ports import Activity, Host
from kapelle.testing.conformance.processes import PATIENCE, Stage, Started, read_until
from kapelle.testing.conformance.spools import HostTests


async def stands(host: Host, found: Started, stopped: int) -> Activity:
    """Wait until so many processes of *found* are *stopped*, and return what is measured then."""
    async with asyncio.timeout(PATIENCE):
        while True:
            measured = (await host.activities([[found.process]]))[0]
            if measured is not None and measured.stopped == stopped:
                return measured
            await asyncio.sleep(0)


class ActivitySuite(HostTests):
    """What a process does is measured with all that it has started."""

    async def test_work_is_seen_also_that_of_children(self, stage: Stage) -> None:
        """One that computes has used more from look to look; one that waits has not, or hardly."""
        busy = await stage.start("sh -c 'while :; do :; done' & echo up; wait")
        idle = await stage.start("echo up; sleep 1000")
        for found in (busy, idle):
            await read_until(stage.host, found, b"up\n")
        roots = [[busy.process], [idle.process]]
        async with asyncio.timeout(PATIENCE):
            while True:
                worked, rested = await stage.host.activities(roots)
                assert worked is not None
                assert rested is not None
                if worked.cpu > 0.3:
                    break
                await asyncio.sleep(0)
        assert rested.cpu < 0.2
        assert worked.processes >= 2
        assert worked.memory > 0

    async def test_what_is_stopped_is_seen_and_let_go_on(self, stage: Stage) -> None:
        """All of it, and as often as it is asked for."""
        found = await stage.start("sh -c 'echo $$; exec sleep 1000' & wait")
        pid = int(await read_until(stage.host, found, b"\n"))
        assert (await stands(stage.host, found, 0)).stopped == 0
        os.kill(pid, signal.SIGSTOP)
        assert (await stands(stage.host, found, 1)).processes >= 2
        assert await stage.host.go_on([found.process]) == 1
        await stands(stage.host, found, 0)
        assert await stage.host.go_on([found.process]) == 0

    async def test_of_what_has_ended_nothing_is_measured(self, stage: Stage) -> None:
        """And there is nothing to let go on."""
        found = await stage.start("echo bye")
        async with asyncio.timeout(PATIENCE):
            while (await stage.host.activities([[found.process]]))[0] is not None:  # noqa: ASYNC110  # there is no event
                await asyncio.sleep(0)
        assert await stage.host.go_on([found.process]) == 0
        assert list(await stage.host.activities([])) == []
