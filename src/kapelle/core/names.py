"""Names that people choose, and what is no name."""

import re

from kapelle.core.limits import LONGEST_NAME


def name_problem(name: str) -> str:
    """Return why *name* cannot be what something is called, or nothing: it is shown in one line of a terminal."""
    if not name.strip():
        return "is empty"
    if len(name) > LONGEST_NAME:
        return f"has {len(name)} characters; {LONGEST_NAME} are the most"
    if not name.isprintable():
        return f"{name!r} holds a newline or another letter that cannot be shown"
    return ""


# What `git check-ref-format` refuses, for what comes behind refs/heads/.
_REFUSED = (
    (re.compile(r"[\x00-\x20\x7f]"), "a space or a control letter"),
    (re.compile(r"[~^:?*\[\\]"), "one of ~ ^ : ? * [ \\"),
    (re.compile(r"\.\."), "two dots together"),
    (re.compile(r"@\{"), "@{"),
    (re.compile(r"//|\A/|/\Z"), "a slash without a name on either side"),
    (re.compile(r"(\A|/)\."), "a part that begins with a dot"),
    (re.compile(r"\.lock(/|\Z)"), "a part that ends in .lock"),
    (re.compile(r"\.\Z"), "a dot at the end"),
)


def branch_problem(name: str) -> str:
    """Return why git takes no branch called *name*, or nothing."""
    if not name:
        return "is empty"
    if name in {"@", "HEAD"} or name.startswith("-"):
        return f"{name!r} is no name of a branch: git takes it for something else"
    if len(name) > LONGEST_NAME:
        return f"has {len(name)} characters; {LONGEST_NAME} are the most"
    found = next((what for pattern, what in _REFUSED if pattern.search(name)), "")
    return f"{name!r} is no name of a branch: it has {found}" if found else ""


def copy_problem(glob: str) -> str:
    """Return why *glob* cannot name files that are copied into workspaces, or nothing."""
    if not glob.strip() or not glob.isprintable() or len(glob) > LONGEST_NAME:
        return f"{glob[:LONGEST_NAME]!r} names no file"
    if glob.startswith(("/", "~")) or ".." in re.split(r"[/\\]", glob):
        return f"{glob!r} leads out of the repository"
    return ""
