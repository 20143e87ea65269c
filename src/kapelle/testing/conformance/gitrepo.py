"""Real git repositories for the suites of workspaces and repositories, made with the git program itself."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from kapelle.core.frozen import frozen

OPERATOR = {
    "GIT_AUTHOR_NAME": "Operator",
    "GIT_AUTHOR_EMAIL": "operator@example.invalid",
    "GIT_COMMITTER_NAME": "Operator",
    "GIT_COMMITTER_EMAIL": "operator@example.invalid",
}


@frozen
class Checkout:
    """A directory that git knows: the operator's checkout, or a workspace as its agent sees it."""

    path: Path

    @property
    def root(self) -> str:
        """The directory as adapters are given it."""
        return str(self.path)

    def git(self, *arguments: str, code: int | None = 0) -> str:
        """Run git as a person there would, and return what it said; *code* None takes any end."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        result = subprocess.run(
            ["git", *arguments], cwd=self.path, env={**environment, **OPERATOR}, capture_output=True, check=False
        )
        assert code is None or result.returncode == code, f"git {arguments}: {result.stderr.decode(errors='replace')}"
        return os.fsdecode(result.stdout).rstrip("\n")

    def write(self, files: Mapping[str, str | None]) -> None:
        """Write *files*; None deletes one."""
        for name, content in files.items():
            place = self.path / name
            if content is None:
                place.unlink()
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)

    def read(self, name: str) -> str:
        """Return the content of a file."""
        return (self.path / name).read_text()

    def has(self, name: str) -> bool:
        """Say whether there is a file or folder of that name."""
        return os.path.lexists(self.path / name)

    def commit(self, message: str, files: Mapping[str, str | None]) -> str:
        """Write *files*, commit everything, and return the commit."""
        self.write(files)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.head()

    def head(self) -> str:
        """Return the commit that is checked out."""
        return self.git("rev-parse", "HEAD")

    def tip(self, name: str) -> str:
        """Return the commit that a branch or ref stands for; empty when there is none."""
        return self.git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", code=None)

    def branch(self) -> str:
        """Return the branch that is checked out; empty when HEAD is detached."""
        return self.git("symbolic-ref", "--quiet", "--short", "HEAD", code=None)

    def status(self) -> list[str]:
        """Return what is not committed, a file a line; untracked files too, ignored ones not."""
        return [line for line in self.git("status", "--porcelain", "-z", "--untracked-files=all").split("\0") if line]

    def files(self, commit: str) -> dict[str, str]:
        """Return all files of a commit with their content."""
        names = [name for name in self.git("ls-tree", "-r", "-z", "--name-only", commit).split("\0") if name]
        return {name: self.git("cat-file", "blob", f"{commit}:{name}") for name in names}

    def parents(self, commit: str) -> list[str]:
        """Return the parents of a commit."""
        return self.git("rev-list", "--parents", "--max-count=1", commit).split()[1:]

    def diverge(self, ours: Mapping[str, str | None], theirs: Mapping[str, str | None]) -> tuple[str, str]:
        """Return two commits that begin at the head and change different things; the checkout goes back to where it was."""
        base, branch = self.head(), self.branch()
        found: list[str] = []
        for number, files in enumerate((ours, theirs)):
            self.git("checkout", "--quiet", "--detach", base)
            found.append(self.commit(f"side {number}", files))
        self.git("checkout", "--quiet", branch or base)
        return found[0], found[1]


class GitTests:
    """What tests with git begin from."""

    @pytest.fixture
    def repo(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
        """Give a repository with one commit on ``main``, and a home without any configuration of git."""
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / "config"))
        return make_repository(tmp_path / "repo")


def make_repository(path: Path, files: Mapping[str, str | None] | None = None) -> Checkout:
    """Return a new repository with one commit on ``main``."""
    path.mkdir(parents=True)
    repo = Checkout(path=path)
    repo.git("init", "--quiet", "--initial-branch=main")
    repo.commit("first", files or {"a.txt": "one\ntwo\nthree\n", "src/b.txt": "b\n", ".gitignore": "*.ignored\n.env\n"})
    return repo
