"""What an agent with secrets does to git inside a sandbox: real git, real bubblewrap."""

from pathlib import Path

import pytest

from kapelle.adapters.hosts.local import LocalHost
from kapelle.adapters.sandboxes.bubblewrap import BubblewrapSandbox
from kapelle.adapters.workspaces.worktrees import GitWorkspaces
from kapelle.core.git import Commit, WorkspaceOrder
from kapelle.core.ids import WorkspaceId
from kapelle.core.isolation import Place
from kapelle.core.ports import Launch
from kapelle.testing.conformance.gitrepo import Checkout, GitTests
from kapelle.testing.conformance.hidden import HIDING, VALUE, everything_in
from kapelle.testing.conformance.worktrees import REF, SIGNED

AGENT = "git config --global user.name agent; git config --global user.email agent@example.org; "


@pytest.mark.usefixtures("bubblewrap")
class TestHidden(GitTests):
    @pytest.fixture
    async def workspace(self, repo: Checkout, tmp_path: Path) -> Checkout:
        path = tmp_path / "workspaces" / "w"
        order = WorkspaceOrder(workspace_id=WorkspaceId("w"), path=str(path), repository=repo.root, base=repo.head())
        await GitWorkspaces().prepare(order)
        return Checkout(path=path)

    async def does(self, repo: Checkout, workspace: Checkout, script: str) -> str:
        folder = workspace.path.parent.parent / "agent"
        mounts = await GitWorkspaces().reach(workspace.root, repo.root)
        place = Place(workspace=workspace.root, folder=str(folder), home=str(folder / "home"), mounts=tuple(mounts))
        launch = Launch(argv=("/bin/sh", "-c", AGENT + script), cwd=workspace.root, env=(("PATH", "/usr/bin:/bin"),))
        return (await LocalHost().run(await BubblewrapSandbox().wrap(launch, place), str(folder / "output"))).tail

    async def commit(self, repo: Checkout, workspace: Checkout) -> Commit:
        return await GitWorkspaces().commit(workspace.root, repo.root, SIGNED, HIDING)

    async def test_commits_with_a_value_never_come_out(self, repo: Checkout, workspace: Checkout) -> None:
        base = repo.head()
        script = f"echo {VALUE} > x; git add x; git commit -qm one; git rm -q x; echo y > y; git add y; git commit -qm two"
        await self.does(repo, workspace, script)
        made = await self.commit(repo, workspace)
        assert (made.refused, made.commit, [leak.file for leak in made.leaks]) == (True, base, ["x"])
        assert VALUE.encode() not in everything_in(repo.path)
        assert base in await self.does(repo, workspace, "git log --format=%H -1; git status --short; ls")
        again = await self.commit(repo, workspace)
        assert (again.leaks, sorted(repo.files(again.commit))) == ((), [".gitignore", "a.txt", "src/b.txt", "y"])
        assert repo.git("fsck", "--strict", "--no-dangling", "--no-progress") == ""

    async def test_commits_without_one_come_out_as_ever(self, repo: Checkout, workspace: Checkout) -> None:
        await self.does(
            repo, workspace, "echo 1 > x; git add x; git commit -qm one; echo 2 > x; git commit -qam two; echo 3 > z"
        )
        made = await self.commit(repo, workspace)
        subjects = repo.git("log", "--format=%s", f"{repo.head()}..{made.commit}").splitlines()
        assert (made.leaks, subjects) == ((), ["Do the thing", "two", "one"])
        assert "clean" in await self.does(repo, workspace, "git status")

    async def test_a_snapshot_of_them_holds_names(self, repo: Checkout, workspace: Checkout) -> None:
        await self.does(repo, workspace, f"echo {VALUE} > x; git add x; git commit -qm one; git rm -q x; echo 'is {VALUE}' > y")
        kept = await GitWorkspaces().snapshot(workspace.root, repo.root, REF, HIDING)
        assert kept is not None
        (before,) = repo.parents(kept)
        assert repo.files(before)["x"] == "[secret TOKEN]"
        assert repo.files(kept)["y"] == "is [secret TOKEN]"
        await GitWorkspaces().remove(workspace.root, repo.root)
        assert VALUE.encode() not in everything_in(repo.path)
        assert repo.git("fsck", "--strict", "--no-dangling", "--no-progress") == ""
