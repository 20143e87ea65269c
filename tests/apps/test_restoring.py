"""`restore`, on real git: what has come to its end stays so."""

import shutil

import pytest

from kapelle.testing.places import Place

FLOW = """\
name: short
defaults: {agent: script, gate: none}
tasks: {a: {prompt: "echo 1 > a.txt"}}
"""


def test_a_run_that_has_ended_is_in_a_backup_however_short_it_was(place: Place) -> None:
    place.write("flow.yml", FLOW)
    assert place.run("run", "../flow.yml").code == 0
    merged = place.git("rev-parse", "main")
    (place.home / "store.db").unlink()
    gone = place.run("list")
    assert gone.code == 1
    assert "kapelle restore" in gone.err
    assert place.run("restore").code == 0
    (run,) = place.run("list", "--json").json
    assert (run["name"], run["state"]) == ("short", "completed")
    place.run("resume")
    assert place.git("rev-parse", "main") == merged
    assert place.run("list", "--json").json == [run]


@pytest.mark.parametrize("delivery", ["each", "never"])
def test_a_merge_that_only_git_knows_of_is_named(place: Place, delivery: str) -> None:
    """It was made after the backup; done again, it would be there twice."""
    place.write("flow.yml", FLOW)
    assert place.run("run", "../flow.yml").code == 0
    shutil.copytree(place.home / "backups", place.home / "older")
    place.write("flow.yml", FLOW.replace("short", "late").replace("a: {", "b: {").replace("a.txt", "b.txt"))
    late = place.run("run", "../flow.yml", "--delivery", delivery, "--json").json
    assert late["state"] == "completed"
    shutil.rmtree(place.home / "backups")
    (place.home / "older").rename(place.home / "backups")
    store, damaged = place.home / "store.db", place.home / "damaged"
    store.rename(damaged)
    answer = place.run("restore", "--json").json
    (merge,) = answer["merged"]
    assert (merge["subject"], merge["run_ids"], merge["repository"]) == (
        "Merge b into main",
        [late["id"]],
        str(place.repository),
    )
    assert place.git("show", f"{merge['commit']}:b.txt") == "1"
    store.unlink()
    told = place.run("restore", cwd=place.home).out
    assert f"{merge['commit'][:10]} Merge b into main ({place.repository})" in told
    assert "Nothing was found" not in told
    place.run("resume")
    kept = [entry["commit"] for entry in place.run("recover", "--json").json]
    assert merge["commit"] in ([place.git("rev-parse", "main")] if delivery == "each" else kept)
