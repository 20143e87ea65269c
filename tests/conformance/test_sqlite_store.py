import sys
from collections.abc import Sequence
from pathlib import Path

from kapelle.adapters.store.sqlite import SqliteStore
from kapelle.adapters.store.sqlite_lead import SqliteLeadership
from kapelle.core.leading import Leadership
from kapelle.core.ports import Clock
from kapelle.core.store import Store
from kapelle.testing.conformance.leadership import LeadershipSuite
from kapelle.testing.conformance.store import StoreSuite

SECOND = """
import sys
sys.path[:0] = [sys.argv.pop(1)]
from test_sqlite_store import open_sqlite
from kapelle.testing.conformance.second import main
main(open_sqlite)
"""


async def open_sqlite(folder: Path, clock: Clock) -> tuple[Store, Leadership]:
    store = await SqliteStore.open(str(folder / "store.db"), clock)
    return store, SqliteLeadership(store, str(folder / "lock"))


class TestSqliteStore(StoreSuite):
    async def open(self, folder: Path, clock: Clock) -> tuple[Store, Leadership]:
        return await open_sqlite(folder, clock)


class TestSqliteLeadership(LeadershipSuite):
    async def open(self, folder: Path, clock: Clock) -> tuple[Store, Leadership]:
        return await open_sqlite(folder, clock)

    def program(self) -> Sequence[str]:
        return (sys.executable, "-c", SECOND, str(Path(__file__).parent))
