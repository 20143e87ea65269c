"""Who is asking: a person, unless the process that asks belongs to an agent."""

import getpass
import os

from kapelle.apps import compose


def principal(store_id: str) -> str:
    """Return who is asking of the store *store_id*: an agent of it when this process or one above it is, else a person."""
    agent = compose.agent_above(store_id)
    if agent is not None:
        return f"agent:{agent}"
    try:
        return f"person:{getpass.getuser()}"
    except (OSError, KeyError):
        return f"person:{os.getuid()}"
