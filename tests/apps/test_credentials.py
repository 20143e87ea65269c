"""Where secrets are found: only by reference, and only where Kapelle leads."""

from pathlib import Path

import pytest

from kapelle.apps.clock import EnvironmentCredentials


def test_a_variable_is_found_by_its_name() -> None:
    credentials = EnvironmentCredentials({"KEY": "secret", "EMPTY": ""})
    assert credentials.resolve("env:KEY") == "secret"
    assert credentials.resolve("env:EMPTY") is None
    assert credentials.resolve("env:OTHER") is None
    assert credentials.resolve("file:KEY") is None


def test_a_login_that_changes_can_be_seen_to_change(tmp_path: Path) -> None:
    credentials = EnvironmentCredentials({"CLAUDE_CONFIG_DIR": str(tmp_path)})
    assert credentials.resolve("login:claude") is None
    for content in ("one", "two"):
        (tmp_path / ".credentials.json").write_text(content, encoding="utf-8")
        assert credentials.resolve("login:claude") == content
    assert EnvironmentCredentials({"CLAUDE_CODE_OAUTH_TOKEN": "token"}).resolve("login:claude") == "token"


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_a_login_that_cannot_be_read_is_none(tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        (tmp_path / ".credentials.json").mkdir()
    else:
        (tmp_path / ".credentials.json").write_bytes(content)
    assert EnvironmentCredentials({"CLAUDE_CONFIG_DIR": str(tmp_path)}).resolve("login:claude") is None
