"""What this machine has, and what of it is free: of what a container or a control group leaves us, not of the whole machine."""

import os
from pathlib import Path

import psutil

from kapelle.core.ports import Measure

GROUP = Path("/sys/fs/cgroup")
"""Where a container sees the control group that it runs in (version 2)."""


def measure(group: Path = GROUP, *, path: str = "") -> Measure:
    """Measure the machine, or what a control group leaves us of it; with *path* the disk that it is on."""
    whole = psutil.virtual_memory()
    memory, free = int(whole.total), int(whole.available)
    most, used = _number(group / "memory.max"), _number(group / "memory.current")
    if most is not None and used is not None and most < memory:
        memory, free = most, min(free, max(most - used + _reclaimable(group), 0))
    disk = psutil.disk_usage(path) if path else None
    return Measure(
        memory=memory,
        memory_free=free,
        cpus=_cpus(group),
        load=psutil.getloadavg()[0],
        disk=0 if disk is None else int(disk.total),
        disk_free=0 if disk is None else int(disk.free),
    )


def _cpus(group: Path) -> float:
    known = getattr(os, "sched_getaffinity", None)
    cpus = float(len(known(0))) if known is not None else float(os.cpu_count() or 1)
    quota, _, period = _text(group / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        return min(cpus, int(quota) / int(period))
    return cpus


def _number(file: Path) -> int | None:
    said = _text(file)
    return int(said) if said.isdigit() else None


def _reclaimable(group: Path) -> int:
    # Files that were read and may be forgotten count as used, and are not.
    lines = (line.partition(" ") for line in _text(group / "memory.stat").splitlines())
    return sum(int(value) for name, _, value in lines if name == "inactive_file" and value.isdigit())


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):  # no such control group: there is none above us that limits anything
        return ""
