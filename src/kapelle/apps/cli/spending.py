"""`usage`: what was spent, by whom and on what."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from kapelle.apps import compose
from kapelle.apps.cli.common import Folder, Json, go, valid_configuration
from kapelle.apps.cli.lines import count_tokens, money, print_json
from kapelle.apps.cli.output import out
from kapelle.apps.cli.tables import Column, print_table
from kapelle.apps.cli.times import moment
from kapelle.apps.usage import Line, as_csv, line_json, total, unpaid
from kapelle.apps.usage import usage as found_usage
from kapelle.apps.views import spend_json
from kapelle.core.budget import Grouping
from kapelle.core.durations import format_duration
from kapelle.core.errors import UsageError

Times = tuple[str | None, str | None]
WITH_IDS = {Grouping.TASK, Grouping.RUN}


def usage(
    which: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Default: all runs.")] = None,
    *,
    by: Annotated[Grouping, typer.Option("--by", help="What is told apart.")] = Grouping.RUN,
    since: Annotated[
        str | None, typer.Option("--since", metavar="WHEN", help="Only what was called since: 7d, 2026-03-01.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Only calls before.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """What was spent: tokens, money and model calls, by task, run, agent, model, day (UTC), project or account.

    Where a subscription pays, money is what the calls would cost.
    """
    if as_csv and json:
        raise UsageError("give either --csv or --json", remedy="Leave one of them out.")
    go(_usage(repository, which, by, (since, until), as_json=json, separated=as_csv))


async def _usage(
    folder: Path | None,
    which: str | None,
    by: Grouping,
    times: tuple[str | None, str | None],
    *,
    as_json: bool,
    separated: bool,
) -> None:
    found = valid_configuration(folder)
    async with compose.open_reader(found) as reader:
        since, until = (moment(text, reader.clock.now()) for text in times)
        run_id = (await reader.find_run(which)).run.run_id if which is not None else None
        lines = await reader.store.read(lambda view: found_usage(view, by, since=since, until=until, run_id=run_id))
    if separated:
        sys.stdout.write(as_csv(lines))
    elif as_json:
        print_json({"by": by.value, "total": spend_json(total(lines)), "lines": [line_json(line) for line in lines]})
    else:
        _print(lines, by)


def _print(lines: list[Line], by: Grouping) -> None:
    console = out()
    if not lines:
        console.print("Nothing was spent.")
        return
    accounts = len({line.account for line in lines}) > 1 and by is not Grouping.ACCOUNT
    heads = [Column(name=by.value.upper(), folds=True), *([Column(name="ID")] if by in WITH_IDS else [])]
    heads += [Column(name="ACCOUNT", folds=True)] if accounts else []
    heads += [Column(name=name, right=True) for name in ("CALLS", "INPUT", "OUTPUT", "CACHED", "TO CACHE", "COST")]
    rows = [_row(line, by, accounts=accounts) for line in lines]
    print_table(console, heads, rows)
    spent = total(lines)
    tokens = f"{count_tokens(spent.usage.total - spent.usage.cache_read_tokens)} tokens"
    cached = f"{count_tokens(spent.usage.cache_read_tokens)} cached"
    took = format_duration(timedelta(seconds=sum(line.seconds for line in lines)))
    console.print(
        Text(f"{spent.calls} calls · {tokens} · {cached} · {money(spent.cost_usd)} · {took} of model time", style="bold")
    )
    if told := unpaid(lines):
        console.print(Text(told, style="dim"))


def _row(line: Line, by: Grouping, *, accounts: bool) -> list[str]:
    name = line.account if by is Grouping.ACCOUNT and line.account else line.name
    named = [name, *([line.group] if by in WITH_IDS else []), *([line.account] if accounts else [])]
    used = line.spend.usage
    counted = (used.input_tokens, used.output_tokens, used.cache_read_tokens, used.cache_write_tokens)
    return [*named, str(line.spend.calls), *(count_tokens(number) for number in counted), money(line.spend.cost_usd)]
