"""The Claude Code CLI."""
