"""Model calls as rows."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from kapelle.adapters.store.rows import to_microseconds
from kapelle.core.budget import Usage
from kapelle.core.calls import ModelCall

COUNTED = tuple(field.name for field in fields(Usage))
PLAIN = (
    *("call_id", "agent_id", "run_id", "task_id", "attempt_id", "model"),
    *("cost_usd", "status", "seconds", "error", "project", "account_id"),
)
YES_OR_NO = ("priced", "settled")
COLUMNS = (*PLAIN, *COUNTED, *YES_OR_NO)


def row_of(call: ModelCall, at: datetime, *, settled: bool) -> dict[str, Any]:
    """Return the row of *call*, which has ended or not."""
    row = {name: getattr(call, name) for name in PLAIN} | asdict(call.usage)
    return row | {"priced": int(call.priced), "settled": int(settled), "at": to_microseconds(at)}


def call_of(row: Sequence[Any]) -> ModelCall:
    """Return the call that is in *row*, which holds ``COLUMNS``."""
    found = dict(zip(COLUMNS, row, strict=True))
    usage = Usage(**{name: found.pop(name) for name in COUNTED})
    told = {name: bool(found.pop(name)) for name in YES_OR_NO}
    return ModelCall(usage=usage, **told, **found)
