"""Machines that run agents."""
