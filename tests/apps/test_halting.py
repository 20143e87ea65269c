"""The off switch and answers about money, as people hear of them."""

from typing import Any

import pytest

from kapelle.testing.places import Place

FLOW = """\
# flow.yml
name: flow
tasks:
  one: {agent: script, gate: none, prompt: "true"}
"""


def test_everything_is_halted_where_nothing_was_ever_submitted(place: Place) -> None:
    assert not (place.home / "store.db").exists()
    said = place.run("halt", "--reason", "not today")
    assert said.code == 0
    assert said.out.splitlines()[0] == "Halted: nothing calls a model until `kapelle unhalt`."
    # What comes is held by it, from its first moment on.
    place.write("flow.yml", FLOW)
    assert place.run("submit", "../flow.yml").code == 0
    assert " HALTED  halted by person:" in place.run("status").out
    (halted, *_) = place.run("explain", "one", "--json").json["reasons"]
    assert (halted["rule"], halted["changes"]) == ("halt", "kapelle unhalt")
    assert halted["detail"].endswith("(not today)")
    (item,) = [each for each in place.run("inbox", "--json").json if each["kind"] == "halt"]
    assert item["otherwise"] == "kapelle unhalt"


def test_nothing_is_lifted_where_there_is_no_store(place: Place) -> None:
    said = place.run("unhalt")
    assert said.code != 0
    assert not (place.home / "store.db").exists()


def test_whoever_lifts_a_halt_hears_that_nobody_leads(place: Place) -> None:
    place.write("flow.yml", FLOW)
    assert place.run("submit", "../flow.yml").code == 0
    assert place.run("halt").out.splitlines() == [
        "Halted: nothing calls a model until `kapelle unhalt`.",
        "Nobody leads just now; it holds for whoever does.",
    ]
    assert place.run("unhalt").out.splitlines() == [
        "Nothing is halted any more.",
        "Nobody leads just now; 1 open run can go on when somebody does: kapelle resume",
    ]
    assert place.run("halt", "--json").json == {"halted": True, "led": False}
    assert place.run("unhalt", "--json").json == {"halted": False, "led": False}


@pytest.mark.parametrize("json", [False, True])
def test_a_refusal_comes_with_what_helps(place: Place, *, json: bool) -> None:
    assert place.run("halt").code == 0
    again = place.run("halt", *(("--json",) if json else ()))
    assert again.code == 2
    error: Any = again.json["error"] if json else None
    remedy = error["remedy"] if json else again.err
    assert "kapelle unhalt" in remedy
    assert "kapelle show ID" not in (again.out + again.err)
