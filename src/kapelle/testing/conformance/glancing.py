"""Looking at a workspace in which somebody works; a part of the suite of ``core.git.Workspaces``."""

from kapelle.testing.conformance.gitrepo import Checkout
from kapelle.testing.conformance.worktrees import WorkspaceTests


class GlanceSuite(WorkspaceTests):
    """What differs from the base is seen, and nothing is changed by looking."""

    async def test_what_was_changed_is_seen_by_name(self, repo: Checkout) -> None:
        """Files that were written, made or deleted, committed or not; none that git ignores, or that was copied in."""
        repo.write({".env": "KEY=1"})
        workspace = await self.prepared(repo, copy=(".env",))
        base = workspace.head()
        seen = await self.workspaces().glance(workspace.root, repo.root, base)
        assert seen.files == ()
        workspace.commit("the agent's own", {"own.txt": "own\n"})
        workspace.write({"a.txt": "changed\n", "src/b.txt": None, "new/ü 世.txt": "new\n", "x.ignored": "x", ".env": "KEY=2"})
        before = workspace.status()
        seen = await self.workspaces().glance(workspace.root, repo.root, base)
        assert set(seen.files) == {"a.txt", "src/b.txt", "new/ü 世.txt", "own.txt"}
        assert workspace.status() == before

    async def test_a_file_that_is_written_again_gives_another_mark(self, repo: Checkout) -> None:
        """And one that is left alone the same."""
        workspace = await self.prepared(repo)
        base = workspace.head()
        workspace.write({"a.txt": "changed\n"})
        first = await self.workspaces().glance(workspace.root, repo.root, base)
        assert await self.workspaces().glance(workspace.root, repo.root, base) == first
        workspace.write({"a.txt": "changed once more\n"})
        again = await self.workspaces().glance(workspace.root, repo.root, base)
        assert (again.files, again.mark != first.mark) == (first.files, True)
