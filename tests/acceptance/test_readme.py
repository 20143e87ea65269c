"""The README's example, run as a new user would."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_sixty_second_example_runs_and_merges(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"<!-- run -->\n```sh\n(.*?)```", text, re.DOTALL)
    git = {"GIT_AUTHOR_NAME": "You", "GIT_AUTHOR_EMAIL": "you@example.org"}
    git |= {"GIT_COMMITTER_NAME": "You", "GIT_COMMITTER_EMAIL": "you@example.org"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(tmp_path), "KAPELLE_HOME": str(tmp_path / "state"), **git}

    done = subprocess.run(
        [shutil.which("bash") or "sh", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=env,
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2/2 tasks" in done.stdout
    assert (tmp_path / "hello" / "loud.txt").read_text() == "HELLO, WORLD\n"
