from pathlib import Path

import pytest

from kapelle.adapters.hints.files import FileHints
from kapelle.core.ports import Hints
from kapelle.testing.conformance.hints import HintsSuite


class TestFileHints(HintsSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "hints"

    def hints(self) -> Hints:
        return FileHints(self.folder)
