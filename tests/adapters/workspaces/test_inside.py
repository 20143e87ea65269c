"""Git in a workspace from inside a sandbox: real git, real bubblewrap; what agents do to it, good and bad."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kapelle.adapters.hosts.local import LocalHost
from kapelle.adapters.sandboxes.bubblewrap import BubblewrapSandbox
from kapelle.adapters.workspaces.worktrees import GitWorkspaces
from kapelle.core.errors import WorkspaceFailed
from kapelle.core.git import Signature, WorkspaceOrder
from kapelle.core.ids import WorkspaceId
from kapelle.core.isolation import Place
from kapelle.core.ports import Launch
from kapelle.testing.conformance.gitrepo import Checkout, GitTests

SIGNED = Signature(author="coder (Kapelle)", email="coder@agents.invalid", message="Do the thing\n")
AGENT = "git config --global user.name agent; git config --global user.email agent@example.org; "
KEPT = "refs/kapelle/test/kept"


class Inside:
    """A workspace, and somebody at work in it."""

    def __init__(self, repo: Checkout, folder: Path) -> None:
        self.repo = repo
        self.workspace = Checkout(path=folder / "workspaces" / "w")
        self.workspaces = GitWorkspaces()
        self._folder = folder

    async def prepare(self) -> None:
        path, base = str(self.workspace.path), self.repo.head()
        await self.workspaces.prepare(
            WorkspaceOrder(workspace_id=WorkspaceId("w"), path=path, repository=self.repo.root, base=base)
        )

    async def does(self, script: str) -> str:
        """Let an agent do *script*, and return what it said."""
        path, folder = str(self.workspace.path), self._folder / "agent"
        mounts = await self.workspaces.reach(path, self.repo.root)
        place = Place(workspace=path, folder=str(folder), home=str(folder / "home"), mounts=tuple(mounts))
        launch = Launch(argv=("/bin/sh", "-c", AGENT + script), cwd=path, env=(("PATH", "/usr/bin:/bin"),))
        result = await LocalHost().run(await BubblewrapSandbox().wrap(launch, place), str(folder / "output"))
        return result.tail

    async def commit(self) -> str:
        return (await self.workspaces.commit(str(self.workspace.path), self.repo.root, SIGNED)).commit

    async def snapshot(self) -> str | None:
        return await self.workspaces.snapshot(str(self.workspace.path), self.repo.root, KEPT)

    async def bring_in(self, commit: str) -> list[str]:
        found = await self.workspaces.bring_in(str(self.workspace.path), self.repo.root, commit)
        return [conflict.file for conflict in found]

    async def put(self, commit: str) -> None:
        await self.workspaces.put(str(self.workspace.path), self.repo.root, commit)

    def parents(self, commit: str) -> list[str]:
        return self.repo.git("rev-list", "--parents", "-n", "1", commit).split()[1:]


@pytest.mark.usefixtures("bubblewrap")
class TestInside(GitTests):
    @pytest.fixture
    async def inside(self, repo: Checkout, tmp_path: Path) -> AsyncIterator[Inside]:
        found = Inside(repo, tmp_path)
        await found.prepare()
        yield found
        # Whatever was done, the repository is whole.
        assert repo.git("fsck", "--strict", "--no-dangling", "--no-progress") == ""

    async def test_git_works_as_anywhere(self, inside: Inside) -> None:
        said = await inside.does(
            "git status --short --branch && echo two > b.txt && git add . && git diff --cached --stat && git log -1 --format=%s"
        )
        assert "HEAD (no branch)" in said
        assert "b.txt | 1 +" in said

    async def test_what_was_committed_inside_is_taken_in(self, inside: Inside) -> None:
        base = inside.repo.head()
        await inside.does(
            "echo 1 > b.txt; git add .; git commit -qm first; echo 2 > b.txt; git commit -qam second; echo 3 > c.txt"
        )
        commit = await inside.commit()
        (second,) = inside.parents(commit)
        (first,) = inside.parents(second)
        assert inside.parents(first) == [base]
        assert [inside.repo.git("log", "-1", "--format=%s", each) for each in (first, second, commit)] == [
            "first",
            "second",
            "Do the thing",
        ]
        assert inside.repo.git("show", f"{commit}:c.txt") == "3"

    async def test_what_was_done_here_is_seen_inside(self, inside: Inside) -> None:
        await inside.does("echo 1 > b.txt; git add b.txt; git commit -qm mine")
        commit = await inside.commit()
        assert (await inside.does("git rev-parse HEAD; git status --short")).split() == [commit]
        await inside.put(inside.repo.head())
        assert (await inside.does("git rev-parse HEAD; git status --short; ls b.txt 2>/dev/null")).split() == [
            inside.repo.head()
        ]

    async def test_work_that_goes_on_inside_survives_a_new_process(self, inside: Inside) -> None:
        await inside.does("echo 1 > b.txt; git add .; git commit -qm first")
        assert (await inside.does("git log -1 --format=%s")).strip() == "first"

    async def test_a_snapshot_keeps_what_was_committed_inside(self, inside: Inside) -> None:
        await inside.does("echo 1 > b.txt; git add .; git commit -qm first; echo 2 > c.txt")
        kept = await inside.snapshot()
        assert kept is not None
        assert inside.repo.git("show", f"{kept}:c.txt") == "2"
        assert inside.repo.git("log", "-1", "--format=%s", f"{kept}^") == "first"

    async def test_a_conflict_is_resolved_inside(self, inside: Inside) -> None:
        theirs = inside.repo.commit("theirs", {"a.txt": "theirs\n"})
        await inside.does("echo mine > a.txt")
        mine = await inside.commit()
        assert await inside.bring_in(theirs) == ["a.txt"]
        said = await inside.does(
            "git status | head -4; echo both > a.txt; git add a.txt; git commit -qm resolved; git status --short"
        )
        assert "unmerged paths" in said
        commit = await inside.commit()
        assert inside.parents(commit) == [mine, theirs]
        assert inside.repo.git("show", f"{commit}:a.txt") == "both"

    async def test_a_conflict_that_is_resolved_without_git_is_a_merge_too(self, inside: Inside) -> None:
        theirs = inside.repo.commit("theirs", {"a.txt": "theirs\n"})
        await inside.does("echo mine > a.txt")
        mine = await inside.commit()
        await inside.bring_in(theirs)
        await inside.does("echo both > a.txt")
        assert inside.parents(await inside.commit()) == [mine, theirs]

    async def test_a_merge_that_is_given_up_inside_is_none(self, inside: Inside) -> None:
        theirs = inside.repo.commit("theirs", {"a.txt": "theirs\n"})
        await inside.does("echo mine > a.txt")
        mine = await inside.commit()
        await inside.bring_in(theirs)
        await inside.does("git merge --abort")
        assert await inside.commit() == mine

    async def test_nothing_of_the_repository_can_be_changed(self, inside: Inside) -> None:
        repo = inside.repo
        common = repo.path / ".git"
        (common / "worktrees" / "other").mkdir()
        before = {path: path.stat().st_mtime_ns for path in common.rglob("*") if "worktrees" not in path.parts}
        said = await inside.does(
            f"""
            cd {common}
            for each in hooks/pre-commit config HEAD refs/heads/evil packed-refs objects/info/alternates worktrees/other/HEAD
            do (mkdir -p "$(dirname $each)"; echo evil > "$each") 2>/dev/null && echo "wrote $each"; done
            rm -rf objects/?? 2>/dev/null; ls worktrees; cd {inside.workspace.path}
            git branch evil 2>/dev/null && echo made a branch
            git update-ref refs/heads/main HEAD~0 2>/dev/null && echo moved main
            (echo evil > {repo.path}/a.txt) 2>/dev/null
            (echo "gitdir: /tmp" > .git) 2>/dev/null && echo wrote .git
            exit 0
            """
        )
        assert said.split() == ["w"]
        after = {path: path.stat().st_mtime_ns for path in common.rglob("*") if "worktrees" not in path.parts}
        assert after == before
        # A directory of that name may be there, in the sandbox's own /tmp.
        assert repo.read("a.txt") == "one\ntwo\nthree\n"
        assert repo.status() == []

    async def test_nothing_that_was_written_into_the_git_directory_runs_here(self, inside: Inside, tmp_path: Path) -> None:
        planted = tmp_path / "ran"
        await inside.does(
            f"""
            cd "$(git rev-parse --git-dir)"; mkdir -p hooks info
            for each in config config.worktree
            do printf '[core]\\n\\tfsmonitor = touch {planted}\\n\\thooksPath = hooks\\n' > $each; done
            printf '#!/bin/sh\\ntouch {planted}\\n' > hooks/pre-commit; chmod +x hooks/pre-commit
            printf '[filter "evil"]\\n\\tclean = touch {planted}\\n' >> config.worktree; echo '* filter=evil' > info/attributes
            """
        )
        await inside.does("echo 1 > b.txt; echo '* filter=evil' > .gitattributes")
        await inside.commit()
        assert not planted.exists()

    @pytest.mark.parametrize(
        "forged",
        ["echo 0123456789012345678901234567890123456789 > HEAD", "blob=$(git hash-object -w ../../HEAD); echo $blob > HEAD"],
        ids=["no such commit", "no commit"],
    )
    async def test_a_forged_head_is_refused(self, inside: Inside, forged: str) -> None:
        await inside.does(f'cd "$(git rev-parse --git-dir)"; {forged}')
        with pytest.raises(WorkspaceFailed, match="cannot be taken in"):
            await inside.commit()
        assert inside.workspace.path.is_dir()

    @pytest.mark.parametrize(
        "odd",
        [
            "rm HEAD",
            "rm HEAD; ln -s /etc/passwd HEAD",
            "rm HEAD; mkfifo HEAD",
            "rm HEAD; mkdir HEAD",
            "echo ref: refs/heads/new > HEAD",
        ],
    )
    async def test_a_head_that_names_nothing_changes_nothing(self, inside: Inside, odd: str) -> None:
        base = inside.repo.head()
        await inside.does(f'echo 1 > b.txt; cd "$(git rev-parse --git-dir)"; {odd}')
        assert inside.parents(await inside.commit()) == [base]
        assert (await inside.does("git status --short")).strip() == ""

    async def test_links_among_the_objects_are_refused(self, inside: Inside) -> None:
        await inside.does(
            "echo 1 > b.txt; git add .; git commit -qm mine; cd $(git rev-parse --git-path objects); ln -s /etc evil"
        )
        with pytest.raises(WorkspaceFailed, match="links"):
            await inside.commit()

    async def test_damaged_objects_are_refused(self, inside: Inside) -> None:
        await inside.does(
            """
            echo 1 > b.txt; git add .; git commit -qm mine
            cd $(git rev-parse --git-path objects)
            for each in ??/*; do chmod u+w $each; echo garbage > $each; done
            """
        )
        with pytest.raises(WorkspaceFailed, match="cannot be taken in"):
            await inside.commit()

    async def test_a_repository_that_borrows_objects_can_be_worked_in(self, inside: Inside, tmp_path: Path) -> None:
        inside.repo.git("clone", "--quiet", "--shared", inside.repo.root, str(tmp_path / "borrowing"))
        other = Inside(Checkout(path=tmp_path / "borrowing"), tmp_path / "more")
        await other.prepare()
        await other.does("echo 1 > b.txt; git add .; git commit -qm mine")
        assert other.repo.git("log", "-1", "--format=%s", await other.commit()) == "mine"

    async def test_everything_goes_with_the_workspace(self, inside: Inside) -> None:
        await inside.does("echo 1 > b.txt; git add .; git commit -qm mine")
        await inside.workspaces.remove(str(inside.workspace.path), inside.repo.root)
        assert not inside.workspace.path.exists()
        assert not any((inside.repo.path / ".git" / "worktrees").glob("*"))

    async def test_what_is_put_in_the_workspace_belongs_to_who_works_there(self, inside: Inside) -> None:
        later = inside.repo.commit("later", {"deep/er.txt": "one\n"})
        await inside.does("true")
        await inside.put(later)
        assert (await inside.does("echo two >> deep/er.txt && cat deep/er.txt")).split() == ["one", "two"]
        assert (inside.workspace.path / "deep").stat().st_uid == inside.workspace.path.stat().st_uid

    async def test_with_a_filter_of_the_operators_files_are_what_is_stored_and_stay_so(self, inside: Inside) -> None:
        """What the agent does not touch is not in its commit: neither in clear nor in any other way."""
        inside.repo.git("config", "filter.up.clean", "tr a-z A-Z")
        inside.repo.git("config", "filter.up.smudge", "tr A-Z a-z")
        inside.repo.write({".gitattributes": "*.sec filter=up\n", "a.sec": "secret\n", "b.txt": "b\n"})
        inside.repo.git("add", "-A")
        inside.repo.git("commit", "-qm", "filtered")
        await inside.workspaces.remove(str(inside.workspace.path), inside.repo.root)
        await inside.prepare()

        assert await inside.does("cat a.sec; echo changed > b.txt; echo New > c.sec") == "SECRET\n"
        commit = await inside.commit()

        assert inside.repo.git("diff", "--name-only", "HEAD", commit).split() == ["b.txt", "c.sec"]
        assert inside.repo.git("cat-file", "blob", f"{commit}:a.sec") == "SECRET"
        assert inside.repo.git("cat-file", "blob", f"{commit}:c.sec") == "New"
        await inside.put(commit)
        assert inside.workspace.read("a.sec") == "SECRET\n"

    async def test_with_a_filter_that_is_required_nobody_works_in_a_sandbox(self, inside: Inside) -> None:
        """But without any file for it, everybody does."""
        inside.repo.git("config", "filter.up.clean", "tr a-z A-Z")
        inside.repo.git("config", "filter.up.smudge", "tr A-Z a-z")
        inside.repo.git("config", "filter.up.required", "true")
        assert await inside.does("echo fine") == "fine\n"
        inside.repo.write({".gitattributes": "*.sec filter=up\n", "a.sec": "secret\n"})
        inside.repo.git("add", "-A")
        inside.repo.git("commit", "-qm", "filtered")
        await inside.workspaces.remove(str(inside.workspace.path), inside.repo.root)
        await inside.prepare()
        with pytest.raises(WorkspaceFailed, match="is not run where agents work in a sandbox"):
            await inside.does("true")
