"""The store's port: durable state and the event log, changed together or not at all.

``Store.transact`` runs a plain function in one transaction; the function gets a ``Tx`` and decides in pure code. Everything on
``Tx`` returns at once (it runs where the database is) and sees what the same transaction wrote before. A function may be run
again after a crash before its commit, so it does nothing but read, decide and write through its ``Tx``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from kapelle.core.account import Account
from kapelle.core.agent import Agent
from kapelle.core.agent_finding import AgentFinding
from kapelle.core.attempt import Attempt, Outcome, PromptRecord
from kapelle.core.brakes import BrakeTable
from kapelle.core.budget import Grouping, Spend, Used
from kapelle.core.calls import ModelCall
from kapelle.core.frozen import frozen
from kapelle.core.gate import Receipt
from kapelle.core.ids import (
    AccountId,
    AgentId,
    AttemptId,
    ChangeId,
    PromptId,
    QuestionId,
    RequestId,
    RunId,
    TaskId,
    WorkspaceId,
)
from kapelle.core.merge import Change, Integration
from kapelle.core.paths import Took
from kapelle.core.question import Question
from kapelle.core.requests import Request, Settlement
from kapelle.core.run import Run, RunState
from kapelle.core.standings import StandingTable
from kapelle.core.task import Task, TaskState, Wait

if TYPE_CHECKING:
    # The many events take their time to load, and most commands that look tell of none.
    from kapelle.core.events import Entry, Event
    from kapelle.core.pool import SpareTable

T = TypeVar("T")


@frozen
class Edge:
    """*task_id* needs *need_id*."""

    task_id: TaskId
    need_id: TaskId


@frozen
class WorkspaceRow:
    """A directory that Kapelle made, and for whom."""

    workspace_id: WorkspaceId
    run_id: RunId
    task_id: TaskId | None
    """None for a workspace in which merged trees are gated."""
    path: str
    repository: str | None
    base: str | None
    first_port: int | None = None
    ready: bool = False
    """Whether set-up has been run in it."""
    owned: bool = True
    """False for ``workspace: path``: the directory is the user's and is never removed."""


@frozen
class Overview:
    """A run and how many of its tasks are in each state."""

    run: Run
    counts: tuple[tuple[TaskState, int], ...]
    spend: Spend


class RunTable(Protocol):
    """Runs."""

    def add(self, run: Run) -> None:
        """Add *run*."""
        ...

    def get(self, run_id: RunId) -> Run | None:
        """Return the run, or None."""
        ...

    def put(self, run: Run) -> None:
        """Write everything of *run* but its spec, which never changes."""
        ...

    def pause(self, run: Run, *, paused: bool) -> None:
        """Pause *run* or let it go on: while it is paused, none of its tasks is due."""
        ...

    def open(self) -> Sequence[Run]:
        """Return the runs that have not ended, in the order in which they were submitted."""
        ...

    def open_ids(self) -> Sequence[RunId]:
        """Return which runs have not ended, in no order: far cheaper than the runs themselves."""
        ...

    def done(self) -> Sequence[Run]:
        """Return the runs that have not ended though all of their tasks have."""
        ...

    def overviews(self, run_ids: Sequence[RunId] | None = None, limit: int = 50) -> Sequence[Overview]:
        """Return runs with their counts, the newest first; of *run_ids* when given."""
        ...

    def counts(self, run_id: RunId) -> Mapping[tuple[TaskState, Wait | None], int]:
        """Return how many tasks of the run are in each state and wait for what; only for what there is."""
        ...

    def find(self, prefix: str) -> Sequence[RunId]:
        """Return at most two runs whose id begins with *prefix*."""
        ...

    def named(self, name: str, limit: int = 10) -> Sequence[Run]:
        """Return the runs that are called *name*, the newest first."""
        ...


class TaskTable(Protocol):
    """Tasks and what they need."""

    def add(self, tasks: Sequence[Task], edges: Sequence[Edge]) -> None:
        """Add *tasks* with their needs; both ends of an edge are among them or in the store already."""
        ...

    def get(self, task_id: TaskId) -> Task | None:
        """Return the task, or None."""
        ...

    def put(self, task: Task) -> None:
        """Write everything of *task* but its spec, which never changes."""
        ...

    def due(self, now: datetime, limit: int, after: Task | None = None) -> Sequence[Task]:
        """Return pending tasks that could run now, by rank; only those behind *after*, if that is given.

        Their needs are met, their time has come, no approval is missing and their run is not paused.
        """
        ...

    def runs_due(self, limit: int, after: RunId | None = None) -> Sequence[RunId]:
        """Return runs with tasks that could run now or later by themselves, by id; only those behind *after*, if given."""
        ...

    def due_of_run(self, run_id: RunId, now: datetime, limit: int) -> Sequence[Task]:
        """Return what ``due`` does, of one run."""
        ...

    def next_due_at(self, now: datetime) -> datetime | None:
        """Return when the next pending task comes due that is not yet, or None."""
        ...

    def of_run(self, run_id: RunId) -> Sequence[Task]:
        """Return the run's tasks in the order of the workflow."""
        ...

    def in_state(self, state: TaskState, limit: int = 500) -> Sequence[Task]:
        """Return tasks in *state*, which is neither pending nor terminal."""
        ...

    def waiting(self, run_id: RunId, wait: Wait, limit: int = 100_000) -> Sequence[Task]:
        """Return the run's tasks that have not ended and wait for *wait*, by rank."""
        ...

    def needs(self, task_id: TaskId) -> Sequence[Task]:
        """Return the tasks that *task_id* needs."""
        ...

    def retries_of(self, run_id: RunId) -> Sequence[Task]:
        """Return the tasks of other runs that try one of the run's tasks again, the first first."""
        ...

    def needed_by(self, task_id: TaskId) -> Sequence[Task]:
        """Return the tasks that need *task_id*."""
        ...

    def find(self, prefix: str, run_id: RunId | None = None) -> Sequence[Task]:
        """Return at most two tasks whose id begins with *prefix* (or, in a run, whose name is it)."""
        ...


class HistoryTable(Protocol):
    """How long tasks took."""

    def of_project(self, project: str, limit: int = 2000) -> Sequence[Took]:
        """Return how long the tasks of *project* took."""
        ...

    def alike(self, project: str, name: str, config: str) -> Took | None:
        """Return how long tasks took that are called *name* and were done by *config*, or None when there were none."""
        ...

    def put(self, took: Took) -> None:
        """Add or replace *took*."""
        ...


class AttemptTable(Protocol):
    """Attempts and their prompts."""

    def put(self, attempt: Attempt) -> None:
        """Add or replace *attempt*."""
        ...

    def get(self, attempt_id: AttemptId) -> Attempt | None:
        """Return the attempt, or None."""
        ...

    def of_task(self, task_id: TaskId) -> Sequence[Attempt]:
        """Return the task's attempts, the first first."""
        ...

    def outcomes(self, run_id: RunId) -> Mapping[Outcome | None, int]:
        """Return how many attempts at the run's tasks ended how; None stands for those that are open."""
        ...

    def without_agent(self) -> Sequence[Attempt]:
        """Return open attempts of running tasks for which no agent is live."""
        ...

    def put_prompt(self, prompt: PromptRecord) -> None:
        """Add or replace *prompt*."""
        ...

    def prompts(self, attempt_id: AttemptId) -> Sequence[PromptRecord]:
        """Return the attempt's prompts, the first first."""
        ...

    def prompt(self, prompt_id: PromptId) -> PromptRecord | None:
        """Return the prompt, or None."""
        ...


class AgentTable(AgentFinding, Protocol):
    """Live agents and the workspaces they work in."""

    def put(self, agent: Agent) -> None:
        """Add or replace *agent*."""
        ...

    def get(self, agent_id: AgentId) -> Agent | None:
        """Return the agent, or None."""
        ...

    def live(self) -> Sequence[Agent]:
        """Return the agents that are not stopped."""
        ...

    def put_workspace(self, workspace: WorkspaceRow) -> None:
        """Add or replace *workspace*."""
        ...

    def workspace(self, workspace_id: WorkspaceId) -> WorkspaceRow | None:
        """Return the workspace, or None."""
        ...

    def workspaces(self) -> Sequence[WorkspaceRow]:
        """Return all workspaces."""
        ...

    def drop_workspace(self, workspace_id: WorkspaceId) -> None:
        """Forget a workspace that is gone."""
        ...


class ChangeTable(Protocol):
    """The merge queue, the integration refs and the receipts."""

    def put(self, change: Change) -> None:
        """Add or replace *change*."""
        ...

    def get(self, change_id: ChangeId) -> Change | None:
        """Return the change, or None."""
        ...

    def queued(self) -> Sequence[Change]:
        """Return the queued changes of all targets."""
        ...

    def of_task(self, task_id: TaskId) -> Sequence[Change]:
        """Return the task's changes, the first first."""
        ...

    def merged(self, run_id: RunId, limit: int) -> Sequence[Change]:
        """Return the run's merged changes, the last merged first."""
        ...

    def merged_as(self, commit: str) -> Sequence[Change]:
        """Return the changes that *commit* brought onto the target, in the order of the queue."""
        ...

    def integration(self, repository: str, target: str, line: str = "") -> Integration | None:
        """Return how far a line of the target's queue has come, or None when nothing was merged onto it yet."""
        ...

    def put_integration(self, integration: Integration) -> None:
        """Add or replace *integration*."""
        ...

    def integrations(self) -> Sequence[Integration]:
        """Return all integrations."""
        ...

    def put_receipt(self, receipt: Receipt) -> None:
        """Add or replace *receipt*."""
        ...

    def receipt(self, key: str) -> Receipt | None:
        """Return the receipt, or None."""
        ...

    def receipts_of(self, tree: str) -> Sequence[Receipt]:
        """Return the receipts for *tree*, the oldest first."""
        ...


class Ledger(Protocol):
    """Model calls and what they cost."""

    def add(self, calls: Sequence[ModelCall], at: datetime) -> None:
        """Book *calls*, which have ended; one that is booked already is not booked again."""
        ...

    def used(
        self, by: Grouping, *, since: datetime | None = None, until: datetime | None = None, run_id: RunId | None = None
    ) -> Sequence[Used]:
        """Return what was spent by each group, the dearest first (days in their order); of all runs or of one."""
        ...

    def keep(self, calls: Sequence[ModelCall], at: datetime) -> None:
        """Write down that *calls* are on their way. They count as spent when they are booked."""
        ...

    def drop(self, call_ids: Sequence[str]) -> None:
        """Forget calls that were kept and did not go out after all; what is booked stays."""
        ...

    def on_their_way(self) -> Sequence[ModelCall]:
        """Return the calls that were kept and are not booked, the oldest first."""
        ...

    def warned(self) -> Sequence[tuple[str, str, float]]:
        """Return of which budgets the log told that they were nearly spent: what they add up under, resource and limit."""
        ...

    def by_task(self, run_id: RunId) -> dict[TaskId, Spend]:
        """Return what each task of a run has spent."""
        ...

    def by_run(self) -> dict[RunId, Spend]:
        """Return what each run that has not ended has spent."""
        ...

    def total(self, *, project: str | None = None, account_id: AccountId | None = None, since: datetime | None = None) -> Spend:
        """Return what all calls of a project or an account (or of all) have spent, or those *since* a time."""
        ...


class RequestTable(Protocol):
    """Requests."""

    def add(self, request: Request) -> None:
        """Append *request*, unless it was asked before."""
        ...

    def open(self, limit: int = 100) -> Sequence[Request]:
        """Return the requests that are not settled, the oldest first."""
        ...

    def settle(self, request_id: RequestId, at: datetime, refusal: str | None) -> None:
        """Say what became of a request."""
        ...

    def get(self, request_id: RequestId) -> Request | None:
        """Return the request, or None."""
        ...

    def settlement(self, request_id: RequestId) -> Settlement | None:
        """Return what became of the request, or None where there is none; what it asks for, which may be much, is not read."""
        ...


class AccountTable(Protocol):
    """Accounts of which something is known."""

    def put(self, account: Account) -> None:
        """Add or replace *account*."""
        ...

    def get(self, account_id: AccountId) -> Account | None:
        """Return the account, or None."""
        ...

    def not_open(self) -> Sequence[Account]:
        """Return the accounts that are not open, by id."""
        ...


class QuestionTable(Protocol):
    """Questions of agents."""

    def put(self, question: Question) -> None:
        """Add or replace *question*."""
        ...

    def get(self, question_id: QuestionId) -> Question | None:
        """Return the question, or None."""
        ...

    def asked(self, agent_id: AgentId, call_id: str) -> Question | None:
        """Return what *agent_id* asked of this call, or None."""
        ...

    def ruled(self, agent_id: AgentId, tool: str, what: str) -> Question | None:
        """Return the last question that a rule asked for *agent_id* about exactly this, or None."""
        ...

    def open(self) -> Sequence[Question]:
        """Return the open questions, the oldest first."""
        ...

    def always(self, run_id: RunId) -> Sequence[Question]:
        """Return the questions of a run that were answered with `always`."""
        ...

    def find(self, prefix: str) -> Sequence[Question]:
        """Return at most two questions whose id begins with *prefix*, the newest first."""
        ...


class View(Protocol):
    """What may be read."""

    @property
    def runs(self) -> RunTable:
        """Runs."""
        ...

    @property
    def tasks(self) -> TaskTable:
        """Tasks."""
        ...

    @property
    def history(self) -> HistoryTable:
        """How long tasks took."""
        ...

    @property
    def attempts(self) -> AttemptTable:
        """Attempts and prompts."""
        ...

    @property
    def agents(self) -> AgentTable:
        """Agents and workspaces."""
        ...

    @property
    def spares(self) -> "SpareTable":
        """Agents without a task."""
        ...

    @property
    def changes(self) -> ChangeTable:
        """The merge queue."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Model calls."""
        ...

    @property
    def accounts(self) -> AccountTable:
        """Accounts."""
        ...

    @property
    def questions(self) -> QuestionTable:
        """Questions of agents."""
        ...

    @property
    def brakes(self) -> BrakeTable:
        """Spent budgets, and the off switch."""
        ...

    @property
    def standings(self) -> StandingTable:
        """How agents stand, and alerts."""
        ...

    @property
    def requests(self) -> RequestTable:
        """Requests."""
        ...

    def events(self, after: int = 0, *, run_id: RunId | None = None, limit: int = 1000) -> "Sequence[Entry]":
        """Return the events after the sequence number *after*, in order."""
        ...

    def events_of_task(self, run_id: RunId, task_id: TaskId, kind: str, limit: int = 1000) -> "Sequence[Entry]":
        """Return the newest events of *kind* about a task, in order."""
        ...

    def last_seq(self) -> int:
        """Return the sequence number of the newest event, 0 when there is none."""
        ...


class Tx(View, Protocol):
    """A transaction of the leader."""

    @property
    def now(self) -> datetime:
        """The time of everything in this transaction."""
        ...

    @property
    def term(self) -> int:
        """The leader's term."""
        ...

    def log(self, *events: "Event") -> None:
        """Append *events*, in this order."""
        ...


class Readable(Protocol):
    """Durable state, for those who only look."""

    async def read(self, work: Callable[[View], T]) -> T:
        """Run *work*, which only reads, on one consistent state."""
        ...


class Store(Readable, Protocol):
    """Durable state and the event log.

    A commit is on disk when ``transact`` returns. Work is done one after the other, in the order of the calls.
    """

    store_id: str
    """Names this store in everything it leaves in the world: environment of agents, refs, sockets."""

    async def transact(self, work: Callable[[Tx], T], *, term: int) -> T:
        """Run *work* in one transaction and return what it returned; whatever it raises undoes everything.

        Raises:
            LeadLost: *term* is not the present one; nothing was written.
            StoreFailed: the store cannot be written.
        """
        ...

    async def ask(self, requests: Iterable[Request]) -> None:
        """Append *requests*; anybody may. One that was asked already is not asked again."""
        ...

    async def close(self) -> None:
        """Close the store; no effect when it is closed."""
        ...


__all__ = [
    "AccountTable",
    "AgentTable",
    "AttemptTable",
    "ChangeTable",
    "Edge",
    "HistoryTable",
    "Ledger",
    "Overview",
    "QuestionTable",
    "Readable",
    "RequestTable",
    "RunState",
    "RunTable",
    "Store",
    "TaskTable",
    "Tx",
    "View",
    "WorkspaceRow",
]
