"""The suite of the store's port: ``core.store.Store``."""

from kapelle.testing.conformance.brakes import BrakeSuite
from kapelle.testing.conformance.ledgers import LedgerSuite
from kapelle.testing.conformance.pools import PoolSuite
from kapelle.testing.conformance.queries import DueSuite, FindSuite, RunSuite, TaskSuite, WaitingSuite, WorkSuite
from kapelle.testing.conformance.questions import QuestionSuite
from kapelle.testing.conformance.standings import StandingSuite
from kapelle.testing.conformance.tables import TableSuite
from kapelle.testing.conformance.transactions import EventSuite, RequestSuite, TransactionSuite


class StoreSuite(
    TransactionSuite,
    EventSuite,
    RequestSuite,
    TableSuite,
    LedgerSuite,
    QuestionSuite,
    BrakeSuite,
    StandingSuite,
    PoolSuite,
    DueSuite,
    TaskSuite,
    WaitingSuite,
    FindSuite,
    RunSuite,
    WorkSuite,
):
    """Everything that a store owes. Give it in ``open``, with the leadership that belongs to it.

    ``open`` is called more than once for one folder: each call stands for one more process.
    """
