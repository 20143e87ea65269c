"""Anything wrong that a person can give: one clear message, exit code 2, no traceback, nothing half-done."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from kapelle.testing.places import Place

REHEARSAL = "rules: []\notherwise: {say: hello}\n"
SECONDS = 5
"""How long the processor may work on any of it, start-up included; who takes longer is killed by the system. Two will do on a
machine of one's own: where others compute on the same cores, each second does less."""
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
        (("run", "../good.yml", "--agents", "0"), "--agents cannot be '0'"),
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
        (("run", "../good.yml", "--target", "a..b"), "it has two dots together"),
        (("run", "../good.yml", "--target", "a b"), "a space or a control letter"),
        (("run", "../good.yml", "--target", "../../x"), "two dots together"),
        (("run", "../good.yml", "--target", "x.lock"), "a part that ends in .lock"),
        (("run", "/dev/zero"), "has more than 2097152 bytes"),
        (("run", "x" * 5000), "cannot be read: File name too long"),
        (("status", "-C", "x" * 5000), "is no directory"),
        (("show", "x" * 5000), "nothing has the id or the name"),
        (("show", "a\nb\x1b"), "nothing has the id or the name"),
        (("show", b"\xff\xfe"), "is no UTF-8 text"),
        (("run", "../good.yml", "-i", b"a=\xff"), "is no UTF-8 text"),
        (("nonsense",), "there is no command nonsense"),
        (("run", "--nonsense"), "there is no option --nonsense"),
    ],
)
def test_it_is_refused_in_one_message(place: Place, arguments: tuple[str | bytes, ...], said: str) -> None:
    place.write("good.yml", GOOD)
    place.write("reh.yml", REHEARSAL)
    before = place.git("status", "--porcelain")

    answer = place.run(*arguments, seconds=SECONDS)

    assert answer.code == 2, answer
    assert said in answer.err.replace("\n", " ")
    assert "Traceback" not in answer.err + answer.out
    assert answer.out == ""
    assert place.git("status", "--porcelain") == before
    assert place.runs() == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\0b\ntasks: {}\n", "workflow.yml:1:8: the character U+0000 cannot be in YAML"),
        ('name: "a\\0b"\ntasks: {a: {agent: script, prompt: x}}\n', "name holds the character U+0000"),
        ('name: x\ntasks: {a: {agent: script, prompt: "\\ud800"}}\n', "prompt holds half a letter (U+D800)"),
        (
            "a0: &a0 [x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
            "aliases make",
        ),
        ("a: &a\n  b: *a\n", "workflow.yml"),
        ("[" * 100_000, "nested more than 100 deep"),
        ("{a: " * 100_000, "nested more than 100 deep"),
        ("- " * 100_000, "nested more than 100 deep"),
        ("a: [" + "1," * 100_000 + "]", "holds more than 20000 values"),
        ("# \n" * 500_000, "more than 100000 lines"),
        ("!" * 1_000_000, "this tag has no end"),
        ("name: 2026-99-99\n", "workflow.yml:1:7: this is no date"),
        (f"name: {'1' * 5000}\n", "workflow.yml:1:7: this is no whole number"),
        ("name: !!bool abc\n", "workflow.yml:1:7: this is no true or false"),
        ('name: "a\\nb"\ntasks: {a: {agent: script, prompt: x}}\n', "holds a newline"),
        ("name: x\ntarget: a..b\ntasks: {a: {agent: script, prompt: x}}\n", "it has two dots together"),
        ("name: x\ntarget: -b\ntasks: {a: {agent: script, prompt: x}}\n", "is no name of a branch"),
        ("name: x\nphases: ['a\\x1b[2J', \"b\\n\"]\ntasks: {a: {agent: script, prompt: x}}\n", "holds a newline"),
        ("name: x\ntasks: {../a: {agent: script, prompt: x}}\n", "is no name for a task"),
        ("name: x\ntasks: {/etc/passwd: {agent: script, prompt: x}}\n", "is no name for a task"),
        ('name: x\ntasks: {a: {agent: script, prompt: x, foreach: ["a\\nb"]}}\n', "holds a newline"),
        (f"name: x\ntasks: {{a: {{agent: script, prompt: x, foreach: [{'y' * 5000}]}}}}\n", "200 are the most"),
        (f"name: x\ntasks: {{a: {{agent: script, prompt: x, workspace: path, path: {'y' * 5000}}}}}\n", "is no directory"),
        (f"name: x\ntasks: {{a: {{agent: script, prompt: x, when: '{'1 + ' * 10_000}1'}}}}\n", "10000 are the most"),
        ("name: x\ntasks: {a: {agent: script, prompt: '" + "{{ a.b.c }}" * 50_000 + "'}}\n", "50000 are the most"),
        ("name: x\ntasks: {a: {agent: script, prompt: '{{ " + "(" * 5000 + "'}}\n", "is no template"),
        ("name: x\ntasks: {a: {agent: coder, prompt: x, result: {pattern: '('}}}\n", "is no JSON Schema"),
        ("name: x\ntasks: {a: {agent: script, prompt: x, timeout: 99999999999999d}}\n", "timeout"),
        (
            "name: x\ntasks:\n  a:\n    agent: script\n    prompt: |\n" + f"      {'lorem ipsum ' * 8}\n" * 15_000,
            "1048576 are the most",
        ),
        ("name: x\ntasks: {a: {agent: script, prompt: '" + "lorem ipsum " * 450_000 + "'}}\n", "has more than 2097152 bytes"),
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

    answer = place.run("run", "../workflow.yml", seconds=SECONDS)

    assert answer.code == 2, answer.err[:2000]
    assert said in answer.err
    assert "workflow.yml:" in answer.err
    assert "nothing was done" in answer.err
    assert "Traceback" not in answer.err
    assert len(answer.err) < 10_000
    assert place.runs() == 0


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


LEAKED = re.compile(r"input should|valid |instance of|type=|list\[|literal|validation|pydantic|\[key\]", re.IGNORECASE)
"""Words of the library that checks values."""


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("workflow", "name: [x]\ntasks: {a: {agent: script, prompt: x}}\n", ["1: name cannot be a list → write text"]),
        (
            "workflow",
            (
                "name: x\nbudget_usd: -1\nphases: 3\ntasks:\n  a: {agent: script, prompt: 3, "
                "approval: perhaps, when: [1], needs: 5}\n"
            ),
            [
                "2: budget_usd cannot be -1 → write more than 0",
                "3: phases cannot be 3 → write a list",
                "5: prompt cannot be 3 → write text",
                "5: approval cannot be 'perhaps' → write true or false",
                "5: when cannot be a list → write text, or true or false",
                "5: needs cannot be 5 → write a list",
            ],
        ),
        (
            "workflow",
            "name: x\ninputs: {b: {defalt: 3}, c: {required: maybe}}\ntasks: {a: {agent: script, prompt: x}}\n",
            [
                "2: defalt means nothing here → write default",
                "2: required cannot be 'maybe' → write true or false",
            ],
        ),
        (
            "project",
            "limits: {agents: 0, slots: x}\ngateway: maybe\nmerge: {batch: 1000, wait: 3}\n",
            [
                "1: agents cannot be 0 → write 1 or more",
                "1: slots cannot be 'x' → write a whole number",
                "2: gateway cannot be 'maybe' → write one of: on, off, or true or false",
                "3: batch cannot be 1000 → write 100 or less",
                "3: wait: 3 is no duration → write it with its unit, for example 30s, 10m or 1h30m",
            ],
        ),
        (
            "agents",
            "agents: {a: {tools: 3, env: {'A=': x}}}\ngates: {g: {checks: []}}\nworkspace: {copy: x}\n",
            [
                "1: tools cannot be 3 → write a mapping of names to values",
                "1: 'A=' is no name of a variable → letters, digits and _",
                "2: checks cannot be an empty list → write at least 1 of them",
                "3: copy cannot be 'x' → write a list",
            ],
        ),
    ],
)
def test_what_does_not_fit_is_told_in_our_words_with_its_place(place: Place, name: str, text: str, said: list[str]) -> None:
    file = place.write("flow.yml", text) if name == "workflow" else place.repository / ".kapelle" / f"{name}.yml"
    file.write_text(text)

    answer = place.run("validate", *(["../flow.yml"] if name == "workflow" else []))

    assert answer.code == 2
    lines = answer.err.splitlines()
    where = re.compile(rf"{re.escape('../flow.yml' if name == 'workflow' else str(file))}:([0-9]+):[0-9]+: ")
    told = [where.sub(r"\1: ", f"{what} {advice.strip()}") for what, advice in zip(lines[:-1:2], lines[1::2], strict=True)]
    assert sorted(told) == sorted(said)
    assert not LEAKED.search(answer.err)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("KAPELLE_SLOTS", "many", "slots cannot be 'many' (from environment KAPELLE_SLOTS): write a whole number"),
        (
            "KAPELLE_MERGE_BATCH",
            "1000",
            "merge_batch cannot be '1000' (from environment KAPELLE_MERGE_BATCH): write 100 or less",
        ),
        ("KAPELLE_DELIVERY", "now", "delivery cannot be 'now' (from environment KAPELLE_DELIVERY): one of: each, end, never"),
        ("KAPELLE_GATEWAY", "maybe", "gateway cannot be 'maybe' (from environment KAPELLE_GATEWAY): write true or false"),
        ("KAPELLE_MERGE_WAIT", "soon", "merge_wait cannot be 'soon' (from environment KAPELLE_MERGE_WAIT): "),
    ],
)
def test_a_variable_that_does_not_fit_is_told_in_our_words(place: Place, variable: str, value: str, said: str) -> None:
    answer = place.run("status", env={variable: value})

    assert answer.code == 2
    assert said in answer.err
    assert not LEAKED.search(answer.err)


def test_a_price_table_that_does_not_fit_is_told_in_our_words(place: Place, tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text('{"my-model": {"input": "much", "output": 1, "cache_read": 1, "cache_write": 1}}')
    place.write("good.yml", GOOD)

    answer = place.run("submit", "../good.yml", env={"KAPELLE_PRICES": str(tmp_path / "prices.json")})

    assert answer.code == 2
    assert "my-model.input cannot be 'much': write a number" in answer.err
    assert not LEAKED.search(answer.err)


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
    place.write("good.yml", GOOD)

    answer = place.run("submit", "../good.yml", env={"KAPELLE_HOME": "/proc/nowhere"})

    assert answer.code == 2
    assert "KAPELLE_HOME" in answer.err


def test_binary_files_are_no_workflows(place: Place) -> None:
    (place.repository.parent / "workflow.yml").write_bytes(b"\x00\xff\xfe")

    answer = place.run("run", "../workflow.yml")

    assert answer.code == 2
    assert "workflow.yml:1:2: this is no UTF-8 text (byte 0xff)" in answer.err


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--nonsense", "--json"), "there is no option --nonsense"),
        (("nonsense", "--json"), "there is no command nonsense"),
        (("show", "--json"), "the argument RUN|TASK is missing"),
        (("list", "--limit", "many", "--json"), "--limit cannot be 'many'"),
        (("show", b"\xff", "--json"), "is no UTF-8 text"),
    ],
)
def test_what_the_option_parser_refuses_is_json_too(place: Place, arguments: tuple[str | bytes, ...], said: str) -> None:
    answer = place.run(*arguments)

    assert answer.code == 2
    assert answer.json["error"]["code"] == "KAP-100"
    assert said in answer.json["error"]["message"]
    assert answer.json["error"]["remedy"]
    assert answer.err == ""


@pytest.mark.parametrize(
    ("arguments", "said", "remedy"),
    [
        (
            ("run", "--promt", "x"),
            "there is no option --promt",
            "Write --prompt. `kapelle run --help`",
        ),
        (("statsu",), "there is no command statsu", "Write status. `kapelle --help`"),
        (("rehearse", "chck"), "there is no command chck", "Write check. `kapelle rehearse --help`"),
        (("show",), "the argument RUN|TASK is missing", "`kapelle show --help`"),
        (
            ("list", "-n", "many"),
            "--limit cannot be 'many'",
            "Give a whole number. `kapelle list --help`",
        ),
        (("list", "-n", "0"), "--limit cannot be '0'", "Give 1 or more. `kapelle list --help`"),
        (
            ("run", "--budget-usd", "x"),
            "--budget-usd cannot be 'x'",
            "Give a number. `kapelle run --help`",
        ),
        (("run", "-p"), "the option -p needs a value", "`kapelle run --help`"),
        (("list", "--json=3"), "the option --json takes no value", "`kapelle list --help`"),
        (
            ("list", "a", "b"),
            "too many arguments: a b",
            "Leave them out; what holds spaces stands in quotes. `kapelle list --help`",
        ),
    ],
)
def test_what_the_option_parser_refuses_has_the_shape_of_every_error(
    place: Place, arguments: tuple[str, ...], said: str, remedy: str
) -> None:
    answer = place.run(*arguments)

    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"Error: {said}  [KAP-100]\n  → {remedy} tells what can be given.\n"


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("prompt: '{{ 9 ** (9 ** 9) }}'", "cannot be rendered: it took longer than 1 s"),
        ("prompt: \"{{ 'x' * 10 ** 10 }}\"", "cannot be rendered: MemoryError"),
        ("prompt: '{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}'", "took longer than 1 s"),
        ("prompt: x, when: '9 ** (9 ** 9) > 1'", "cannot be decided: it took longer than 1 s"),
    ],
)
def test_a_template_without_end_fails_its_task_and_no_other(place: Place, task: str, said: str) -> None:
    place.write("workflow.yml", f"name: x\ntasks: {{a: {{agent: script, {task}}}, b: {{agent: script, prompt: 'touch b'}}}}\n")

    answer = place.run("run", "../workflow.yml", "--json", seconds=10)

    assert answer.code == 1, answer
    tasks = {found["name"]: found for found in json.loads(answer.out.splitlines()[-1])["tasks"]}
    assert said in tasks["a"]["failure"]["message"]
    assert tasks["b"]["state"] == "completed"
    assert not place.processes()


@pytest.mark.parametrize(
    ("agents", "said"),
    [
        ("workspace: {copy: [../secrets]}", "'../secrets' leads out of the repository"),
        ("workspace: {copy: [/etc/passwd]}", "'/etc/passwd' leads out of the repository"),
        ("agents: {a: {prompt: ../../etc/passwd}}", "is outside of .kapelle"),
        ("agents: {a: {prompt: /etc/passwd}}", "is outside of .kapelle"),
        ("agents: {a: {prompt: link.md}}", "is outside of .kapelle"),
        ("agents: {a: {prompt: loop.md}}", "cannot be read"),
        ("agents: {a: {prompt: big.md}}", "has more than 1048576 characters"),
        ("agents: {a: {env: {'A=B': x}}}", "is no name of a variable"),
        ('agents: {"a\\nb": {}}', "holds a newline"),
        ('gates: {g: {checks: [{name: "a\\x1bb", run: x}]}}', "holds a newline"),
    ],
)
def test_a_configuration_that_leads_out_of_its_folder_is_refused(place: Place, agents: str, said: str) -> None:
    folder = place.repository / ".kapelle"
    (folder / "agents.yml").write_text(agents + "\n")
    (folder / "link.md").symlink_to("/etc/passwd")
    (folder / "loop.md").symlink_to(folder / "loop.md")
    (folder / "big.md").write_text("x" * 5_000_000)
    place.write("workflow.yml", "name: x\ntasks: {t: {agent: a, prompt: x, gate: none}}\n")

    answer = place.run("run", "../workflow.yml", seconds=SECONDS)

    assert answer.code == 2, answer
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert place.runs() == 0
