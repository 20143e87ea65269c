"""Workspaces and repositories: git worktrees."""
