"""Conformance suites: what every adapter of a port owes, as tests.

A suite is a base class. Whoever writes an adapter subclasses it in a test module, gives the adapter in the one method that the
suite's docstring names, and calls the subclass ``Test...``, so that pytest finds it. The suites need pytest, pytest-asyncio (in
its auto mode) and hypothesis.
"""

import pytest

# Here, before any of them is imported: an assertion that fails then shows its values.
pytest.register_assert_rewrite(
    *[
        f"{__name__}.{module}"
        for module in (
            "bringing_in",
            "delivering",
            "endings",
            "gitrepo",
            "hints",
            "leadership",
            "merging",
            "processes",
            "queries",
            "questions",
            "sandboxes",
            "spools",
            "tables",
            "transactions",
            "wardens",
            "worktrees",
        )
    ]
)
