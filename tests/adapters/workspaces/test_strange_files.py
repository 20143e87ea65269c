"""Files with unusual names and kinds, in workspaces and to be copied in."""

import os
from pathlib import Path

import pytest

from kapelle.adapters.workspaces.repositories import GitRepositories
from kapelle.adapters.workspaces.worktrees import GitWorkspaces
from kapelle.core.errors import WorkspaceFailed
from kapelle.core.git import Signature, WorkspaceOrder
from kapelle.core.ids import WorkspaceId
from kapelle.testing.conformance.gitrepo import Checkout, make_repository

SIGNED = Signature(author="coder", email="coder@agents.invalid", message="Work\n")
REF = "refs/kapelle/test/kept"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    return make_repository(tmp_path / "repo")


async def prepared(repo: Checkout, copy: tuple[str, ...] = (), base: str = "") -> Checkout:
    workspace = Checkout(path=repo.path.parent / "workspaces" / "w")
    order = WorkspaceOrder(
        workspace_id=WorkspaceId("w"), path=workspace.root, repository=repo.root, base=base or repo.head(), copy=copy
    )
    await GitWorkspaces().prepare(order)
    return workspace


NAMES = [
    "new\nline.txt",
    "tab\t.txt",
    "\x01control",
    "-dash",
    "--all",
    ":(top)magic",
    ":!not",
    "#hash",
    "\"quoted\" 'twice'",
    "back\\slash",
    "*.star",
    "[a-z]",
    "HEAD",
    " ",
    "ends with space ",
    "x" * 255,
    "d" * 100 + "/" + "e" * 100 + "/" + "f" * 100 + "/" + "g" * 100,
    "é" + "e\u0301",
    "\udce9 no text",
]


async def test_names_of_any_kind_are_committed_kept_and_cleaned(repo: Checkout) -> None:
    base = repo.head()
    workspace = await prepared(repo)
    workspace.write(dict.fromkeys(NAMES, "content\n"))
    kept = await GitWorkspaces().snapshot(workspace.root, repo.root, REF)
    made = await GitWorkspaces().commit(workspace.root, repo.root, SIGNED)
    assert kept is not None
    for found in (kept, made.commit):
        listed = repo.git("ls-tree", "-r", "-z", "--name-only", found).split("\0")
        assert set(NAMES) <= set(listed)
    changed = await GitRepositories().changed(repo.root, base, made.commit)
    assert len(changed) == len(NAMES)
    assert set(NAMES) - set(changed) == {"\udce9 no text"}
    await GitWorkspaces().put(workspace.root, repo.root, base)
    assert workspace.status() == []
    assert not any(workspace.has(name) for name in NAMES)


async def test_names_of_any_kind_may_be_copied_in(repo: Checkout) -> None:
    base = repo.head()
    repo.write(dict.fromkeys(NAMES, "secret\n"))
    workspace = await prepared(repo, copy=("*",))
    workspace.write({"work.txt": "work\n"})
    made = await GitWorkspaces().commit(workspace.root, repo.root, SIGNED)
    assert list(await GitRepositories().changed(repo.root, base, made.commit)) == ["work.txt"]
    await GitWorkspaces().put(workspace.root, repo.root, base)
    assert [name for name in NAMES if not workspace.has(name)] == []


async def test_a_file_that_is_neither_file_nor_folder_is_not_committed(repo: Checkout) -> None:
    workspace = await prepared(repo)
    os.mkfifo(workspace.path / "pipe")
    workspace.write({"work.txt": "work\n"})
    made = await GitWorkspaces().commit(workspace.root, repo.root, SIGNED)
    assert "work.txt" in repo.files(made.commit)
    assert "pipe" not in repo.files(made.commit)


@pytest.mark.parametrize("pattern", ["pipe.ignored", "/etc/hostname", "", "**x"])
async def test_what_cannot_be_copied_is_told(repo: Checkout, pattern: str) -> None:
    os.mkfifo(repo.path / "pipe.ignored")
    with pytest.raises(WorkspaceFailed, match=r"names no files to copy|cannot be copied"):
        await prepared(repo, copy=(pattern,))


async def test_a_workspace_that_was_only_half_made_is_made_anew(repo: Checkout) -> None:
    os.mkfifo(repo.path / "pipe.ignored")
    with pytest.raises(WorkspaceFailed):
        await prepared(repo, copy=("pipe.ignored",))
    (repo.path / "pipe.ignored").unlink()
    repo.write({"pipe.ignored": "a file now"})
    workspace = await prepared(repo, copy=("pipe.ignored",))
    assert workspace.read("pipe.ignored") == "a file now"


async def test_links_in_a_folder_that_is_copied_stay_links(repo: Checkout, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("outside")
    repo.write({"conf/x.ignored": "x"})
    (repo.path / "conf" / "link.ignored").symlink_to(tmp_path / "outside.txt")
    workspace = await prepared(repo, copy=("conf",))
    assert (workspace.path / "conf" / "link.ignored").is_symlink()


async def test_nothing_is_copied_through_a_link_that_leads_out_of_the_workspace(repo: Checkout, tmp_path: Path) -> None:
    """Somebody committed a link where the operator has a folder."""
    (tmp_path / "outside").mkdir()
    (repo.path / "conf").symlink_to(tmp_path / "outside")
    with_link = repo.commit("a link", {})
    (repo.path / "conf").unlink()
    repo.write({"conf/x.ignored": "secret"})
    with pytest.raises(WorkspaceFailed, match="leads out of the workspace"):
        await prepared(repo, copy=("conf/x.ignored",), base=with_link)
    assert os.listdir(tmp_path / "outside") == []  # noqa: PTH208  # in an async function


async def test_the_git_directory_is_not_copied(repo: Checkout) -> None:
    workspace = await prepared(repo, copy=(".git", ".git/config", "**/*"))
    assert (workspace.path / ".git").is_file()
    assert workspace.status() == []


async def test_folders_that_nobody_may_write_are_removed(repo: Checkout) -> None:
    workspace = await prepared(repo)
    workspace.write({"cache/deep/x.ignored": "x"})
    (workspace.path / "cache" / "deep").chmod(0o500)
    (workspace.path / "cache").chmod(0o500)
    await GitWorkspaces().remove(workspace.root, repo.root)
    assert not workspace.path.exists()


async def test_links_are_cleaned_and_removed_and_not_followed(repo: Checkout, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_text("precious")
    workspace = await prepared(repo)
    (workspace.path / "link").symlink_to(outside)
    (workspace.path / "link.ignored").symlink_to(outside)
    made = await GitWorkspaces().commit(workspace.root, repo.root, SIGNED)
    assert repo.git("cat-file", "blob", f"{made.commit}:link") == str(outside)
    await GitWorkspaces().put(workspace.root, repo.root, repo.head())
    assert not workspace.has("link")
    await GitWorkspaces().remove(workspace.root, repo.root)
    assert (outside / "precious.txt").exists()


@pytest.mark.parametrize("name", [":x", ":(top)x", ":!x", "[ab].txt"])
async def test_a_name_that_git_takes_for_a_pattern_is_shown_as_it_is(repo: Checkout, name: str) -> None:
    workspace = await prepared(repo)
    workspace.write({name: "work\n", "other.txt": "other\n"})
    made = await GitWorkspaces().commit(workspace.root, repo.root, SIGNED)
    shown = await GitRepositories().diff(repo.root, repo.head(), made.commit, [name])
    assert "+work" in shown
    assert "+other" not in shown
