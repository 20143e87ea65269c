"""Which changes are tried together, and how bisection finds the one that is to blame."""

from collections.abc import Collection, Hashable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import ceil, log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.ids import AttemptId, ChangeId, RunId, TaskId
from kapelle.core.merge import PROTECTED, Batch, Change, ChangeState, MergeRules, NotBefore, next_batch, protected

quick = settings(max_examples=200, deadline=None)
T0 = datetime(2026, 1, 1, tzinfo=UTC)
RULES = MergeRules(batch=16)


def change(number: int) -> Change:
    return Change(
        change_id=ChangeId(f"c-{number:03}"),
        run_id=RunId("r"),
        task_id=TaskId(f"t-{number}"),
        attempt_id=AttemptId(f"a-{number}"),
        repository="/repo",
        target="main",
        base="b",
        head="h",
        tree="t",
        rank=float(number),
        ready_at=T0,
    )


def queue(count: int) -> list[Change]:
    return [change(number) for number in range(count)]


def alike(changes: Collection[Change]) -> dict[ChangeId, Hashable]:
    return {entry.change_id: "same" for entry in changes}


class Target:
    """A target whose gate is red whenever a bad change is among those it holds."""

    def __init__(self, changes: list[Change], bad: Collection[int], *, lies: int = 0) -> None:
        self.waiting = changes
        self.bad = {ChangeId(f"c-{number:03}") for number in bad}
        self.landed: list[ChangeId] = []
        self.named: list[ChangeId] = []
        self.gates = 0
        self.lies = lies
        """How often the gate fails although nothing is wrong."""

    def run(self, rules: MergeRules = RULES) -> None:
        while self.waiting:
            batch = next_batch(self.waiting, alike(self.waiting), rules, T0)
            assert isinstance(batch, Batch)
            assert len(batch.changes) <= rules.batch
            self._try(batch)

    def _try(self, batch: Batch) -> None:
        self.gates += 1
        ids = {entry.change_id for entry in batch.changes}
        red = bool(ids & self.bad) or self.lies > 0
        self.lies -= 1
        if not red:
            self.landed += [entry.change_id for entry in batch.changes]
            self.waiting = [entry for entry in self.waiting if entry.change_id not in ids]
        elif batch.again:
            self.named += ids
            self.waiting = [entry for entry in self.waiting if entry.change_id not in ids]
        else:
            self.waiting = [replace(entry, red="tree" if entry.change_id in ids else "") for entry in self.waiting]


def test_what_waits_together_is_tried_together() -> None:
    target = Target(queue(16), ())
    target.run()
    assert target.gates == 1
    assert len(target.landed) == 16


def test_a_batch_is_never_larger_than_the_rules_say() -> None:
    batch = next_batch(queue(5), alike(queue(5)), MergeRules(batch=3), T0)
    assert batch == Batch(changes=tuple(queue(3)))


@pytest.mark.parametrize("bad", range(16))
def test_one_bad_change_among_sixteen_costs_few_gates_and_is_named(bad: int) -> None:
    target = Target(queue(16), [bad])
    target.run()
    assert target.named == [f"c-{bad:03}"]
    assert len(target.landed) == 15
    assert target.gates <= 8


@quick
@given(count=st.integers(1, 40), bad=st.sets(st.integers(0, 39), max_size=6), size=st.integers(1, 20))
def test_all_good_changes_land_and_all_bad_ones_are_named(count: int, bad: set[int], size: int) -> None:
    target = Target(queue(count), bad)
    target.run(MergeRules(batch=size))
    wrong = sorted(f"c-{number:03}" for number in bad if number < count)
    assert sorted(target.named) == wrong
    assert sorted(target.landed) == sorted(entry.change_id for entry in queue(count) if entry.change_id not in wrong)


@quick
@given(count=st.integers(1, 40), bad=st.sets(st.integers(0, 39), max_size=6), size=st.integers(1, 20))
def test_the_order_of_the_queue_is_kept_by_all_that_land(count: int, bad: set[int], size: int) -> None:
    target = Target(queue(count), bad)
    target.run(MergeRules(batch=size))
    assert target.landed == sorted(target.landed)


@quick
@given(count=st.integers(1, 40), bad=st.sets(st.integers(0, 39), max_size=4), size=st.integers(1, 20))
def test_each_bad_change_costs_at_most_a_logarithm_of_gates(count: int, bad: set[int], size: int) -> None:
    target = Target(queue(count), bad)
    target.run(MergeRules(batch=size))
    each = ceil(log2(min(size, count))) + 3
    assert target.gates <= ceil(count / size) + len(target.named) * each


@quick
@given(count=st.integers(1, 40), lies=st.integers(0, 1), size=st.integers(1, 20))
def test_a_gate_that_fails_once_by_chance_names_nobody(count: int, lies: int, size: int) -> None:
    target = Target(queue(count), (), lies=lies)
    target.run(MergeRules(batch=size))
    assert target.named == []
    assert len(target.landed) == count


def test_changes_with_another_gate_are_another_batch() -> None:
    changes = queue(4)
    kin: dict[ChangeId, Hashable] = {entry.change_id: "ab"[number // 2] for number, entry in enumerate(changes)}
    assert next_batch(changes, kin, RULES, T0) == Batch(changes=tuple(changes[:2]))


def test_a_batch_never_skips_a_change() -> None:
    changes = queue(3)
    kin: dict[ChangeId, Hashable] = dict(zip([entry.change_id for entry in changes], "aba", strict=True))
    assert next_batch(changes, kin, RULES, T0) == Batch(changes=(changes[0],))


def test_a_batch_that_is_not_full_waits_for_more_if_it_is_told_to() -> None:
    rules = MergeRules(batch=3, wait=timedelta(seconds=10))
    assert next_batch(queue(2), alike(queue(2)), rules, T0) == NotBefore(moment=T0 + timedelta(seconds=10))
    assert next_batch(queue(2), alike(queue(2)), rules, T0 + timedelta(seconds=10)) == Batch(changes=tuple(queue(2)))
    assert next_batch(queue(3), alike(queue(3)), rules, T0) == Batch(changes=tuple(queue(3)))


def test_suspects_do_not_wait() -> None:
    rules = MergeRules(wait=timedelta(hours=1))
    suspects = [replace(entry, red="tree") for entry in queue(2)]
    assert next_batch(suspects, alike(suspects), rules, T0) == Batch(changes=(suspects[0],))


def test_suspects_go_before_what_came_meanwhile() -> None:
    changes = [*queue(2), *(replace(change(number), red="tree") for number in (5, 6, 7))]
    batch = next_batch(changes, alike(changes), RULES, T0)
    assert isinstance(batch, Batch)
    assert [entry.change_id for entry in batch.changes] == ["c-005", "c-006"]


def test_a_change_that_waits_for_a_person_holds_up_nobody() -> None:
    held = replace(change(0), protected=(".github/workflows/ci.yml",))
    assert next_batch([held], alike([held]), RULES, T0) is None
    assert next_batch([held, change(1)], alike([held, change(1)]), RULES, T0) == Batch(changes=(change(1),))
    through = replace(held, approved_by="you")
    assert next_batch([through], alike([through]), RULES, T0) == Batch(changes=(through,))


def test_what_is_not_queued_is_not_tried() -> None:
    gone = [replace(change(0), state=state) for state in ChangeState if state is not ChangeState.QUEUED]
    assert next_batch(gone, alike(gone), RULES, T0) is None


# --- Protected files ---


@pytest.mark.parametrize(
    "name",
    [
        ".kapelle/agents.yml",
        ".kapelle/workflows/deep/file.yml",
        ".github/workflows/ci.yml",
        ".gitlab-ci.yml",
        ".husky/pre-commit",
        "Jenkinsfile",
        "deep/below/Jenkinsfile",
        ".GitHub/Workflows/CI.yml",
        "sub/.mcp.json",
        ".claude/settings.local.json",
    ],
)
def test_what_runs_with_other_rights_is_protected(name: str) -> None:
    assert protected([name, "src/app.py"], PROTECTED) == (name,)


@pytest.mark.parametrize("name", [".github", ".kapelle", ".claude"])
def test_what_stands_in_place_of_a_directory_that_leads_there_is_protected(name: str) -> None:
    assert protected([name], PROTECTED) == (name,)


@pytest.mark.parametrize(
    "name", ["README.md", ".github/ISSUE_TEMPLATE/bug.md", "src/kapelle/app.py", "github/workflows/x", ".git"]
)
def test_other_files_are_not(name: str) -> None:
    assert protected([name], PROTECTED) == ()


def test_nothing_is_protected_where_a_project_says_so() -> None:
    assert protected([".kapelle/agents.yml"], ()) == ()
