"""Isolation round processes."""
