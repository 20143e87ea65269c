"""`restore`, on real git: what has come to its end stays so."""

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
