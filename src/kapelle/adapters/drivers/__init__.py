"""Drivers: how to start, feed and read the programs that agents are."""
