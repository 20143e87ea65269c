"""Running git: its answers, its errors, its environment."""

import asyncio
import os
from pathlib import Path

import pytest

from kapelle.adapters.system.git import Git, GitResult, Locks, failed, plain
from kapelle.core.errors import GitFailed, ProgramMissing
from kapelle.testing.conformance.gitrepo import Checkout, make_repository
from kapelle.testing.conformance.processes import Lifeline


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return make_repository(tmp_path / "repo")


async def test_an_answer_is_text_lines_and_fields(repo: Checkout) -> None:
    answer = await Git(repo.root).do("ls-files", "-z")
    assert answer.fields == [".gitignore", "a.txt", "src/b.txt"]
    assert (await Git(repo.root).do("ls-files")).lines == answer.fields
    assert (await Git(repo.root).do("rev-parse", "HEAD")).text == repo.head()


def test_names_that_are_no_text_can_be_written_down() -> None:
    result = GitResult(code=0, out=b"caf\xe9\0\xc3\xbc\0", error="")
    assert result.fields == ["caf\udce9", "ü"]
    assert result.names == ["caf\\xe9", "ü"]
    assert plain("ü 世") == "ü 世"


async def test_an_error_is_an_answer_or_is_raised_with_what_git_said(repo: Checkout) -> None:
    answer = await Git(repo.root).ask("rev-parse", "--verify", "nothing")
    assert answer.code == 128
    with pytest.raises(GitFailed, match="`git rev-parse --verify nothing` ended with 128: fatal: Needed a single revision"):
        await Git(repo.root).do("rev-parse", "--verify", "nothing")


def test_an_error_quotes_a_few_lines_and_only_text() -> None:
    result = GitResult(code=1, out=b"caf\xe9\n" * 100, error="")
    message = failed(("add", "caf\udce9 x"), result).message
    assert len(message.splitlines()) < 10
    assert message.startswith("`git add 'caf\\xe9 x'` ended with 1: caf\\xe9\n")


async def test_input_is_given_to_git(repo: Checkout) -> None:
    answer = await Git(repo.root).do("hash-object", "--stdin", given=b"content\n")
    assert answer.text == "d95f3ad14dee633a758d2e331151e950dd13e4ed"


async def test_a_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(GitFailed, match="is gone"):
        await Git(str(tmp_path / "gone")).ask("status")


async def test_git_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProgramMissing, match="not installed") as caught:
        await Git(str(tmp_path)).ask("status")
    assert "Install git" in caught.value.advice


async def test_git_asks_nobody_for_anything(repo: Checkout) -> None:
    """Neither for a password nor in an editor; and its answers are in one language."""
    shown = (await Git(repo.root).do("-c", "alias.env=!env", "env")).lines
    environment = dict(line.split("=", 1) for line in shown if "=" in line)
    assert environment["GIT_TERMINAL_PROMPT"] == "0"
    assert environment["LC_ALL"] == "C"


async def test_a_git_directory_that_is_named_counts_more_than_what_is_in_the_folder(repo: Checkout, tmp_path: Path) -> None:
    other = make_repository(tmp_path / "other", {"other.txt": "other\n"})
    git = Git(other.root, git_dir=str(repo.path / ".git"))
    assert (await git.do("rev-parse", "HEAD")).text == repo.head()
    named = git.having(GIT_AUTHOR_NAME="Somebody", GIT_AUTHOR_EMAIL="s@example.invalid")
    assert (await named.do("rev-parse", "HEAD")).text == repo.head()
    assert (await named.do("var", "GIT_AUTHOR_IDENT")).text.startswith("Somebody <")


async def test_a_call_that_nobody_waits_for_any_more_is_ended(repo: Checkout, tmp_path: Path) -> None:
    lifeline = Lifeline(tmp_path / "lifeline")
    os.mkfifo(tmp_path / "ready")
    # git itself waits for the reader of its output; it holds the lifeline by being the child of its alias' shell.
    alias = f'alias.wait=!exec 9>"{lifeline.path}"; echo up >&9; echo > "{tmp_path}/ready"; exec sleep 1000'
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(Git(repo.root).ask("-c", alias, "wait"))
        await asyncio.to_thread((tmp_path / "ready").read_text)
        asking.cancel()
    assert asking.cancelled()
    assert await lifeline.cut() == "up\n"


async def test_there_is_one_lock_for_each_repository() -> None:
    locks = Locks()
    assert locks.of("/one") is locks.of("/one")
    assert locks.of("/one") is not locks.of("/two")
