from collections.abc import Mapping
from pathlib import Path

import pytest

from kapelle.adapters.secrets.vault import Vault
from kapelle.core.secrets import Secrets
from kapelle.testing.conformance.secrets import SecretsSuite


class TestVault(SecretsSuite):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self._root = tmp_path / "vault"
        self._root.mkdir(mode=0o700)

    def secrets(self, environment: Mapping[str, str] | None = None) -> Secrets:
        return Vault("store", environment or {}, lambda: self._root)
