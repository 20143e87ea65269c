from kapelle.adapters.workspaces.worktrees import GitWorkspaces
from kapelle.core.git import Workspaces
from kapelle.testing.conformance.workspaces import WorkspacesSuite


class TestGitWorkspaces(WorkspacesSuite):
    def workspaces(self) -> Workspaces:
        return GitWorkspaces()
