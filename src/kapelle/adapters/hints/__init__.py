"""Hints: lossy wake-ups between the processes of one store."""
