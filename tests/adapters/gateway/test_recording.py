import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kapelle.adapters.gateway.asking import Asked
from kapelle.adapters.gateway.reading import ReplyReader
from kapelle.adapters.gateway.recording import Recorder
from kapelle.adapters.gateway.rehearsal import Answer, Caller, Fault, Rehearsing
from kapelle.adapters.gateway.rehearsal_file import Rehearsal, load_rehearsal
from kapelle.adapters.gateway.replies import Reply, ToolUse, streamed
from kapelle.core.budget import Usage
from kapelle.core.gateway import Ticket, Upstream
from kapelle.core.hiding import Hiding, Secret
from kapelle.core.ids import AgentId, AttemptId, RunId, TaskId
from kapelle.core.shapes import without_shapes
from kapelle.testing.evaluating import PlainEvaluator

CWD = "/w/slot-1"
Tools = Sequence[tuple[str, Mapping[str, Any]]]


VALUE = "correct-horse-battery-staple"
TOKEN = "npm" + "_" + "x" * 36


def ticket(task: str = "api", attempt: int = 1, round_: int = 0, cwd: str = CWD) -> Ticket:
    ids = {"agent_id": AgentId("g"), "run_id": RunId("r"), "task_id": TaskId("t"), "attempt_id": AttemptId("a")}
    return Ticket(token="token", task=task, attempt=attempt, round=round_, cwd=cwd, upstream=Upstream(), **ids)  # noqa: S106


def reader(text: str = "", tools: Tools = (), usage: Usage | None = None) -> ReplyReader:
    uses = [ToolUse(name=name, arguments=json.dumps(arguments)) for name, arguments in tools]
    reply = Reply(message_id="msg_1", model="m", text=text, tools=uses, usage=usage or Usage(output_tokens=1))
    found = ReplyReader(streaming=True)
    for piece in streamed(reply):
        found.feed(piece)
    return found


def replay(rehearsal: Rehearsal, *, replies: int = 0, cwd: str = CWD, **who: Any) -> Answer | Fault:
    asked = Asked(model="m", streaming=True, on_the_side=False, prompt="Go.", prompts=1, replies=replies, characters=0, cwd="")
    caller = Caller(**{"run": "r", "task": "api", "attempt": 1, "round": 0, **who}, cwd=cwd)
    return Rehearsing(rehearsal=rehearsal, evaluator=PlainEvaluator()).answer(asked, caller, {}, "msg_1")


def told(found: Answer | Fault) -> tuple[str, list[tuple[str, Any]], Usage]:
    assert isinstance(found, Answer)
    return found.reply.text, [(tool.name, json.loads(tool.arguments)) for tool in found.reply.tools], found.reply.usage


def again(text: str, tools: Tools = (), cwd: str = CWD) -> tuple[str, list[tuple[str, Any]]]:
    """Return what a recording of one reply says."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rehearsal.yml"
        Recorder(path).reply(ticket(cwd=cwd), reader(text, tools))
        said, used, _ = told(replay(load_rehearsal(path), cwd=cwd))
        return said, used


def test_what_was_said_is_said_again(tmp_path: Path) -> None:
    path, usage = tmp_path / "deep" / "rehearsal.yml", Usage(input_tokens=10, output_tokens=20, cache_read_tokens=30)
    recorder = Recorder(path)
    recorder.reply(ticket(), reader("I look.", [("Bash", {"command": "ls"})], usage))
    recorder.reply(ticket(), reader("Done."))
    rehearsal = load_rehearsal(path)
    assert told(replay(rehearsal)) == ("I look.", [("Bash", {"command": "ls"})], usage)
    assert told(replay(rehearsal, replies=1))[0] == "Done."


def test_tasks_attempts_and_rounds_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "rehearsal.yml"
    recorder = Recorder(path)
    for key in (("api", 1, 0), ("web", 1, 0), ("api", 2, 0), ("api", 1, 1)):
        recorder.reply(ticket(*key), reader(f"{key}"))
    rehearsal = load_rehearsal(path)
    assert told(replay(rehearsal, task="web"))[0] == "('web', 1, 0)"
    assert told(replay(rehearsal, attempt=2))[0] == "('api', 2, 0)"
    assert told(replay(rehearsal, round=1))[0] == "('api', 1, 1)"


def test_an_error_happens_again(tmp_path: Path) -> None:
    path = tmp_path / "rehearsal.yml"
    recorder = Recorder(path)
    recorder.error(ticket(), 529)
    recorder.reply(ticket(), reader("Done."))
    found = replay(load_rehearsal(path))
    assert isinstance(found, Fault)
    assert found.turn.error == 529


def test_a_reply_that_said_nothing_is_a_turn_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "rehearsal.yml"
    Recorder(path).reply(ticket(), reader(""))
    assert told(replay(load_rehearsal(path)))[0] == ""


def test_a_recording_is_whole_after_every_reply_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "rehearsal.yml"
    recorder = Recorder(path)
    for number in range(3):
        recorder.reply(ticket(), reader(f"{number}"))
        assert len(load_rehearsal(path).rules[0].turns) == number + 1
        assert [file.name for file in tmp_path.iterdir()] == ["rehearsal.yml"]


@pytest.mark.parametrize("cut", [1, 2, 3, 20, 40, 80, 150])
def test_a_reply_at_the_end_that_a_crash_has_cut_is_left_out(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rehearsal.yml"
    recorder = Recorder(path)
    recorder.reply(ticket(), reader("one"))
    recorder.reply(ticket(), reader("two", [("Bash", {"command": "ls"})]))
    path.write_bytes(path.read_bytes()[:-cut])
    # All but the last newline is all that was said.
    assert [turn.say for turn in load_rehearsal(path).rules[0].turns] == (["one", "two"] if cut == 1 else ["one"])


def test_who_goes_on_with_a_run_goes_on_with_its_recording(tmp_path: Path) -> None:
    path = tmp_path / "rehearsal.yml"
    Recorder(path).reply(ticket(), reader("one"))
    with path.open("a") as stream:
        stream.write('- {"when": {"task": "cut')
    Recorder(path).reply(ticket(), reader("two"))
    assert [turn.say for turn in load_rehearsal(path).rules[0].turns] == ["one", "two"]
    Recorder(path).reply(replace(ticket(), run_id=RunId("another")), reader("anew"))
    assert [turn.say for turn in load_rehearsal(path).rules[0].turns] == ["anew"]
    assert [file.name for file in tmp_path.iterdir()] == ["rehearsal.yml"]


def test_a_recording_only_ever_grows(tmp_path: Path) -> None:
    """However long it is, a reply costs what it takes to write that down."""
    path = tmp_path / "rehearsal.yml"
    recorder = Recorder(path)
    recorder.reply(ticket("a"), reader("0"))
    before, node = path.read_bytes(), path.stat().st_ino
    for number in range(1, 5):
        recorder.reply(ticket("ab"[number % 2]), reader(f"{number}"))
        assert path.read_bytes().startswith(before)
        before = path.read_bytes()
    assert path.stat().st_ino == node
    assert [[turn.say for turn in rule.turns] for rule in load_rehearsal(path).rules] == [["0", "2", "4"], ["1", "3"]]


@pytest.mark.parametrize("end", ["otherwise: {say: nothing}", "otherwise:\n  say: nothing"])
def test_a_recording_that_a_person_goes_on_with_is_read_to_its_end(tmp_path: Path, end: str) -> None:
    path = tmp_path / "rehearsal.yml"
    Recorder(path).reply(ticket(), reader("one"))
    with path.open("a") as stream:
        stream.write(f"- {{when: {{task: more}}, turns: [{{say: more}}]}}\n{end}")
    rehearsal = load_rehearsal(path)
    assert ([rule.turns[0].say for rule in rehearsal.rules], rehearsal.otherwise.say) == (["one", "more"], "nothing")


def test_a_recording_works_in_another_directory(tmp_path: Path) -> None:
    path = tmp_path / "rehearsal.yml"
    Recorder(path).reply(ticket(), reader(f"I read {CWD}/a.py.", [("Read", {"file_path": f"{CWD}/a.py"})]))
    said, used, _ = told(replay(load_rehearsal(path), cwd="/elsewhere/2"))
    assert said == "I read /elsewhere/2/a.py."
    assert used == [("Read", {"file_path": "/elsewhere/2/a.py"})]


@pytest.mark.parametrize(
    "text",
    [
        "{{ cwd }}",
        "{{{{ }}}}",
        "{% raw %}{{ x }}{% endraw %}",
        "{# a comment #}",
        "f'{x!r}' {{{x}}} ${{ github.token }}",
        "{{%{#{%{{",
        f"{{{CWD}}}",
        f"${{{CWD}/x}}",
        f"{{%{CWD}{{#",
        "{",
        "a\r\nb\r\n{{ x }}\r\n",
        "{\r{\r\n%}",
        "\x00{{\x01{%\x02",
        "{{ '{{' }}",
        "#!/bin/sh\n# {%- x -%}\n\n\n",
        "  - not: {a: list}\n\t\n ",
        "2026-01-01",
        "<<",
        "\x85\u2028\u2029\ufeff\x7f\x1b[0m",
        "null",
        "*alias &anchor !tag %directive @at `tick`",
        ("long words " * 30 + "\n") * 3,
        "half of a pair, as a model can write it by an escape: \ud83d",
    ],
)
def test_every_kind_of_content_survives(text: str) -> None:
    assert again(text, [("Write", {"content": text, text: [text]})]) == (text, [("Write", {"content": text, text: [text]})])


texts = st.text(max_size=40) | st.lists(
    st.sampled_from(
        ["{", "}", "%", "#", "{{", "}}", "{%", "%}", "'", '"', "\\", "\r", "\n", " ", CWD, "cwd", ":", "-", "\x00"]
    ),
    max_size=12,
).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(texts, st.dictionaries(texts, values, max_size=3))
@example(CWD, {"<<": {"a": None}, "1": 1, "null": [None], "": ""})
def test_whatever_was_recorded_is_said_again(text: str, arguments: dict[str, Any]) -> None:
    assert again(text, [("Write", arguments)]) == (text, [("Write", arguments)])


def test_what_must_not_be_written_down_is_not_recorded(tmp_path: Path) -> None:
    path, hiding = tmp_path / "rehearsal.yml", Hiding([Secret(name="KEY", value=VALUE)])
    said = reader(f"It is {VALUE}.", [("Bash", {"command": f"echo {TOKEN}", VALUE: [VALUE, 1]})])
    Recorder(path).reply(ticket(), said, lambda text: without_shapes(hiding.hide_text(text)))
    text, used, _ = told(replay(load_rehearsal(path)))
    assert text == "It is [secret KEY]."
    assert used == [("Bash", {"command": "echo [redacted npm-token]", "[secret KEY]": ["[secret KEY]", 1]})]
    assert VALUE not in path.read_text()


def test_what_only_looks_like_a_credential_is_never_recorded(tmp_path: Path) -> None:
    Recorder(tmp_path / "rehearsal.yml").reply(ticket(), reader(f"It is {TOKEN}."))
    assert TOKEN not in (tmp_path / "rehearsal.yml").read_text()
