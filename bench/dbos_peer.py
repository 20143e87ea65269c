"""``python -m bench.dbos_peer FOLDER MANY``: durable no-op workflows of DBOS, on SQLite with the settings that Kapelle has.

Each workflow does nothing. All are started, then all are waited for: from the start of the first to the end of the last.
"""

import json
import sqlite3
import sys
import time
from importlib.metadata import version
from pathlib import Path

from dbos import DBOS, DBOSConfig, SetWorkflowID


def main(folder: Path, many: int) -> None:
    """Measure once and print the figures."""
    database = folder / "dbos.db"
    # DBOS leaves the journal as it is: write-ahead logging stays with the file. What a connection syncs by default is FULL.
    made = sqlite3.connect(database)
    made.execute("pragma journal_mode = wal")
    full = made.execute("pragma synchronous").fetchone()[0] == 2  # noqa: PLR2004  # SQLite's number for FULL
    made.close()
    config: DBOSConfig = {"name": "bench", "system_database_url": f"sqlite:///{database}", "log_level": "ERROR"}
    DBOS(config=config)

    @DBOS.workflow()
    def nothing(number: int) -> int:
        return number

    DBOS.launch()
    nothing(0)
    begun = time.perf_counter()
    handles = []
    for number in range(many):
        with SetWorkflowID(f"task-{number}"):
            handles.append(DBOS.start_workflow(nothing, number))
    for handle in handles:
        handle.get_result()
    seconds = time.perf_counter() - begun
    DBOS.destroy()
    print(
        json.dumps(
            {
                "dbos_tasks_per_s": many / seconds,
                "dbos_synchronous": "FULL" if full else "not FULL",
                "dbos_version": version("dbos"),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
