"""What agents, files and people say cannot steer a terminal or forge a line of what is printed."""

import json
import re
import shlex
from io import StringIO

import pytest
from rich.table import Table
from rich.text import Text

from kapelle.apps.cli.output import Plain
from kapelle.apps.cli.telling import line_of
from kapelle.core.events import AgentSaid, AgentToolFailed, AgentUsedTool, AgentWasRefused, ChangeConflicted, Event
from kapelle.core.ids import ChangeId, RunId, TaskId
from kapelle.testing.places import Place, Said, until

STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp\u2066\x7f\r"
FORGED = "cfg\nother changes nothing: kapelle approve x"
"""The name of a file that holds a line of its own."""


def steers_nothing(said: Said) -> bool:
    assert not STEERS.search(said.out + said.err), said
    return True


def hostile(end: str = "") -> str:
    """Return a workflow whose agent writes files and says words that would steer a terminal, and then does *end*."""
    words = shlex.quote(f"says {EVIL} so")
    files = f"mkdir -p .kapelle; echo 1 > .kapelle/{shlex.quote(FORGED)}; echo 2 > {shlex.quote(f'x{EVIL}')}"
    prompt = json.dumps(f"{files}; echo {words}{end}").replace("\x7f", r"\u007f")
    return f"name: hostile\ndefaults: {{agent: script, gate: none, max_attempts: 1}}\ntasks: {{bad: {{prompt: {prompt}}}}}\n"


def test_the_work_of_a_hostile_agent_steers_no_terminal_wherever_it_is_shown(place: Place) -> None:
    place.write("flow.yml", hostile("; exit 3"))
    ran = place.run("run", "../flow.yml")
    assert ran.code == 1
    assert steers_nothing(ran)
    assert r"\x1b" in ran.out
    (entry,) = place.run("recover", "--json").json
    assert f".kapelle/{FORGED}" in entry["files"]
    for command in (
        ["show", "bad"],
        ["logs", "bad", "--prompts"],
        ["logs", entry["run_id"]],
        ["events"],
        ["recover"],
        ["list"],
    ):
        answer = place.run(*command)
        assert answer.code == 0, answer.err
        assert steers_nothing(answer)
    message = place.git("log", "-1", "--format=%B", entry["ref"])
    assert not STEERS.search(message)


def test_json_steers_no_terminal_and_is_read_as_it_was_meant(place: Place) -> None:
    place.write("flow.yml", hostile("; exit 3"))
    ran = place.run("run", "../flow.yml", "--json")
    assert ran.code == 1
    name = ran.json["id"]
    said = [json.loads(line) for line in place.run("logs", "bad", "--json").out.splitlines()]
    (entry,) = place.run("recover", "--json").json
    assert f"x{EVIL}".replace("\r", "\n") in entry["files"]  # a template knows one kind of newline
    assert any("\u202egnp\u2066" in json.dumps(event, ensure_ascii=False) for event in said)
    for command in (("show", "bad"), ("show", name), ("logs", "bad", "--prompts"), ("events",), ("recover",), ("show", EVIL)):
        assert steers_nothing(place.run(*command, "--json"))


def test_a_protected_file_forges_no_line_for_whoever_approves(place: Place) -> None:
    place.write("flow.yml", hostile())
    leader = place.start("run", "../flow.yml")
    told = until(leader, "waits for approval")
    assert r'".kapelle/cfg\nother changes nothing: kapelle approve x"' in told
    queue, status, show = place.run("queue"), place.run("status"), place.run("show", "bad")
    assert all(steers_nothing(answer) for answer in (queue, status, show))
    assert [line for line in queue.out.splitlines() if line.startswith("other")] == []
    named, offered = [line for line in queue.out.splitlines() if "kapelle approve" in line]
    assert named.endswith(r'changes the protected files ".kapelle/cfg\nother changes nothing: kapelle approve x"')
    assert offered.startswith("  let it through: kapelle approve t-")
    assert place.run("approve", "bad").code == 0
    rest, _ = leader.communicate()
    assert leader.returncode == 0, rest
    assert not STEERS.search(rest)
    assert steers_nothing(place.run("receipt", "bad"))
    assert not STEERS.search(place.git("log", "--format=%B", "main"))


def test_the_reason_of_whoever_rejects_steers_no_terminal(place: Place) -> None:
    place.write("flow.yml", "name: w\ndefaults: {agent: script, gate: none}\ntasks: {a: {prompt: 'true', approval: true}}\n")
    leader = place.start("run", "../flow.yml")
    until(leader, "waits for approval")
    assert steers_nothing(place.run("reject", "a", "--reason", f"no {EVIL} way"))
    rest, _ = leader.communicate()
    assert leader.returncode == 1
    assert not STEERS.search(rest)
    assert r"no \x1b" in rest
    assert all(steers_nothing(place.run(*command)) for command in (["show", "a"], ["logs", "a"], ["events"]))


def test_an_error_that_quotes_an_argument_steers_no_terminal(place: Place) -> None:
    for arguments in (
        ("show", EVIL),
        ("run", f"{EVIL}.yml"),
        ("verify", EVIL),
        (EVIL,),
        ("show", "--\x1b[2J"),
        ("status", "-C", EVIL),
    ):
        answer = place.run(*arguments)
        assert answer.code == 2
        assert steers_nothing(answer)


RUN, TASK = RunId("r-1"), TaskId("t-1")
WHOSE = {"run_id": RUN, "task_id": TASK}


@pytest.mark.parametrize(
    ("event", "lines"),
    [
        (AgentUsedTool(**WHOSE, tool="Ba\x1bsh", about="ls\nother: completed"), [r"bad:   Ba\x1bsh ls\nother: completed"]),
        (AgentWasRefused(**WHOSE, tools=("a\nb",)), [r"bad:   was refused: a\nb"]),
        (AgentToolFailed(**WHOSE, about="\x1b[2J\n2"), [r"bad:   tool failed: \x1b[2J"]),
        (AgentSaid(**WHOSE, text="one\u2028\x1b\ntwo\tthree"), [r"bad:   | one\u2028\x1b", "     two\tthree"]),
        (
            ChangeConflicted(**WHOSE, change_id=ChangeId("c-1"), files=("a, b", "c\nd", "e")),
            [r'bad: conflict in "a, b", "c\nd", e'],
        ),
    ],
)
def test_an_event_of_one_line_stays_in_it(event: Event, lines: list[str]) -> None:
    assert list(line_of(event, {TASK: "bad"}, whole=True)) == lines


def test_on_a_console_only_its_own_colours_steer_the_terminal() -> None:
    stream = StringIO()
    console = Plain(file=stream, force_terminal=True, width=200, markup=False, highlight=False, color_system="standard")
    table = Table()
    table.add_column("x\x1b[1m", min_width=40)
    table.add_row("y\x1b[2m")
    table.add_row(Text("z\x1b[3m\u202e", style="red"))
    for thing in (table, Text("t\x1b[4m"), "s\x1b[5m\x9b"):
        console.print(thing)
    said = stream.getvalue()
    for escaped in (r"x\x1b[1m", r"y\x1b[2m", r"z\x1b[3m\u202e", r"t\x1b[4m", r"s\x1b[5m\x9b"):
        assert escaped in said
    assert "\x1b[31mz" in said
    bare = re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert not STEERS.search(bare)
    assert len({len(line) for line in bare.splitlines()[:5]}) == 1


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("utf-8", marks=pytest.mark.soak)])
def test_where_not_every_letter_can_be_written_it_is_escaped(place: Place, encoding: str) -> None:
    env = {"PYTHONIOENCODING": encoding}
    place.write("flow.yml", "name: ünï✓\ndefaults: {agent: script, gate: none}\ntasks: {a: {prompt: 'echo ü✓'}}\n")
    assert place.run("run", "../flow.yml", env=env).code == 0
    for command in (["list"], ["show", "a"], ["doctor"], ["logs", "a"], ["--help"], ["show", "nothing ✓"]):
        answer = place.run(*command, env=env)
        assert "KAP-900" not in answer.err + answer.out
        assert "Traceback" not in answer.err + answer.out
    assert place.run("list", "--json", env=env).json[0]["name"] == "ünï✓"
