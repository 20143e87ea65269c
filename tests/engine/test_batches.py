"""Several changes that wait for one target: gated together, landed as one, and the bad one found."""

from dataclasses import replace
from datetime import timedelta

from kapelle.core.attempt import Outcome
from kapelle.core.batch_events import BatchBroke, BatchTried, CheckFlaked
from kapelle.core.errors import GitFailed
from kapelle.core.events import ChangeMerged, TargetDelivered
from kapelle.core.gate import Check, Gate
from kapelle.core.merge import ChangeState, MergeRules
from kapelle.core.requests import Cancel
from kapelle.core.run import Limits, RunSpec
from kapelle.core.task import Priority, TaskState
from kapelle.testing.factories import run_spec, task
from kapelle.testing.git import Files
from kapelle.testing.hosts import Script, ScriptedProcess, writes
from kapelle.testing.worlds import Leader, SmallWorld


def several(count: int, **changes: object) -> RunSpec:
    """Return a run of tasks that each write a file of their own."""
    return run_spec(*[task(f"t{number}", max_attempts=1) for number in range(count)], **changes)


def own_file(process: ScriptedProcess, _: str = "") -> None:
    writes({f"{process.task}.py": "1"})(process, "")


BLOCKER = run_spec(task("blocker"))
"""What is being merged while everything else comes to wait."""


async def all_waiting(here: SmallWorld, *specs: RunSpec, otherwise: Script = own_file) -> Leader:
    """Let every task of *specs* reach the merge queue while something else is being merged."""
    here.set(slots=16)
    here.host.otherwise = otherwise
    here.points.hold("merge")
    leader = await here.lead()
    for spec in (BLOCKER, *specs):
        await here.submit(spec)
        await leader.run()
    return leader


def merged_gates(here: SmallWorld) -> int:
    """Return how often the gate ran in the place where merged trees are gated."""
    own = {process.launch.cwd for process in here.host.processes}
    return sum(ran.path not in own for ran in here.host.ran)


async def test_what_waits_together_is_gated_once_and_lands_as_one_commit(here: SmallWorld) -> None:
    before = here.target
    leader = await all_waiting(here, several(5))
    here.points.release("merge")
    await leader.run()
    first, second = [event.commit for event in await here.events(TargetDelivered)]
    # The first was alone, and its tree was gated in its workspace; the five that waited meanwhile are one batch.
    assert merged_gates(here) == 1
    assert here.repository.commits[first].parents[0] == before
    batch = here.repository.commits[second]
    assert batch.parents[0] == first
    assert len(batch.parents) == 6
    assert {found.commit for name, found in (await here.tasks()).items() if name != "blocker"} == {second}
    assert set(here.repository.files("main")) == {"README.md", "blocker.py", *(f"t{number}.py" for number in range(5))}


async def test_a_batch_says_whose_work_it_brings(here: SmallWorld) -> None:
    leader = await all_waiting(here, run_spec(task("api"), task("ui", priority=Priority.LOW)))
    here.points.release("merge")
    await leader.run()
    message = here.repository.commits[here.target].message
    assert message.startswith("Merge api and ui into main\n\nKapelle-Run: ")
    ids = {(await here.task(name)).task_id for name in ("api", "ui")}
    assert {line.removeprefix("Kapelle-Task: ") for line in message.splitlines() if line.startswith("Kapelle-Task")} == ids


async def test_every_change_of_a_batch_has_the_proof_of_its_tree(here: SmallWorld) -> None:
    leader = await all_waiting(here, several(3))
    here.points.release("merge")
    await leader.run()
    tree = here.repository.commits[here.target].tree
    changes = [(await here.changes(name))[-1] for name in ("t1", "t2")]
    assert {change.merged_as for change in changes} == {here.target}
    (key,) = {change.proof for change in changes}
    receipt = await here.store.read(lambda view: view.changes.receipt(key or ""))
    assert receipt is not None
    assert (receipt.tree, receipt.commit) == (tree, here.target)
    assert {"t1.py", "t2.py"} <= set(receipt.changed)
    own = [await here.store.read(lambda view, k=change.receipt: view.changes.receipt(k or "")) for change in changes]
    assert [entry.changed for entry in own if entry is not None] == [("t1.py",), ("t2.py",)]


async def test_one_bad_change_is_found_and_the_others_land(here: SmallWorld) -> None:
    here.host.commands["make test"] = breaks_with("t3.py", "base.py")
    here.host.plays("t3", writes({"t3.py": "1"}), writes({"t3.py": "mended"}))
    here.repository.push({"base.py": "1"})
    leader = await all_waiting(here, several(8))
    # It passes in its own workspace and not on what a person pushed meanwhile.
    here.points.release("merge")
    await leader.run()
    assert (await here.task("t3")).state is TaskState.COMPLETED
    assert here.repository.files("main")["t3.py"] == "mended"
    assert [attempt.merge_returns for attempt in await here.attempts("t3")] == [1]
    for name in ("t0", "t1", "t2", "t4", "t5", "t6", "t7"):
        assert [attempt.merge_returns for attempt in await here.attempts(name)] == [0]
    assert await here.events(BatchBroke)
    for event in await here.events(TargetDelivered):
        assert here.host.commands["make test"](here.repository.files(event.commit)) is None


def breaks_with(file: str, other: str) -> object:
    """A check that is red where both files are, in their first versions, together with a third."""

    def check(files: Files) -> str | None:
        return f"{file} breaks {other}" if files.get(file) == "1" and "blocker.py" in files and other in files else None

    return check


async def test_the_bad_one_is_told_what_it_collided_with(here: SmallWorld) -> None:
    def check(files: Files) -> str | None:
        return "two of them" if files.get("a.py") == "1" and files.get("b.py") == "1" else None

    here.host.commands["make test"] = check
    here.host.plays("a", writes({"a.py": "1"}))
    here.host.plays("b", writes({"b.py": "1"}), writes({"b.py": "2"}))
    leader = await all_waiting(here, run_spec(task("a", priority=Priority.HIGH)), run_spec(task("b")))
    here.points.release("merge")
    await leader.run()
    text = here.process("b").prompts[-1].text
    assert "check/test fails on the merged tree" in text
    assert "two of them" in text
    assert "a was asked:\n> do a\n" in text
    assert "a.py" in text


async def test_a_conflict_tells_of_both_sides(here: SmallWorld) -> None:
    for name in ("a", "b"):
        here.host.plays(name, writes({"shared.py": f"of {name}"}), writes({"shared.py": "of both"}))
    here.host.plays("c", writes({"other.py": "of c"}))
    leader = await all_waiting(here, run_spec(task("a"), task("c"), task("b")))
    here.points.release("merge")
    await leader.run()
    # They wait since the same moment: which of the two goes first is nobody's business.
    first, second = sorted(("a", "b"), key=lambda name: len(here.host.of_task(name)))
    text = here.process(second).prompts[-1].text
    assert f"{first} was asked:\n> do {first}\n" in text
    assert "do c" not in text
    assert "+of a" in text
    assert "+of b" in text
    assert here.repository.files("main")["shared.py"] == "of both"
    (returned, _) = await here.changes(second)
    assert returned.note == f"it conflicts with main in shared.py (changed by {first})"


async def test_two_of_a_batch_that_conflict_do_not_land_together(here: SmallWorld) -> None:
    here.host.plays("a", writes({"shared.py": "of a"}))
    here.host.plays("b", writes({"shared.py": "of b"}), writes({"shared.py": "of both"}))
    leader = await all_waiting(here, run_spec(task("a"), task("b"), task("c")))
    here.points.release("merge")
    await leader.run()
    assert here.repository.files("main")["shared.py"] == "of both"
    assert [attempt.merge_returns for attempt in await here.attempts("b")] == [1]
    assert {found.state for found in (await here.tasks()).values()} == {TaskState.COMPLETED}


async def test_a_check_that_fails_by_chance_is_reported_as_flaky_and_sends_nobody_back(here: SmallWorld) -> None:
    failures = [True]

    def check(files: Files) -> str | None:
        return "by chance" if {"t1.py", "blocker.py"} <= files.keys() and failures and failures.pop() else None

    here.host.commands["make test"] = check
    leader = await all_waiting(here, run_spec(task("t1", max_attempts=1)))
    here.points.release("merge")
    await leader.run()
    assert [attempt.merge_returns for attempt in await here.attempts("t1")] == [0]
    (flaked,) = await here.events(CheckFlaked, "t1")
    assert flaked.before == "the check check/test fails on the merged tree"
    assert flaked.tree == here.repository.commits[here.target].tree
    assert [event.again for event in await here.events(BatchTried)] == [False, False, True]


async def test_batches_of_one_are_tried_one_after_the_other(here: SmallWorld) -> None:
    leader = await all_waiting(here, several(3, merge=MergeRules(batch=1)))
    here.points.release("merge")
    await leader.run()
    assert {len(event.changes) for event in await here.events(BatchTried)} == {1}
    assert len(await here.events(TargetDelivered)) == 4


async def test_a_batch_waits_for_more_when_it_is_told_to(here: SmallWorld) -> None:
    here.host.otherwise = lambda process, _: writes({f"{process.task}.py": "1"})(process, "")
    await here.submit(several(1, merge=MergeRules(wait=timedelta(seconds=30))))
    leader = await here.lead()
    later = await leader.run()
    assert later == here.clock.now() + timedelta(seconds=30)
    assert (await here.task("t0")).state is TaskState.MERGING
    here.clock.move(timedelta(seconds=30))
    await leader.run()
    assert (await here.task("t0")).state is TaskState.COMPLETED


async def test_runs_with_the_same_gate_share_a_batch_and_others_do_not(here: SmallWorld) -> None:
    other = Gate(name="check", checks=(Check(name="lint", run="true"),))
    specs = [run_spec(task("a")), run_spec(task("b")), run_spec(task("c", priority=Priority.LOW), gates=(other,))]
    leader = await all_waiting(here, *specs)
    here.points.release("merge")
    await leader.run()
    commits = {name: found.commit for name, found in (await here.tasks()).items()}
    assert commits["a"] == commits["b"] != commits["c"]


async def test_a_change_that_is_cancelled_while_its_batch_is_gated_does_not_land(here: SmallWorld) -> None:
    leader = await all_waiting(here, run_spec(task("a"), task("b")))
    here.points.release("merge")
    here.points.hold("put:done")
    await leader.run()
    assert len(await here.events(ChangeMerged)) == 1
    run_id = (await here.task("a")).run_id
    await here.ask(Cancel(run_id=run_id, task_id=await here.task_id("b")))
    await leader.run()
    here.points.release("put:done")
    await leader.run_out()
    assert (await here.task("a")).state is TaskState.COMPLETED
    assert "b.py" not in here.repository.files("main")


async def test_git_that_fails_for_one_of_a_batch_is_the_fault_of_that_one(here: SmallWorld) -> None:
    leader = await all_waiting(here, several(4))
    (change,) = await here.changes("t2")
    await here.store.transact(lambda tx: tx.changes.put(replace(change, head="gone")), term=leader.term)
    here.points.release("merge")
    await leader.run_out()
    states = {name: found.state for name, found in (await here.tasks()).items()}
    assert {name: state for name, state in states.items() if name != "t2"} == dict.fromkeys(
        ("blocker", "t0", "t1", "t3"), TaskState.COMPLETED
    )
    assert states["t2"] is TaskState.FAILED


async def test_a_leader_that_dies_in_a_bisection_leaves_it_to_the_next(here: SmallWorld) -> None:
    here.host.commands["make test"] = breaks_with("t3.py", "base.py")
    here.host.plays("t3", writes({"t3.py": "1"}), writes({"t3.py": "mended"}))
    here.repository.push({"base.py": "1"})
    leader = await all_waiting(here, several(8))
    here.points.release("merge")
    while not await here.events(BatchBroke):
        await leader.round()
    await leader.die()
    successor = await here.lead()
    await successor.run_out()
    assert {found.state for found in (await here.tasks()).values()} == {TaskState.COMPLETED}
    assert {len(await here.attempts(f"t{number}")) for number in range(8)} == {1}


async def test_a_bad_one_that_is_never_mended_fails_alone(here: SmallWorld) -> None:
    here.host.commands["make test"] = breaks_with("t3.py", "base.py")
    here.repository.push({"base.py": "1"})
    leader = await all_waiting(here, several(6, limits=Limits(merge_returns=1)))
    here.points.release("merge")
    await leader.run_out()
    assert [attempt.outcome for attempt in await here.attempts("t3")] == [Outcome.GATE_FAILED]
    done = {name for name, found in (await here.tasks()).items() if found.state is TaskState.COMPLETED}
    assert done == {"blocker", "t0", "t1", "t2", "t4", "t5"}
    assert (await here.changes("t3"))[-1].state is ChangeState.RETURNED


async def test_a_git_that_fails_once_for_a_batch_harms_nobody(here: SmallWorld) -> None:
    leader = await all_waiting(here, several(4))
    here.points.release("merge")
    await leader.step("merge")
    here.points.fail("merge", GitFailed("git ended with 128"))
    await leader.run()
    assert {found.state for found in (await here.tasks()).values()} == {TaskState.COMPLETED}
    assert {len(await here.attempts(f"t{number}")) for number in range(4)} == {1}
