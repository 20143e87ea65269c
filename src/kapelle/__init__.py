"""Kapelle: run many coding agents in parallel, safely."""
