"""The rehearsal's request log: what was consumed, in a file that outlives every crash."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path


class RequestLog:
    """Counts faults by key; every count is on disk before the fault happens."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counts: Counter[str] = Counter()
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    self._counts[json.loads(line)["key"]] += 1
                except (ValueError, KeyError, TypeError):
                    # A line that a crash cut: its fault had not happened yet.
                    continue

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each fault happened."""
        return self._counts

    def consume(self, key: str) -> None:
        """Count a fault that is about to happen."""
        self._counts[key] += 1
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # A line of its own even after one that was cut.
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{json.dumps({'key': key})}")
            stream.flush()
            os.fsync(stream.fileno())
