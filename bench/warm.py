"""What it saves to have an agent started beforehand: from dispatch to the first model request, warm against cold.

Real ``claude`` processes, rehearsed, one at a time, in a worktree of a small repository. Dispatch is the moment at which it is
on disk that the task has an agent; the request is the moment at which it is on disk that a model call goes out, which is just
before it does. Cold, warm, and a program that goes on from another task take turns, so that all see the same machine.
"""

import asyncio
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench.leading import Bench, leading, seen
from bench.machine import Figures
from bench.places import repository
from kapelle.apps.runs import prepare
from kapelle.apps.settings import load
from kapelle.apps.workflows import single_task
from kapelle.core.agent import Reuse
from kapelle.core.ids import RunId
from kapelle.core.pool import SpareState, make_of
from kapelle.core.requests import Scale, Submit
from kapelle.core.run import RunSpec

TIMES = 8
AGENTS = """\
agents: {coder: {program: claude, tools: {allow: [Read]}}}
"""
REHEARSAL = """\
otherwise: {say: "Nothing to do."}
"""
FILES = {"notes.txt": "A sample.\n", ".kapelle/agents.yml": AGENTS}
ASSIGNED = "SELECT 1 FROM tasks WHERE run_id = ? AND name = ? AND started_at IS NOT NULL"
CALLED = "SELECT 1 FROM calls JOIN tasks USING (task_id) WHERE calls.run_id = ? AND name = ?"
ENDED = "SELECT 1 FROM runs WHERE run_id = ? AND ended_at IS NOT NULL"
PERSON = "person:bench"


async def measure(*, small: bool = False) -> Figures:
    """Measure once: so many pairs of a cold and a warm start."""
    with tempfile.TemporaryDirectory(prefix="kapelle-bench-") as place:
        folder = Path(place)
        root = repository(folder / "repository", FILES)
        (folder / "rehearsal.yml").write_text(REHEARSAL)
        home = folder / "home"
        found = load(root, given={"home": home, "sandbox": "process"}, environment={})
        document, workflow = single_task("Look at the notes.", agent="coder", gate=None)
        spec = await prepare(found, document, workflow, inputs={}, rehearse=folder / "rehearsal.yml")
        task = replace(spec.tasks[0], reads_only=True)
        spec = replace(spec, tasks=(task,), upstream=replace(spec.upstream, log=str(folder / "log")))
        cold: list[float] = []
        warm: list[float] = []
        again: list[float] = []
        async with leading(home, slots=1) as bench:
            # The first of all loads what the others have already.
            await _first_request(bench, spec)
            for _ in range(1 if small else TIMES):
                cold.append(await _first_request(bench, spec))
                await _scale(bench, spec, 1)
                warm.append(await _first_request(bench, spec))
                await _scale(bench, spec, None)
                again.append(await _first_request(bench, _in_a_row(spec)))
    return {
        "cold_ms": statistics.median(cold) * 1000,
        "warm_ms": statistics.median(warm) * 1000,
        "warm_ratio": statistics.median(warm) / statistics.median(cold),
        "again_ms": statistics.median(again) * 1000,
        "again_ratio": statistics.median(again) / statistics.median(cold),
        "pairs": float(len(cold)),
    }


async def _first_request(bench: Bench, spec: RunSpec) -> float:
    """Return the seconds from dispatch to the first model request of the last task of a run."""
    name = spec.tasks[-1].name
    run_id = RunId(bench.desk.world.new_id("r"))
    bench.store.expect(lambda: seen(bench, ASSIGNED, run_id, name))
    await bench.desk.ask(Submit(run_id=run_id, spec=spec), PERSON)
    placed = await bench.store.seen_at()
    bench.store.expect(lambda: seen(bench, CALLED, run_id, name))
    called = await bench.store.seen_at()
    bench.store.expect(lambda: seen(bench, ENDED, run_id))
    await bench.store.seen_at()
    return called - placed


def _in_a_row(spec: RunSpec) -> RunSpec:
    """Return a run of two tasks, the second of which is done by the program that did the first."""
    first = spec.tasks[0]
    second = replace(first, name="next", needs=(first.name,))
    config = replace(spec.configs[0], reuse=Reuse.SAME_RUN, limit=1)
    return replace(spec, tasks=(first, second), configs=(config, *spec.configs[1:]))


async def _scale(bench: Bench, spec: RunSpec, wanted: int | None) -> None:
    """Have so many spares, and wait until all are there that should be, and no others."""
    make = make_of(spec, "coder")
    await bench.desk.ask(Scale(project=spec.project, config="coder", wanted=wanted, spec=make), PERSON)
    begun = time.perf_counter()
    while time.perf_counter() < begun + PATIENCE:
        spares = await bench.store.read(lambda view: list(view.spares.all()))
        if len(spares) == (wanted or 0) and all(spare.state is SpareState.READY for spare in spares):
            # Ready is when it was started; it takes a moment until it waits.
            await asyncio.sleep(SETTLED if wanted else 0)
            return
        await asyncio.sleep(0.02)
    raise TimeoutError("the spares are not as they should be")


PATIENCE = 60.0
SETTLED = 2.0
