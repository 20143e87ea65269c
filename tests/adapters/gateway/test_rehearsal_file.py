from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kapelle.adapters.gateway.rehearsal_file import Rehearsal, load_rehearsal, rehearsal_schema
from kapelle.core.errors import FileInvalid, FileMissing, Mistake
from kapelle.documents import Document

ROOT = Path(__file__).parents[3]


def load(folder: Path, text: str) -> Rehearsal:
    path = folder / "rehearsal.yml"
    path.write_text(text, encoding="utf-8")
    return load_rehearsal(path)


def mistakes(folder: Path, text: str) -> list[Mistake]:
    with pytest.raises(FileInvalid) as caught:
        load(folder, text)
    return list(caught.value.mistakes)


def test_a_file_is_read(tmp_path: Path) -> None:
    text = """
rules:
  - when: {task: "api-*", attempt: 1, round: 0, prompt: "Write"}
    turns:
      - {error: 429, times: 2, retry_after: 0.5}
      - say: On it.
        tools:
          - Write: {file_path: "{{ cwd }}/a.py", content: "x = 1\\n"}
        delay: 200ms
        drip: 1.5s
otherwise: {say: "No."}
"""
    rehearsal = load(tmp_path, text)
    (rule,) = rehearsal.rules
    assert rule.when.task == "api-*"
    fault, reply = rule.turns
    assert (fault.is_reply, fault.times, fault.retry_after) == (False, 2, 0.5)
    assert (reply.is_reply, reply.delay, reply.drip) == (True, timedelta(milliseconds=200), timedelta(seconds=1.5))
    assert reply.tools == [{"Write": {"file_path": "{{ cwd }}/a.py", "content": "x = 1\n"}}]
    assert rehearsal.otherwise.say == "No."


def test_an_empty_file_is_a_rehearsal_without_rules(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Rehearsal()


@pytest.mark.parametrize(
    ("text", "line", "column", "part"),
    [
        ("rules:\n  - turns:\n      - {error: 529, say: x}\n", 3, 9, "either"),
        ("rules:\n  - turns:\n      - {say: x}\n      - {error: 529, tools: [{Bash: {}}]}\n", 4, 9, "either"),
        ("rules:\n  - turns:\n      - {delay: 1s}\n", 3, 9, "does nothing"),
        ("rules:\n  - turns:\n      - {say: x, retry_after: 3}\n", 3, 9, "belong to an error"),
        ("rules:\n  - turns:\n      - {say: x, usage_limit: 2099-01-01}\n", 3, 9, "belong to an error"),
        ("rules:\n  - turns:\n      - {say: x, headers: {a: b}}\n", 3, 9, "belong to an error"),
        ("rules:\n  - turns:\n      - {say: x, shared: true}\n", 3, 9, "shared belongs"),
        ("rules:\n  - turns:\n      - {refuse: true, error: 500}\n", 3, 9, "refuse belongs"),
        ("rules:\n  - turns:\n      - tools:\n          - {Bash: {}, Read: {}}\n", 3, 9, "one name"),
        ("rules:\n  - turns:\n      - say: '{{ cwd'\n", 3, 9, "no template"),
        ("rules:\n  - turns:\n      - {tools: [{Write: {content: ['{% if %}']}}]}\n", 3, 9, "no template"),
        ("rules:\n  - turns: []\n", 2, 5, "turns"),
        ("rules:\n  - when: {task: x}\n", 2, 5, "turns is missing"),
        ("rules:\n  - when: {prompt: '('}\n    turns: [{say: x}]\n", 2, 12, "no regular expression"),
        ("rules:\n  - turns:\n      - say: x\n        delay: 3\n", 4, 9, "no duration"),
        ("rules:\n  - turns:\n      - say: x\n        delay: soon\n", 4, 9, "no duration"),
        ("rules:\n  - turns:\n      - error: 200\n", 3, 9, "error cannot be 200"),
        ("rules:\n  - turns:\n      - {error: 529, times: 0}\n", 3, 22, "times"),
        ("rules:\n  - turns:\n      - {say: x, sya: y}\n", 3, 18, "sya means nothing here"),
        ("rules: [\n", 2, 1, ""),
        ("- a\n- b\n", 1, 1, "no mapping"),
        ("otherwise: {error: 500}\n", 1, 1, "otherwise"),
        ("otherwise: {cut: true}\n", 1, 1, "otherwise"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, line: int, column: int, part: str) -> None:
    (mistake,) = mistakes(tmp_path, text)
    assert (mistake.line, mistake.column) == (line, column)
    assert mistake.file == str(tmp_path / "rehearsal.yml")
    assert part in mistake.message
    assert mistake.advice


def test_all_mistakes_are_told_together(tmp_path: Path) -> None:
    first, second = "  - turns: [{error: 529, say: x}]\n", "  - turns: [{say: x, delay: soon}]\n"
    text = f"rules:\n{first}{second}  - when: {{taks: x}}\n    turns: [{{say: x}}]\n"
    assert [mistake.line for mistake in mistakes(tmp_path, text)] == [2, 3, 4]


def test_a_word_that_is_nearly_right_is_shown(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, "rules:\n  - when: {taks: x}\n    turns: [{say: x}]\n")
    assert "task" in mistake.advice


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match=r"nowhere\.yml"):
        load_rehearsal(tmp_path / "nowhere.yml")


def test_a_file_that_is_no_text_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "r.yml"
    path.write_bytes(b"rules: \xff\xfe")
    with pytest.raises(FileInvalid, match="UTF-8"):
        load_rehearsal(path)


def plain(text: str) -> Any:
    return Document.parse(text, "r.yml").plain()


@pytest.mark.parametrize("path", ["examples/demo/rehearsal.yml", "tests/adapters/drivers/transcripts/rehearsal.yml"])
def test_the_files_we_ship_fit_the_schema_for_editors(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert load_rehearsal(ROOT / path).rules
    content = plain(text)
    for rule in content["rules"]:
        for turn in rule["turns"]:
            # JSON has no dates; an editor sees what was written.
            turn.update({key: str(value) for key, value in turn.items() if key == "usage_limit"})
    jsonschema.validate(content, rehearsal_schema())


def test_the_schema_for_editors_refuses_what_means_nothing() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"rulez": []}, rehearsal_schema())
