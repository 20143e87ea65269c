from datetime import timedelta

from kapelle.core.attempt import Outcome
from kapelle.core.errors import GitFailed
from kapelle.core.events import ChangeConflicted, ChangeMerged, ChangeReturned, GateFailed, GatePassed, TargetDelivered
from kapelle.core.merge import ChangeState
from kapelle.core.run import Limits, WorkspaceRules
from kapelle.core.task import Priority, TaskState
from kapelle.testing.factories import run_spec, task
from kapelle.testing.git import Files
from kapelle.testing.hosts import Script, ScriptedProcess, crashes, writes
from kapelle.testing.worlds import Leader, SmallWorld


def theirs_first(here: SmallWorld, files: dict[str, str | None], mine: dict[str, str | None]) -> Script:
    """While the agent works, a person pushes *files*; then the agent writes *mine*."""

    def script(process: ScriptedProcess, _: str) -> None:
        here.repository.push(files)
        writes(mine)(process, "")

    return script


def together(files: Files) -> str | None:
    """Find wrong what is right on each side alone: the caller of something that was renamed."""
    return "old_name is gone" if files.get("lib.py") == "new_name" and "old_name" in files.get("app.py", "") else None


async def in_conflict(here: SmallWorld, *more: Script, **changes: object) -> Leader:
    here.host.plays("api", theirs_first(here, {"api.py": "theirs"}, {"api.py": "mine"}), *more)
    await here.submit(run_spec(task("api", max_attempts=1), **changes))
    leader = await here.lead()
    await leader.run_out()
    return leader


# --- Merging ---


async def test_a_change_is_merged_onto_what_the_target_holds_meanwhile(here: SmallWorld) -> None:
    here.host.plays("api", theirs_first(here, {"theirs.py": "1"}, {"mine.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert set(here.repository.files("main")) == {"README.md", "theirs.py", "mine.py"}


async def test_the_merged_tree_is_gated_before_the_target_moves(here: SmallWorld) -> None:
    here.host.plays("api", theirs_first(here, {"theirs.py": "1"}, {"mine.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    merged = here.repository.commits[here.target].tree
    assert merged in {ran.tree for ran in here.host.ran if ran.passed}
    assert [(event.tree, event.where) for event in await here.events(GatePassed)][-1] == (merged, "merged")


async def test_a_merged_tree_that_was_gated_in_the_workspace_is_not_gated_again(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert len(here.host.ran) == 1
    assert [(event.where, event.reused) for event in await here.events(GatePassed)] == [("workspace", False), ("merged", True)]


async def test_the_merge_commit_has_the_target_as_its_first_parent_and_says_whose_it_is(here: SmallWorld) -> None:
    before = here.target
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    (change,) = await here.changes()
    merge = here.repository.commits[here.target]
    assert merge.parents == (before, change.head)
    assert merge.message.startswith("Merge api into main\n\nKapelle-Run: ")
    assert (change.state, change.merged_as) == (ChangeState.MERGED, here.target)
    assert (await here.task()).commit == here.target


async def test_changes_are_merged_one_by_one_by_priority_and_then_as_they_came(here: SmallWorld) -> None:
    here.points.hold("merge")
    here.host.otherwise = lambda process, _: writes({f"{process.task}.py": "1"})(process, "")
    leader = await here.lead()
    for spec in (task("blocker"), task("first"), task("second"), task("urgent", priority=Priority.HIGH)):
        await here.submit(run_spec(spec))
        await leader.run()
        here.clock.move(timedelta(seconds=1))
    assert here.points.passed.count("merge") == 1
    here.points.release("merge")
    await leader.run()
    ids = {found.task_id: name for name, found in (await here.tasks()).items()}
    merged = [ids[event.task_id] for event in await here.events(ChangeMerged) if event.task_id is not None]
    assert merged == ["blocker", "urgent", "first", "second"]
    assert set(here.repository.files("main")) == {"README.md", "blocker.py", "first.py", "second.py", "urgent.py"}


async def test_while_one_change_is_merged_no_other_of_its_target_is(here: SmallWorld) -> None:
    here.points.hold("merge:done")
    here.host.otherwise = lambda process, _: writes({f"{process.task}.py": "1"})(process, "")
    await here.submit(run_spec(task("a"), task("b")))
    leader = await here.lead()
    await leader.run()
    assert here.points.passed.count("merge") == 1


async def test_queues_of_different_targets_do_not_wait_for_each_other(here: SmallWorld) -> None:
    here.repository.push({"README.md": "hello"}, branch="next")
    here.points.hold("merge:done")
    here.host.otherwise = lambda process, _: writes({f"{process.task}.py": "1"})(process, "")
    await here.submit(run_spec(task("a")))
    await here.submit(run_spec(task("b"), target="next"))
    leader = await here.lead()
    await leader.run()
    assert here.points.passed.count("merge") == 2


async def test_a_change_that_is_in_already_is_completed(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    here.points.hold("merge")
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    (change,) = await here.changes()
    here.repository.move("refs/heads/main", change.head)
    await leader.die()
    here.points.heal()
    successor = await here.lead()
    await successor.run()
    assert (await here.task()).state is TaskState.COMPLETED
    assert here.target == change.head


# --- Conflicts ---


async def test_a_conflict_goes_back_to_the_agent(here: SmallWorld) -> None:
    leader = await in_conflict(here)
    returned = await here.task()
    assert (returned.state, returned.round, returned.attempts) == (TaskState.RUNNING, 1, 1)
    text = here.process().prompts[-1].text
    assert text.startswith("Your change is in conflict with what was merged into main while you worked.")
    assert "- api.py" in text
    assert "+theirs" in text
    assert here.process().directory.files["api.py"] == "<<<<<<< ours\nmine\n=======\ntheirs\n>>>>>>> theirs\n"
    assert [event.files for event in await here.events(ChangeConflicted)] == [("api.py",)]
    assert [event.reason for event in await here.events(ChangeReturned)] == ["it conflicts with main in api.py"]
    await leader.run()


async def test_a_conflict_goes_back_in_the_same_conversation_and_workspace(here: SmallWorld) -> None:
    await in_conflict(here)
    first, second = here.host.of_task("api")
    assert second.resumed
    assert (second.conversation_id, second.launch.cwd) == (first.conversation_id, first.launch.cwd)


async def test_a_resolved_conflict_is_merged_with_both_parents(here: SmallWorld) -> None:
    await in_conflict(here, writes({"api.py": "both"}))
    assert (await here.task()).state is TaskState.COMPLETED
    assert here.repository.files("main")["api.py"] == "both"
    heads = {change.state: change.head for change in await here.changes()}
    assert heads.keys() == {ChangeState.RETURNED, ChangeState.MERGED}
    assert len(here.repository.commits[heads[ChangeState.MERGED]].parents) == 2
    assert heads[ChangeState.RETURNED] in here.repository.commits[heads[ChangeState.MERGED]].parents


async def test_markers_that_are_left_in_a_file_go_back_to_the_agent(here: SmallWorld) -> None:
    await in_conflict(here, lambda process, _: process.done("resolved"), writes({"api.py": "both"}))
    assert here.process().prompts[-1].text == "These files still hold conflict markers: api.py. Resolve them."
    assert (await here.task()).state is TaskState.COMPLETED


async def test_returns_are_bounded_and_then_count_as_one_attempt(here: SmallWorld) -> None:
    number = 0

    def stubborn(process: ScriptedProcess, _: str) -> None:
        nonlocal number
        number += 1
        here.repository.push({"api.py": f"theirs {number}"})
        writes({"api.py": f"mine {number}"})(process, "")

    here.host.otherwise = stubborn
    await here.submit(run_spec(task("api", max_attempts=1), limits=Limits(merge_returns=2)))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert failed.failure is not None
    assert (failed.failure.kind, failed.failure.message) == ("conflict", "it conflicts with main in api.py")
    assert number == 3
    assert [attempt.outcome for attempt in await here.attempts()] == [Outcome.CONFLICT]
    assert len(here.kept) == 1


async def test_a_conflict_ends_the_attempt_of_a_program_without_a_conversation(here: SmallWorld) -> None:
    def script(process: ScriptedProcess, _: str) -> None:
        here.repository.push({"api.py": "theirs"})
        process.write("api.py", "mine")
        process.exit(0)

    here.host.plays("api", script)
    await here.submit(run_spec(task("api", agent="once", max_attempts=1)))
    leader = await here.lead()
    await leader.run_out()
    assert [attempt.outcome for attempt in await here.attempts()] == [Outcome.CONFLICT]


async def test_an_agent_that_crashes_while_it_resolves_a_conflict_goes_on_with_it(here: SmallWorld) -> None:
    await in_conflict(here, crashes(), writes({"api.py": "both"}))
    assert here.repository.files("main")["api.py"] == "both"


# --- Clean merges that break ---


async def test_a_clean_merge_that_breaks_goes_back_to_the_agent(here: SmallWorld) -> None:
    here.host.commands["make test"] = together
    here.host.plays(
        "api", theirs_first(here, {"lib.py": "new_name"}, {"app.py": "old_name()"}), writes({"app.py": "new_name()"})
    )
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run_out()
    text = here.process().prompts[-1].text
    assert text.startswith("Your change merges cleanly with what was merged into main while you worked")
    assert "check/test fails on the merged tree" in text
    assert "old_name is gone" in text
    assert "+new_name" in text
    assert [(event.check, event.where) for event in await here.events(GateFailed)] == [("test", "merged")]
    assert here.repository.files("main") == {"README.md": "hello", "lib.py": "new_name", "app.py": "new_name()"}


async def test_the_target_never_holds_what_breaks(here: SmallWorld) -> None:
    here.host.commands["make test"] = together
    here.host.otherwise = theirs_first(here, {"lib.py": "new_name"}, {"app.py": "old_name()"})
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run_out()
    assert (await here.task()).state is TaskState.FAILED
    assert "app.py" not in here.repository.files("main")


async def test_two_changes_that_break_each_other_do_not_both_get_in(here: SmallWorld) -> None:
    here.host.commands["make test"] = together
    here.host.plays("lib", writes({"lib.py": "new_name"}))
    here.host.plays("app", writes({"app.py": "old_name()"}), writes({"app.py": "new_name()"}))
    here.points.hold("merge")
    await here.submit(run_spec(task("lib", priority=Priority.HIGH), task("app")))
    leader = await here.lead()
    await leader.run()
    here.points.release("merge")
    await leader.run()
    assert here.repository.files("main")["app.py"] == "new_name()"
    for event in await here.events(TargetDelivered):
        assert together(here.repository.files(event.commit)) is None


async def test_merged_trees_are_set_up_and_gated_in_a_place_of_their_own(here: SmallWorld) -> None:
    here.host.commands["install"] = lambda _: None
    for name in ("a", "b"):
        here.host.plays(name, theirs_first(here, {f"their-{name}.py": "1"}, {f"{name}.py": "1"}))
    await here.submit(run_spec(task("a"), task("b", needs=("a",)), workspace=WorkspaceRules(setup=("install",))))
    leader = await here.lead()
    await leader.run()
    workspaces = {process.launch.cwd for process in here.host.processes}
    (room,) = {ran.path for ran in here.host.ran} - workspaces
    assert [ran.command for ran in here.host.ran if ran.path == room] == ["install", "make test", "make test"]
    assert room not in here.git.directories


async def test_git_that_fails_in_a_merge_uses_up_an_attempt(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}), writes({"api.py": "2"}))
    here.points.fail("merge", GitFailed("git merge-tree ended with 128"))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run_out()
    assert [attempt.outcome for attempt in await here.attempts()] == [Outcome.CONFLICT, Outcome.SUCCEEDED]
    assert {change.state for change in await here.changes()} == {ChangeState.REFUSED, ChangeState.MERGED}
    assert here.repository.files("main")["api.py"] == "2"


async def test_a_target_that_is_gone_when_a_change_comes_refuses_it(here: SmallWorld) -> None:
    def script(process: ScriptedProcess, _: str) -> None:
        writes({"api.py": "1"})(process, "")
        del here.repository.refs["refs/heads/main"]

    here.host.plays("api", script)
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert failed.failure is not None
    assert failed.failure.message == "the branch main is gone"
    (kept,) = here.kept.values()
    assert here.repository.files(kept)["api.py"] == "1"
