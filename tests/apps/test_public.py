"""What is promised to others: public names, schemas, plug-in doors, and that importing does nothing."""

import json
import subprocess
import sys
from importlib.metadata import entry_points

import jsonschema
import pytest

import kapelle
from kapelle.adapters.gateway.rehearsal_file import rehearsal_schema
from kapelle.apps import compose, models
from kapelle.documents import Document

PROMISED = ("Orchestrator", "Task", "Workflow", "TaskResult", "AgentConfig")


def test_every_public_name_is_there_and_lazy() -> None:
    assert set(PROMISED) <= set(kapelle.__all__)
    assert sorted(kapelle.__all__) == list(kapelle.__all__)
    for name in kapelle.__all__:
        assert getattr(kapelle, name).__doc__, name


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute Nonsense"):
        _ = kapelle.Nonsense


def test_importing_the_package_loads_nothing_of_it() -> None:
    code = "import sys, kapelle; print([name for name in sys.modules if name.startswith('kapelle.')])"

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.strip() == "[]"


def test_the_built_in_adapters_come_by_the_plug_in_door() -> None:
    names = {entry.name for entry in entry_points(group=compose.GROUP)}

    assert {"driver:claude", "driver:command", "driver:python", "driver:noop", "host:local", "sandbox:process"} <= names
    assert set(compose.drivers()) == {name.removeprefix("driver:") for name in names if name.startswith("driver:")}


@pytest.mark.parametrize("name", sorted(models.SCHEMAS))
def test_schemas_are_valid_and_describe_every_field(name: str) -> None:
    schema = models.json_schema(name)

    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False


def test_the_shipped_schemas_are_those_of_the_models() -> None:
    from importlib.resources import files

    shipped = files("kapelle") / "schemas"
    for name in models.SCHEMAS:
        assert json.loads((shipped / f"{name}.schema.json").read_text()) == models.json_schema(name), "run: make fix"
    assert json.loads((shipped / "rehearsal.schema.json").read_text()) == rehearsal_schema(), "run: make fix"


@pytest.mark.parametrize("kind", ["workflow", "project", "agents"])
def test_the_schema_accepts_the_demo_and_refuses_nonsense(kind: str) -> None:
    from pathlib import Path

    demo = Path(__file__).parents[2] / "examples" / "demo"
    path = {"workflow": demo / "workflow.yml"}.get(kind, demo / "repository" / ".kapelle" / f"{kind}.yml")
    validator = jsonschema.Draft202012Validator(models.json_schema(kind))

    validator.validate(Document.read(path).plain())
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({"nonsense": 1})
