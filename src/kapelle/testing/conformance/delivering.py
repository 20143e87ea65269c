"""What repositories owe about refs, and about moving a target with somebody working on it."""

import asyncio

import pytest

from kapelle.testing.conformance.gitrepo import Checkout
from kapelle.testing.conformance.merging import SIGNED, RepositoryTests

REF = "refs/kapelle/test/integration/main"
LONGEST = 30
"""Seconds; after a minute the lock of somebody who is not there any more is removed."""


class RefSuite(RepositoryTests):
    """Refs, moved only from where they are believed to be."""

    async def test_a_ref_is_made_moved_and_deleted(self, repo: Checkout) -> None:
        """Deleting it again has no effect, nor where it is not at the commit that is named."""
        base = repo.head()
        later = repo.commit("later", {"later.txt": "later\n"})
        adapter = self.repositories()
        assert await adapter.move_ref(repo.root, REF, base, None)
        assert await adapter.move_ref(repo.root, REF, later, base)
        assert await adapter.resolve(repo.root, REF) == later
        await adapter.delete_ref(repo.root, REF, base)
        assert await adapter.resolve(repo.root, REF) == later
        for _ in range(2):
            await adapter.delete_ref(repo.root, REF, later)
            assert await adapter.resolve(repo.root, REF) is None
            await adapter.delete_ref(repo.root, REF)
            assert await adapter.resolve(repo.root, REF) is None

    async def test_a_ref_that_is_elsewhere_is_not_moved(self, repo: Checkout) -> None:
        """Nor one that should not be there, or should be."""
        base = repo.head()
        later = repo.commit("later", {"later.txt": "later\n"})
        adapter = self.repositories()
        assert not await adapter.move_ref(repo.root, REF, later, base)
        assert await adapter.move_ref(repo.root, REF, base, None)
        assert not await adapter.move_ref(repo.root, REF, later, None)
        assert not await adapter.move_ref(repo.root, REF, base, later)
        assert await adapter.resolve(repo.root, REF) == base

    async def test_it_is_known_which_branches_hold_a_commit(self, repo: Checkout) -> None:
        """Any branch; no other ref counts."""
        adapter = self.repositories()
        ours, theirs = repo.diverge({"x.txt": "x\n"}, {"y.txt": "y\n"})
        alone = await adapter.join(repo.root, await adapter.tree(repo.root, ours), (ours,), SIGNED)
        repo.git("update-ref", "refs/kapelle/s/kept/t-1/1", alone)
        repo.git("branch", "--force", "one", ours)
        repo.git("branch", "--force", "two", theirs)
        held = [await adapter.branches_with(repo.root, commit) for commit in (ours, theirs, alone)]
        assert [[(ref.name, ref.commit) for ref in refs] for refs in held] == [
            [("refs/heads/one", ours)],
            [("refs/heads/two", theirs)],
            [],
        ]

    async def test_refs_are_listed_under_a_prefix(self, repo: Checkout) -> None:
        """With what they stand for, and no others."""
        adapter = self.repositories()
        names = ["refs/kapelle/s/kept/t-1/1", "refs/kapelle/s/kept/t-1/2", "refs/kapelle/other/kept"]
        for name in names:
            assert await adapter.move_ref(repo.root, name, repo.head(), None)
        found = await adapter.refs(repo.root, "refs/kapelle/s/")
        assert [(ref.name, ref.commit) for ref in found] == [(name, repo.head()) for name in names[:2]]
        seconds, subject = repo.git("log", "-1", "--format=%ct%n%s", "HEAD").split("\n")
        assert {(ref.at.timestamp(), ref.subject) for ref in found} == {(float(seconds), subject)}
        assert list(await adapter.refs(repo.root, "refs/nothing/")) == []


class DeliverSuite(RepositoryTests):
    """Moving a target, with somebody working on it."""

    async def test_a_target_that_nobody_has_checked_out_is_moved_at_once(self, repo: Checkout) -> None:
        """The checkout of another branch is not touched."""
        base, commit = self._ahead(repo)
        repo.git("checkout", "--quiet", "-b", "mine", base)
        repo.write({"a.txt": "being changed\n"})
        delivered = await self.repositories().deliver(repo.root, "main", commit, base)
        assert (delivered.moved, delivered.reason, delivered.tip) == (True, "", commit)
        assert repo.tip("main") == commit
        assert (repo.head(), repo.status()) == (base, [" M a.txt"])

    async def test_a_clean_checkout_goes_forward_with_its_branch(self, repo: Checkout) -> None:
        """Its files too."""
        base, commit = self._ahead(repo)
        delivered = await self.repositories().deliver(repo.root, "main", commit, base)
        assert (delivered.moved, delivered.tip) == (True, commit)
        assert (repo.head(), repo.branch(), repo.status()) == (commit, "main", [])
        assert repo.read("ahead.txt") == "ahead\n"

    async def test_changes_that_are_not_in_the_way_stay(self, repo: Checkout) -> None:
        """The operator goes on working."""
        base, commit = self._ahead(repo)
        repo.write({"src/b.txt": "being changed\n", "mine.txt": "mine\n"})
        delivered = await self.repositories().deliver(repo.root, "main", commit, base)
        assert delivered.moved
        assert (repo.head(), repo.status()) == (commit, [" M src/b.txt", "?? mine.txt"])
        assert repo.read("src/b.txt") == "being changed\n"

    async def test_a_git_that_is_at_work_in_the_checkout_holds_the_target_up(self, repo: Checkout) -> None:
        """It is not waited for until it must be dead: whoever works there is told, and it is tried again."""
        base, commit = self._ahead(repo)
        repo.write({".git/index.lock": ""})
        async with asyncio.timeout(LONGEST):
            delivered = await self.repositories().deliver(repo.root, "main", commit, base)
        assert (delivered.moved, delivered.tip) == (False, base)
        assert "index.lock" in delivered.reason
        assert repo.has(".git/index.lock")

    @pytest.mark.parametrize("kind", ["changed", "staged", "untracked"])
    async def test_changes_in_the_way_hold_the_target_up(self, repo: Checkout, kind: str) -> None:
        """With a reason, and the checkout as it was."""
        base, commit = self._ahead(repo)
        name = "ahead.txt" if kind == "untracked" else "a.txt"
        repo.write({name: "mine\n"})
        if kind == "staged":
            repo.git("add", "a.txt")
        before = repo.status()
        delivered = await self.repositories().deliver(repo.root, "main", commit, base)
        assert (delivered.moved, delivered.tip) == (False, base)
        assert name in delivered.reason
        assert repo.root in delivered.reason
        assert (repo.head(), repo.branch(), repo.status(), repo.read(name)) == (base, "main", before, "mine\n")
        assert not (repo.path / ".git" / "MERGE_HEAD").exists()

    async def test_an_unfinished_merge_of_the_operators_holds_the_target_up(self, repo: Checkout) -> None:
        """It is not touched."""
        base, commit = self._ahead(repo)
        repo.git("checkout", "--quiet", "-b", "side", base)
        repo.commit("side", {"a.txt": "side\n"})
        repo.git("checkout", "--quiet", "main")
        mine = repo.commit("mine", {"a.txt": "mine\n"})
        repo.git("merge", "side", code=1)
        before = repo.status()
        further = repo.git("commit-tree", f"{commit}^{{tree}}", "-p", mine, "-m", "further")
        delivered = await self.repositories().deliver(repo.root, "main", further, mine)
        assert not delivered.moved
        assert delivered.reason
        assert (repo.head(), repo.status()) == (mine, before)

    async def test_a_target_that_moved_meanwhile_is_not_moved(self, repo: Checkout) -> None:
        """Checked out or not; the reason says so, and where it is now."""
        base, commit = self._ahead(repo)
        mine = repo.commit("mine", {"mine.txt": "mine\n"})
        for checked_out in (True, False):
            if not checked_out:
                repo.git("checkout", "--quiet", "--detach")
            delivered = await self.repositories().deliver(repo.root, "main", commit, base)
            assert (delivered.moved, delivered.tip) == (False, mine)
            assert "meanwhile" in delivered.reason
            assert repo.tip("main") == mine

    async def test_a_target_that_was_deleted_is_not_made_again(self, repo: Checkout) -> None:
        """Somebody did not want it any more."""
        base, commit = self._ahead(repo)
        repo.git("checkout", "--quiet", "-b", "mine")
        repo.git("branch", "--quiet", "-D", "main")
        delivered = await self.repositories().deliver(repo.root, "main", commit, base)
        assert not delivered.moved
        assert repo.tip("refs/heads/main") == ""

    async def test_delivering_again_is_no_error(self, repo: Checkout) -> None:
        """After a crash it is found to be done."""
        base, commit = self._ahead(repo)
        for _ in range(2):
            delivered = await self.repositories().deliver(repo.root, "main", commit, base)
            assert (delivered.moved, delivered.tip) == (True, commit)

    async def test_a_target_that_is_checked_out_elsewhere_goes_forward_there(self, repo: Checkout) -> None:
        """In a linked worktree of the operator's."""
        base, commit = self._ahead(repo)
        repo.git("checkout", "--quiet", "-b", "mine")
        linked = Checkout(path=repo.path.parent / "lin ked")
        repo.git("worktree", "add", "--quiet", linked.root, "main")
        delivered = await self.repositories().deliver(repo.root, "main", commit, base)
        assert delivered.moved
        assert (linked.head(), linked.status(), linked.has("ahead.txt")) == (commit, [], True)
        assert repo.head() == base

    async def test_a_checkout_that_is_gone_does_not_hold_its_branch(self, repo: Checkout) -> None:
        """It is still listed."""
        base, commit = self._ahead(repo)
        repo.git("checkout", "--quiet", "-b", "mine")
        linked = repo.path.parent / "linked"
        repo.git("worktree", "add", "--quiet", str(linked), "main")
        linked.rename(linked.with_name("moved-away"))
        delivered = await self.repositories().deliver(repo.root, "main", commit, base)
        assert (delivered.moved, repo.tip("main")) == (True, commit)

    @staticmethod
    def _ahead(repo: Checkout) -> tuple[str, str]:
        """Return the head and a commit that goes further: it changes ``a.txt`` and adds ``ahead.txt``."""
        base = repo.head()
        repo.git("checkout", "--quiet", "--detach")
        commit = repo.commit("ahead", {"a.txt": "ONE\ntwo\nthree\n", "ahead.txt": "ahead\n"})
        repo.git("checkout", "--quiet", "main")
        return base, commit
