"""Terminals: tmux."""
