"""What an agent is told that looks stuck: what was seen of it from outside, and how to go on."""

from collections.abc import Sequence

from kapelle.core.liveness import Condition

ADVICE: dict[Condition, str] = {
    Condition.SILENT_TOOL: (
        "Find out why the command does not come to an end before you run it again: it may wait for input, for a lock, or for "
        "something that is not there. Run what takes long with a time limit, or in the background with its output in a file."
    ),
    Condition.LOOPING: (
        "Do not make the same call once more. Find out why it fails, and try something else; if it cannot be done, say in "
        "your answer what stands in the way."
    ),
    Condition.STRAYING: (
        "Undo changes that the task does not need. Where it does need them, keep them, and say why in your answer."
    ),
    Condition.STALLED_STREAM: "Look at what is done and what is not, and go on with the task.",
    Condition.BLOCKED: (
        "Look at what is done and what is not, and go on with the task; if you wait for something, say in your answer for what."
    ),
}


def _seen(condition: Condition, reasons: Sequence[str]) -> str:
    listed = "\n".join(f"- {reason}" for reason in reasons)
    return f"{listed}\n\n{ADVICE.get(condition, ADVICE[Condition.BLOCKED])}"


def nudged(condition: Condition, reasons: Sequence[str]) -> str:
    """Return what an agent is told in the middle of its turn, which goes on."""
    return f"A note from the orchestrator, which looks at you from outside. This was seen:\n{_seen(condition, reasons)}"


def broken_off(condition: Condition, reasons: Sequence[str]) -> str:
    """Return the prompt for an agent whose turn was broken off."""
    return (
        "Your turn was broken off by the orchestrator, since it looked as if you were stuck. Your working directory is as you "
        f"left it. This was seen:\n{_seen(condition, reasons)}"
    )


def started_anew(condition: Condition, reasons: Sequence[str]) -> str:
    """Return the prompt for an agent whose program was started anew, in the same conversation."""
    return (
        "Your program was started anew by the orchestrator, since it looked as if you were stuck; what you had started has "
        f"ended. Your working directory is as you left it. This was seen:\n{_seen(condition, reasons)}"
    )
