"""What Kapelle says to agents: every text in one place."""

import re
from collections.abc import Sequence

from kapelle.core.frozen import frozen
from kapelle.core.gate import CheckResult, CheckState, Gate
from kapelle.core.plain_text import shown, shown_block, shown_file

TAIL = 6_000
"""Characters of a check's output that go back to the agent: the end, where the reason usually stands."""

FILES = 100
"""Files that are named to an agent that takes over."""

LAST_WORDS = 4_000
"""Characters of what the agent before it said last."""

SUBJECT = 68
"""Characters of a commit's first line that come from the agent's summary."""

ASKED = 1_500
"""Characters of another task's prompt that an agent is told of."""

FEW = 5
"""Names that are told in a sentence."""

SAID = 400
"""Characters of another task's summary that an agent is told of."""


@frozen
class Other:
    """Another task whose work an agent's change must fit."""

    name: str
    prompt: str
    summary: str = ""


@frozen
class Whose:
    """Who made a change."""

    name: str
    run_id: str
    task_id: str
    attempt: int
    agent: str


def secret_in_work(places: Sequence[tuple[str, str]]) -> str:
    """Return the prompt for an agent whose work holds the values of secrets: *places* are (secret, file)."""
    listed_ = "\n".join(f"- the value of {secret} in {shown_file(file)}" for secret, file in places[:FILES])
    return (
        "Your work was looked through and is not accepted: it holds the values of secrets, which must never be committed.\n\n"
        f"{listed_}\n\n"
        "Take them out of these files and of their names. What needs a secret reads it when it runs, from the file that the "
        "environment variable NAME_FILE names. Commits of yours that held a value were undone; your files are as you left "
        "them. Then say in one or two sentences what you did."
    )


def check_failed(gate: Gate | None, failing: CheckResult) -> str:
    """Return the prompt for an agent whose work did not pass a check."""
    how = {CheckState.TIMED_OUT: "ran out of time"}.get(failing.state, f"failed with exit code {failing.exit_code}")
    how += f" ({failing.limit})" if failing.limit else ""
    name = f"{gate.name}/{failing.name}" if gate else failing.name
    return (
        f"Your work was checked and is not accepted yet: the check {name} {how}.\n\n"
        f"Command: {failing.run}\n"
        f"Output (its end):\n```\n{failing.tail[-TAIL:].strip()}\n```\n\n"
        "Find the cause and mend it in this working directory, then say in one or two sentences what you did. "
        "The same checks will be run again. Do not weaken or remove a check to make it pass."
    )


def result_wrong(problem: str) -> str:
    """Return the prompt for an agent whose structured result does not fit its schema."""
    return (
        f"Your structured result was not accepted: {problem}\n\n"
        "Give the result again, exactly as its schema asks. Nothing else needs to be done again."
    )


def conflict(target: str, files: Sequence[str], others: Sequence[Other], *, theirs: str, mine: str) -> str:
    """Return the prompt for an agent whose change does not fit what was merged meanwhile: both sides, and what each is for."""
    listed = "\n".join(f"- {shown_file(name)}" for name in files)
    return (
        f"Your change is in conflict with what was merged into {target} while you worked. That work has been merged into this "
        f"working directory; these files hold conflict markers:\n{listed}\n\n"
        f"{_told_of(others)}"
        f"What the others changed in them:\n```diff\n{theirs.strip()}\n```\n\n"
        f"What you changed in them:\n```diff\n{mine.strip()}\n```\n\n"
        "Resolve every conflict so that both intentions are kept, remove all markers (<<<<<<<, =======, >>>>>>>), and run the "
        "tests. Do not commit and do not abort the merge: that is done for you. Then say in one or two sentences how you "
        "resolved it."
    )


def broke_when_merged(target: str, gate: Gate, failing: CheckResult, others: Sequence[Other], theirs: str) -> str:
    """Return the prompt for an agent whose change merges cleanly and fails the gate on the merged tree."""
    why = f" ({failing.limit})" if failing.limit else ""
    return (
        f"Your change merges cleanly with what was merged into {target} while you worked, but the check "
        f"{gate.name}/{failing.name} fails on the merged tree{why}. The others' work has been merged into this working "
        "directory.\n\n"
        f"Command: {failing.run}\n"
        f"Output (its end):\n```\n{failing.tail[-TAIL:].strip()}\n```\n\n"
        f"{_told_of(others)}"
        f"What the others changed:\n```diff\n{theirs.strip()}\n```\n\n"
        "Mend it so that both intentions are kept, run the checks, and say in one or two sentences what you did."
    )


def _told_of(others: Sequence[Other]) -> str:
    """Say what the others were asked to do, so that their intention can be kept."""
    if not others:
        return ""
    asked = "\n\n".join(f"{other.name} was asked:\n{_quoted(other.prompt)}" for other in others)
    said = [f"{other.name} said when it was done: {_short(other.summary)}" for other in others if other.summary.strip()]
    return f"What the others were asked to do:\n\n{asked}\n\n" + ("\n".join(said) + "\n\n" if said else "")


def _quoted(text: str) -> str:
    kept = text.strip()[:ASKED]
    more = " [...]" if len(text.strip()) > ASKED else ""
    return "\n".join(f"> {line}" for line in f"{kept}{more}".splitlines())


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SAID else f"{line[: SAID - 1].rstrip()}…"


def listed(names: Sequence[str]) -> str:
    """Return *names* of files in a sentence: the first few, and how many more there are."""
    few, more = [shown_file(name) for name in names[:FEW]], len(names) - FEW
    return f"{', '.join(few)} and {more} more" if more > 0 else ", ".join(few)


def handed_back() -> str:
    """Return what an agent is told when a person has worked in its conversation."""
    return (
        "A person had taken this conversation over, and has left. What was said and changed meanwhile holds. Go on with your"
        " task from where it stands now, and end your turn as you would have."
    )


def go_on(limit: str = "") -> str:
    """Return the prompt that lets a conversation go on after its program was cut off; *limit* is what it was cut off for."""
    yours = re.sub(r"\bit\b", "you", limit)
    why = f" Your processes were ended: {yours}. Do it with less." if limit else ""
    return (
        f"You were cut off before your turn was over.{why} Your working directory is as you left it. Look at what is done and "
        "what is not, and go on with the task."
    )


def hand_over(task: str, later: str, changed: Sequence[str], last_words: str) -> str:
    """Return the first prompt of a fresh conversation that goes on where another one had become too long."""
    listed = "\n".join(f"- {shown_file(name)}" for name in changed[:FILES]) or "- none yet"
    more = f"\n- and {len(changed) - FILES} more" if len(changed) > FILES else ""
    parts = [
        f"You take over a task from an agent whose conversation became too long for the model. The task:\n\n{task.strip()}",
        f"Its work is in this working directory. Files changed so far:\n{listed}{more}",
    ]
    if last_words.strip():
        parts.append(f"Its last words:\n{last_words.strip()[-LAST_WORDS:]}")
    if later.strip():
        parts.append(f"What it was told last:\n{later.strip()[-TAIL:]}")
    parts.append(
        "Look at what is done (git status, git diff) and finish the task. Read files in parts and keep the output of commands "
        "short, so that this conversation does not become too long as well."
    )
    return "\n\n".join(parts)


def no_work(*, tried: bool = False) -> str:
    """Return the prompt for an agent that claims success and has neither used a tool (though it *tried*) nor changed a file."""
    how = "and everything that you tried was denied" if tried else "without using a single tool"
    return (
        f"You ended {how}{', and no file is changed' if tried else ' and without changing a file'}, so nothing was done. "
        "Do the task now; if it cannot be done, say what stands in the way."
    )


def commit_message(name: str, summary: str, *, run_id: str, task_id: str, attempt: int, agent: str) -> str:
    """Return the message of the commit that holds an agent's work, with trailers that say who did what."""
    said = shown_block(summary.strip())
    subject = shown(said.partition("\n")[0].rstrip())
    subject = subject if len(subject) <= SUBJECT else subject[: SUBJECT - 1].rstrip() + "…"
    title = f"{shown(name)}: {subject}" if subject else shown(name)
    body = f"\n\n{said}" if said not in {"", subject} else ""
    return f"{title}{body}\n\n{_trailers(run_id, task_id, attempt, agent)}"


def merge_message(whose: Whose, target: str) -> str:
    """Return the message of the merge commit on the target."""
    trailers = _trailers(whose.run_id, whose.task_id, whose.attempt, whose.agent)
    return f"Merge {shown(whose.name)} into {shown(target)}\n\n{trailers}"


def batch_message(whose: Sequence[Whose], target: str) -> str:
    """Return the message of the one commit that brings the changes of several tasks onto the target."""
    names, target = [shown(entry.name) for entry in whose], shown(target)
    title = f"Merge {', '.join(names[:-1])} and {names[-1]} into {target}"
    body = ""
    if len(title) > SUBJECT:
        title = f"Merge {len(names)} changes into {target}"
        body = "\n".join(f"- {name}" for name in names) + "\n\n"
    trailers = "".join(_trailers(entry.run_id, entry.task_id, entry.attempt, entry.agent) for entry in whose)
    return f"{title}\n\n{body}{trailers}"


def _trailers(run_id: str, task_id: str, attempt: int, agent: str) -> str:
    return f"Kapelle-Run: {run_id}\nKapelle-Task: {task_id}\nKapelle-Attempt: {attempt}\nKapelle-Agent: {shown(agent)}\n"
