"""`recover` and `clean`, on real git."""

import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.apps.clock import SystemClock
from kapelle.apps.keeping import Litter, to_free
from kapelle.core.sizes import format_size, parse_size
from kapelle.testing.places import Place, until

FAILS = """\
name: keep
defaults: {agent: script, gate: none, max_attempts: 1}
tasks:
  good: {prompt: "echo 1 > good.txt"}
  bad: {prompt: "echo half > half.txt; exit 3"}
"""
WAITS = """\
name: waits
defaults: {agent: script, gate: none}
tasks: {a: {prompt: "true"}, b: {prompt: "true", approval: true}}
"""
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def failed(place: Place) -> Place:
    place.write("flow.yml", FAILS)
    assert place.run("run", "../flow.yml").code == 1
    return place


def test_work_that_was_not_merged_is_listed(failed: Place) -> None:
    (entry,) = failed.run("recover", "--json").json
    assert (entry["task"], entry["state"], entry["merged"], entry["files"]) == ("bad", "failed", False, ["half.txt"])
    assert entry["ref"] in failed.git("for-each-ref", "--format=%(refname)", "refs/kapelle")
    assert "bad" in failed.run("recover").out


def test_nothing_kept_is_said(place: Place) -> None:
    assert place.run("recover").out == "Nothing is kept: all work is merged.\n"


@pytest.mark.parametrize("by", ["name", "id", "ref", "commit"])
def test_kept_work_becomes_a_branch(failed: Place, by: str) -> None:
    (entry,) = failed.run("recover", "--json").json
    which = {"name": "bad", "id": entry["task_id"][:8], "ref": entry["ref"], "commit": entry["commit"][:10]}[by]
    answer = failed.run("recover", which, "--branch", "mine")
    assert answer.code == 0, answer.err
    assert failed.git("show", "mine:half.txt") == "half"
    assert failed.git("rev-parse", "HEAD") == failed.git("rev-parse", "main")


def test_a_branch_is_named_after_its_task(failed: Place) -> None:
    assert failed.run("recover", "bad", "--json").json["branch"] == "recovered/bad-1"
    again = failed.run("recover", "bad")
    assert again.code == 2
    assert "there is a branch recovered/bad-1 already" in again.err


@pytest.mark.parametrize("name", ["a..b", "-x", "a b", ".hidden", "x.lock"])
def test_a_branch_that_git_refuses_is_an_error(failed: Place, name: str) -> None:
    answer = failed.run("recover", "bad", f"--branch={name}")
    assert answer.code == 2
    assert f"git makes no branch called '{name}'" in answer.err


def test_what_is_not_kept_cannot_be_restored(failed: Place) -> None:
    answer = failed.run("recover", "good")
    assert answer.code == 2
    assert "nothing is kept for good" in answer.err
    assert failed.run("recover", "--branch", "x").code == 2


def test_work_of_a_lost_store_is_found_too(failed: Place) -> None:
    shutil.rmtree(failed.home)
    (entry,) = failed.run("recover", "--json").json
    assert entry["task"] is None
    assert failed.run("recover", entry["ref"], "--branch", "mine").code == 0
    assert failed.git("show", "mine:half.txt") == "half"


# --- Cleaning ---


def age(folder: Path) -> None:
    """Let everything in *folder* be of the year 2001."""
    then = 10**9
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (then, then), follow_symlinks=False)


def test_old_files_of_ended_runs_go_and_unmerged_work_stays(failed: Place) -> None:
    age(failed.home)
    refs = failed.git("for-each-ref", "refs/kapelle")
    would = failed.run("clean", "--dry-run", "--json").json
    assert would["dry_run"]
    assert {part["what"].split("/")[0] for part in would["removed"]} >= {"agents", "homes"}
    assert any((failed.home / "agents").iterdir())
    done = failed.run("clean", "--json").json
    assert done["removed"] == would["removed"]
    assert done["freed_bytes"] > 0
    for folder in ("agents", "homes", "logs"):
        assert not list((failed.home / folder).iterdir()) if (failed.home / folder).exists() else True
    assert failed.git("for-each-ref", "refs/kapelle") == refs
    assert failed.run("clean").out.startswith("Nothing is older than 14d")


def test_what_is_young_stays(failed: Place) -> None:
    assert failed.run("clean", "--json").json["removed"] == []
    assert failed.run("clean", "--older-than", "0s", "--json").json["removed"] != []


def test_what_was_recovered_is_not_merged_by_that(failed: Place) -> None:
    """Nor cleaned away: whoever deletes the branch may want it again."""
    failed.run("recover", "bad")
    entry = failed.run("recover", "--json").json[0]
    assert (entry["merged"], entry["branches"]) == (False, ["recovered/bad-1"])
    assert "failed, on recovered/bad-1" in failed.run("recover").out
    failed.run("clean", "--older-than", "0s")
    assert failed.run("recover", "--json").json[0]["ref"] == entry["ref"]


def test_what_was_merged_by_hand_needs_no_ref(failed: Place) -> None:
    (entry,) = failed.run("recover", "--json").json
    failed.git("merge", "-q", "--no-ff", "-m", "by hand", entry["commit"])
    assert failed.run("recover", "--json").json[0]["merged"]
    removed = failed.run("clean", "--older-than", "0s", "--json").json["removed"]
    assert f"{entry['ref']} (merged)" in [part["what"] for part in removed]
    assert failed.run("recover", "--json").json == []


def test_files_of_runs_that_go_on_stay(place: Place) -> None:
    place.write("flow.yml", WAITS)
    leader = place.start("run", "../flow.yml")
    until(leader, "a: completed")
    removed = [part["what"] for part in place.run("clean", "--older-than", "0s", "--json").json["removed"]]
    assert [what for what in removed if what.startswith(("homes/", "logs/"))] == []
    assert place.run("approve", "b").code == 0
    leader.communicate()
    assert leader.returncode == 0
    assert place.run("clean", "--older-than", "0s", "--json").json["removed"] != []


def test_a_damaged_store_that_was_put_aside_goes_when_it_is_old(failed: Place) -> None:
    """Its age is counted from when it was put aside: it may not have been written to for long before."""
    old, young = "store.db.damaged-20010909T014640000000", f"store.db.damaged-{SystemClock().now():%Y%m%dT%H%M%S%f}"
    for name in (old, f"{old}-wal", young):
        (failed.home / name).write_bytes(b"x" * 50_000)
        os.utime(failed.home / name, (10**9, 10**9))
    done = failed.run("clean", "--json").json
    assert [part["what"] for part in done["removed"]] == [f"{old} (a damaged store)", f"{old}-wal (a damaged store)"]
    assert done["freed_bytes"] >= 100_000
    assert (failed.home / young).exists()
    failed.run("clean", "--older-than", "0s")
    assert not (failed.home / young).exists()
    assert failed.run("list", "--json").json[0]["name"] == "keep"


def test_all_of_the_state_directory_is_counted(failed: Place) -> None:
    for name in ("orphan/x-w-1/big", "workspaces/y/big", "rehearsals/r-1.yml", "store.db.damaged-20010909T014640000000"):
        path = failed.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 300_000)
    os.link(failed.home / "workspaces" / "y" / "big", failed.home / "workspaces" / "y" / "again")
    said = failed.run("clean", "--dry-run", "--json").json
    du = int(
        subprocess.run(["du", "-s", "-B1", str(failed.home)], check=True, capture_output=True, text=True).stdout.split()[0]
    )
    assert abs(said["freed_bytes"] + said["kept_bytes"] - du) <= 64 << 10
    # What must stay counts as kept: all else goes for it.
    failed.run("clean", "--keep", "1MB")
    assert not list((failed.home / "homes").iterdir())
    assert (failed.home / "orphan/x-w-1/big").exists()


@pytest.mark.parametrize("given", ["many", "10", "5 weeks", "-1d"])
def test_an_age_that_is_none_is_an_error(place: Place, given: str) -> None:
    assert place.run("clean", f"--older-than={given}").code == 2


SIZES = [("500MB", 5 * 10**8), ("2 GB", 2 * 10**9), ("1.5k", 1500), ("10B", 10), ("0 MB", 0), ("1tb", 10**12)]


@pytest.mark.parametrize(("text", "size"), SIZES)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "much", "1XB", "GB", "nan GB", "1e999B", "-5MB", "1e3MB", "7", "1_0MB", "5BB", "inf GB", "MB5"]
)
def test_what_is_no_size_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize("given", ["-5MB", "1e3MB", "7"])
def test_a_size_that_is_none_removes_nothing(place: Place, given: str) -> None:
    log = place.home / "logs" / "old.log"
    log.parent.mkdir(parents=True)
    log.write_text("x")
    answer = place.run("clean", f"--keep={given}")
    assert answer.code == 2
    assert "500MB" in answer.err
    assert log.exists()


def test_sizes_are_told_in_few_letters() -> None:
    assert [format_size(size) for size in (0, 999, 1500, 2_500_000, 3 * 10**9)] == ["0 B", "999 B", "1.5 kB", "2.5 MB", "3 GB"]


parts = st.lists(
    st.builds(
        Litter,
        what=st.text(max_size=3),
        size=st.integers(0, 1000),
        at=st.integers(0, 100).map(lambda hours: NOW - timedelta(hours=hours)),
    ),
    max_size=20,
)


@given(litter=parts, hours=st.integers(0, 100), keep=st.none() | st.integers(0, 5000), fixed=st.integers(0, 900))
def test_the_oldest_goes_first_and_no_more_than_must(litter: list[Litter], hours: int, keep: int | None, fixed: int) -> None:
    going = to_free(litter, NOW, age=hours * 3600.0, keep=keep, fixed=fixed)
    too_old = [part for part in litter if NOW - part.at > timedelta(hours=hours)]
    assert sorted(map(id, going[: len(too_old)])) == sorted(map(id, too_old))
    left = fixed + sum(part.size for part in litter) - sum(part.size for part in going)
    if keep is None:
        assert len(going) == len(too_old)
    else:
        assert left <= keep or (left == fixed > keep)
        extra = going[len(too_old) :]
        assert not extra or left + extra[-1].size > keep
