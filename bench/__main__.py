"""``python -m bench [--only NAME] [--json]``: every benchmark, or one, several runs of each, medians."""

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from bench import engine

Benchmark = Callable[[], Coroutine[Any, Any, Mapping[str, float]]]
BENCHMARKS: dict[str, Benchmark] = {"engine": engine.measure}


def main() -> int:
    """Run the benchmarks and print their medians."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=sorted(BENCHMARKS), help="run only this one")
    parser.add_argument("--runs", type=int, default=3, help="how often each is run (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    names = [given.only] if given.only else sorted(BENCHMARKS)
    results: dict[str, dict[str, float]] = {}
    for name in names:
        runs: list[Mapping[str, float]] = []
        for number in range(given.runs):
            print(f"{name}: run {number + 1} of {given.runs} ...", file=sys.stderr, flush=True)
            runs.append(asyncio.run(BENCHMARKS[name]()))
        results[name] = {key: round(statistics.median(run[key] for run in runs), 4) for key in runs[0]}
    if given.json:
        print(json.dumps(results[given.only] if given.only else results))
        return 0
    for name, figures in results.items():
        print(f"\n{name} (medians of {given.runs} runs)")
        for key, value in figures.items():
            print(f"  {key:<28} {value:>12,.4g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
