"""How long a person waits for an answer of the command line that needs none of its engine."""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.machine import Figures

TIMES = 10
SCRIPT = (str(Path(sys.executable).parent / "kapelle"),)
MODULE = (sys.executable, "-m", "kapelle")


async def _median_ms(times: int, folder: Path, *command: str) -> float:
    found: list[float] = []
    for _ in range(times):
        begun = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env={**os.environ, "KAPELLE_HOME": str(folder / "home")}, stdout=asyncio.subprocess.DEVNULL
        )
        if await process.wait() != 0:
            raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}")
        found.append((time.perf_counter() - begun) * 1000)
    return statistics.median(found)


async def measure(*, small: bool = False) -> Figures:
    """Measure once; the first call of each, which may still write what Python compiled, does not count."""
    times = 1 if small else TIMES
    with tempfile.TemporaryDirectory(prefix="kapelle-bench-") as place:
        folder = Path(place)
        for command in ("--version", "status"):
            await _median_ms(1, folder, *SCRIPT, command)
        return {
            "version_ms": await _median_ms(times, folder, *SCRIPT, "--version"),
            "status_ms": await _median_ms(times, folder, *SCRIPT, "status"),
            "version_as_module_ms": await _median_ms(times, folder, *MODULE, "--version"),
            "status_as_module_ms": await _median_ms(times, folder, *MODULE, "status"),
            "bare_python_ms": await _median_ms(times, folder, sys.executable, "-c", "pass"),
        }
