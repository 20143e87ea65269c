"""What workspaces owe about bringing in what was merged meanwhile, and about being cleaned."""

import pytest

from kapelle.core.errors import WorkspaceFailed
from kapelle.testing.conformance.gitrepo import Checkout
from kapelle.testing.conformance.worktrees import SIGNED, WorkspaceTests


class BringInSuite(WorkspaceTests):
    """Merging into the workspace, for the agent to settle what does not fit."""

    async def test_what_fits_is_merged_and_concluded_with_both_parents(self, repo: Checkout) -> None:
        """The agent's side comes first."""
        ours, theirs = repo.diverge({"a.txt": "ONE\ntwo\nthree\n"}, {"src/b.txt": "theirs\n", "new.txt": "new\n"})
        workspace = await self.prepared(repo, base=ours)
        assert list(await self.workspaces().bring_in(workspace.root, repo.root, theirs)) == []
        assert (workspace.read("a.txt"), workspace.read("src/b.txt")) == ("ONE\ntwo\nthree\n", "theirs\n")
        made = await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        assert repo.parents(made.commit) == [ours, theirs]
        assert repo.files(made.commit)["new.txt"] == "new"

    async def test_conflicts_are_left_in_the_files_with_markers(self, repo: Checkout) -> None:
        """Each file is told once; resolved, the merge has both parents."""
        ours, theirs = repo.diverge({"a.txt": "ours\n", "src/b.txt": "B\n"}, {"a.txt": "theirs\n"})
        workspace = await self.prepared(repo, base=ours)
        conflicts = await self.workspaces().bring_in(workspace.root, repo.root, theirs)
        assert [conflict.file for conflict in conflicts] == ["a.txt"]
        assert all(marker in workspace.read("a.txt") for marker in ("<<<<<<<", "=======", ">>>>>>>", "ours", "theirs"))
        workspace.write({"a.txt": "both\n"})
        made = await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        assert repo.parents(made.commit) == [ours, theirs]
        assert repo.files(made.commit)["a.txt"] == "both"
        assert workspace.status() == []

    @pytest.mark.parametrize(
        ("ours", "theirs", "file"),
        [
            ({"a.txt": None}, {"a.txt": "changed\n"}, "a.txt"),
            ({"a.txt": "changed\n"}, {"a.txt": None}, "a.txt"),
            ({"new.txt": "ours\n"}, {"new.txt": "theirs\n"}, "new.txt"),
            (
                {"a.txt": None, "moved.txt": "one\ntwo\nthree\n"},
                {"a.txt": None, "elsewhere.txt": "one\ntwo\nthree\n"},
                "moved.txt",
            ),
        ],
        ids=["deleted here", "deleted there", "added twice", "renamed twice"],
    )
    async def test_every_kind_of_conflict_is_told(
        self, repo: Checkout, ours: dict[str, str | None], theirs: dict[str, str | None], file: str
    ) -> None:
        """Also those that leave no markers."""
        first, second = repo.diverge(ours, theirs)
        workspace = await self.prepared(repo, base=first)
        conflicts = await self.workspaces().bring_in(workspace.root, repo.root, second)
        assert file in [conflict.file for conflict in conflicts]
        made = await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        assert repo.parents(made.commit) == [first, second]

    async def test_bringing_in_again_changes_nothing(self, repo: Checkout) -> None:
        """After a crash the same conflicts are told, and what was resolved so far stays."""
        ours, theirs = repo.diverge({"a.txt": "ours\n", "src/b.txt": "o\n"}, {"a.txt": "theirs\n", "src/b.txt": "t\n"})
        workspace = await self.prepared(repo, base=ours)
        await self.workspaces().bring_in(workspace.root, repo.root, theirs)
        workspace.write({"a.txt": "resolved\n"})
        conflicts = await self.workspaces().bring_in(workspace.root, repo.root, theirs)
        assert {conflict.file for conflict in conflicts} == {"a.txt", "src/b.txt"}
        assert workspace.read("a.txt") == "resolved\n"

    async def test_a_newer_commit_takes_the_place_of_one_that_was_not_concluded(self, repo: Checkout) -> None:
        """The queue went on before the agent had settled the first."""
        ours, theirs = repo.diverge({"a.txt": "ours\n"}, {"a.txt": "theirs\n"})
        repo.git("checkout", "--quiet", theirs)
        newer = repo.commit("newer", {"a.txt": "newer\n"})
        workspace = await self.prepared(repo, base=ours)
        await self.workspaces().bring_in(workspace.root, repo.root, theirs)
        await self.workspaces().bring_in(workspace.root, repo.root, newer)
        assert "newer" in workspace.read("a.txt")
        workspace.write({"a.txt": "settled\n"})
        made = await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        assert repo.parents(made.commit) == [ours, newer]

    async def test_what_is_in_already_changes_nothing(self, repo: Checkout) -> None:
        """No merge is begun."""
        base = repo.head()
        later = repo.commit("later", {"later.txt": "later\n"})
        workspace = await self.prepared(repo, base=later)
        assert list(await self.workspaces().bring_in(workspace.root, repo.root, base)) == []
        assert (await self.workspaces().commit(workspace.root, repo.root, SIGNED)).commit == later

    async def test_what_only_goes_further_is_brought_in(self, repo: Checkout) -> None:
        """Although git could simply move forward."""
        base = repo.head()
        later = repo.commit("later", {"later.txt": "later\n"})
        workspace = await self.prepared(repo, base=base)
        assert list(await self.workspaces().bring_in(workspace.root, repo.root, later)) == []
        made = await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        assert repo.files(made.commit) == repo.files(later)

    async def test_a_merge_that_the_agent_concluded_itself_is_its_own(self, repo: Checkout) -> None:
        """Nothing is committed on top."""
        ours, theirs = repo.diverge({"a.txt": "ours\n"}, {"a.txt": "theirs\n"})
        workspace = await self.prepared(repo, base=ours)
        await self.workspaces().bring_in(workspace.root, repo.root, theirs)
        own = workspace.commit("settled", {"a.txt": "settled\n"})
        made = await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        assert made.commit == own
        assert repo.parents(own) == [ours, theirs]


class MarkerSuite(WorkspaceTests):
    """Conflicts that an agent says it has resolved."""

    MARKED = "before\n<<<<<<< HEAD\nours\n=======\ntheirs\n>>>>>>> other\nafter\n"

    async def test_markers_that_are_left_are_told_file_by_file(self, repo: Checkout) -> None:
        """Whatever the files are called."""
        names = ["a.txt", "with space.txt", "ü 世.txt", "colon: 3.txt"]
        workspace = await self.prepared(repo)
        workspace.write(dict.fromkeys([*names, "fine.txt"], self.MARKED) | {"fine.txt": "fine\n"})
        await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        left = await self.workspaces().leftover_markers(workspace.root, repo.root, repo.head())
        assert sorted(left) == sorted(names)

    async def test_markers_that_were_there_before_are_not_the_agents(self, repo: Checkout) -> None:
        """A test may have them in its data."""
        base = repo.commit("data", {"data.txt": self.MARKED})
        workspace = await self.prepared(repo, base=base)
        workspace.write({"a.txt": "changed\n"})
        await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        assert list(await self.workspaces().leftover_markers(workspace.root, repo.root, base)) == []

    async def test_a_heading_that_is_underlined_is_no_marker(self, repo: Checkout) -> None:
        """Seven equals signs are a line of many a text."""
        workspace = await self.prepared(repo)
        workspace.write({"README.rst": "Kapelle\n=======\n\nThe text.\n"})
        await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        assert list(await self.workspaces().leftover_markers(workspace.root, repo.root, repo.head())) == []

    async def test_white_space_at_the_end_of_a_line_is_no_marker(self, repo: Checkout) -> None:
        """It is not this that is asked for."""
        workspace = await self.prepared(repo)
        workspace.write({"a.txt": "one  \n\t \n\n\n"})
        await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        assert list(await self.workspaces().leftover_markers(workspace.root, repo.root, repo.head())) == []


class PutSuite(WorkspaceTests):
    """A workspace in which trees are gated, one after the other."""

    async def test_a_workspace_holds_exactly_the_commit(self, repo: Checkout) -> None:
        """Nothing of before is left but what git ignores."""
        ours, theirs = repo.diverge({"ours.txt": "ours\n"}, {"theirs.txt": "theirs\n"})
        workspace = await self.prepared(repo, base=ours)
        workspace.write({"a.txt": "dirty\n", "new/file.txt": "new\n", "cache/x.ignored": "built"})
        workspace.git("add", "new/file.txt")
        await self.workspaces().put(workspace.root, repo.root, theirs)
        assert (workspace.head(), workspace.branch(), workspace.status()) == (theirs, "", [])
        assert workspace.has("theirs.txt")
        assert not workspace.has("ours.txt")
        assert not workspace.has("new")
        assert workspace.read("cache/x.ignored") == "built"

    async def test_an_unfinished_merge_is_no_hindrance(self, repo: Checkout) -> None:
        """Nor is anything of it left."""
        ours, theirs = repo.diverge({"a.txt": "ours\n"}, {"a.txt": "theirs\n"})
        workspace = await self.prepared(repo, base=ours)
        await self.workspaces().bring_in(workspace.root, repo.root, theirs)
        await self.workspaces().put(workspace.root, repo.root, ours)
        assert (workspace.read("a.txt"), workspace.status()) == ("ours\n", [])
        assert (await self.workspaces().commit(workspace.root, repo.root, SIGNED)).commit == ours

    async def test_a_branch_that_was_checked_out_is_not_moved(self, repo: Checkout) -> None:
        """It is left behind."""
        base = repo.head()
        later = repo.commit("later", {"later.txt": "later\n"})
        workspace = await self.prepared(repo, base=base)
        workspace.git("checkout", "--quiet", "-b", "my-idea")
        await self.workspaces().put(workspace.root, repo.root, later)
        assert (repo.tip("my-idea"), workspace.head(), workspace.branch()) == (base, later, "")

    async def test_a_repository_inside_goes_with_the_rest(self, repo: Checkout) -> None:
        """It is not ignored."""
        workspace = await self.prepared(repo)
        (workspace.path / "inner").mkdir()
        Checkout(path=workspace.path / "inner").git("init", "--quiet")
        await self.workspaces().put(workspace.root, repo.root, repo.head())
        assert not workspace.has("inner")

    async def test_putting_again_gives_the_same(self, repo: Checkout) -> None:
        """As often as one likes."""
        workspace = await self.prepared(repo)
        for _ in range(2):
            await self.workspaces().put(workspace.root, repo.root, repo.head())
            assert (workspace.head(), workspace.status()) == (repo.head(), [])

    async def test_a_directory_that_is_no_workspace_is_not_cleaned(self, repo: Checkout) -> None:
        """Least of all the operator's checkout."""
        repo.write({"mine.txt": "mine\n"})
        with pytest.raises(WorkspaceFailed):
            await self.workspaces().put(repo.root, repo.root, repo.head())
        assert repo.status() == ["?? mine.txt"]
