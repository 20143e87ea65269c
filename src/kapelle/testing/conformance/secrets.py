"""The suite of the port of secrets: ``core.secrets.Secrets``."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from kapelle.core.errors import SecretMissing
from kapelle.core.hiding import Secret
from kapelle.core.ids import AgentId, AttemptId
from kapelle.core.secrets import Secrets

AGENT, OTHER = AgentId("g-1"), AgentId("g-2")
ATTEMPT, LATER = AttemptId("a-1"), AttemptId("a-2")
VALUE = "correct-horse-battery-staple"


class SecretsSuite:
    """Everything that it owes. Give the adapter in ``secrets``: called again, it stands for the one of a new leader."""

    def secrets(self, environment: Mapping[str, str] | None = None) -> Secrets:
        """Return the adapter, which finds variables in *environment*."""
        raise NotImplementedError

    # --- Looking up ---

    async def test_a_variable_is_looked_up(self) -> None:
        """A newline at its end is not part of it."""
        assert await self.secrets({"HERE": f"{VALUE}\n"}).resolve("TOKEN", "env:HERE") == VALUE

    async def test_a_file_is_looked_up(self, tmp_path: Path) -> None:
        """Also one of several lines, as keys are."""
        path = tmp_path / "key"
        path.write_text("first line of it\nsecond line of it\n")
        path.chmod(0o600)
        assert await self.secrets().resolve("KEY", f"file:{path}") == "first line of it\nsecond line of it"

    async def test_what_is_missing_is_named_by_its_reference(self, tmp_path: Path) -> None:
        """The message says what to do."""
        for reference in ("env:NOWHERE", f"file:{tmp_path}/nowhere", f"file:{tmp_path}"):
            with pytest.raises(SecretMissing, match="the secret TOKEN") as told:
                await self.secrets({}).resolve("TOKEN", reference)
            assert reference in str(told.value)
            assert told.value.advice

    async def test_a_file_that_others_may_read_is_refused(self, tmp_path: Path) -> None:
        """With the command that mends it."""
        path = tmp_path / "key"
        path.write_text(VALUE)
        path.chmod(0o644)
        with pytest.raises(SecretMissing, match="may be read by others") as told:
            await self.secrets().resolve("KEY", f"file:{path}")
        assert told.value.advice == f"chmod 600 {path}"

    @pytest.mark.parametrize("value", ["", "\n", "  ", "short", "with\0a zero in it", "x" * 70_000, b"\xff\xfe no text \xff"])
    async def test_what_will_not_do_is_refused_and_not_repeated(self, tmp_path: Path, value: str | bytes) -> None:
        """Too short to be told from other text, empty, no text."""
        path = tmp_path / "key"
        path.write_bytes(value if isinstance(value, bytes) else value.encode())
        path.chmod(0o600)
        with pytest.raises(SecretMissing) as told:
            await self.secrets().resolve("KEY", f"file:{path}")
        said = f"{told.value.in_full} {told.value.__cause__!r}"
        assert not value.strip() or str(value)[:5] not in said.replace(str(path), "")

    async def test_what_is_no_reference_is_refused_and_not_repeated(self) -> None:
        """It may be the secret itself."""
        for reference in (VALUE, f"vault:{VALUE}", "env:", "env:a b", "file:relative", "keyring:alone", ""):
            with pytest.raises(SecretMissing) as told:
                await self.secrets({}).resolve("TOKEN", reference)
            assert not reference or reference not in told.value.in_full

    # --- The vault ---

    def test_an_agent_finds_its_secrets_in_files_of_its_own(self) -> None:
        """Nobody else may read them, and nobody may write them."""
        handed = self.secrets().hand_over(ATTEMPT, AGENT, {"TOKEN": VALUE}, {"mcp.json": "{}"}, boxed=False)
        path = Path(handed.folder, "TOKEN")
        assert path.read_text() == VALUE
        assert Path(handed.folder, "mcp.json").read_text() == "{}"
        assert [oct(found.stat().st_mode & 0o777) for found in (path, path.parent)] == ["0o400", "0o500"]
        assert all(parent.stat().st_mode & 0o077 == 0 for parent in list(path.parents)[1:4])
        assert path.stat().st_uid == os.geteuid()

    def test_handing_over_again_changes_nothing_but_the_values(self) -> None:
        """After a crash, or with a value that was renewed: both are known then."""
        first = self.secrets().hand_over(ATTEMPT, AGENT, {"TOKEN": VALUE, "GONE": "x" * 20}, {}, boxed=False)
        again = self.secrets().hand_over(ATTEMPT, AGENT, {"TOKEN": "another-value-of-it"}, {}, boxed=False)
        assert again == first
        assert [path.name for path in Path(again.folder).iterdir()] == ["TOKEN"]
        assert Path(again.folder, "TOKEN").read_text() == "another-value-of-it"
        known = self.secrets().known(ATTEMPT)
        assert {(secret.name, secret.value) for secret in known} == {
            ("TOKEN", VALUE),
            ("TOKEN", "another-value-of-it"),
            ("GONE", "x" * 20),
        }

    def test_what_is_known_is_in_the_directory_for_those_who_hide_it(self) -> None:
        """And apart from what the agent may read."""
        handed = self.secrets().hand_over(ATTEMPT, AGENT, {"TOKEN": VALUE}, {}, boxed=False)
        assert [path.read_text() for path in Path(handed.hide).iterdir()] == [VALUE]
        assert not Path(handed.hide).is_relative_to(handed.folder)
        assert self.secrets().remember(ATTEMPT, {"TOKEN": VALUE}) == handed.hide

    def test_what_is_revoked_is_gone_at_once(self) -> None:
        """But still known, until the attempt is forgotten."""
        handed = self.secrets().hand_over(ATTEMPT, AGENT, {"TOKEN": VALUE}, {}, boxed=False)
        Path(handed.memory, "conversation").write_text("kept")
        self.secrets().revoke(AGENT)
        self.secrets().revoke(AGENT)
        assert not Path(handed.folder).exists()
        assert self.secrets().known(ATTEMPT) == [Secret(name="TOKEN", value=VALUE)]
        assert Path(handed.memory, "conversation").exists()
        self.secrets().forget(ATTEMPT)
        self.secrets().forget(ATTEMPT)
        assert not self.secrets().known(ATTEMPT)
        assert not Path(handed.memory).exists()
        assert not Path(handed.hide).exists()

    def test_what_belongs_to_nobody_is_swept(self) -> None:
        """A crash left it."""
        first = self.secrets().hand_over(ATTEMPT, AGENT, {"TOKEN": VALUE}, {}, boxed=False)
        second = self.secrets().hand_over(LATER, OTHER, {"TOKEN": VALUE}, {}, boxed=False)
        assert sorted(self.secrets().sweep({OTHER}, {LATER}, remove=False)) == [ATTEMPT, AGENT]
        assert Path(first.folder).exists()
        assert sorted(self.secrets().sweep({OTHER}, {LATER})) == [ATTEMPT, AGENT]
        assert not self.secrets().sweep({OTHER}, {LATER})
        assert not Path(first.folder).exists()
        assert not Path(first.memory).exists()
        assert not self.secrets().known(ATTEMPT)
        assert Path(second.folder, "TOKEN").exists()
        assert self.secrets().known(LATER)
