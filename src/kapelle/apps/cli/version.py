"""Which version this is: apart, since it is all that `kapelle --version` loads."""

from importlib.metadata import version as installed


def version() -> str:
    """Return what `kapelle --version` prints."""
    return f"kapelle {installed('kapelle')}"
