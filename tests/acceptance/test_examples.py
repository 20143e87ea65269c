"""Every example does what it says."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_python_example_runs() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "python" / "parallel.py")], check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "parallel: completed, 2 tasks" in done.stdout
    assert "files on main: 3" in done.stdout
    assert "count: completed - {'files': 3}" in done.stdout
