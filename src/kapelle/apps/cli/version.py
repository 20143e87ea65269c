"""Which version this is: apart, since it is all that `kapelle --version` loads."""


def version() -> str:
    """Return what `kapelle --version` prints."""
    # Not above: nobody else needs it, and what it loads takes a while.
    from importlib.metadata import version as installed

    return f"kapelle {installed('kapelle')}"
