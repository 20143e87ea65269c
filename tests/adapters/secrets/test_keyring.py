"""Secrets in a real keyring, with a backend that needs no desktop: keyring's own setting chooses it."""

import subprocess
import sys
from pathlib import Path

import pytest

from kapelle.adapters.secrets.lookup import look_up
from kapelle.core.errors import SecretMissing

BACKEND = """
import json, os
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked


class Files(KeyringBackend):
    priority = 1

    def get_password(self, service, username):
        if service == "locked":
            raise KeyringLocked("correct-horse-battery-staple")
        with open(os.environ["KEYRING_FILE"]) as stream:
            return json.load(stream).get(f"{service}/{username}")

    def set_password(self, service, username, password): ...
    def delete_password(self, service, username): ...
"""
ASK = """
import asyncio, sys
from kapelle.adapters.secrets.lookup import look_up
from kapelle.core.errors import SecretMissing
try:
    print(asyncio.run(look_up("TOKEN", sys.argv[1], {})))
except SecretMissing as error:
    print("missing:", error.in_full)
"""


def ask(folder: Path, reference: str) -> str:
    (folder / "own_backend.py").write_text(BACKEND)
    (folder / "entries.json").write_text('{"pypi/me": "correct-horse-battery-staple"}')
    environment = {
        "PYTHON_KEYRING_BACKEND": "own_backend.Files",
        "KEYRING_FILE": str(folder / "entries.json"),
        "PYTHONPATH": str(folder),
        "HOME": str(folder),
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run([sys.executable, "-c", ASK, reference], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_an_entry_is_found(tmp_path: Path) -> None:
    assert ask(tmp_path, "keyring:pypi/me") == "correct-horse-battery-staple"


def test_one_that_is_not_there_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    said = ask(tmp_path, "keyring:pypi/you")
    assert "keyring:pypi/you" in said
    assert said.endswith("keyring set pypi you")


def test_what_the_keyring_says_is_not_repeated(tmp_path: Path) -> None:
    said = ask(tmp_path, "keyring:locked/me")
    assert "KeyringLocked" in said
    assert "correct-horse" not in said


async def test_without_the_library_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(SecretMissing) as told:
        await look_up("TOKEN", "keyring:a/b", {})
    assert told.value.advice == "pip install 'kapelle[keyring]'"


def test_it_is_loaded_only_when_it_is_needed() -> None:
    code = "import sys, kapelle.apps.compose, kapelle.adapters.secrets.vault; sys.exit('keyring' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
