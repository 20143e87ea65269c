"""What was spent: by task, run, agent, model, day, project or account."""

import csv
import io
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from kapelle.apps.views import spend_json
from kapelle.core.account import LOGIN, account_of
from kapelle.core.budget import Grouping, Spend, Used
from kapelle.core.frozen import frozen
from kapelle.core.gateway import Upstream
from kapelle.core.ids import AccountId, RunId, TaskId
from kapelle.core.store import View

REHEARSED = "rehearsal:"
"""How the id of an account begins that is a rehearsal."""
CSV = (
    *("group", "name", "account", "paid"),
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"),
    *("cost_usd", "model_calls", "seconds"),
)


@frozen
class Line:
    """What one group has spent."""

    group: str
    """Its id, or its name where it has no other."""
    name: str
    """What people call it."""
    account: str
    paid: str
    """``money``, ``subscription`` (the cost is what it would be) or ``rehearsed`` (nothing was paid)."""
    spend: Spend
    seconds: float
    """How long its model calls took."""


def usage(
    view: View, by: Grouping, *, since: datetime | None = None, until: datetime | None = None, run_id: RunId | None = None
) -> list[Line]:
    """Return what was spent, group by group."""
    return [_line(view, by, used) for used in view.ledger.used(by, since=since, until=until, run_id=run_id)]


def total(lines: Sequence[Line]) -> Spend:
    """Return what all of *lines* have spent."""
    return sum((line.spend for line in lines), Spend())


def unpaid(lines: Sequence[Line]) -> str:
    """Say which of the money was not paid; empty when all of it was."""
    found = {kind: sum(line.spend.cost_usd for line in lines if line.paid == kind) for kind in ("subscription", "rehearsed")}
    said: list[str] = []
    if found["subscription"]:
        said.append(f"${found['subscription']:.2f} of it is notional: a subscription pays, whatever the calls would cost")
    if found["rehearsed"]:
        said.append(f"${found['rehearsed']:.2f} of it was rehearsed: nothing was paid")
    return "; ".join(said)


def line_json(line: Line) -> dict[str, Any]:
    """Return *line* as JSON."""
    named = {"group": line.group, "name": line.name, "account": line.account, "paid": line.paid}
    return named | spend_json(line.spend) | {"seconds": round(line.seconds, 3)}


def as_csv(lines: Sequence[Line]) -> str:
    """Return *lines* as CSV (RFC 4180) with a line of headings."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(CSV)
    for line in lines:
        used = line.spend.usage
        tokens = (used.input_tokens, used.output_tokens, used.cache_read_tokens, used.cache_write_tokens)
        named = (_harmless(text) for text in (line.group, line.name, line.account, line.paid))
        writer.writerow([*named, *tokens, round(line.spend.cost_usd, 6), line.spend.calls, round(line.seconds, 3)])
    return text.getvalue()


def _harmless(text: str) -> str:
    """Return *text* as no spreadsheet takes it for a formula (OWASP, CSV injection)."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _line(view: View, by: Grouping, used: Used) -> Line:
    account = view.accounts.get(AccountId(used.account_id))
    return Line(
        group=used.group,
        name=_name(view, by, used.group) or "(not known)",
        account=account.name if account is not None else _readable(used.account_id),
        paid=paid(used.account_id),
        spend=used.spend,
        seconds=used.seconds,
    )


def paid(account_id: str) -> str:
    """Say what the calls of an account are paid with; see ``Line.paid``."""
    if account_id.startswith(REHEARSED):
        return "rehearsed"
    return "subscription" if account_id.startswith(LOGIN) else "money"


def _readable(account_id: str) -> str:
    """Return what people call an account of which nothing is known: of a rehearsal not its path, but its file."""
    if not account_id.startswith(REHEARSED):
        return account_id
    return account_of(Upstream(rehearsal=account_id.removeprefix(REHEARSED))).name


def _name(view: View, by: Grouping, group: str) -> str:
    match by:
        case Grouping.TASK:
            task = view.tasks.get(TaskId(group))
            run = view.runs.get(task.run_id) if task is not None else None
            return f"{run.spec.name}/{task.name}" if task is not None and run is not None else group
        case Grouping.RUN:
            run = view.runs.get(RunId(group))
            return run.spec.name if run is not None else group
        case _:
            return group
