"""Ids: what each kind of thing is called.

An id is a short prefix that names the kind and twelve letters of randomness, for example ``t-7f3k9q2mxw4d``. The random
part comes first so that people can shorten an id to its first few letters.
"""

from typing import NewType

RunId = NewType("RunId", str)
TaskId = NewType("TaskId", str)
AttemptId = NewType("AttemptId", str)
AgentId = NewType("AgentId", str)
WorkspaceId = NewType("WorkspaceId", str)
BatchId = NewType("BatchId", str)
ChangeId = NewType("ChangeId", str)
PromptId = NewType("PromptId", str)
RequestId = NewType("RequestId", str)
AccountId = NewType("AccountId", str)
QuestionId = NewType("QuestionId", str)
SpentId = NewType("SpentId", str)
HaltId = NewType("HaltId", str)

# Crockford's alphabet: no i, l, o or u, so an id can be read aloud and never spells a word by accident.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
LENGTH = 12
BITS = 5 * LENGTH


def make_id(prefix: str, entropy: int) -> str:
    """Return an id of the kind *prefix* from at least ``BITS`` bits of *entropy*."""
    letters = [ALPHABET[(entropy >> (5 * place)) & 31] for place in range(LENGTH)]
    return f"{prefix}-{''.join(letters)}"
