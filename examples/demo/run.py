"""The main job, without a key: a workflow through real `claude` processes, rehearsed; then proof of what came of it."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def git(repository: Path, *arguments: str) -> str:
    """Run git and return what it says."""
    done = subprocess.run(["git", "-C", str(repository), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def make_repository(folder: Path) -> Path:
    """Make the sample repository in *folder*."""
    repository = folder / "shop"
    shutil.copytree(HERE / "repository", repository)
    git(repository, "init", "-q", "-b", "main")
    git(repository, "config", "user.name", "You")
    git(repository, "config", "user.email", "you@example.org")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "A small shop")
    return repository


def prove(repository: Path, scratch: Path) -> bool:
    """Run the sample's own tests on every first-parent commit of main, each in a checkout of its own."""
    good = True
    print("\nThe sample's own tests, on every first-parent commit of main:")
    for commit in git(repository, "rev-list", "--reverse", "--first-parent", "main").split():
        checkout = scratch / commit
        git(repository, "worktree", "add", "-q", "--detach", str(checkout), commit)
        tests = subprocess.run(
            [sys.executable, "-m", "unittest", "-q"], cwd=checkout, check=False, capture_output=True, text=True
        )
        passed = tests.returncode == 0
        good = good and passed
        ran = next((line for line in tests.stderr.splitlines() if line.startswith("Ran ")), "no test ran").partition(" in ")[0]
        subject = git(repository, "log", "-1", "--format=%s", commit)
        print(f"  {'ok    ' if passed else 'FAILED'} {commit[:10]} {subject:<32} {ran}")
        git(repository, "worktree", "remove", "--force", str(checkout))
    return good


def main() -> int:
    """Run the demo; 0 when everything was completed and every commit holds. ``--remove`` leaves nothing to look at."""
    folder = Path(tempfile.mkdtemp(prefix="kapelle-demo-"))
    repository = make_repository(folder)
    print(f"Sample repository: {repository}\n")
    kapelle = [sys.executable, "-m", "kapelle", "run", str(HERE / "workflow.yml"), "--rehearse", str(HERE / "rehearsal.yml")]
    environment = {**os.environ, "KAPELLE_HOME": str(folder / "state")}
    code = subprocess.run(kapelle, cwd=repository, env=environment, check=False).returncode
    if code != 0:
        print(f"\nThe run ended with exit code {code}. Look around: cd {repository}; KAPELLE_HOME={folder / 'state'}")
        return code
    good = prove(repository, folder / "proof")
    clean = not git(repository, "status", "--porcelain")
    print(f"\nmain holds everything; its checkout is {'clean' if clean else 'DIRTY'}.")
    if "--remove" in sys.argv[1:]:
        shutil.rmtree(folder)
        return 0 if good and clean else 1
    print(f"Look around:  cd {repository} && git log --graph")
    print(f"              KAPELLE_HOME={folder / 'state'} {Path(sys.executable).parent / 'kapelle'} events")
    return 0 if good and clean else 1


if __name__ == "__main__":
    sys.exit(main())
