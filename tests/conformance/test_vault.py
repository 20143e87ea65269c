from collections.abc import Mapping
from pathlib import Path

import pytest

from kapelle.adapters.secrets.vault import Vault
from kapelle.core.ids import AgentId, AttemptId
from kapelle.core.secrets import Secrets
from kapelle.testing.conformance.secrets import SecretsSuite


class TestVault(SecretsSuite):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self._root = tmp_path / "vault"
        self._root.mkdir(mode=0o700)

    def test_nothing_is_made_for_those_who_have_no_secrets(self) -> None:
        vault = self.secrets()
        vault.revoke(AgentId("g"))
        vault.forget(AttemptId("a"))
        assert (vault.sweep((), ()), vault.known(AttemptId("a"))) == ([], ())
        assert list(self._root.iterdir()) == []

    def test_what_an_earlier_leader_put_elsewhere_is_found(self) -> None:
        """It had no such directory, or was told of another."""
        Vault("store", {}, lambda: [self._root]).remember(AttemptId("a"), {"TOKEN": "correct-horse-battery"})
        assert [secret.name for secret in self.secrets().known(AttemptId("a"))] == ["TOKEN"]

    def test_every_value_that_was_ever_known_is_hidden(self) -> None:
        vault = Vault("store", {}, lambda: [self._root])
        assert not vault.everything
        vault.remember(AttemptId("a"), {"TOKEN": "correct-horse-battery"})
        later = Vault("store", {}, lambda: [self._root])
        later.sweep((), {AttemptId("a")})
        vault.forget(AttemptId("a"))
        for each in (vault, later):
            assert each.everything.hide_text("a correct-horse-battery") == "a [secret TOKEN]"

    def secrets(self, environment: Mapping[str, str] | None = None) -> Secrets:
        return Vault("store", environment or {}, lambda: [self._root / "first", self._root])
