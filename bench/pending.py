"""``python -m bench.pending FOLDER FEW MANY TIMES``: memory of a leader, and its dispatches while few and many tasks wait.

What waits are tasks of a program that needs a slot, and there is none; what is dispatched goes before all of them and needs
none. Both stores are led at the same time and asked in turn, so that whatever else the machine does bears on both alike.
"""

import asyncio
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import psutil

from bench.leading import CONFIG, TASK, Bench, dispatch_ms, leading
from kapelle.core.agent import AgentConfig
from kapelle.core.ids import RunId
from kapelle.core.requests import Submit
from kapelle.core.run import RunSpec
from kapelle.core.task import Priority

RUN = 1_000
"""Tasks of each run that waits."""
URGENT = replace(TASK, priority=Priority.CRITICAL)
WAITING = replace(TASK, agent="waits")


def _rss_kb() -> float:
    return psutil.Process().memory_info().rss / 1024


async def _wait(bench: Bench, count: int) -> None:
    """Submit *count* tasks that wait."""
    config = AgentConfig(name="waits", program="command")
    for first in range(0, count, RUN):
        tasks = tuple(replace(WAITING, name=f"t{number}") for number in range(first, min(first + RUN, count)))
        run = RunSpec(name="waits", tasks=tasks, configs=(config, CONFIG))
        await bench.desk.ask(Submit(run_id=RunId(bench.desk.world.new_id("r")), spec=run), "person:bench")


async def measure(folder: Path, few: int, many: int, times: int) -> dict[str, float]:
    """Measure once."""
    async with leading(folder / "many", slots=0) as crowded:
        await dispatch_ms(crowded, URGENT)
        idle = _rss_kb()
        await _wait(crowded, many)
        waiting = _rss_kb()
        async with leading(folder / "few", slots=0) as quiet:
            await _wait(quiet, few)
            await dispatch_ms(quiet, URGENT)
            pairs = [(await dispatch_ms(quiet, URGENT), await dispatch_ms(crowded, URGENT)) for _ in range(times)]
    one, other = (statistics.median(values) for values in zip(*pairs, strict=True))
    return {
        "pending_scale_ratio": other / one,
        "dispatch_few_pending_ms": one,
        "dispatch_many_pending_ms": other,
        "rss_idle_mb": idle / 1024,
        "rss_per_task_kb": (waiting - idle) / many,
    }


if __name__ == "__main__":
    place, *numbers = sys.argv[1:]
    print(json.dumps(asyncio.run(measure(Path(place), *map(int, numbers)))))
