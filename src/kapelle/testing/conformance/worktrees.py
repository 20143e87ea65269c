"""What workspaces owe about making, committing and keeping. Real git; the tests play the agent in between."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kapelle.core.errors import WorkspaceFailed, WorldError
from kapelle.core.git import Commit, Signature, WorkspaceOrder, Workspaces
from kapelle.core.ids import WorkspaceId
from kapelle.testing.conformance.gitrepo import Checkout, GitTests

REF = "refs/kapelle/test/kept"
SIGNED = Signature(
    author="coder (Kapelle)",
    email="coder@agents.invalid",
    message="Do the thing\n\nAs it was asked for: ü.\n\nKapelle-Task: t-1\nKapelle-Run: r-1\n",
)


class WorkspaceTests(GitTests):
    """What the tests of workspaces begin from."""

    def workspaces(self) -> Workspaces:
        """Return the adapter; called again, it stands for the one of a new leader."""
        raise NotImplementedError

    def order(self, repo: Checkout, name: str = "workspace", **changes: Any) -> WorkspaceOrder:
        """Return the order for a workspace at the head of *repo*."""
        path = str(repo.path.parent / "workspaces" / name)
        base = changes.pop("base", None) or repo.head()
        return WorkspaceOrder(workspace_id=WorkspaceId(name), path=path, repository=repo.root, base=base, **changes)

    async def prepared(self, repo: Checkout, name: str = "workspace", **changes: Any) -> Checkout:
        """Return a workspace that has been prepared."""
        order = self.order(repo, name, **changes)
        await self.workspaces().prepare(order)
        return Checkout(path=Path(order.path))


class PrepareSuite(WorkspaceTests):
    """Making workspaces, finding and removing them."""

    async def test_a_workspace_holds_its_base_on_no_branch(self, repo: Checkout) -> None:
        """And the operator's checkout is as it was."""
        base = repo.head()
        repo.commit("later", {"later.txt": "later\n"})
        repo.write({"mine.txt": "not committed"})
        workspace = await self.prepared(repo, base=base)
        assert workspace.head() == base
        assert workspace.branch() == ""
        assert not workspace.has("later.txt")
        assert workspace.read("a.txt") == "one\ntwo\nthree\n"
        assert workspace.status() == []
        assert repo.branch() == "main"
        assert repo.status() == ["?? mine.txt"]

    async def test_preparing_again_changes_nothing(self, repo: Checkout) -> None:
        """After a crash the agent's work is still there, for a new leader too."""
        workspace = await self.prepared(repo)
        workspace.write({"a.txt": "changed\n", "new.txt": "new\n"})
        await self.prepared(repo)
        assert (workspace.read("a.txt"), workspace.read("new.txt")) == ("changed\n", "new\n")

    async def test_many_workspaces_are_prepared_at_once(self, repo: Checkout) -> None:
        """Of one repository, by one leader."""
        adapter = self.workspaces()
        orders = [self.order(repo, f"w-{number}") for number in range(8)]
        async with asyncio.TaskGroup() as group:
            for order in orders:
                group.create_task(adapter.prepare(order))
        assert {Checkout(path=Path(order.path)).head() for order in orders} == {repo.head()}
        assert list(await adapter.present(str(repo.path.parent / "workspaces"))) == sorted(order.path for order in orders)

    async def test_a_base_that_is_not_there_is_told(self, repo: Checkout) -> None:
        """And nothing is left that would be taken for a workspace."""
        with pytest.raises(WorldError, match="1234567"):
            await self.prepared(repo, base="1234567" * 5 + "12345")
        workspace = await self.prepared(repo)
        assert workspace.head() == repo.head()

    async def test_a_workspace_without_a_repository_is_a_directory(self, repo: Checkout) -> None:
        """It stays as it is when it is prepared again, and goes when it is removed."""
        path = repo.path.parent / "scratch" / "one"
        order = WorkspaceOrder(workspace_id=WorkspaceId("s"), path=str(path), repository=None)
        await self.workspaces().prepare(order)
        (path / "made.txt").write_text("made")
        await self.workspaces().prepare(order)
        assert (path / "made.txt").read_text() == "made"
        await self.workspaces().remove(str(path), None)
        assert not path.exists()

    async def test_a_removed_workspace_is_gone_for_git_too(self, repo: Checkout) -> None:
        """With all that was in it; removing it again has no effect."""
        workspace = await self.prepared(repo)
        other = await self.prepared(repo, "other")
        workspace.write({"new.txt": "new\n", "x.ignored": "x"})
        for _ in range(2):
            await self.workspaces().remove(workspace.root, repo.root)
            assert not workspace.path.exists()
            assert workspace.root not in repo.git("worktree", "list")
        assert other.status() == []

    async def test_a_workspace_may_be_made_where_one_was(self, repo: Checkout) -> None:
        """Nothing of the earlier one is in it."""
        workspace = await self.prepared(repo)
        workspace.write({"new.txt": "new\n"})
        await self.workspaces().remove(workspace.root, repo.root)
        assert (await self.prepared(repo)).status() == []

    async def test_a_workspace_whose_directory_was_deleted_is_made_again(self, repo: Checkout) -> None:
        """Somebody tidied up by hand."""
        workspace = await self.prepared(repo)
        await self.workspaces().remove(workspace.root, None)
        assert (await self.prepared(repo)).head() == repo.head()

    async def test_the_workspaces_under_a_folder_are_found(self, repo: Checkout) -> None:
        """In order; a folder that is not there holds none."""
        folder = str(repo.path.parent / "workspaces")
        assert list(await self.workspaces().present(folder)) == []
        paths = [(await self.prepared(repo, name)).root for name in ("b", "a")]
        assert list(await self.workspaces().present(folder)) == sorted(paths)

    async def test_what_is_set_aside_is_no_workspace_any_more_and_whole(self, repo: Checkout) -> None:
        """Nothing that was set aside before is touched; what cannot be moved is told."""
        adapter, aside, places = self.workspaces(), repo.path.parent / "aside", list[Path]()
        for text in ("one", "two"):
            order = self.order(repo, "lost")
            Checkout(path=Path(order.path)).write({"work.txt": text})
            places.append(Path(await adapter.set_aside(order.path, str(aside))))
            assert list(await adapter.present(str(repo.path.parent / "workspaces"))) == []
        assert [(place.parent, Checkout(path=place).read("work.txt")) for place in places] == [(aside, "one"), (aside, "two")]
        with pytest.raises(WorkspaceFailed, match="lost"):
            await adapter.set_aside(str(repo.path.parent / "workspaces" / "lost"), str(aside))


class CopySuite(WorkspaceTests):
    """Files that git does not know, such as ``.env``: copied in, and never out again."""

    async def test_files_are_copied_in_by_pattern(self, repo: Checkout) -> None:
        """Whole folders too; what is not there is not missed."""
        repo.write({".env": "SECRET=1\n", "conf/x.ignored": "x", "conf/deep/y.ignored": "y", "z.txt": "not asked for"})
        workspace = await self.prepared(repo, copy=(".env", "conf", "*.nothing"))
        assert workspace.read(".env") == "SECRET=1\n"
        assert workspace.read("conf/x.ignored") == "x"
        assert workspace.read("conf/deep/y.ignored") == "y"
        assert not workspace.has("z.txt")

    async def test_a_file_that_git_knows_is_not_overwritten(self, repo: Checkout) -> None:
        """The base counts, not what the operator is working on."""
        repo.write({"a.txt": "being changed\n"})
        workspace = await self.prepared(repo, copy=("*.txt",))
        assert workspace.read("a.txt") == "one\ntwo\nthree\n"

    async def test_a_file_outside_the_repository_is_not_copied(self, repo: Checkout) -> None:
        """Whether it is named or a link leads there."""
        secret = repo.path.parent / "secret.txt"
        secret.write_text("secret")
        (repo.path / "link.ignored").symlink_to(secret)
        for pattern in ("link.ignored", "../secret.txt"):
            with pytest.raises(WorkspaceFailed, match="leads out of the repository"):
                await self.prepared(repo, copy=(pattern,))

    async def test_what_was_copied_in_is_never_committed(self, repo: Checkout) -> None:
        """Ignored or not, changed or not."""
        repo.write({".env": "SECRET=1\n", "local.cfg": "SECRET=2\n", "conf/own.cfg": "SECRET=3\n"})
        workspace = await self.prepared(repo, copy=(".env", "local.cfg", "conf"))
        workspace.write({"local.cfg": "SECRET=4\n", "new.txt": "new\n"})
        commit = await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        assert set(repo.files(commit.commit)) == {"a.txt", "src/b.txt", ".gitignore", "new.txt"}
        assert workspace.read("local.cfg") == "SECRET=4\n"

    async def test_what_was_copied_in_is_not_committed_when_the_agent_has_staged_it(self, repo: Checkout) -> None:
        """Not even by force."""
        repo.write({".env": "SECRET=1\n", "local.cfg": "SECRET=2\n"})
        workspace = await self.prepared(repo, copy=(".env", "local.cfg"))
        workspace.write({"new.txt": "new\n"})
        workspace.git("add", "--force", ".env", "local.cfg", "new.txt")
        kept = await self.workspaces().snapshot(workspace.root, repo.root, REF)
        assert kept is not None
        commit = await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        for found in (kept, commit.commit):
            assert set(repo.files(found)) == {"a.txt", "src/b.txt", ".gitignore", "new.txt"}

    async def test_what_was_copied_in_is_never_in_a_snapshot(self, repo: Checkout) -> None:
        """Nor does it make one necessary."""
        repo.write({".env": "SECRET=1\n", "local.cfg": "SECRET=2\n"})
        workspace = await self.prepared(repo, copy=(".env", "local.cfg"))
        assert await self.workspaces().snapshot(workspace.root, repo.root, REF) is None
        workspace.write({"new.txt": "new\n"})
        kept = await self.workspaces().snapshot(workspace.root, repo.root, REF)
        assert kept is not None
        assert set(repo.files(kept)) == {"a.txt", "src/b.txt", ".gitignore", "new.txt"}

    async def test_what_was_copied_in_stays_when_the_workspace_is_cleaned(self, repo: Checkout) -> None:
        """Whatever letters are in its name."""
        names = (".env", "local.cfg", "a[1].cfg", "#x.cfg", "!y.cfg", "stars * and ?.cfg", " leading and trailing ")
        repo.write(dict.fromkeys(names, "SECRET\n"))
        workspace = await self.prepared(repo, copy=("*",))
        workspace.write({"new.txt": "new\n"})
        await self.workspaces().put(workspace.root, repo.root, repo.head())
        assert {name for name in names if workspace.has(name)} == set(names)
        assert not workspace.has("new.txt")


class CommitSuite(WorkspaceTests):
    """What an agent did becomes a commit."""

    async def test_uncommitted_work_is_committed_with_author_and_trailers(self, repo: Checkout) -> None:
        """On top of the base, and on no branch."""
        workspace = await self.prepared(repo)
        workspace.write({"a.txt": "changed\n", "src/b.txt": None, "new/ü 世.txt": "new\n"})
        made = await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        assert repo.files(made.commit) == {"a.txt": "changed", "new/ü 世.txt": "new", ".gitignore": "*.ignored\n.env"}
        assert repo.git("rev-parse", f"{made.commit}^{{tree}}") == made.tree
        assert repo.parents(made.commit) == [repo.head()]
        assert repo.git("log", "-1", "--format=%an <%ae> %cn <%ce>", made.commit) == (
            "coder (Kapelle) <coder@agents.invalid> coder (Kapelle) <coder@agents.invalid>"
        )
        assert repo.git("log", "-1", "--format=%B", made.commit).strip() == SIGNED.message.strip()
        assert repo.git("log", "-1", "--format=%(trailers:key=Kapelle-Task,valueonly)", made.commit).strip() == "t-1"
        assert (workspace.head(), workspace.branch(), workspace.status()) == (made.commit, "", [])
        assert repo.tip("main") == repo.head() != made.commit

    async def test_with_nothing_to_commit_the_head_stays(self, repo: Checkout) -> None:
        """So committing again gives the same."""
        workspace = await self.prepared(repo)
        assert await self.workspaces().commit(workspace.root, repo.root, SIGNED) == Commit(
            commit=repo.head(), tree=repo.git("rev-parse", "HEAD^{tree}")
        )
        workspace.write({"new.txt": "new\n"})
        first = await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        assert await self.workspaces().commit(workspace.root, repo.root, SIGNED) == first

    async def test_the_agents_own_commits_are_kept(self, repo: Checkout) -> None:
        """With its words; what it left uncommitted comes on top."""
        workspace = await self.prepared(repo)
        own = workspace.commit("the agent's own", {"own.txt": "own\n"})
        assert (await self.workspaces().commit(workspace.root, repo.root, SIGNED)).commit == own
        workspace.write({"rest.txt": "rest\n"})
        made = await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        assert repo.parents(made.commit) == [own]
        assert {"own.txt", "rest.txt"} <= set(repo.files(made.commit))

    async def test_ignored_files_are_not_committed(self, repo: Checkout) -> None:
        """And stay where they are."""
        workspace = await self.prepared(repo)
        workspace.write({"x.ignored": "x", "deep/y.ignored": "y", "new.txt": "new\n"})
        made = await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        assert set(repo.files(made.commit)) == {"a.txt", "src/b.txt", ".gitignore", "new.txt"}
        assert workspace.has("deep/y.ignored")

    async def test_modes_links_and_bytes_are_committed_as_they_are(self, repo: Checkout) -> None:
        """A link is a link, wherever it leads."""
        workspace = await self.prepared(repo)
        (workspace.path / "tool").write_text("#!/bin/sh\n")
        (workspace.path / "tool").chmod(0o755)
        (workspace.path / "link").symlink_to("/etc/passwd")
        (workspace.path / "bytes").write_bytes(bytes(range(256)))
        made = await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        modes = {
            line.split("\t")[1]: line[:6] for line in repo.git("ls-tree", made.commit, "tool", "link", "bytes").splitlines()
        }
        assert modes == {"tool": "100755", "link": "120000", "bytes": "100644"}
        assert repo.git("cat-file", "blob", f"{made.commit}:link") == "/etc/passwd"
        assert repo.git("cat-file", "-s", f"{made.commit}:bytes") == "256"

    async def test_a_branch_that_the_agent_went_to_is_not_moved(self, repo: Checkout) -> None:
        """The host moves refs, not the agent: the work is on no branch again."""
        workspace = await self.prepared(repo)
        workspace.git("checkout", "--quiet", "-b", "my-idea")
        own = workspace.commit("on a branch", {"own.txt": "own\n"})
        workspace.write({"rest.txt": "rest\n"})
        made = await self.workspaces().commit(workspace.root, repo.root, SIGNED)
        assert repo.tip("my-idea") == own
        assert repo.parents(made.commit) == [own]
        assert workspace.branch() == ""

    async def test_a_repository_inside_the_workspace_is_refused(self, repo: Checkout) -> None:
        """Its files would be lost without a word."""
        workspace = await self.prepared(repo)
        (workspace.path / "inner").mkdir()
        inner = Checkout(path=workspace.path / "inner")
        inner.git("init", "--quiet")
        inner.commit("inner", {"x.txt": "x\n"})
        with pytest.raises(WorkspaceFailed, match="inner"):
            await self.workspaces().commit(workspace.root, repo.root, SIGNED)

    async def test_a_directory_that_is_no_workspace_is_told(self, repo: Checkout) -> None:
        """Rather than that something else is committed."""
        stranger = repo.path.parent / "stranger"
        stranger.mkdir()
        with pytest.raises(WorkspaceFailed, match="stranger"):
            await self.workspaces().commit(str(stranger), repo.root, SIGNED)


class SnapshotSuite(WorkspaceTests):
    """Nothing is deleted until it is in."""

    async def test_a_snapshot_keeps_everything_and_changes_nothing(self, repo: Checkout) -> None:
        """Neither the workspace nor its index nor any branch."""
        workspace = await self.prepared(repo)
        workspace.write({"a.txt": "changed\n", "staged.txt": "staged\n", "new.txt": "new\n", "x.ignored": "x"})
        workspace.git("add", "staged.txt")
        before = (workspace.status(), workspace.head(), repo.git("for-each-ref", "refs/heads"))
        kept = await self.workspaces().snapshot(workspace.root, repo.root, REF)
        assert kept is not None
        assert repo.tip(REF) == kept
        assert repo.parents(kept) == [repo.head()]
        names = {"a.txt", "src/b.txt", ".gitignore", "staged.txt", "new.txt"}
        assert set(repo.files(kept)) == names
        assert repo.files(kept)["a.txt"] == "changed"
        assert (workspace.status(), workspace.head(), repo.git("for-each-ref", "refs/heads")) == before

    async def test_nothing_is_kept_of_what_a_branch_holds(self, repo: Checkout) -> None:
        """A clean workspace at its base needs no snapshot."""
        workspace = await self.prepared(repo)
        assert await self.workspaces().snapshot(workspace.root, repo.root, REF) is None
        assert repo.tip(REF) == ""

    async def test_commits_on_no_branch_are_kept(self, repo: Checkout) -> None:
        """They would go with the workspace."""
        workspace = await self.prepared(repo)
        own = workspace.commit("own", {"own.txt": "own\n"})
        assert await self.workspaces().snapshot(workspace.root, repo.root, REF) == own
        await self.workspaces().remove(workspace.root, repo.root)
        assert repo.tip(REF) == own

    async def test_a_later_snapshot_takes_the_place_of_an_earlier_one(self, repo: Checkout) -> None:
        """Under the same ref."""
        workspace = await self.prepared(repo)
        workspace.write({"new.txt": "first\n"})
        await self.workspaces().snapshot(workspace.root, repo.root, REF)
        workspace.write({"new.txt": "second\n"})
        kept = await self.workspaces().snapshot(workspace.root, repo.root, REF)
        assert kept == repo.tip(REF)
        assert repo.files(REF)["new.txt"] == "second"

    async def test_an_unfinished_merge_is_kept_as_it_stands(self, repo: Checkout) -> None:
        """With its markers, and it can still be finished."""
        ours, theirs = repo.diverge({"a.txt": "ours\n"}, {"a.txt": "theirs\n"})
        workspace = await self.prepared(repo, base=ours)
        await self.workspaces().bring_in(workspace.root, repo.root, theirs)
        before = workspace.status()
        kept = await self.workspaces().snapshot(workspace.root, repo.root, REF)
        assert kept is not None
        assert "<<<<<<<" in repo.files(kept)["a.txt"]
        assert workspace.status() == before

    async def test_a_repository_inside_the_workspace_is_left_out(self, repo: Checkout) -> None:
        """The rest is kept, rather than nothing."""
        workspace = await self.prepared(repo)
        (workspace.path / "inner").mkdir()
        inner = Checkout(path=workspace.path / "inner")
        inner.git("init", "--quiet")
        inner.commit("inner", {"x.txt": "x\n"})
        workspace.write({"new.txt": "new\n"})
        kept = await self.workspaces().snapshot(workspace.root, repo.root, REF)
        assert kept is not None
        assert set(repo.files(kept)) == {"a.txt", "src/b.txt", ".gitignore", "new.txt"}

    async def test_of_a_workspace_that_is_gone_nothing_is_kept(self, repo: Checkout) -> None:
        """And that is no error: it is asked for again after a crash."""
        workspace = await self.prepared(repo)
        await self.workspaces().remove(workspace.root, repo.root)
        assert await self.workspaces().snapshot(workspace.root, repo.root, REF) is None
