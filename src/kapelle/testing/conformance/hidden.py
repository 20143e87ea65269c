"""What workspaces owe about values that must not come into a repository. Real git; the tests play the agent in between."""

import subprocess
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kapelle.core.git import Commit
from kapelle.core.hiding import Hiding, Leak, Secret
from kapelle.testing.conformance.gitrepo import Checkout
from kapelle.testing.conformance.worktrees import REF, SIGNED, WorkspaceTests

VALUE = "correct-horse-battery-staple"
HIDING = Hiding([Secret(name="TOKEN", value=VALUE)])
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def everything_in(repository: Path) -> bytes:
    """Return the content of all objects of *repository*, packed or not, and of every file of its git directory."""
    asked = ["git", "cat-file", "--batch-all-objects", "--batch", "--unordered"]
    parts = [subprocess.run(asked, cwd=repository, capture_output=True, check=True).stdout]
    for path in sorted((repository / ".git").rglob("*")):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            try:
                parts.append(zlib.decompress(data))
            except zlib.error:
                parts.append(data)
    return b"\0".join(parts)


class HiddenSuite(WorkspaceTests):
    """Committing and keeping what an agent with secrets made."""

    async def _commit(self, workspace: Checkout, repo: Checkout) -> Commit:
        return await self.workspaces().commit(workspace.root, repo.root, SIGNED, HIDING)

    async def test_work_without_a_value_is_committed_as_ever(self, repo: Checkout) -> None:
        """Also what the agent itself committed."""
        workspace = await self.prepared(repo)
        own = workspace.commit("the agent's own", {"own.txt": "own\n"})
        workspace.write({"a.txt": "changed\n", "src/b.txt": None})
        made = await self._commit(workspace, repo)
        assert (made.leaks, repo.parents(made.commit)) == ((), [own])
        assert repo.files(made.commit) == {"a.txt": "changed", ".gitignore": "*.ignored\n.env", "own.txt": "own"}
        assert workspace.status() == []
        assert await self._commit(workspace, repo) == made

    async def test_a_file_with_a_value_comes_nowhere(self, repo: Checkout) -> None:
        """It stays as it is in the workspace, and is named without the value."""
        workspace, base = await self.prepared(repo), repo.head()
        workspace.write({"a.txt": f"password={VALUE}\n", "fine.txt": "fine\n"})
        made = await self._commit(workspace, repo)
        assert (made.commit, made.refused) == (base, True)
        assert [(leak.secret, leak.file) for leak in made.leaks] == [("TOKEN", "a.txt")]
        assert VALUE.encode() not in everything_in(repo.path)
        assert workspace.read("a.txt") == f"password={VALUE}\n"
        workspace.write({"a.txt": "password=$(cat $TOKEN_FILE)\n"})
        again = await self._commit(workspace, repo)
        assert (again.leaks, repo.files(again.commit)["fine.txt"]) == ((), "fine")

    @pytest.mark.parametrize("where", ["a file", "a file that is gone", "the message", "the name of a file", "what is staged"])
    async def test_what_an_agent_committed_with_a_value_is_undone(self, repo: Checkout, where: str) -> None:
        """Its objects are gone from the repository; its files stay."""
        workspace, base = await self.prepared(repo), repo.head()
        name = f"{VALUE}.txt" if where == "the name of a file" else "deep/x.txt"
        content = "x\n" if where in {"the message", "the name of a file"} else f"x {VALUE}\n"
        workspace.commit("clean", {"clean.txt": "clean\n"})
        if where == "what is staged":
            workspace.write({name: content})
            workspace.git("add", name)
        else:
            workspace.commit(f"with {VALUE}" if where == "the message" else "message", {name: content})
        if where == "a file that is gone":
            workspace.commit("it is gone", {name: None})
        made = await self._commit(workspace, repo)
        assert (made.commit, made.refused) == (base, True)
        assert workspace.head() == base
        assert not any(VALUE in leak.file for leak in made.leaks)
        assert VALUE.encode() not in everything_in(repo.path)
        assert repo.git("fsck", "--strict", "--no-dangling", "--no-progress") == ""
        assert workspace.read("clean.txt") == "clean\n"
        if where == "the message":
            again = await self._commit(workspace, repo)
            assert (again.leaks, sorted(repo.files(again.commit))) == ((), sorted([*repo.files(base), "clean.txt", name]))

    async def test_a_value_that_was_there_before_is_not_the_agents(self, repo: Checkout) -> None:
        """Nor is one that comes with what others have merged."""
        repo.commit("mine", {"mine.txt": f"{VALUE}\n"})
        workspace = await self.prepared(repo)
        repo.commit("more of mine", {"more.txt": f"{VALUE}\n"})
        workspace.write({"new.txt": "new\n"})
        assert (await self._commit(workspace, repo)).leaks == ()
        assert await self.workspaces().bring_in(workspace.root, repo.root, repo.head(), HIDING) == []
        made = await self._commit(workspace, repo)
        assert (made.leaks, repo.parents(made.commit)[1:]) == ((), [repo.head()])

    async def test_what_looks_like_a_credential_is_told_and_goes_on(self, repo: Checkout) -> None:
        """Nobody knows whether it is one."""
        workspace = await self.prepared(repo)
        workspace.write({"key.txt": "npm" + "_" + "x" * 36})
        made = await self._commit(workspace, repo)
        assert (made.refused, made.leaks) == (False, (Leak(shape="npm-token", file="key.txt"),))
        assert "key.txt" in repo.files(made.commit)

    async def test_a_snapshot_holds_names_in_the_place_of_values(self, repo: Checkout) -> None:
        """In files and in names of files; the workspace itself is left as it is."""
        workspace, base = await self.prepared(repo), repo.head()
        workspace.commit("clean", {"clean.txt": "clean\n"})
        workspace.write({"a.txt": f"one {VALUE} two\n", f"{VALUE}/x": "x\n", "b.txt": "b\n"})
        head, status = workspace.head(), workspace.status()
        kept = await self.workspaces().snapshot(workspace.root, repo.root, REF, HIDING)
        assert kept is not None
        assert repo.tip(REF) == kept
        assert repo.parents(kept) == [head]
        assert repo.parents(head) == [base]
        files = repo.files(kept)
        assert (files["a.txt"], files["[secret TOKEN]/x"], files["b.txt"]) == ("one [secret TOKEN] two", "x", "b")
        assert VALUE.encode() not in everything_in(repo.path)
        assert (workspace.head(), workspace.status()) == (head, status)

    async def test_a_snapshot_of_commits_with_values_is_what_they_came_to(self, repo: Checkout) -> None:
        """And what they left behind in the repository can be deleted when the workspace is gone."""
        workspace, base = await self.prepared(repo), repo.head()
        workspace.commit("one", {"gone.txt": f"gone {VALUE}\n"})
        workspace.commit("two", {"gone.txt": None, "kept.txt": f"kept {VALUE}\n"})
        workspace.write({"kept.txt": None})
        kept = await self.workspaces().snapshot(workspace.root, repo.root, REF, HIDING)
        assert kept is not None
        (before,) = repo.parents(kept)
        assert repo.parents(before) == [base]
        assert repo.files(before)["kept.txt"] == "kept [secret TOKEN]"
        assert "kept.txt" not in repo.files(kept)
        await self.workspaces().remove(workspace.root, repo.root)
        await self.workspaces().cleanse(repo.root, HIDING, LONG_AGO)
        assert VALUE.encode() not in everything_in(repo.path)
        assert repo.git("fsck", "--strict", "--no-dangling", "--no-progress") == ""

    async def test_a_clean_workspace_needs_no_snapshot(self, repo: Checkout) -> None:
        """As without secrets."""
        workspace = await self.prepared(repo)
        assert await self.workspaces().snapshot(workspace.root, repo.root, REF, HIDING) is None
        assert repo.tip(REF) == ""

    async def test_nothing_that_somebody_needs_is_deleted(self, repo: Checkout) -> None:
        """Neither what a person committed, nor what is staged, nor what is older."""
        repo.commit("mine", {"mine.txt": f"{VALUE}\n"})
        repo.write({"staged.txt": f"staged {VALUE}\n"})
        repo.git("add", "staged.txt")
        assert await self.workspaces().cleanse(repo.root, HIDING, LONG_AGO) == 0
        repo.git("reset", "--quiet", "--hard")
        later = datetime.now(UTC) + timedelta(hours=1)  # noqa: TID251  # files are as old as the system says
        assert await self.workspaces().cleanse(repo.root, HIDING, later) == 0
        assert await self.workspaces().cleanse(repo.root, HIDING, LONG_AGO) == 1
        assert repo.git("fsck", "--strict", "--no-dangling", "--no-progress") == ""
        assert repo.read("mine.txt") == f"{VALUE}\n"
