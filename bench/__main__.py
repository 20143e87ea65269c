"""``python -m bench [--only NAME] [--json] [--save]``: every benchmark, or one, several runs of each, medians."""

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench import churn, engine, git, merge, overhead, restart, sandbox, startup, warm
from bench.machine import Figures, describe

RESULTS = Path(__file__).parent / "results"


class Benchmark(Protocol):
    """Measures once; *small* is for the test that it works."""

    def __call__(self, *, small: bool = False) -> Coroutine[Any, Any, Figures]:
        """Return the figures."""
        ...


BENCHMARKS: dict[str, Benchmark] = {
    "churn": churn.measure,
    "engine": engine.measure,
    "git": git.measure,
    "merge": merge.measure,
    "overhead": overhead.measure,
    "restart": restart.measure,
    "sandbox": sandbox.measure,
    "startup": startup.measure,
    "warm": warm.measure,
}
WORST: dict[str, frozenset[str]] = {
    "restart": frozenset({"lost", "duplicated"}),
    "churn": frozenset({"leftovers", "not_completed"}),
}
"""Figures of which the worst run counts: what must never happen is not averaged away."""


def together(name: str, runs: Sequence[Figures]) -> dict[str, float | str]:
    """Return one value for each figure: the median of all *runs*, or what all of them said."""
    found: dict[str, float | str] = {}
    for key in runs[0]:
        values = [run[key] for run in runs]
        numbers = [value for value in values if not isinstance(value, str)]
        if len(numbers) != len(values):
            found[key] = ", ".join(sorted({str(value) for value in values}))
        else:
            take: Callable[[list[float]], float] = max if key in WORST.get(name, ()) else statistics.median
            found[key] = round(take(numbers), 4)
    return found


def run(name: str, times: int, *, small: bool = False) -> dict[str, Any]:
    """Run one benchmark and return everything about it."""
    machine = describe()
    runs: list[Figures] = []
    for number in range(times):
        print(f"{name}: run {number + 1} of {times} ...", file=sys.stderr, flush=True)
        runs.append(asyncio.run(BENCHMARKS[name](small=small)))
    return {**together(name, runs), "runs": times, "machine": machine}


def main() -> int:
    """Run the benchmarks and print their medians."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=sorted(BENCHMARKS), help="run only this one")
    parser.add_argument("--runs", type=int, default=3, help="how often each is run (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--save", action="store_true", help="write what was found to bench/results")
    parser.add_argument("--small", action="store_true", help="a trifle of each: shows that it works, measures nothing")
    given = parser.parse_args()
    names = [given.only] if given.only else sorted(BENCHMARKS)
    results = {name: run(name, given.runs, small=given.small) for name in names}
    if given.save:
        RESULTS.mkdir(exist_ok=True)
        for name, figures in results.items():
            (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
    if given.json:
        print(json.dumps(results[given.only] if given.only else results))
        return 0
    for name, figures in results.items():
        print(f"\n{name} (medians of {given.runs} runs)")
        for key, value in figures.items():
            if key != "machine":
                print(f"  {key:<28} {value if isinstance(value, str) else f'{value:,.4g}':>12}")
        print("  on " + ", ".join(f"{key} {value}" for key, value in figures["machine"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
