"""Every benchmark works; what it measures is for `make bench`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIGURES = {
    "engine": {
        "synchronous",
        "throughput_tasks_per_s",
        "dispatch_p50_ms",
        "dispatch_p99_ms",
        "dag_1000_s",
        "pending_scale_ratio",
        "rss_idle_mb",
        "rss_per_task_kb",
        "bare_sqlite_tasks_per_s",
        "dbos_tasks_per_s",
    },
    "git": {"workspace_ratio", "merge_ratio", "snapshot_ms"},
    "merge": {"merges_per_gate", "gates_16_good", "gates_15_good_1_bad", "bad_named_rightly"},
    "overhead": {"wall_ratio_n1", "cpu_ratio_n1"},
    "restart": {"lost", "duplicated", "resume_s"},
    "sandbox": {"bubblewrap_overhead_ms", "container_overhead_ms"},
    "startup": {"version_ms", "status_ms"},
}


SOAKED = {"merge", "overhead", "restart"}
"""What takes long, however small: `make soak` runs them."""


def bench(*arguments: str, temporary: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.soak] * (name in SOAKED)) for name in sorted(FIGURES)])
def test_a_benchmark_gives_its_figures_as_one_json_object(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if name == "sandbox":
        request.getfixturevalue("bubblewrap")
        request.getfixturevalue("podman_programs")
    done = bench("--only", name, "--runs", "1", "--small", "--json", temporary=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) >= FIGURES[name]
    assert set(found["machine"]) >= {"cpu", "cores", "python", "sqlite", "file_system"}
    assert list(tmp_path.iterdir()) == []

    if name == "engine":
        # Every commit is synced.
        assert found["synchronous"] == "FULL"


def test_without_json_the_figures_are_a_table(tmp_path: Path) -> None:
    done = bench("--only", "git", "--runs", "1", "--small", temporary=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "on cpu" in done.stdout
    assert "workspace_ratio" in done.stdout
