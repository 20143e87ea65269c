"""Benchmarks: what is measured is said in README.md."""
