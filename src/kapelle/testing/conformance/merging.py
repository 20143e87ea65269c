"""What repositories owe about their facts, their commits, and merging. Real git, with the operator's checkout beside it."""

import pytest

from kapelle.core.errors import RepositoryRefused, WorldError
from kapelle.core.git import Conflict, Repositories, RepositoryFacts, Signature
from kapelle.testing.conformance.gitrepo import Checkout, GitTests

NOWHERE = "1234567" * 5 + "12345"
SIGNED = Signature(author="Kapelle", email="queue@agents.invalid", message="Merge a thing\n\nKapelle-Task: t-1\n")


class RepositoryTests(GitTests):
    """What the tests of repositories begin from."""

    def repositories(self) -> Repositories:
        """Return the adapter."""
        raise NotImplementedError


class InspectSuite(RepositoryTests):
    """What can be worked on, and what cannot."""

    async def test_a_repository_is_known_from_any_directory_in_it(self, repo: Checkout) -> None:
        """Its root, its git directory, its branch and its head."""
        expected = RepositoryFacts(root=repo.root, git_dir=str(repo.path / ".git"), branch="main", head=repo.head())
        assert await self.repositories().inspect(repo.root) == expected
        assert await self.repositories().inspect(str(repo.path / "src")) == expected

    async def test_a_detached_head_is_no_branch(self, repo: Checkout) -> None:
        """The rest is as ever."""
        repo.git("checkout", "--quiet", "--detach")
        facts = await self.repositories().inspect(repo.root)
        assert (facts.branch, facts.head) == (None, repo.head())

    async def test_a_linked_worktree_is_a_checkout_of_the_same_repository(self, repo: Checkout) -> None:
        """With a root and a branch of its own."""
        linked = repo.path.parent / "linked"
        repo.git("worktree", "add", "--quiet", "-b", "other", str(linked))
        facts = await self.repositories().inspect(str(linked))
        assert facts == RepositoryFacts(root=str(linked), git_dir=str(repo.path / ".git"), branch="other", head=repo.head())

    @pytest.mark.parametrize("kind", ["nothing", "no repository", "empty", "bare", "inside .git", "a file"])
    async def test_what_cannot_be_worked_on_is_refused_with_a_remedy(self, repo: Checkout, kind: str) -> None:
        """Each for its own reason, with the path in question."""
        place = repo.path.parent / "place"
        match kind:
            case "nothing":
                expected = "no directory"
            case "no repository":
                place.mkdir()
                expected = "no git repository"
            case "empty":
                repo.git("init", "--quiet", str(place))
                expected = "no commit"
            case "bare":
                repo.git("clone", "--quiet", "--bare", repo.root, str(place))
                expected = "bare"
            case "a file":
                place.write_text("file")
                expected = "no directory"
            case _:
                place = repo.path / ".git"
                expected = "inside a .git"
        with pytest.raises(RepositoryRefused, match=expected) as caught:
            await self.repositories().inspect(str(place))
        assert str(place) in caught.value.message
        assert caught.value.advice

    async def test_a_repository_with_submodules_is_refused(self, repo: Checkout) -> None:
        """Rather than worked on by half."""
        repo.git("update-index", "--add", "--cacheinfo", f"160000,{repo.head()},vendor/lib")
        repo.git("commit", "--quiet", "-m", "a submodule")
        with pytest.raises(RepositoryRefused, match="submodules"):
            await self.repositories().inspect(repo.root)


class LookSuite(RepositoryTests):
    """Commits, trees and differences."""

    async def test_names_stand_for_commits(self, repo: Checkout) -> None:
        """Branches, tags, whole and shortened commits."""
        first = repo.head()
        repo.git("tag", "-a", "v1", "-m", "annotated")
        later = repo.commit("later", {"later.txt": "later\n"})
        resolve = self.repositories().resolve
        names = ("main", "refs/heads/main", "HEAD", later, later[:10])
        assert {await resolve(repo.root, name) for name in names} == {later}
        assert {await resolve(repo.root, name) for name in ("v1", "main~1", first)} == {first}

    @pytest.mark.parametrize("name", ["nothing", "", "-x", "--all", "a b", NOWHERE, "main:a.txt", "ü", "main..main"])
    async def test_a_name_that_stands_for_no_commit_is_nothing(self, repo: Checkout, name: str) -> None:
        """Whatever it looks like."""
        assert await self.repositories().resolve(repo.root, name) is None

    async def test_the_tree_of_a_commit_is_known(self, repo: Checkout) -> None:
        """The same files have the same tree."""
        tree = await self.repositories().tree(repo.root, repo.head())
        assert tree == repo.git("rev-parse", "HEAD^{tree}")
        with pytest.raises(WorldError):
            await self.repositories().tree(repo.root, NOWHERE)

    async def test_it_is_known_what_holds_what(self, repo: Checkout) -> None:
        """A commit holds itself and what came before it."""
        ours, theirs = repo.diverge({"a.txt": "ours\n"}, {"b.txt": "theirs\n"})
        holds = self.repositories().is_ancestor
        assert await holds(repo.root, repo.head(), ours)
        assert await holds(repo.root, ours, ours)
        assert not await holds(repo.root, ours, repo.head())
        assert not await holds(repo.root, ours, theirs)
        with pytest.raises(WorldError):
            await holds(repo.root, NOWHERE, ours)

    async def test_changed_files_are_named(self, repo: Checkout) -> None:
        """A renamed one under both names; with letters of any kind."""
        base = repo.head()
        files = {"a.txt": None, "moved.txt": "one\ntwo\nthree\n", "src/b.txt": "B\n", "ü 世\n'\".txt": "new\n"}
        head = repo.commit("changes", files)
        assert sorted(await self.repositories().changed(repo.root, base, head)) == sorted(files)
        assert list(await self.repositories().changed(repo.root, base, base)) == []

    async def test_names_that_are_no_text_are_named_as_far_as_they_can_be(self, repo: Checkout) -> None:
        """What is told can be written down: in a store, in a prompt."""
        base = repo.head()
        (repo.path / "src").joinpath("caf\udce9.txt").write_text("latin\n")
        head = repo.commit("latin", {})
        (name,) = await self.repositories().changed(repo.root, base, head)
        assert name.encode("utf-8").startswith(b"src/caf")

    async def test_differences_are_text(self, repo: Checkout) -> None:
        """Of all files or of those that are named."""
        base = repo.head()
        head = repo.commit("changes", {"a.txt": "ONE\ntwo\nthree\n", "src/b.txt": "B\n"})
        whole = await self.repositories().diff(repo.root, base, head)
        assert "-one\n+ONE\n" in whole
        assert "+B\n" in whole
        part = await self.repositories().diff(repo.root, base, head, ["src/b.txt"])
        assert "+B\n" in part
        assert "ONE" not in part
        assert await self.repositories().diff(repo.root, base, base) == ""

    async def test_long_differences_are_cut_off(self, repo: Checkout) -> None:
        """And say so."""
        base = repo.head()
        head = repo.commit("long", {"long.txt": "x" * 5000 + "\n"})
        text = await self.repositories().diff(repo.root, base, head, limit=1000)
        assert len(text) < 1100
        assert "more characters" in text

    async def test_differences_are_not_shown_by_a_program_of_the_repository(self, repo: Checkout) -> None:
        """Nor in colours."""
        base = repo.head()
        head = repo.commit("changes", {"a.txt": "ONE\n", ".gitattributes": "*.txt diff=mine\n"})
        for name in ("diff.external", "diff.mine.command", "diff.mine.textconv", "core.pager"):
            repo.git("config", name, "echo made-up")
        repo.git("config", "color.ui", "always")
        text = await self.repositories().diff(repo.root, base, head)
        assert "+ONE\n" in text
        assert "made-up" not in text
        assert "\x1b" not in text


class MergeSuite(RepositoryTests):
    """Merging without touching a directory."""

    async def test_what_fits_becomes_a_merge_commit(self, repo: Checkout) -> None:
        """The first parent is what it was merged onto; nobody's checkout and no ref is touched."""
        ours, theirs = repo.diverge({"a.txt": "ONE\ntwo\nthree\n"}, {"a.txt": "one\ntwo\nTHREE\n", "new.txt": "new\n"})
        before = (repo.git("for-each-ref"), repo.status(), repo.head())
        merged = await self.repositories().merge(repo.root, ours, theirs, SIGNED)
        assert merged.commit is not None
        assert (merged.conflicts, merged.unchanged) == ((), False)
        assert repo.parents(merged.commit.commit) == [ours, theirs]
        assert repo.files(merged.commit.commit)["a.txt"] == "ONE\ntwo\nTHREE"
        assert repo.git("rev-parse", f"{merged.commit.commit}^{{tree}}") == merged.commit.tree
        assert (repo.git("for-each-ref"), repo.status(), repo.head()) == before

    async def test_a_merge_commit_bears_its_signature(self, repo: Checkout) -> None:
        """Author and committer, message and trailers."""
        ours, theirs = repo.diverge({"x.txt": "x\n"}, {"y.txt": "y\n"})
        merged = await self.repositories().merge(repo.root, ours, theirs, SIGNED)
        assert merged.commit is not None
        said = repo.git("log", "-1", "--format=%an <%ae> %cn <%ce>%n%B", merged.commit.commit)
        assert said.strip() == "Kapelle <queue@agents.invalid> Kapelle <queue@agents.invalid>\n" + SIGNED.message.strip()

    async def test_what_only_goes_further_is_merged_too(self, repo: Checkout) -> None:
        """Always with a merge commit of its own."""
        base = repo.head()
        later = repo.commit("later", {"later.txt": "later\n"})
        merged = await self.repositories().merge(repo.root, base, later, SIGNED)
        assert merged.commit is not None
        assert repo.parents(merged.commit.commit) == [base, later]

    async def test_what_is_in_already_needs_no_merge(self, repo: Checkout) -> None:
        """The commit stays what it was merged onto."""
        base = repo.head()
        later = repo.commit("later", {"later.txt": "later\n"})
        for commit in (base, later):
            merged = await self.repositories().merge(repo.root, later, commit, SIGNED)
            assert merged.unchanged
            assert merged.commit is not None
            assert merged.commit.commit == later
            assert merged.commit.tree == repo.git("rev-parse", f"{later}^{{tree}}")

    async def test_histories_without_a_common_beginning_are_merged(self, repo: Checkout) -> None:
        """It is for the gate to say whether that is any good."""
        ours = repo.head()
        repo.git("checkout", "--quiet", "--orphan", "strange")
        repo.git("rm", "-rf", "--quiet", ".")
        strange = repo.commit("strange", {"strange.txt": "strange\n"})
        merged = await self.repositories().merge(repo.root, ours, strange, SIGNED)
        assert merged.commit is not None
        assert {"a.txt", "strange.txt"} <= set(repo.files(merged.commit.commit))

    @pytest.mark.parametrize(
        ("ours", "theirs", "expected"),
        [
            ({"a.txt": "ours\n"}, {"a.txt": "theirs\n"}, ("a.txt", "content")),
            ({"a.txt": None}, {"a.txt": "changed\n"}, ("a.txt", "modify/delete")),
            ({"a.txt": "changed\n"}, {"a.txt": None}, ("a.txt", "modify/delete")),
            ({"n.txt": "ours\n"}, {"n.txt": "theirs\n"}, ("n.txt", "content")),
            (
                {"a.txt": None, "moved.txt": "one\ntwo\nthree\n"},
                {"a.txt": None, "elsewhere.txt": "one\ntwo\nthree\n"},
                ("moved.txt", "rename/rename"),
            ),
            ({"a.txt": None, "moved.txt": "one\ntwo\nthree\n"}, {"a.txt": None}, ("moved.txt", "rename/delete")),
            ({"sub": "a file\n"}, {"sub/x.txt": "in a folder\n"}, ("sub", "file/directory")),
            ({"ü 世\n.txt": "ours\n"}, {"ü 世\n.txt": "theirs\n"}, ("ü 世\n.txt", "content")),
        ],
        ids=["content", "deleted here", "deleted there", "added twice", "renamed twice", "renamed", "folder", "letters"],
    )
    async def test_a_conflict_is_told_with_its_file_and_kind(
        self, repo: Checkout, ours: dict[str, str | None], theirs: dict[str, str | None], expected: tuple[str, str]
    ) -> None:
        """And there is no commit."""
        first, second = repo.diverge(ours, theirs)
        merged = await self.repositories().merge(repo.root, first, second, SIGNED)
        assert merged.commit is None
        file, reason = expected
        assert any(_tells(conflict, file, reason) for conflict in merged.conflicts), merged.conflicts

    async def test_every_conflicting_file_is_told_once(self, repo: Checkout) -> None:
        """And those that fit are not."""
        ours, theirs = repo.diverge(
            {"a.txt": "ours\n", "src/b.txt": "ours\n", "fits.txt": "x\n"}, {"a.txt": "theirs\n", "src/b.txt": "theirs\n"}
        )
        merged = await self.repositories().merge(repo.root, ours, theirs, SIGNED)
        assert sorted(conflict.file for conflict in merged.conflicts) == ["a.txt", "src/b.txt"]

    async def test_several_are_joined_in_one_commit(self, repo: Checkout) -> None:
        """With any number of parents, in their order, and the signature."""
        ours, theirs = repo.diverge({"x.txt": "x\n"}, {"y.txt": "y\n"})
        base = repo.git("merge-base", ours, theirs)
        tree = await self.repositories().tree(repo.root, ours)
        commit = await self.repositories().join(repo.root, tree, (base, ours, theirs), SIGNED)
        assert repo.parents(commit) == [base, ours, theirs]
        assert repo.git("rev-parse", f"{commit}^{{tree}}") == tree
        said = repo.git("log", "-1", "--format=%an <%ae> %cn <%ce>%n%B", commit)
        assert said.strip() == "Kapelle <queue@agents.invalid> Kapelle <queue@agents.invalid>\n" + SIGNED.message.strip()

    async def test_what_came_to_a_branch_is_known(self, repo: Checkout) -> None:
        """What was merged came with its merge commit."""
        ours, theirs = repo.diverge({"x.txt": "x\n"}, {"y.txt": "y\n"})
        merged = await self.repositories().merge(repo.root, ours, theirs, SIGNED)
        assert merged.commit is not None
        base = repo.git("merge-base", ours, theirs)
        head = merged.commit.commit
        assert list(await self.repositories().since(repo.root, base, head)) == [head, ours]
        assert list(await self.repositories().since(repo.root, theirs, head)) == [head, ours]
        assert list(await self.repositories().since(repo.root, head, head)) == []

    async def test_a_commit_that_is_not_there_is_told(self, repo: Checkout) -> None:
        """It is a fault of our world, and no conflict."""
        with pytest.raises(WorldError):
            await self.repositories().merge(repo.root, repo.head(), NOWHERE, SIGNED)


def _tells(conflict: Conflict, file: str, reason: str) -> bool:
    # git names a file that had to make way for a folder after the side that it is from.
    return (conflict.file == file or conflict.file.startswith(f"{file}~")) and reason in conflict.reason
