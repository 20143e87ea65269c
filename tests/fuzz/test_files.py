"""Files of any shape: every one is read, or told in mistakes with places; nothing else comes out."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kapelle.adapters.gateway.rehearsal_file import Rehearsal, load_rehearsal
from kapelle.apps import models
from kapelle.apps.settings import load
from kapelle.core.errors import FileInvalid, UsageError
from kapelle.documents import Document

FILES = (models.Workflow, models.Project, models.Agents, Rehearsal)
bounded = settings(max_examples=150, deadline=None, derandomize=True)
WORDS = [
    "name",
    "tasks",
    "agents",
    "gates",
    "rules",
    "turns",
    "when",
    "prompt",
    "say",
    "tools",
    "needs",
    "foreach",
    "result",
    "path",
    "copy",
    "workspace",
    "checks",
    "run",
    "x",
    "true",
    "~",
    "1",
    "1.5",
    "2026-01-01",
    "!!bool",
    "!!int",
    "!!float",
    "!!timestamp",
    "!!binary",
    "!!set",
    "!!omap",
    "!!map",
    "!!seq",
    "!!str",
    "!x",
    "&a",
    "*a",
    "<<:",
    "'{{'",
    "(",
    "[",
    "]",
    "{",
    "}",
    ":",
    "-",
    ",",
    "|",
    ">",
    "?",
    "'",
    '"',
    "#",
    "%YAML",
    "---",
]
words = st.sampled_from([*WORDS, "\n", "\t", "\0", "\x07", "\ud7ff", "é"])
yaml_texts = st.lists(words | st.sampled_from([" ", "\n", ": ", "\n  ", "\n- "]), max_size=40).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=3), inner, max_size=4),
    max_leaves=15,
)


def usable(error: UsageError, word: str = "") -> None:
    assert word in str(error)
    assert error.advice


def told(invalid: FileInvalid) -> None:
    assert invalid.mistakes
    for mistake in invalid.mistakes:
        assert mistake.message
        assert mistake.advice
        assert mistake.line >= 1
        assert mistake.column >= 1
        f"{mistake}".encode()
        assert len(mistake.message) < 3_000


@bounded
@given(yaml_texts | st.text(max_size=60))
@example("a: &a [*a]")
@example("? [a, b]\n: 1")
@example("<<: [*a]")
def test_any_text_is_yaml_or_told(text: str) -> None:
    for model in FILES:
        try:
            document = Document.parse(text, "file.yml")
        except FileInvalid as invalid:
            told(invalid)
            return
        found, mistakes = document.fit(model)
        assert found is not None or mistakes
        if mistakes:
            told(FileInvalid(mistakes))


@bounded
@given(values)
def test_any_content_fits_or_is_told(content: object) -> None:
    for model in FILES:
        found, mistakes = Document("file.yml", content).fit(model)
        assert found is not None or mistakes


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=80) | yaml_texts.map(str.encode), name=st.sampled_from(["project.yml", "agents.yml"]))
def test_any_bytes_are_a_configuration_or_told(tmp_path: Path, data: bytes, name: str) -> None:
    (tmp_path / ".kapelle").mkdir(exist_ok=True)
    path = tmp_path / ".kapelle" / name
    path.write_bytes(data)
    try:
        load(tmp_path, environment={})
    except FileInvalid as invalid:
        told(invalid)
    except UsageError as error:
        usable(error)
    path.unlink()


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=80) | yaml_texts.map(str.encode))
def test_any_bytes_are_a_rehearsal_or_told(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "reh.yml"
    path.write_bytes(data)
    try:
        load_rehearsal(path)
    except FileInvalid as invalid:
        told(invalid)


@pytest.mark.parametrize("variable", ["KAPELLE_COPY", "KAPELLE_TARGET", "KAPELLE_SLOTS", "KAPELLE_DELIVERY", "KAPELLE_PORTS"])
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=20))
def test_any_value_of_a_variable_is_taken_or_told(tmp_path: Path, variable: str, text: str) -> None:
    try:
        load(tmp_path, environment={variable: text})
    except UsageError as error:
        usable(error, variable)
