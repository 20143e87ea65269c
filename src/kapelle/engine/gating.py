"""Running a gate on a directory: shared by validate (the agent's workspace) and merge (the merged tree)."""

from kapelle.core.events import CheckEnded
from kapelle.core.frozen import frozen
from kapelle.core.gate import Check, CheckResult, CheckState, Gate, Verdict, judge, receipt_key
from kapelle.core.ids import RunId, TaskId
from kapelle.core.isolation import Isolation
from kapelle.core.ports import Launch
from kapelle.core.run import Run
from kapelle.core.store import Tx, WorkspaceRow
from kapelle.core.task import Task
from kapelle.engine.boxing import run_boxed
from kapelle.engine.deploy import command_box, environment
from kapelle.engine.world import World


@frozen
class Gating:
    """What a gate said about a tree."""

    gate: Gate
    tree: str
    key: str
    verdict: Verdict
    reused: bool = False
    """A receipt for this very tree, gate and environment was there already; nothing was run."""


def key_of(world: World, run: Run, gate: Gate, tree: str, task: Task | None) -> str:
    """Return the key of the receipt for *gate* on *tree* here; *task* is None where it is for several."""
    rules = run.spec.workspace
    # What a check found with more of the machine in sight proves nothing about what it finds with less.
    box = "" if rules.sandbox == "process" else f"\n{rules.sandbox}"
    if rules.isolation != Isolation():
        box += f"\n{rules.isolation}"
    if task is not None:
        # Checks are told whose work it is: what a tree proves of one task, it need not prove of another.
        box += f"\ntask {task.name}"
    return receipt_key(tree, gate, f"{world.host.name}\n{rules.setup}\n{rules.copy}{box}")


async def run_gate(
    world: World, run: Run, task: Task | None, gate: Gate, workspace: WorkspaceRow, *, label: str, hide: str = ""
) -> Verdict:
    """Run the checks of *gate* in *workspace*, in order, until a required one fails; *label* names the logs.

    *hide* is a directory of values that may be in the workspace, and must not be in a log.
    """
    results: list[CheckResult] = []
    for check in gate.checks:
        result = await _run_check(world, run, task, check, workspace, label=label, hide=hide)
        results.append(result)
        if result.required and result.state is not CheckState.PASSED:
            break
    return judge(gate, results)


async def _run_check(
    world: World, run: Run, task: Task | None, check: Check, workspace: WorkspaceRow, *, label: str, hide: str
) -> CheckResult:
    folder = world.folders.checks(workspace.workspace_id)
    launch = Launch(
        argv=("sh", "-c", check.run),
        cwd=workspace.path,
        env=(*environment(world, run, task, workspace), *_no_stale_bytecode(folder)),
        limit=check.timeout,
    )
    output = world.folders.log(run.run_id, task.task_id if task else "gate", f"{label}-{check.name}")
    box = command_box(run, task, workspace, f"{workspace.workspace_id}-check", folder)
    result, limit = await run_boxed(world, box, launch, output, hide=hide)
    state = CheckState.PASSED if result.exit_code == 0 else CheckState.FAILED
    return CheckResult(
        name=check.name,
        run=check.run,
        state=CheckState.TIMED_OUT if result.timed_out else state,
        required=check.required,
        exit_code=result.exit_code,
        seconds=result.seconds,
        log_hash=result.output_hash,
        log_path=result.output_path,
        tail=result.tail,
        limit="" if limit is None else limit.reason,
    )


def _no_stale_bytecode(folder: str) -> tuple[tuple[str, str], ...]:
    """Keep Python from compiled files of another version of the work.

    It takes them for those of a source of the same size and the same second, and an agent may well mend a file within one.
    """
    return (("PYTHONPYCACHEPREFIX", f"{folder}/home/.pycache"), ("PYTHONDONTWRITEBYTECODE", "1"))


def log_checks(tx: Tx, run_id: RunId, task_id: TaskId | None, gating: Gating, where: str) -> None:
    """Log how each check ended; *task_id* is None when several tasks were gated together."""
    for check in gating.verdict.checks:
        if check.state is CheckState.NOT_RUN:
            continue
        tx.log(
            CheckEnded(
                run_id=run_id,
                task_id=task_id,
                gate=gating.gate.name,
                check=check.name,
                state=check.state,
                exit_code=check.exit_code,
                seconds=check.seconds,
                tail=check.tail[-4000:] if check.state is not CheckState.PASSED else "",
                where=where,
                limit=check.limit,
            )
        )
