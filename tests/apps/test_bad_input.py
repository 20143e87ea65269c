"""Anything wrong that a person can give: one clear message, exit code 2, no traceback, nothing half-done."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kapelle.testing.places import Place

REHEARSAL = "rules: []\notherwise: {say: hello}\n"
GOOD = "name: good\ntasks: {a: {agent: script, prompt: 'true'}}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run",), "give either a workflow file or --prompt"),
        (("run", "nowhere.yml"), "nowhere.yml cannot be read"),
        (("run", "../good.yml", "--prompt", "x"), "give either a workflow file or --prompt"),
        (("run", ".."), "cannot be read: Is a directory"),
        (("run", "../good.yml", "--rehearse", "nowhere.yml"), "nowhere.yml cannot be read"),
        (("run", "../good.yml", "--rehearse", "../reh.yml", "--record", "x.yml"), "a rehearsal cannot be recorded"),
        (("run", "../good.yml", "--target", "nobranch"), "has no branch nobranch"),
        (("run", "../good.yml", "--delivery", "sometimes"), "delivery cannot be 'sometimes'"),
        (("run", "../good.yml", "--agents", "0"), "greater than or equal to 1"),
        (("run", "../good.yml", "-i", "a"), "'a' is no input"),
        (("run", "../good.yml", "-i", "a=1"), "the workflow has no input a"),
        (("run", "--prompt", "x", "--agent", "nobody"), "there is no agent nobody"),
        (("run", "--prompt", "x", "--agent", "coder", "--gate", "nogate"), "there is no gate nogate"),
        (("run", "--prompt", "x", "-C", "/nowhere"), "/nowhere is no directory"),
        (("submit", "nowhere.yml"), "nowhere.yml cannot be read"),
        (("validate", "nowhere.yml"), "nowhere.yml cannot be read"),
        (("validate", "--schema", "nothing"), "there is no schema nothing"),
        (("show", "zzz"), "nothing has the id or the name zzz"),
        (("logs", "zzz"), "nothing has the id or the name zzz"),
        (("events", "zzz"), "nothing has the id or the name zzz"),
        (("cancel", "zzz"), "nothing has the id or the name zzz"),
        (("pause", "zzz"), "nothing has the id or the name zzz"),
        (("resume", "zzz"), "nothing has the id or the name zzz"),
        (("retry", "zzz"), "nothing has the id or the name zzz"),
        (("approve", "zzz"), "nothing has the id or the name zzz"),
        (("reject", "zzz"), "nothing has the id or the name zzz"),
        (("rehearse", "serve", "nowhere.yml"), "nowhere.yml cannot be read"),
        (("rehearse", "check", "../good.yml"), "nothing here"),
        (("init", "/nowhere"), "/nowhere is no directory"),
        (("init", "--yes"), "would be overwritten"),
        (("nonsense",), "No such command"),
        (("run", "--nonsense"), "No such option"),
    ],
)
def test_it_is_refused_in_one_message(place: Place, arguments: tuple[str, ...], said: str) -> None:
    place.write("good.yml", GOOD)
    place.write("reh.yml", REHEARSAL)
    before = place.git("status", "--porcelain")

    answer = place.run(*arguments)

    assert answer.code == 2, answer
    assert said in answer.err.replace("\n", " ")
    assert "Traceback" not in answer.err + answer.out
    assert answer.out == ""
    assert place.git("status", "--porcelain") == before
    assert place.runs() == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "workflow.yml:1:6"),
        ("", "name is missing"),
        ("- a\n- b\n", "no mapping"),
        ("name: x\ntasks: {}\n", "tasks"),
        ("name: x\ntasks: {a: {agent: script, prompt: x, needs: [a]}}\n", "a -> a is a circle"),
        ("name: x\ntasks: {a: {agent: script, prompt: '{{ nope'}}\n", "is no template"),
        ("name: x\ntasks: {a: {agent: script, prompt: x, timeout: 5}}\n", "is no duration"),
        ("name: x\ntasks: {'a b': {agent: script, prompt: x}}\n", "is no name for a task"),
        ("name: x\ntasks: {a: {agent: script, prompt: x, workspace: path}}\n", "path"),
        ("name: x\ntasks: {a: {agent: coder, prompt: x, result: {type: nonsense}}}\n", "nonsense"),
    ],
)
def test_a_wrong_workflow_file_is_told_with_its_place(place: Place, text: str, said: str) -> None:
    place.write("workflow.yml", text)

    answer = place.run("run", "../workflow.yml")

    assert answer.code == 2
    assert said in answer.err
    assert "workflow.yml:" in answer.err
    assert "nothing was submitted" in answer.err
    assert "Traceback" not in answer.err


def test_every_mistake_is_told_at_once_in_the_order_of_the_file(place: Place) -> None:
    place.write(
        "workflow.yml",
        """\
        name: wrong
        tasks:
          a: {needs: [b, zzz], prompt: "x {{ nope", priority: urgent, agent: codr, gate: pyton}
          b: {needs: [a], agent: script, prompt: "y"}
          c: {agent: script, prompt: "{{ inputs.x }}", wat: 1, phase: nophase}
          "fi ve": {agent: script, prompt: "x", priority: soon}
          six: {agent: script, prompt: "", timeout: never}
          seven: {agent: script, prompt: "x", workspace: path, estimate: 3}
        extra: 1
        """,
    )

    answer = place.run("validate", "../workflow.yml", "--json")

    assert answer.code == 2
    mistakes = answer.json["error"]["mistakes"]
    told = " | ".join(mistake["message"] for mistake in mistakes)
    for part in (
        "circle",
        "zzz",
        "template",
        "'urgent'",
        "codr",
        "pyton",
        "inputs.x",
        "wat",
        "nophase",
        "extra",
        "fi ve",
        "no prompt",
        "no path",
    ):
        assert part in told, told
    places = [(mistake["line"], mistake["column"]) for mistake in mistakes]
    assert places == sorted(places)
    assert all(mistake["advice"] for mistake in mistakes)
    assert "write coder" in [mistake["advice"] for mistake in mistakes]


def test_without_key_login_or_rehearsal_both_ways_out_are_named(place: Place) -> None:
    place.write("workflow.yml", "name: x\ntasks: {a: {agent: coder, prompt: x, gate: python}}\n")

    answer = place.run("run", "../workflow.yml")

    assert answer.code == 2
    assert "no way to reach a model" in answer.err
    assert "ANTHROPIC_API_KEY" in answer.err
    assert "--rehearse" in answer.err


def test_a_wrong_variable_is_named_with_its_meaning(place: Place) -> None:
    answer = place.run("status", env={"KAPELLE_SLOTS": "many"})

    assert answer.code == 2
    assert "KAPELLE_SLOTS" in answer.err
    assert "agents that may be live at once" in answer.err


def test_a_state_directory_that_cannot_be_made_is_told(place: Place) -> None:
    answer = place.run("status", env={"KAPELLE_HOME": "/proc/nowhere"})

    assert answer.code == 2
    assert "KAPELLE_HOME" in answer.err


def test_binary_files_are_no_workflows(place: Place) -> None:
    (place.repository.parent / "workflow.yml").write_bytes(b"\x00\xff\xfe")

    answer = place.run("run", "../workflow.yml")

    assert answer.code == 2
    assert "no UTF-8 text" in answer.err


@pytest.mark.parametrize("kind", ["empty", "bare"])
def test_a_repository_that_cannot_be_worked_in_is_refused(
    place: Place, tmp_path: Path, kind: str, program: Callable[[str], str]
) -> None:
    program("git")
    folder = tmp_path / kind
    folder.mkdir()
    place.git("init", "-q", *(["--bare"] if kind == "bare" else []), str(folder))

    answer = place.run("run", "--prompt", "true", "--agent", "script", cwd=folder)

    assert answer.code == 2
    assert {"empty": "no commit yet", "bare": "bare"}[kind] in answer.err


def test_errors_are_json_when_json_is_asked_for(place: Place) -> None:
    answer = place.run("show", "zzz", "--json")

    assert answer.code == 2
    assert answer.json["error"]["code"] == "KAP-103"
    assert answer.json["error"]["remedy"]
    assert answer.err == ""
