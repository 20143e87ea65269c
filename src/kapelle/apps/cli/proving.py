"""`queue`, `receipt` and `verify`: the merge queue and its proofs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from kapelle.apps import compose
from kapelle.apps.cli.common import Folder, Json, go, valid_configuration
from kapelle.apps.cli.lines import print_json, say
from kapelle.apps.cli.output import out, print_held_up
from kapelle.apps.cli.tables import Column, print_table
from kapelle.apps.proving import (
    Proof,
    ProofState,
    Queued,
    TargetQueue,
    Verified,
    proof_json,
    proof_of,
    queue_json,
    queues,
    verify,
)
from kapelle.apps.reviewing import review_of
from kapelle.core.errors import UsageError
from kapelle.core.gate import CheckState, Receipt
from kapelle.core.plain_text import shown, shown_files

NOT_AS_IT_WAS = 1
STYLES = {"tried now": "magenta", "suspect": "yellow", "waits for approval": "yellow", "merged": "green"}


QUEUE = (
    Column(name="TASK", folds=True),
    Column(name="#", right=True),
    Column(name="STANDING", folds=True),
    Column(name="PRIORITY"),
    Column(name="BATCH"),
    Column(name="RECEIPT"),
    Column(name="COMMIT"),
)


def queue(*, repository: Folder = None, json: Json = False) -> None:
    """Show the merge queue of every target: order, batches, receipts."""
    go(_queue(repository, as_json=json))


def receipt(
    task: Annotated[str, typer.Argument(metavar="TASK", help="An id, or enough of its beginning, or a name.")],
    *,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Print the proof that a task is done: trees, commands, exit codes, hashes of their logs, files."""
    go(_receipt(repository, task, as_json=json))


def verify_commit(
    commit: Annotated[str, typer.Argument(metavar="COMMIT", help="A commit of the merge queue, or a branch.")],
    *,
    run: Annotated[bool, typer.Option("--run/--no-run", help="Run its gates once more, in a fresh workspace.")] = True,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Check the proof of a commit again: its tree, logs, work and gates. Exit code 1 when something is not so or not proven.

    Where no gate ran for it (`gate: none`) nothing is proven. Of a commit that the merge
    queue did not make, with the tree of one that it made, only the tree is proven: that is said, with exit code 0.
    """
    if not go(_verify(repository, commit, run_gates=run, as_json=json)):
        raise typer.Exit(NOT_AS_IT_WAS)


async def _queue(folder: Path | None, *, as_json: bool) -> None:
    async with compose.open_reader(valid_configuration(folder)) as reader:
        found = await reader.store.read(queues)
    if as_json:
        print_json([queue_json(entry) for entry in found])
        return
    if not found:
        say("Nothing is in a merge queue.")
    for entry in found:
        _print_queue(entry)


def _print_queue(entry: TargetQueue) -> None:
    console = out()
    console.print(Text.assemble((entry.target, "bold"), f"  {entry.repository}"))
    waiting = [_row(queued, str(position)) for position, queued in enumerate(entry.queued, 1)]
    print_table(console, QUEUE, [*waiting, *(_row(merged, "") for merged in entry.merged)])
    for queued in entry.queued:
        review = review_of(queued.change, queued.task.name)
        if review is not None:
            console.print(Text(review.text, style="yellow"), soft_wrap=True)
        elif queued.change.red:
            console.print(Text(f"{queued.task.name} is a suspect: {shown(queued.change.note)}", style="yellow"))
    for held in entry.held:
        print_held_up(console, held)


def _row(entry: Queued, place: str) -> tuple[str | Text, ...]:
    change = entry.change
    return (
        entry.task.name,
        place,
        Text(entry.standing, style=STYLES.get(entry.standing, "")),
        entry.task.spec.priority.value,
        change.batch_id or "",
        entry.receipt.key[:10] if entry.receipt is not None else "",
        (change.merged_as or change.head)[:10],
    )


async def _receipt(folder: Path | None, which: str, *, as_json: bool) -> None:
    async with compose.open_desk(valid_configuration(folder), make=False) as desk:
        found = await desk.find(which)
        task = found.task
        if task is None:
            raise UsageError(f"{which} is a run, not a task", remedy="`kapelle show RUN` lists its tasks.")
        proof = await desk.world.store.read(lambda view: proof_of(view, found.run, task))
    if as_json:
        print_json(proof_json(proof))
        return
    _print_proof(proof)


def _print_proof(proof: Proof) -> None:
    console, change, attempt = out(), proof.change, proof.attempt
    console.print(Text.assemble((proof.task.name, "bold"), f"  {proof.task.task_id}  {proof.task.state.value}"))
    if attempt is not None:
        console.print(f"attempt {attempt.number} by {attempt.config} · {attempt.tool_calls} tool calls")
    if proof.task.spec.writes:
        console.print(f"declared: {shown_files(proof.task.spec.writes)}")
    if proof.own is not None:
        console.print(f"changed:  {shown_files(proof.own.changed)}")
    if change is not None and change.protected:
        console.print(f"protected files among them were let through by {shown(change.approved_by or 'nobody yet')}")
    if proof.own is not None:
        console.print(f"its work {change.head[:10] if change is not None else ''}")
        _print_receipt(proof.own)
    if change is not None and change.merged_as is not None:
        company = f", together with {', '.join(proof.others)}" if proof.others else ""
        console.print(f"merged into {change.target} as {change.merged_as}{company}")
    if proof.merged is not None:
        same = proof.own is not None and proof.own.key == proof.merged.key
        if same:
            console.print("  the merged tree is the one above: its receipt holds")
        else:
            _print_receipt(proof.merged)


def _print_receipt(receipt: Receipt) -> None:
    console = out()
    console.print(f"  gate {receipt.gate} on tree {receipt.tree} · receipt {receipt.key[:16]}")
    for check in receipt.checks:
        if check.state is CheckState.NOT_RUN:
            continue
        style = "green" if check.state is CheckState.PASSED else "red"
        code = f"exit code {check.exit_code}" if check.exit_code is not None else "no exit code"
        console.print(Text.assemble("  ", (check.state.value, style), f"  {check.name}: {shown(check.run)}"))
        console.print(f"          {code} · {check.seconds:.1f}s · log {check.log_hash[:16]} {check.log_path}".rstrip())


async def _verify(folder: Path | None, name: str, *, run_gates: bool, as_json: bool) -> bool:
    found = valid_configuration(folder)
    async with compose.open_desk(found, make=False) as desk:
        facts = await desk.world.repositories.inspect(str(found.root))
        looked = await verify(desk, facts.root, name, run_gates=run_gates)
    if as_json:
        listed = [{"holds": point.holds, "what": point.what} for point in looked.points]
        print_json({"commit": looked.commit, "holds": looked.holds, "verdict": looked.verdict.value, "points": listed})
        return looked.holds
    console = out()
    for point in looked.points:
        mark, style = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("?", "yellow")}[point.holds]
        console.print(Text.assemble((mark, style), f" {point.what}"))
    console.print(_verdict_text(looked))
    return looked.holds


def _verdict_text(looked: Verified) -> Text:
    commit = looked.commit[:10]
    match looked.verdict:
        case ProofState.HOLDS:
            return Text.assemble(f"The proof of {commit} ", ("holds", "bold green"), ".")
        case ProofState.BROKEN:
            return Text.assemble(f"The proof of {commit} ", ("does not hold", "bold red"), ".")
        case ProofState.NO_GATE:
            return Text.assemble(f"No gate ran for {commit}: ", ("nothing is proven", "bold red"), ".")
        case ProofState.TREE_ONLY:
            made = ("the merge queue did not make this commit", "bold yellow")
            return Text.assemble(f"The tree of {commit} is proven, but ", made, ".")
