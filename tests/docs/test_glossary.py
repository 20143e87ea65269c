"""One word for one thing: the glossary against the names of classes and modules."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "kapelle"
# Words that the glossary refuses for one thing and that are right for another.
ELSEWHERE = {
    "command": "a program of the user's, or a command of the CLI",
    "message": "what the Claude CLI writes",
    "result": "how a task or run ended, for those who asked",
    "log": "the rehearsal's request log",
    "runner": "the program that runs a Python function as a task",
    "flow": "",
    "step": "",
    "parser": "",
    "env": "",
    "profile": "",
    "service": "",
    "client": "",
    "instance": "",
    "session": "",
    "user": "a message of the Claude CLI in the role of the user",
    "thread": "",
    "deploy": "starting an agent",
    "execution": "",
    "cap": "",
}


def rows() -> list[tuple[str, str]]:
    text = (ROOT / "GLOSSARY.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    return [(words, refused) for words, _, refused in cells[1:] if not words.startswith("---")]


def parts(name: str) -> set[str]:
    return {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


def classes() -> dict[str, str]:
    found: dict[str, str] = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name] = str(path.relative_to(SOURCE))
    return found


def test_no_class_or_module_has_a_name_that_the_glossary_refuses() -> None:
    refused = {
        word.strip() for _, words in rows() for word in re.sub(r"\(.*?\)", "", words).split(",") if word.strip().isalpha()
    }
    refused -= set(ELSEWHERE)
    names = {**classes(), **{path.stem: str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py")}}

    wrong = {name: place for name, place in names.items() if parts(name) & refused}

    assert not wrong


def test_the_things_of_the_core_are_in_the_glossary() -> None:
    words = {word.strip() for entry, _ in rows() for word in entry.split(",")}
    things = {"run", "task", "attempt", "outcome", "agent", "gate", "check", "verdict", "receipt", "change", "integration"}
    things |= {"budget", "request", "event", "prompt", "leader", "workflow", "driver", "host", "sandbox", "workspace", "meter"}

    assert things <= words


def test_no_word_is_both_given_and_refused() -> None:
    given = {word.strip() for entry, _ in rows() for word in entry.split(",")}
    refused = {word.strip() for _, words in rows() for word in words.split(",") if word.strip().isalpha()}

    assert not {word for word in given & refused if word not in ELSEWHERE}
