"""What an agent has closed to its own user is work all the same, also where Kapelle is that user."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kapelle.adapters.system.ownership import AGENT, give
from kapelle.adapters.workspaces.worktrees import GitWorkspaces
from kapelle.core.git import Signature, WorkspaceOrder
from kapelle.core.hiding import NOTHING, Hiding, Secret
from kapelle.core.ids import WorkspaceId
from kapelle.testing.conformance.gitrepo import Checkout, make_repository

SIGNED = Signature(author="coder", email="coder@agents.invalid", message="Work\n")
REF = "refs/kapelle/test/kept"
WORK = {"new/inner/work.txt": "new\n", "there/file.txt": "changed\n", "file.txt": "closed\n"}
CLOSED = ("new/inner", "new", "there", "file.txt")
SECRET = Secret(name="TOKEN", value="a-value-that-is-nowhere")


@pytest.fixture
async def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """A workspace with work in it that is closed, as an agent of the same user, or of root's, has left it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    repo = make_repository(tmp_path / "repo")
    repo.commit("there", {"there/file.txt": "there\n"})
    workspace = Checkout(path=tmp_path / "workspaces" / "w")
    order = WorkspaceOrder(workspace_id=WorkspaceId("w"), path=workspace.root, repository=repo.root, base=repo.head())
    await GitWorkspaces().prepare(order)
    workspace.write(WORK)
    if os.geteuid() == 0:
        give(workspace.root, AGENT)
    return workspace


def close(workspace: Checkout) -> None:
    for name in CLOSED:
        (workspace.path / name).chmod(0)


def repository(workspace: Checkout) -> Checkout:
    return Checkout(path=workspace.path.parents[1] / "repo")


async def removed(workspace: Checkout) -> None:
    await GitWorkspaces().remove(workspace.root, repository(workspace).root)
    assert not workspace.path.exists()


@pytest.mark.parametrize("hiding", [NOTHING, Hiding([SECRET])], ids=["without", "with"])
async def test_it_is_kept_before_its_workspace_is_removed(workspace: Checkout, hiding: Hiding) -> None:
    close(workspace)
    repo = repository(workspace)
    kept = await GitWorkspaces().snapshot(workspace.root, repo.root, REF, hiding)
    assert kept is not None
    assert {name: repo.git("show", f"{kept}:{name}") + "\n" for name in WORK} == WORK
    await removed(workspace)


async def test_it_is_kept_where_there_is_nothing_else(workspace: Checkout) -> None:
    repo = repository(workspace)
    await GitWorkspaces().put(workspace.root, repo.root, repo.head())
    workspace.write({"new/work.txt": "new\n"})
    (workspace.path / "new").chmod(0)
    kept = await GitWorkspaces().snapshot(workspace.root, repo.root, REF)
    assert kept is not None
    assert repo.git("show", f"{kept}:new/work.txt") == "new"


async def test_it_is_committed(workspace: Checkout) -> None:
    close(workspace)
    repo = repository(workspace)
    made = await GitWorkspaces().commit(workspace.root, repo.root, SIGNED)
    assert {name: repo.git("show", f"{made.commit}:{name}") + "\n" for name in WORK} == WORK


async def test_it_is_put_back(workspace: Checkout) -> None:
    close(workspace)
    repo = repository(workspace)
    await GitWorkspaces().put(workspace.root, repo.root, repo.head())
    assert not (workspace.path / "new").exists()
    assert workspace.read("there/file.txt") == "there\n"
    await removed(workspace)


def test_so_it_is_for_an_owner_without_roots_rights(without_root: Callable[[str], None]) -> None:
    without_root(__file__)
