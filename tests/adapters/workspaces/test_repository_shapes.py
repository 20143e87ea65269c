"""Repositories of unusual shape: each works, or is refused with a clear error."""

import os
from pathlib import Path

import pytest

from kapelle.adapters.workspaces.repositories import GitRepositories
from kapelle.adapters.workspaces.worktrees import GitWorkspaces
from kapelle.core.errors import RepositoryRefused
from kapelle.core.git import Signature, WorkspaceOrder
from kapelle.core.ids import WorkspaceId
from kapelle.testing.conformance.gitrepo import Checkout, make_repository

SIGNED = Signature(author="coder", email="coder@agents.invalid", message="Work\n")
REF = "refs/kapelle/test/kept"


@pytest.fixture(autouse=True)
def _no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))


@pytest.fixture
def repo(tmp_path: Path) -> Checkout:
    return make_repository(tmp_path / "repo")


async def whole_way(repo: Checkout, folder: Path, target: str = "main") -> str:
    """Inspect, prepare, commit, keep, merge and deliver; return the merge commit."""
    workspaces, repositories = GitWorkspaces(), GitRepositories()
    facts = await repositories.inspect(repo.root)
    repo.write({"copied.ignored": "secret\n"})
    workspace = Checkout(path=folder / "workspace")
    await workspaces.prepare(
        WorkspaceOrder(
            workspace_id=WorkspaceId("w"),
            path=workspace.root,
            repository=facts.root,
            base=facts.head,
            copy=("copied.ignored",),
        )
    )
    assert workspace.read("copied.ignored") == "secret\n"
    workspace.write({"work.txt": "work\n"})
    kept = await workspaces.snapshot(workspace.root, facts.root, REF)
    made = await workspaces.commit(workspace.root, facts.root, SIGNED)
    assert kept is not None
    assert await repositories.tree(facts.root, kept) == made.tree
    assert list(await repositories.changed(facts.root, facts.head, made.commit)) == ["work.txt"]
    merged = await repositories.merge(facts.root, facts.head, made.commit, SIGNED)
    assert merged.commit is not None
    await workspaces.put(workspace.root, facts.root, merged.commit.commit)
    assert workspace.status() == []
    delivered = await repositories.deliver(facts.root, target, merged.commit.commit, facts.head)
    assert delivered.moved, delivered.reason
    await workspaces.remove(workspace.root, facts.root)
    assert workspace.root not in repo.git("worktree", "list")
    assert repo.tip(f"refs/heads/{target}") == merged.commit.commit
    return merged.commit.commit


async def test_paths_may_have_spaces_and_any_letters(tmp_path: Path) -> None:
    place = tmp_path / "mein Prøjekt 世界 'n' \"so\" $HOME"
    repo = make_repository(place / "repo # 1")
    await whole_way(repo, place / "work spaces")
    assert repo.read("work.txt") == "work\n"


async def test_a_linked_worktree_may_be_the_operators_checkout(repo: Checkout, tmp_path: Path) -> None:
    linked = Checkout(path=tmp_path / "linked")
    repo.git("worktree", "add", "--quiet", "-b", "other", linked.root)
    await whole_way(linked, tmp_path / "workspaces", target="other")
    assert linked.read("work.txt") == "work\n"
    assert repo.status() == []


async def test_a_worktree_of_a_bare_repository_may_be_the_operators_checkout(repo: Checkout, tmp_path: Path) -> None:
    repo.git("clone", "--quiet", "--bare", repo.root, str(tmp_path / "bare.git"))
    checkout = Checkout(path=tmp_path / "checkout")
    Checkout(path=tmp_path / "bare.git").git("worktree", "add", "--quiet", checkout.root, "main")
    await whole_way(checkout, tmp_path / "workspaces")
    assert checkout.read("work.txt") == "work\n"


async def test_the_git_directory_may_be_elsewhere(tmp_path: Path) -> None:
    repo = make_repository(tmp_path / "repo")
    repo.git("init", "--quiet", f"--separate-git-dir={tmp_path / 'elsewhere.git'}")
    assert (repo.path / ".git").is_file()
    await whole_way(repo, tmp_path / "workspaces")


async def test_the_checkout_of_a_submodule_may_be_worked_on(repo: Checkout, tmp_path: Path) -> None:
    """That is what the message about submodules advises."""
    outer = make_repository(tmp_path / "outer", {"outer.txt": "outer\n"})
    outer.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", repo.root, "inner")
    outer.git("commit", "--quiet", "-m", "a submodule")
    with pytest.raises(RepositoryRefused, match="submodules"):
        await GitRepositories().inspect(outer.root)
    inner = Checkout(path=outer.path / "inner")
    facts = await GitRepositories().inspect(inner.root)
    assert facts.root == inner.root
    await whole_way(inner, tmp_path / "workspaces")


async def test_a_repository_inside_another_is_the_one_that_is_meant(tmp_path: Path) -> None:
    outer = make_repository(tmp_path / "outer")
    inner = make_repository(outer.path / "inner", {"inner.txt": "inner\n", ".gitignore": "*.ignored\n"})
    facts = await GitRepositories().inspect(inner.root)
    assert facts.root == inner.root
    await whole_way(inner, tmp_path / "workspaces")
    assert outer.status() == ["?? inner/"]


async def test_a_detached_checkout_does_not_hold_the_target(repo: Checkout, tmp_path: Path) -> None:
    repo.git("checkout", "--quiet", "--detach")
    head = repo.head()
    await whole_way(repo, tmp_path / "workspaces")
    assert repo.head() == head
    assert not repo.has("work.txt")


async def test_a_target_may_have_a_name_with_slashes_and_letters(repo: Checkout, tmp_path: Path) -> None:
    repo.git("checkout", "--quiet", "-b", "feature/ü-1.x")
    await whole_way(repo, tmp_path / "workspaces", target="feature/ü-1.x")


async def test_a_shallow_clone_works(repo: Checkout, tmp_path: Path) -> None:
    for number in range(3):
        repo.commit(f"{number}", {"a.txt": f"{number}\n"})
    shallow = Checkout(path=tmp_path / "shallow")
    repo.git("clone", "--quiet", "--depth", "1", f"file://{repo.root}", shallow.root)
    await whole_way(shallow, tmp_path / "workspaces")


async def test_a_repository_with_long_hashes_works(tmp_path: Path) -> None:
    repo = Checkout(path=tmp_path / "long")
    repo.path.mkdir()
    repo.git("init", "--quiet", "--initial-branch=main", "--object-format=sha256")
    base = repo.commit("first", {"a.txt": "a\n", ".gitignore": "*.ignored\n"})
    assert len(base) == 64
    await whole_way(repo, tmp_path / "workspaces")
    assert await GitRepositories().move_ref(repo.root, "refs/kapelle/new", base, None)
    assert not await GitRepositories().move_ref(repo.root, "refs/kapelle/new", base, None)


async def test_a_sparse_checkout_loses_no_files(repo: Checkout, tmp_path: Path) -> None:
    repo.commit("more", {"big/one.txt": "1\n", "small/two.txt": "2\n"})
    repo.git("sparse-checkout", "set", "small")
    assert not repo.has("big")
    commit = await whole_way(repo, tmp_path / "workspaces")
    assert {"big/one.txt", "small/two.txt", "work.txt"} <= set(repo.files(commit))


async def test_the_operators_configuration_changes_nothing(repo: Checkout, tmp_path: Path) -> None:
    settings = {
        "commit.gpgsign": "true",
        "gpg.program": "false",
        "user.useConfigOnly": "true",
        "color.ui": "always",
        "core.editor": "false",
        "core.quotepath": "true",
        "core.pager": "false",
        "diff.mnemonicPrefix": "true",
        "diff.external": "false",
        "diff.renames": "copies",
        "merge.conflictStyle": "diff3",
        "merge.ff": "false",
        "branch.main.mergeOptions": "--no-ff",
        "status.showUntrackedFiles": "no",
        "clean.requireForce": "true",
        "advice.detachedHead": "true",
        "core.untrackedCache": "true",
        "worktree.guessRemote": "true",
    }
    for name, value in settings.items():
        repo.git("config", name, value)
    commit = await whole_way(repo, tmp_path / "workspaces")
    assert len(repo.parents(commit)) == 2
    assert repo.tip("main") == commit


async def test_what_the_operators_shell_says_about_git_is_about_something_else(
    repo: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_repository(tmp_path / "other")
    before = (other.head(), other.status())
    for name, value in {
        "GIT_DIR": str(other.path / ".git"),
        "GIT_WORK_TREE": other.root,
        "GIT_INDEX_FILE": str(other.path / ".git" / "index"),
        "GIT_OBJECT_DIRECTORY": str(tmp_path / "objects"),
        "GIT_AUTHOR_NAME": "Somebody",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.bare",
        "GIT_CONFIG_VALUE_0": "true",
        "GIT_LITERAL_PATHSPECS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    commit = await whole_way(repo, tmp_path / "workspaces")
    assert (other.head(), other.status()) == before
    assert repo.git("log", "-1", "--format=%an", commit) == "coder"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_a_repository_of_another_user_works(repo: Checkout, tmp_path: Path) -> None:
    base = repo.head()
    for path in (repo.path, *repo.path.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    facts = await GitRepositories().inspect(repo.root)
    assert facts.head == base
    order = WorkspaceOrder(
        workspace_id=WorkspaceId("w"), path=str(tmp_path / "workspace"), repository=facts.root, base=facts.head
    )
    await GitWorkspaces().prepare(order)
    (tmp_path / "workspace" / "work.txt").write_text("work\n")
    made = await GitWorkspaces().commit(order.path, facts.root, SIGNED)
    assert list(await GitRepositories().changed(facts.root, base, made.commit)) == ["work.txt"]


async def test_the_name_of_the_folder_may_hold_a_newline(tmp_path: Path) -> None:
    repo = make_repository(tmp_path / "two\nlines")
    facts = await GitRepositories().inspect(repo.root)
    assert (facts.root, facts.git_dir, facts.branch, facts.head) == (repo.root, f"{repo.root}/.git", "main", repo.head())


@pytest.mark.parametrize("kind", ["bare", "empty"])
async def test_what_has_nothing_to_work_on_is_refused_with_advice(tmp_path: Path, kind: str) -> None:
    place = tmp_path / kind
    place.mkdir()
    Checkout(path=place).git("init", "--quiet", *(["--bare"] if kind == "bare" else []))
    with pytest.raises(RepositoryRefused) as caught:
        await GitRepositories().inspect(str(place))
    assert {"bare": "Clone it", "empty": "git commit"}[kind] in caught.value.advice


async def test_worktrees_may_be_told_by_relative_paths(repo: Checkout, tmp_path: Path) -> None:
    """As git 2.48 and newer write them down with worktree.useRelativePaths."""
    workspace = Checkout(path=tmp_path / "workspaces" / "w")
    order = WorkspaceOrder(workspace_id=WorkspaceId("w"), path=workspace.root, repository=repo.root, base=repo.head())
    await GitWorkspaces().prepare(order)
    record = repo.path / ".git" / "worktrees" / "w" / "gitdir"
    record.write_text("../../../../workspaces/w/.git\n")
    workspace.write({"work.txt": "work\n"})
    made = await GitWorkspaces().commit(workspace.root, repo.root, SIGNED)
    assert repo.files(made.commit)["work.txt"] == "work"
