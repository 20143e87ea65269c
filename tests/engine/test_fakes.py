"""The fakes themselves: what they promise to those who test with them."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.core.agent import AgentConfig, ProcessRef
from kapelle.core.conversation import Prompt, PromptTaken, Said, ToolCalled, Trouble, TurnEnded, Unrecognised
from kapelle.core.errors import GitFailed, HostFailed
from kapelle.core.events import RunPaused
from kapelle.core.git import Signature, WorkspaceOrder
from kapelle.core.ids import AgentId, PromptId, WorkspaceId
from kapelle.core.ports import AgentOrder, DriverCapabilities, Ended, Launch
from kapelle.testing.chance import SeededChance
from kapelle.testing.clock import NOON, HandClock
from kapelle.testing.drivers import LineCodec, LineDriver
from kapelle.testing.git import Files, MemoryGit, has_markers, three_way
from kapelle.testing.hosts import ScriptedHost
from kapelle.testing.points import Points
from kapelle.testing.repositories import MemoryRepositories, MemoryWorkspaces
from kapelle.testing.stores import LeaderDied
from kapelle.testing.worlds import SmallWorld

FILES = st.dictionaries(st.sampled_from("abc"), st.sampled_from("123"))
ME = Signature(author="me", email="me@example.org", message="work")


# --- Merging whole files ---


@given(base=FILES, ours=FILES, theirs=FILES)
def test_a_merge_takes_from_each_side_what_it_alone_changed(base: Files, ours: Files, theirs: Files) -> None:
    merged, conflicts = three_way(base, ours, theirs)
    for name in {*base, *ours, *theirs}:
        old, mine, other = base.get(name), ours.get(name), theirs.get(name)
        if name in conflicts:
            assert mine != old
            assert other not in (old, mine)
            assert has_markers(merged[name])
        else:
            assert merged.get(name) == (other if mine == old else mine)


@given(base=FILES, ours=FILES, theirs=FILES)
def test_the_sides_of_a_merge_may_be_exchanged(base: Files, ours: Files, theirs: Files) -> None:
    one, conflicts = three_way(base, ours, theirs)
    other, same = three_way(base, theirs, ours)
    assert conflicts.keys() == same.keys()
    assert {name: one.get(name) for name in base if name not in same} == {
        name: other.get(name) for name in base if name not in same
    }


def test_a_file_that_one_side_deletes_and_the_other_changes_is_a_conflict() -> None:
    assert three_way({"a": "1"}, {}, {"a": "2"})[1] == {"a": "modify/delete"}
    assert three_way({"a": "1"}, {}, {"a": "1"}) == ({}, {})


def test_histories_that_were_merged_crosswise_have_one_base() -> None:
    repository = MemoryGit().init("/r", {"a": "0", "b": "0"})
    root = repository.refs["refs/heads/main"]
    left, right = repository.commit({"a": "1", "b": "0"}, [root]), repository.commit({"a": "0", "b": "1"}, [root])
    both = {"a": "1", "b": "1"}
    one, two = repository.commit(both, [left.commit, right.commit]), repository.commit(both, [right.commit, left.commit])
    ours = repository.commit({"a": "2", "b": "1"}, [one.commit])
    theirs = repository.commit({"a": "1", "b": "2"}, [two.commit])
    assert repository.merge_files(ours.commit, theirs.commit) == ({"a": "2", "b": "2"}, {})


# --- Repositories and workspaces ---


async def workspace(git: MemoryGit, **order: object) -> MemoryWorkspaces:
    workspaces = MemoryWorkspaces(git)
    base = git.repositories["/r"].refs["refs/heads/main"]
    values = {"workspace_id": WorkspaceId("w-1"), "path": "/w", "repository": "/r", "base": base}
    await workspaces.prepare(WorkspaceOrder(**(values | order)))  # type: ignore[arg-type]
    return workspaces


async def test_a_commit_holds_the_work_and_nothing_that_was_copied_in_or_is_ignored() -> None:
    git = MemoryGit()
    repository = git.init("/r", {"a": "1"})
    repository.loose, repository.ignored = {".env": "SECRET"}, ("cache/*",)
    workspaces = await workspace(git, copy=(".env",))
    git.directories["/w"].files |= {"b": "2", "cache/x": "3"}
    commit = await workspaces.commit("/w", "/r", ME)
    assert repository.files(commit.commit) == {"a": "1", "b": "2"}
    assert set(git.directories["/w"].files) == {"a", "b", ".env", "cache/x"}
    assert await workspaces.commit("/w", "/r", ME) == commit


async def test_a_snapshot_is_made_of_what_no_ref_holds() -> None:
    git = MemoryGit()
    repository = git.init("/r", {"a": "1"})
    workspaces = await workspace(git)
    assert await workspaces.snapshot("/w", "/r", "refs/kapelle/kept") is None
    git.directories["/w"].files["b"] = "2"
    kept = await workspaces.snapshot("/w", "/r", "refs/kapelle/kept")
    assert kept == repository.refs["refs/kapelle/kept"]
    assert repository.files(kept or "") == {"a": "1", "b": "2"}
    assert git.directories["/w"].head == repository.refs["refs/heads/main"]


async def test_a_merge_that_was_brought_in_is_concluded_with_both_parents() -> None:
    git = MemoryGit()
    repository = git.init("/r", {"a": "1"})
    workspaces = await workspace(git)
    git.directories["/w"].files["a"] = "mine"
    mine = await workspaces.commit("/w", "/r", ME)
    theirs = repository.push({"a": "theirs"})
    assert [conflict.file for conflict in await workspaces.bring_in("/w", "/r", theirs)] == ["a"]
    git.directories["/w"].files["a"] = "both"
    merged = await workspaces.commit("/w", "/r", ME)
    assert repository.commits[merged.commit].parents == (mine.commit, theirs)


async def test_a_target_goes_forward_only() -> None:
    git = MemoryGit()
    repository, repositories = git.init("/r", {"a": "1"}), MemoryRepositories(git)
    before = repository.refs["refs/heads/main"]
    ahead = repository.commit({"a": "2"}, [before]).commit
    aside = repository.commit({"a": "3"}, []).commit
    assert not (await repositories.deliver("/r", "main", aside, before)).moved
    assert (await repositories.deliver("/r", "main", ahead, before)).moved
    assert not (await repositories.deliver("/r", "main", before, before)).moved
    with pytest.raises(GitFailed):
        await repositories.resolve("/nowhere", "main")


# --- Processes ---


async def started(host: ScriptedHost, git: MemoryGit) -> ProcessRef:
    git.init("/r", {"a": "1"})
    await workspace(git)
    launch = LineDriver().launch(
        AgentOrder(
            agent_id=AgentId("g-1"),
            config=AgentConfig(name="coder"),
            cwd="/w",
            folder="/g",
            home="/h",
            conversation_id="c",
            resume=False,
        )
    )
    return await host.start(launch, "/g")


async def test_a_process_ends_when_its_input_does_but_not_in_the_middle_of_its_turn() -> None:
    git = MemoryGit()
    host = ScriptedHost(git)
    process = await started(host, git)
    assert await host.write(process, LineCodec().prompt(Prompt(prompt_id=PromptId("p"), text="do it")))
    await host.close_input(process)
    assert host.processes[0].alive
    assert not await host.write(process, b"")
    host.processes[0].done()
    spool = await host.look(process, "/g", 0)
    assert spool.ended == Ended(exit_code=0)


async def test_a_process_cannot_be_started_where_there_is_no_directory() -> None:
    with pytest.raises(HostFailed):
        await ScriptedHost(MemoryGit()).start(Launch(argv=("line", "new", "c"), cwd="/nowhere"), "/g")


async def test_a_spool_tells_its_end_only_with_its_last_piece() -> None:
    git = MemoryGit()
    host = ScriptedHost(git)
    process = await started(host, git)
    host.processes[0].exit(3)
    assert (await host.look(process, "/g", 0, 5)).ended is None
    assert (await host.look(process, "/g", len(host.processes[0].spool))).ended == Ended(exit_code=3)


def test_the_codec_says_what_was_written() -> None:
    codec = LineCodec()
    lines = '{"taken": "p"}\n{"said": "hm"}\n{"tool": "Read", "about": "a"}\nwhat?\n{"trouble": "refused", "message": "no"}\n'
    events = [event for letter in lines for event in codec.feed(letter.encode())]
    assert events == [
        PromptTaken(prompt_id=PromptId("p")),
        Said(text="hm"),
        ToolCalled(call_id="", tool="Read", about="a", key="a"),
        Unrecognised(kind="no_json", raw="what?"),
        TurnEnded(trouble=Trouble.REFUSED, message="no", turns=1),
    ]
    assert codec.finish(Ended(exit_code=0)) == []


def test_a_turn_without_an_end_is_ended_by_the_codec() -> None:
    codec, once = LineCodec(), LineDriver("once", DriverCapabilities()).codec()
    codec.feed(b'{"taken": "p"}\n')
    (ended,) = codec.finish(Ended(exit_code=1))
    assert isinstance(ended, TurnEnded)
    assert ended.trouble is Trouble.CRASHED
    assert once.finish(Ended(exit_code=0)) == [TurnEnded(text="")]


# --- Time, chance, points, the store ---


def test_a_clock_moves_forward_only() -> None:
    clock = HandClock()
    later = clock.move_to(NOON.replace(hour=13))
    assert clock.move_to(NOON) == later == clock.now()


def test_the_same_seed_gives_the_same_chance() -> None:
    one, same, other = SeededChance(1), SeededChance(1), SeededChance(2)
    assert one.uuid() == same.uuid() != other.uuid()
    assert one.bits(64) == same.bits(64)
    assert one.share() == same.share()


async def test_a_point_that_is_held_stops_whatever_passes_it() -> None:
    points, passed = Points(), list[str]()

    async def act() -> None:
        async with points.passing("act"):
            passed.append("act")

    points.hold("act:done")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(act())
        await asyncio.sleep(0)
        assert points.blocked == {task}
        points.release("act:done")
    assert passed == ["act"]


async def test_a_point_fails_as_often_as_it_was_told_to() -> None:
    points = Points()
    points.fail("act", ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        async with points.passing("act"):
            pass
    async with points.passing("act"):
        pass


@pytest.mark.parametrize("after", [False, True])
async def test_a_leader_dies_before_or_after_a_commit(here: SmallWorld, after: bool) -> None:
    leader = await here.lead()
    before = len(await here.log())
    here.store.die(after=after)
    with pytest.raises(LeaderDied):
        await here.store.transact(lambda tx: tx.log(RunPaused()), term=leader.term)
    assert len(await here.log()) - before == int(after)
