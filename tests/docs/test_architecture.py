"""ARCHITECTURE.md names what there is, and of the engine all of it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
PACKAGE = ROOT / "src" / "kapelle"
NAMED = re.findall(r"`((?:core|engine|adapters|apps)/[a-z_/.]*)`", PAGE)


def test_what_it_names_is_there() -> None:
    assert [name for name in NAMED if not (PACKAGE / name).exists()] == []


def test_every_module_of_the_engine_is_named() -> None:
    there = {path.name for path in (PACKAGE / "engine").glob("[a-z]*.py")}
    assert sorted(there - {name.removeprefix("engine/") for name in NAMED}) == []
