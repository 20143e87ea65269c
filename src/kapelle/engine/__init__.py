"""The engine: one file per stage, acting through ports only."""
