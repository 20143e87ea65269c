"""The suite of the port of workspaces: ``core.ports.Workspaces``."""

from kapelle.testing.conformance.bringing_in import BringInSuite, MarkerSuite, PutSuite
from kapelle.testing.conformance.glancing import GlanceSuite
from kapelle.testing.conformance.hidden import HiddenSuite
from kapelle.testing.conformance.worktrees import CommitSuite, CopySuite, PrepareSuite, SnapshotSuite


class WorkspacesSuite(
    PrepareSuite, CopySuite, CommitSuite, SnapshotSuite, HiddenSuite, GlanceSuite, BringInSuite, MarkerSuite, PutSuite
):
    """Everything that workspaces owe. Give the adapter in ``workspaces``."""
