"""What goes wrong in a simulated world: the acts that fail, the places at which leaders die, what agents do well and badly."""

from kapelle.core.conversation import Trouble
from kapelle.core.errors import GitFailed, HostFailed, WorkspaceFailed, WorldError
from kapelle.testing.git import Files, has_markers
from kapelle.testing.hosts import ScriptedProcess

ACTS: dict[str, WorldError] = {
    "prepare": WorkspaceFailed("the disk is full"),
    "start": HostFailed("no more processes"),
    "commit": WorkspaceFailed("the disk is full"),
    "run": HostFailed("no more processes"),
    "merge": GitFailed("git ended with 128"),
    "bring_in": GitFailed("git ended with 128"),
    "move_ref": GitFailed("git ended with 128"),
    "deliver": GitFailed("git ended with 128"),
    "snapshot": WorkspaceFailed("the disk is full"),
    "remove": WorkspaceFailed("the disk is full"),
}
"""The acts that may fail, and how."""
PLACES = sorted({*ACTS, *(f"{act}:done" for act in ACTS), "write", "write:done", "end", "end:done", "put"})
"""Where a leader may die: at the beginning and at the end of acts."""
LONG = ("prepare:done", "start:done", "commit", "run", "run:done", "merge", "merge:done", "bring_in")
"""Places in acts that take their time: much may happen meanwhile."""
GRIEF = ("crash", "crash", "time", "claim", Trouble.OVERLOADED, Trouble.LOGIN_EXPIRED, Trouble.REFUSED)
"""How an agent's turn ends when it does not end well."""


STILL = ("stopped", "disk", "tool", "silent", "stubborn", "loop")
"""How an agent looks that does nothing, or nothing new."""


def hangs(process: ScriptedProcess, how: str) -> None:
    """Do nothing from now on."""
    process.obeys = how != "stubborn"
    process.stopped = how == "stopped"
    process.waiting = int(how == "disk")
    if how == "tool":
        process.calls("Bash", "cat", "hangs")


def fails_again(process: ScriptedProcess) -> None:
    """Do what has failed already, in the same way, some times."""
    for _ in range(3):
        process.calls("Bash", "make test", "again")
        process.returns(failed=True, call_id="again")


def fits(files: Files) -> str | None:
    """Say what ``make test`` does: nothing may be broken, and the two halves of something must fit each other."""
    broken = sorted(name for name, content in files.items() if "broken" in content or has_markers(content))
    if broken:
        return f"broken: {', '.join(broken)}"
    if files.get("left", "1") != files.get("right", "1"):
        return "left and right do not fit"
    return None


def mended(files: Files) -> Files:
    """Return *files* with everything mended that ``fits`` finds wrong in them."""
    whole = {name: "mended" if has_markers(content) or "broken" in content else content for name, content in files.items()}
    return {**whole, **{name: "1" for name in ("left", "right") if name in files}}


def does_well(process: ScriptedProcess, _: str = "") -> None:
    """Do what every agent does once all is healed: mend whatever it finds, and its own work."""
    files = process.directory.files
    for name, content in mended(files).items():
        if content != files[name]:
            process.write(name, content)
    process.write(f"{process.task}.py", "well")
    process.done("all is well")


def goes_deaf(process: ScriptedProcess) -> None:
    """Start, and read nothing."""
    process.deaf = True


def ends_at_once(process: ScriptedProcess) -> None:
    """Start, and end."""
    process.exit(127)
