"""The machine that figures were measured on, and what figures are."""

import os
import platform
import sqlite3
import tempfile
from collections.abc import Mapping
from pathlib import Path

Figures = Mapping[str, float | str]
"""What a benchmark has found, by name: numbers, and words about how."""


def describe() -> dict[str, str | float]:
    """Return what bears on the figures."""
    place = Path(tempfile.gettempdir()).resolve()
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "file_system": _file_system(place),
        "nice": os.nice(0),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _file_system(place: Path) -> str:
    """Return the type of the file system that holds the folder in which benchmarks keep their stores."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return "unknown"
    found = ("", "unknown")
    for line in mounts.read_text().splitlines():
        _, where, kind, *_ = line.split(" ")
        if place.is_relative_to(where) and len(where) > len(found[0]):
            found = (where, kind)
    return found[1]
