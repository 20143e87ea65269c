"""What an agent may do to git in its workspace, and what the host makes of it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kapelle.adapters.workspaces.repositories import GitRepositories
from kapelle.adapters.workspaces.worktrees import GitWorkspaces
from kapelle.core.errors import GitFailed, WorkspaceFailed
from kapelle.core.git import Signature, WorkspaceOrder
from kapelle.core.ids import WorkspaceId
from kapelle.testing.conformance.gitrepo import Checkout, make_repository

SIGNED = Signature(author="coder", email="coder@agents.invalid", message="Work\n")
REF = "refs/kapelle/test/kept"
HOOKS = [
    "applypatch-msg",
    "commit-msg",
    "fsmonitor-watchman",
    "post-checkout",
    "post-commit",
    "post-index-change",
    "post-merge",
    "post-rewrite",
    "pre-auto-gc",
    "pre-commit",
    "pre-merge-commit",
    "pre-rebase",
    "prepare-commit-msg",
    "reference-transaction",
]


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    return make_repository(tmp_path / "repo")


async def prepared(repo: Checkout, name: str = "w", base: str = "") -> Checkout:
    workspace = Checkout(path=repo.path.parent / "workspaces" / name)
    order = WorkspaceOrder(workspace_id=WorkspaceId(name), path=workspace.root, repository=repo.root, base=base or repo.head())
    await GitWorkspaces().prepare(order)
    return workspace


def plant(repo: Checkout, workspace: Checkout, proof: Path, *, how: str) -> None:
    """Let every hook leave a proof that it ran."""
    folder = repo.path / ".git" / "hooks" if how == "hooks" else proof.parent / "planted"
    folder.mkdir(exist_ok=True)
    for name in HOOKS:
        (folder / name).write_text(f'#!/bin/sh\necho {name} >> "{proof}"\n')
        (folder / name).chmod(0o755)
    if how == "core.hooksPath":
        workspace.git("config", "core.hooksPath", str(folder))
    if how == "core.fsmonitor":
        workspace.git("config", "core.fsmonitor", str(folder / "fsmonitor-watchman"))


@pytest.mark.parametrize("how", ["hooks", "core.hooksPath", "core.fsmonitor"])
async def test_no_program_that_an_agent_left_for_git_is_run_by_the_host(repo: Checkout, tmp_path: Path, how: str) -> None:
    ours, theirs = repo.diverge({"a.txt": "ours\n"}, {"a.txt": "theirs\n"})
    workspace = await prepared(repo, base=ours)
    proof = tmp_path / "proof"
    plant(repo, workspace, proof, how=how)
    workspaces, repositories = GitWorkspaces(), GitRepositories()
    workspace.write({"work.txt": "work\n"})
    await workspaces.snapshot(workspace.root, repo.root, REF)
    made = await workspaces.commit(workspace.root, repo.root, SIGNED)
    await workspaces.bring_in(workspace.root, repo.root, theirs)
    await workspaces.commit(workspace.root, repo.root, SIGNED)
    await workspaces.leftover_markers(workspace.root, repo.root, ours)
    await workspaces.put(workspace.root, repo.root, made.commit)
    await repositories.inspect(repo.root)
    merged = await repositories.merge(repo.root, repo.head(), made.commit, SIGNED)
    assert merged.commit is not None
    assert (await repositories.deliver(repo.root, "main", merged.commit.commit, repo.head())).moved
    await prepared(repo, "another")
    await workspaces.remove(workspace.root, repo.root)
    assert not proof.exists(), proof.read_text()
    # The hooks are such as git would run.
    repo.git("checkout", "--quiet", "--detach", "HEAD~1")
    repo.git("status")
    assert proof.exists()


def point_elsewhere(workspace: Checkout) -> None:
    other = make_repository(workspace.path.parent.parent / "elsewhere")
    (workspace.path / ".git").write_text(f"gitdir: {other.path / '.git'}\n")


def begin_anew(workspace: Checkout) -> None:
    (workspace.path / ".git").unlink()
    workspace.git("init", "--quiet")
    workspace.git("commit", "--quiet", "--allow-empty", "-m", "mine now")


@pytest.mark.parametrize(
    "tamper",
    [
        point_elsewhere,
        begin_anew,
        lambda workspace: (workspace.path / ".git").unlink(),
        lambda workspace: (workspace.path / ".git").write_text("gitdir: /nowhere\n"),
    ],
    ids=["points elsewhere", "a repository of its own", "deleted", "points nowhere"],
)
async def test_the_git_file_in_a_workspace_leads_nowhere(repo: Checkout, tamper: Callable[[Checkout], object]) -> None:
    workspace, other = await prepared(repo), await prepared(repo, "other")
    tamper(workspace)
    workspace.write({"work.txt": "work\n"})
    # Clearing away another workspace must not make git forget this one.
    await GitWorkspaces().remove(other.root, repo.root)
    kept = await GitWorkspaces().snapshot(workspace.root, repo.root, REF)
    made = await GitWorkspaces().commit(workspace.root, repo.root, SIGNED)
    assert kept is not None
    for found in (kept, made.commit):
        assert set(repo.files(found)) == {"a.txt", "src/b.txt", ".gitignore", "work.txt"}
    assert repo.parents(made.commit) == [repo.head()]
    await GitWorkspaces().put(workspace.root, repo.root, repo.head())
    await GitWorkspaces().remove(workspace.root, repo.root)
    assert not workspace.path.exists()
    assert workspace.root not in repo.git("worktree", "list")


async def test_a_workspace_that_became_a_link_is_not_followed(repo: Checkout, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "mine.txt").write_text("mine")
    workspace = await prepared(repo)
    shutil.rmtree(workspace.path)
    workspace.path.symlink_to(precious)
    adapter = GitWorkspaces()
    with pytest.raises(WorkspaceFailed):
        await adapter.put(workspace.root, repo.root, repo.head())
    with pytest.raises(WorkspaceFailed):
        await adapter.commit(workspace.root, repo.root, SIGNED)
    with pytest.raises(WorkspaceFailed):
        await adapter.snapshot(workspace.root, repo.root, REF)
    await adapter.remove(workspace.root, repo.root)
    assert not workspace.path.is_symlink()
    assert (precious / "mine.txt").read_text() == "mine"


def made_a_folder(path: Path) -> Path:
    path.mkdir()
    os.utime(path, (10**9, 10**9))
    return path


async def test_a_lock_that_cannot_be_removed_is_told_and_the_work_can_still_be_kept(repo: Checkout) -> None:
    workspace = await prepared(repo)
    workspace.write({"work.txt": "work\n"})
    lock = made_a_folder(Path(workspace.git("rev-parse", "--absolute-git-dir"), "index.lock"))
    with pytest.raises(GitFailed, match=r"index\.lock"):
        await GitWorkspaces().commit(workspace.root, repo.root, SIGNED)
    kept = await GitWorkspaces().snapshot(workspace.root, repo.root, REF)
    assert kept is not None
    assert "work.txt" in repo.files(kept)
    shutil.rmtree(lock)
    assert "work.txt" in repo.files((await GitWorkspaces().commit(workspace.root, repo.root, SIGNED)).commit)


async def test_a_workspace_that_git_has_forgotten_is_told(repo: Checkout) -> None:
    workspace = await prepared(repo)
    shutil.rmtree(repo.path / ".git" / "worktrees")
    with pytest.raises(WorkspaceFailed, match="no worktree"):
        await GitWorkspaces().commit(workspace.root, repo.root, SIGNED)
    await GitWorkspaces().remove(workspace.root, repo.root)
    assert not workspace.path.exists()


async def test_an_agent_that_went_to_the_target_does_not_hold_it(repo: Checkout) -> None:
    base = repo.head()
    repo.git("checkout", "--quiet", "-b", "mine")
    workspace = await prepared(repo)
    workspace.git("checkout", "--quiet", "main")
    workspace.write({"work.txt": "work\n"})
    made = await GitWorkspaces().commit(workspace.root, repo.root, SIGNED)
    assert repo.tip("main") == base
    workspace.write({"work.txt": "half of the next round\n"})
    delivered = await GitRepositories().deliver(repo.root, "main", made.commit, base)
    assert (delivered.moved, repo.tip("main")) == (True, made.commit)
    assert workspace.read("work.txt") == "half of the next round\n"


async def test_an_agent_in_the_middle_of_a_rebase_has_its_work_committed(repo: Checkout) -> None:
    ours, theirs = repo.diverge({"a.txt": "ours\n"}, {"a.txt": "theirs\n"})
    workspace = await prepared(repo, base=ours)
    workspace.git("rebase", theirs, code=1)
    workspace.write({"a.txt": "settled\n"})
    made = await GitWorkspaces().commit(workspace.root, repo.root, SIGNED)
    assert repo.files(made.commit)["a.txt"] == "settled"
    await GitWorkspaces().put(workspace.root, repo.root, made.commit)
    assert "rebas" not in workspace.git("status")


async def test_a_file_that_the_agent_only_announced_is_committed(repo: Checkout) -> None:
    workspace = await prepared(repo)
    workspace.write({"new.txt": "new\n"})
    workspace.git("add", "--intent-to-add", "new.txt")
    made = await GitWorkspaces().commit(workspace.root, repo.root, SIGNED)
    assert repo.files(made.commit)["new.txt"] == "new"


MARKS = ["--assume-unchanged", "--skip-worktree"]


@pytest.mark.parametrize("mark", MARKS)
async def test_what_git_was_told_to_overlook_is_put_right(repo: Checkout, mark: str) -> None:
    workspace = await prepared(repo)
    workspace.git("update-index", mark, "a.txt")
    workspace.write({"a.txt": "what no commit holds\n"})
    await GitWorkspaces().put(workspace.root, repo.root, repo.head())
    assert workspace.read("a.txt") == repo.read("a.txt")


@pytest.mark.parametrize("mark", MARKS)
async def test_what_git_was_told_to_overlook_is_committed(repo: Checkout, mark: str) -> None:
    workspace = await prepared(repo)
    workspace.git("update-index", mark, "a.txt")
    workspace.write({"a.txt": "work\n"})
    made = await GitWorkspaces().commit(workspace.root, repo.root, SIGNED)
    assert repo.files(made.commit)["a.txt"] == "work"


@pytest.mark.parametrize("mark", MARKS)
async def test_what_git_was_told_to_overlook_is_kept(repo: Checkout, mark: str) -> None:
    workspace = await prepared(repo)
    workspace.git("update-index", mark, "a.txt")
    workspace.write({"a.txt": "work\n"})
    assert await GitWorkspaces().snapshot(workspace.root, repo.root, REF) is not None
    assert repo.files(REF)["a.txt"] == "work"


async def test_what_a_sparse_checkout_leaves_out_is_not_taken_for_deleted(repo: Checkout) -> None:
    (repo.path / "docs").mkdir()
    (repo.path / "docs" / "page.md").write_text("1\n")
    repo.git("add", "-A")
    repo.git("commit", "-q", "-m", "a page")
    workspace = await prepared(repo)
    workspace.git("sparse-checkout", "set", "--no-cone", "/*", "!/docs/")
    assert not (workspace.path / "docs").exists()
    workspace.write({"a.txt": "work\n"})
    made = await GitWorkspaces().commit(workspace.root, repo.root, SIGNED)
    assert repo.git("diff", "--name-only", f"{made.commit}~1", made.commit) == "a.txt"
