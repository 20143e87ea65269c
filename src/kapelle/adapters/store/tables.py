"""The tables of the store's port, over one connection in one transaction."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, get_args

from kapelle.adapters.store.brakes import SqlBrakes
from kapelle.adapters.store.codecs import Codec
from kapelle.adapters.store.known import Known
from kapelle.adapters.store.ledger import SqlLedger, spend_of
from kapelle.adapters.store.pool import SqlSpares
from kapelle.adapters.store.rows import EPOCH, ESCAPE, LONGEST_BODY, from_microseconds, to_microseconds
from kapelle.adapters.store.standing_tables import SqlStandings
from kapelle.core.account import Account
from kapelle.core.agent import Agent, ProcessRef
from kapelle.core.attempt import Attempt, Outcome, PromptRecord
from kapelle.core.budget import Spend
from kapelle.core.frozen import replace
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
from kapelle.core.leading import Lead
from kapelle.core.merge import Change, Integration
from kapelle.core.paths import Took
from kapelle.core.question import Question
from kapelle.core.requests import Body, Request, Settlement, Submit, Unreadable
from kapelle.core.run import Run
from kapelle.core.shapes import without_shapes
from kapelle.core.store import Edge, Overview, WorkspaceRow
from kapelle.core.task import Task, TaskState, Wait

if TYPE_CHECKING:
    from kapelle.adapters.store.statements import Statements
    from kapelle.core.events import Entry, Event

BODIES: dict[str, type[Body]] = {kind.__name__: kind for kind in get_args(Body)}


_IDS = {"run_id", "task_id"}
"""Fields of every event that are columns of their own."""
LOWEST = -1e300
"""Below every rank."""


@cache
def body_codec(kind: str) -> Codec:
    """Return the codec of the requests of *kind*."""
    return Codec(BODIES[kind])


@cache
def event_codec(kind: str) -> Codec:
    """Return the codec of the events of *kind*."""
    from kapelle.core.events import KINDS

    return Codec(KINDS[kind], without=_IDS)


def _pattern(prefix: str) -> str:
    # Ids hold no wildcard; whoever types one finds nothing rather than everything.
    return "".join(ESCAPE + letter if letter in f"%_{ESCAPE}" else letter for letter in prefix) + "%"


def lead_of(row: Sequence[Any]) -> Lead:
    """Return who leads, from a row of LogStatements.lead."""
    term, boot_id, pid, started, renewed_at, given_up = row
    process = ProcessRef(boot_id=boot_id, pid=pid, started=started)
    return Lead(term=term, holder=process, renewed_at=from_microseconds(renewed_at), given_up=bool(given_up))


def _by_time(runs: list[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: (run.submitted_at, run.run_id))


class _Kept:
    """The tables whose rows change often; shared by all parts of a transaction."""

    def __init__(self, connection: sqlite3.Connection, statements: "Statements") -> None:
        self._runs = statements.runs.rows
        self.runs = Known(connection, self._runs)
        self.tasks = Known(connection, statements.tasks.rows)
        self.attempts = Known(connection, statements.attempts.rows)
        self.agents = Known(connection, statements.agents.rows)

    def flush(self) -> None:
        """Write what is not written yet."""
        for table in (self.runs, self.tasks, self.attempts, self.agents):
            table.flush()
        self._runs.forget_written()


class _Part:
    def __init__(self, connection: sqlite3.Connection, statements: "Statements", kept: _Kept) -> None:
        self._at = connection
        self._all = statements
        self._kept = kept


class SqlRuns(_Part):
    """Runs."""

    def add(self, run: Run) -> None:
        self._kept.runs.add([run])

    def get(self, run_id: RunId) -> Run | None:
        return self._kept.runs.get(run_id)

    def put(self, run: Run) -> None:
        self._kept.runs.put(run)

    def pause(self, run: Run, *, paused: bool) -> None:
        self.put(replace(run, paused=paused))
        self._all.runs.hold.do(self._at, of_run=run.run_id, to_held=int(paused))

    def open(self) -> Sequence[Run]:
        self._kept.runs.flush()
        return _by_time(self._kept.runs.load(self._all.runs.open.run(self._at)))

    def open_ids(self) -> Sequence[RunId]:
        self._kept.runs.flush()
        return [RunId(row[0]) for row in self._all.runs.open_ids.run(self._at)]

    def done(self) -> Sequence[Run]:
        self._kept.runs.flush()
        return _by_time(self._kept.runs.load(self._all.runs.done.run(self._at)))

    def overviews(self, run_ids: Sequence[RunId] | None = None, limit: int = 50) -> Sequence[Overview]:
        self._kept.tasks.flush()
        if run_ids is None:
            runs = self._kept.runs.load(self._all.runs.newest.run(self._at, limit=limit))
        else:
            runs = [run for run_id in run_ids for run in [self.get(run_id)] if run is not None]
        return [self._overview(run) for run in runs]

    def _overview(self, run: Run) -> Overview:
        counts: dict[TaskState, int] = {}
        for (state, _), count in self.counts(run.run_id).items():
            counts[state] = counts.get(state, 0) + count
        spend = spend_of(self._all.runs.spend.run(self._at, run_id=run.run_id)[0])
        return Overview(run=run, counts=tuple(counts.items()), spend=spend)

    def counts(self, run_id: RunId) -> Mapping[tuple[TaskState, Wait | None], int]:
        self._kept.tasks.flush()
        rows = self._all.runs.counts.run(self._at, run_id=run_id)
        return {(TaskState(state), Wait(wait) if wait is not None else None): count for state, wait, count in rows}

    def find(self, prefix: str) -> Sequence[RunId]:
        return [RunId(row[0]) for row in self._all.runs.like.run(self._at, pattern=_pattern(prefix))]

    def named(self, name: str, limit: int = 10) -> Sequence[Run]:
        return self._kept.runs.load(self._all.runs.named.run(self._at, name=name, limit=limit))


class SqlTasks(_Part):
    """Tasks and needs."""

    def add(self, tasks: Sequence[Task], edges: Sequence[Edge]) -> None:
        self._kept.tasks.add(tasks)
        self._all.tasks.needs.add(self._at, edges)

    def get(self, task_id: TaskId) -> Task | None:
        return self._kept.tasks.get(task_id)

    def put(self, task: Task) -> None:
        self._kept.tasks.put(task)

    def due(self, now: datetime, limit: int, after: Task | None = None) -> Sequence[Task]:
        rank, task_id = (after.rank, after.task_id) if after is not None else (LOWEST, "")
        self._kept.tasks.flush()
        rows = self._all.tasks.due.run(self._at, now=to_microseconds(now), limit=limit, after_rank=rank, after_id=task_id)
        return self._kept.tasks.load(rows)

    def runs_due(self, limit: int, after: RunId | None = None) -> Sequence[RunId]:
        self._kept.tasks.flush()
        return [RunId(row[0]) for row in self._all.tasks.runs_due.run(self._at, limit=limit, after=after or "")]

    def due_of_run(self, run_id: RunId, now: datetime, limit: int) -> Sequence[Task]:
        self._kept.tasks.flush()
        rows = self._all.tasks.due_of_run.run(self._at, run_id=run_id, now=to_microseconds(now), limit=limit)
        return self._kept.tasks.load(rows)

    def next_due_at(self, now: datetime) -> datetime | None:
        self._kept.tasks.flush()
        found = self._all.tasks.next_due.run(self._at, now=to_microseconds(now))[0][0]
        return None if found is None else from_microseconds(found)

    def of_run(self, run_id: RunId) -> Sequence[Task]:
        return self._kept.tasks.load(self._all.tasks.of_run.run(self._at, run_id=run_id))

    def in_state(self, state: TaskState, limit: int = 500) -> Sequence[Task]:
        self._kept.tasks.flush()
        return self._kept.tasks.load(self._all.tasks.in_state.run(self._at, state=state.value, limit=limit))

    def waiting(self, run_id: RunId, wait: Wait, limit: int = 100_000) -> Sequence[Task]:
        self._kept.tasks.flush()
        return self._kept.tasks.load(self._all.tasks.waiting.run(self._at, run_id=run_id, wait=wait.value, limit=limit))

    def needs(self, task_id: TaskId) -> Sequence[Task]:
        return self._kept.tasks.load(self._all.tasks.its_needs.run(self._at, task_id=task_id))

    def retries_of(self, run_id: RunId) -> Sequence[Task]:
        return self._kept.tasks.load(self._all.tasks.retries.run(self._at, run_id=run_id))

    def needed_by(self, task_id: TaskId) -> Sequence[Task]:
        return self._kept.tasks.load(self._all.tasks.needed_by.run(self._at, task_id=task_id))

    def find(self, prefix: str, run_id: RunId | None = None) -> Sequence[Task]:
        if run_id is not None:
            named = self._all.tasks.named.run(self._at, run_id=run_id, name=prefix)
            found = self._all.tasks.like_in_run.run(self._at, run_id=run_id, pattern=_pattern(prefix))
            return self._kept.tasks.load(named or found)
        return self._kept.tasks.load(self._all.tasks.like.run(self._at, pattern=_pattern(prefix)))


class SqlHistory(_Part):
    """How long tasks took."""

    def of_project(self, project: str, limit: int = 2000) -> Sequence[Took]:
        rows = self._all.history.of_project.run(self._at, project=project, limit=limit)
        return [self._all.history.rows.load(self._at, row) for row in rows]

    def alike(self, project: str, name: str, config: str) -> Took | None:
        rows = self._all.history.alike.run(self._at, project=project, name=name, config=config)
        return self._all.history.rows.load(self._at, rows[0]) if rows else None

    def put(self, took: Took) -> None:
        self._all.history.rows.put(self._at, took)


class SqlAttempts(_Part):
    """Attempts and prompts."""

    def put(self, attempt: Attempt) -> None:
        self._kept.attempts.put(attempt)

    def get(self, attempt_id: AttemptId) -> Attempt | None:
        return self._kept.attempts.get(attempt_id)

    def of_task(self, task_id: TaskId) -> Sequence[Attempt]:
        self._kept.attempts.flush()
        return self._kept.attempts.load(self._all.attempts.of_task.run(self._at, task_id=task_id))

    def outcomes(self, run_id: RunId) -> Mapping[Outcome | None, int]:
        self._kept.flush()
        rows = self._all.attempts.outcomes.run(self._at, run_id=run_id)
        return {Outcome(outcome) if outcome is not None else None: count for outcome, count in rows}

    def without_agent(self) -> Sequence[Attempt]:
        self._kept.flush()
        return self._kept.attempts.load(self._all.attempts.without_agent.run(self._at))

    def put_prompt(self, prompt: PromptRecord) -> None:
        self._all.attempts.prompt_rows.put(self._at, prompt)

    def prompts(self, attempt_id: AttemptId) -> Sequence[PromptRecord]:
        rows = self._all.attempts.prompts.run(self._at, attempt_id=attempt_id)
        return [self._all.attempts.prompt_rows.load(self._at, row) for row in rows]

    def prompt(self, prompt_id: PromptId) -> PromptRecord | None:
        return self._all.attempts.prompt_rows.get(self._at, prompt_id)


class SqlAgents(_Part):
    """Agents and workspaces."""

    _live: tuple[int, list[Agent]] | None = None
    """The live agents, and how many had been put when they were read."""

    def put(self, agent: Agent) -> None:
        self._kept.agents.put(agent)

    def get(self, agent_id: AgentId) -> Agent | None:
        return self._kept.agents.get(agent_id)

    def live(self) -> Sequence[Agent]:
        # Every stage asks for them: they are read again only when one was put in between.
        if self._live is None or self._live[0] != self._kept.agents.puts:
            self._kept.agents.flush()
            self._live = (self._kept.agents.puts, self._kept.agents.load(self._all.agents.live.run(self._at)))
        return list(self._live[1])

    def find(self, prefix: str) -> Sequence[Agent]:
        self._kept.agents.flush()
        return self._kept.agents.load(self._all.agents.like.run(self._at, pattern=_pattern(prefix)))

    def newest(self, limit: int, task_id: TaskId | None = None) -> Sequence[Agent]:
        self._kept.agents.flush()
        found = self._all.agents.newest if task_id is None else self._all.agents.of_task
        given = {} if task_id is None else {"task_id": task_id}
        return self._kept.agents.load(found.run(self._at, limit=limit, **given))

    def spent(self, run_id: RunId) -> dict[AgentId, Spend]:
        rows = self._all.log.spend_by_agent.run(self._at, run_id=run_id)
        return {AgentId(row[0]): spend_of(row[1:]) for row in rows}

    def worked(self, run_id: RunId) -> dict[TaskId, timedelta]:
        self._kept.agents.flush()
        rows = self._all.agents.worked.run(self._at, run_id=run_id)
        return {TaskId(task_id): timedelta(microseconds=int(worked)) for task_id, worked in rows}

    def worked_since(
        self, since: datetime | None, *, project: str | None = None, account_id: AccountId | None = None
    ) -> timedelta:
        self._kept.agents.flush()
        agents, late = self._all.agents, {"since": to_microseconds(since) if since is not None else 0}
        if project is not None:
            (row,) = agents.worked_of_project.run(self._at, whose=project, **late)
        elif account_id is not None:
            (row,) = agents.worked_of_account.run(self._at, whose=account_id, **late)
        else:
            (row,) = agents.worked_since.run(self._at, **late)
        return timedelta(microseconds=int(row[0]))

    def put_workspace(self, workspace: WorkspaceRow) -> None:
        self._all.agents.workspace_rows.put(self._at, workspace)

    def workspace(self, workspace_id: WorkspaceId) -> WorkspaceRow | None:
        return self._all.agents.workspace_rows.get(self._at, workspace_id)

    def workspaces(self) -> Sequence[WorkspaceRow]:
        return [self._all.agents.workspace_rows.load(self._at, row) for row in self._all.agents.workspaces.run(self._at)]

    def drop_workspace(self, workspace_id: WorkspaceId) -> None:
        self._all.agents.drop.do(self._at, workspace_id=workspace_id)


class SqlAccounts(_Part):
    """Accounts."""

    _shut: list[Account] | None = None
    """What ``not_open`` found: nearly every stage asks, and mostly there are none."""

    def put(self, account: Account) -> None:
        self._shut = None
        self._all.accounts.rows.put(self._at, account)

    def get(self, account_id: AccountId) -> Account | None:
        return self._all.accounts.rows.get(self._at, account_id)

    def not_open(self) -> Sequence[Account]:
        if self._shut is None:
            self._shut = [self._all.accounts.rows.load(self._at, row) for row in self._all.accounts.not_open.run(self._at)]
        return list(self._shut)


class SqlQuestions(_Part):
    """Questions of agents."""

    def put(self, question: Question) -> None:
        self._all.questions.rows.put(self._at, question)

    def get(self, question_id: QuestionId) -> Question | None:
        return self._all.questions.rows.get(self._at, question_id)

    def asked(self, agent_id: AgentId, call_id: str) -> Question | None:
        rows = self._all.questions.asked.run(self._at, agent_id=agent_id, call_id=call_id)
        return self._all.questions.rows.load(self._at, rows[0]) if rows else None

    def ruled(self, agent_id: AgentId, tool: str, what: str) -> Question | None:
        rows = self._all.questions.ruled.run(self._at, agent_id=agent_id, tool=tool, what=what)
        return self._all.questions.rows.load(self._at, rows[0]) if rows else None

    def open(self) -> Sequence[Question]:
        return self._loaded(self._all.questions.open.run(self._at))

    def always(self, run_id: RunId) -> Sequence[Question]:
        return self._loaded(self._all.questions.always.run(self._at, run_id=run_id))

    def find(self, prefix: str) -> Sequence[Question]:
        return self._loaded(self._all.questions.like.run(self._at, pattern=_pattern(prefix)))

    def _loaded(self, rows: Sequence[Any]) -> Sequence[Question]:
        return [self._all.questions.rows.load(self._at, row) for row in rows]


class SqlChanges(_Part):
    """The merge queue, the integration refs and the receipts."""

    def put(self, change: Change) -> None:
        self._all.changes.rows.put(self._at, change)

    def get(self, change_id: ChangeId) -> Change | None:
        return self._all.changes.rows.get(self._at, change_id)

    def queued(self) -> Sequence[Change]:
        return [self._all.changes.rows.load(self._at, row) for row in self._all.changes.queued.run(self._at)]

    def of_task(self, task_id: TaskId) -> Sequence[Change]:
        return [self._all.changes.rows.load(self._at, row) for row in self._all.changes.of_task.run(self._at, task_id=task_id)]

    def merged(self, run_id: RunId, limit: int) -> Sequence[Change]:
        rows = self._all.changes.merged.run(self._at, run_id=run_id, limit=limit)
        return [self._all.changes.rows.load(self._at, row) for row in rows]

    def merged_as(self, commit: str) -> Sequence[Change]:
        return [self._all.changes.rows.load(self._at, row) for row in self._all.changes.merged_as.run(self._at, commit=commit)]

    def integration(self, repository: str, target: str, line: str = "") -> Integration | None:
        rows = self._all.changes.integration.run(self._at, repository=repository, target=target, line=line)
        return self._all.changes.integration_rows.load(self._at, rows[0]) if rows else None

    def put_integration(self, integration: Integration) -> None:
        self._all.changes.integration_rows.put(self._at, integration)

    def integrations(self) -> Sequence[Integration]:
        return [self._all.changes.integration_rows.load(self._at, row) for row in self._all.changes.integrations.run(self._at)]

    def put_receipt(self, receipt: Receipt) -> None:
        self._all.changes.receipt_rows.put(self._at, receipt)

    def receipt(self, key: str) -> Receipt | None:
        return self._all.changes.receipt_rows.get(self._at, key)

    def receipts_of(self, tree: str) -> Sequence[Receipt]:
        return [
            self._all.changes.receipt_rows.load(self._at, row) for row in self._all.changes.receipts_of.run(self._at, tree=tree)
        ]


NAMELESS = "#"
"""Begins what stands for the id of a request whose own cannot be read: its number in the table comes behind it."""
WORDS = 500


class SqlRequests(_Part):
    """Requests."""

    def __init__(self, connection: sqlite3.Connection, statements: "Statements", kept: _Kept) -> None:
        super().__init__(connection, statements, kept)
        self._bodies: dict[str, Body | Unreadable] = {}
        """Of requests that this transaction has appended itself: they need not be read from JSON."""

    def open(self, limit: int = 100) -> Sequence[Request]:
        return [self._load(row) for row in self._all.log.requests_open.run(self._at, limit=limit)]

    def settle(self, request_id: RequestId, at: datetime, refusal: str | None) -> None:
        if request_id.startswith(NAMELESS):
            which = int(request_id.removeprefix(NAMELESS))
            self._all.log.settle_nameless.do(self._at, which=which, at=to_microseconds(at), because=refusal)
            return
        values = {"at": to_microseconds(at), "because": refusal}
        if not self._all.log.settle.do(self._at, which=request_id, **values) or not request_id:
            # Its id is bytes, which are not the text that they spell; of no bytes at all there may be one of either kind.
            self._all.log.settle_bytes.do(self._at, which=request_id.encode(), **values)

    def get(self, request_id: RequestId) -> Request | None:
        rows = self._all.log.request.run(self._at, request_id=request_id)
        return self._load(rows[0]) if rows else None

    def settlement(self, request_id: RequestId) -> Settlement | None:
        rows = self._all.log.settlement.run(self._at, request_id=request_id)
        if not rows:
            return None
        at, refusal = rows[0]
        return Settlement(at=None if at is None else from_microseconds(at), refusal=refusal)

    def add(self, request: Request) -> None:
        """Append *request*, unless it was asked before."""
        kind = type(request.body).__name__
        added = self._all.log.ask.do(
            self._at,
            request_id=request.request_id,
            kind=kind,
            body=self._body(request.body),
            principal=request.principal,
            asked_at=to_microseconds(request.asked_at),
        )
        if added:
            self._bodies[request.request_id] = request.body

    def _body(self, body: Body | Unreadable) -> str:
        if isinstance(body, Submit):
            # Its specification may be long, and is written once more when the run is accepted, which mostly is at once.
            spec = self._all.runs.rows.apart_written(body.spec)
            return f'{{"run_id":{json.dumps(body.run_id)},"spec":{spec}}}'
        return body_codec(type(body).__name__).write(body)

    def _load(self, row: Sequence[Any]) -> Request:
        """Return the request in *row*; one that is none says so in its body, and is refused by whoever leads."""
        seq, *texts, asked_at, settled_at, refusal = row
        # No bytes at all come back as nothing.
        request_id, kind, body, principal = (text or b"" for text in texts)
        problem, found = "", None
        try:
            name = bytes(request_id).decode()
            who = bytes(principal).decode()
            asked, settled = from_microseconds(asked_at), None if settled_at is None else from_microseconds(settled_at)
        except (TypeError, ValueError, OverflowError) as error:
            name, who, asked, settled, problem = f"{NAMELESS}{seq}", "", EPOCH, None, f"its row is broken ({error})"
        try:
            if name in self._bodies:
                found = self._bodies[name]
            elif len(body) > LONGEST_BODY:
                problem = problem or f"it has more than {LONGEST_BODY} bytes"
            else:
                found = body_codec(bytes(kind).decode()).read(body)
        except KeyError:
            problem = problem or f"{bytes(kind)[:40]!r} is no kind of request"
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            problem = problem or str(error)[:WORDS]
        if found is None or problem:
            found = Unreadable(problem=problem, run_id=getattr(found, "run_id", RunId("")))
        return Request(
            request_id=RequestId(name), body=found, principal=who, asked_at=asked, settled_at=settled, refusal=refusal
        )


class SqlView:
    """What may be read, in one transaction."""

    def __init__(self, connection: sqlite3.Connection, statements: "Statements") -> None:
        self._at = connection
        self._all = statements
        self._kept = kept = _Kept(connection, statements)
        self.runs = SqlRuns(connection, statements, kept)
        self.tasks = SqlTasks(connection, statements, kept)
        self.history = SqlHistory(connection, statements, kept)
        self.attempts = SqlAttempts(connection, statements, kept)
        self.agents = SqlAgents(connection, statements, kept)
        self.spares = SqlSpares(connection, statements)
        self.accounts = SqlAccounts(connection, statements, kept)
        self.questions = SqlQuestions(connection, statements, kept)
        self.brakes = SqlBrakes(connection, statements)
        self.standings = SqlStandings(connection, statements)
        self.changes = SqlChanges(connection, statements, kept)
        self.ledger = SqlLedger(connection, statements)
        self.requests = SqlRequests(connection, statements, kept)

    def events(self, after: int = 0, *, run_id: RunId | None = None, limit: int = 1000) -> "Sequence[Entry]":
        if run_id is None:
            rows = self._all.log.events.run(self._at, after=after, limit=limit)
        else:
            rows = self._all.log.events_of_run.run(self._at, after=after, run_id=run_id, limit=limit)
        return [_entry(row) for row in rows]

    def events_of_task(self, run_id: RunId, task_id: TaskId, kind: str, limit: int = 1000) -> "Sequence[Entry]":
        given = {"after": 0, "run_id": run_id, "task_id": task_id, "kind": kind, "limit": limit}
        return [_entry(row) for row in reversed(self._all.log.events_of_task.run(self._at, **given))]

    def last_seq(self) -> int:
        return int(self._all.log.last_seq.run(self._at)[0][0])


def _entry(row: Sequence[Any]) -> "Entry":
    from kapelle.core.events import Entry

    seq, at, term, kind, run_id, task_id, body = row
    # The two ids are columns of their own and not in the body; the codec takes all fields together.
    fields = {**json.loads(body), "run_id": run_id, "task_id": task_id}
    return Entry(seq=seq, at=from_microseconds(at), term=term, event=event_codec(kind).take(fields))


class SqlTx(SqlView):
    """A transaction of the leader."""

    def __init__(self, connection: sqlite3.Connection, statements: "Statements", *, now: datetime, term: int) -> None:
        super().__init__(connection, statements)
        self.now = now
        self.term = term
        self._events: list[tuple[Any, ...]] = []

    def log(self, *events: "Event") -> None:
        at = to_microseconds(self.now)
        for event in events:
            # Whatever its texts came from: what looks like a credential is in no event.
            body = without_shapes(event_codec(event.kind).write(event))
            # In the order of LogStatements.log.
            self._events.append((at, self.term, event.kind, event.run_id, event.task_id, body))

    def events(self, after: int = 0, *, run_id: RunId | None = None, limit: int = 1000) -> "Sequence[Entry]":
        self.flush()
        return super().events(after, run_id=run_id, limit=limit)

    def events_of_task(self, run_id: RunId, task_id: TaskId, kind: str, limit: int = 1000) -> "Sequence[Entry]":
        self.flush()
        return super().events_of_task(run_id, task_id, kind, limit)

    def last_seq(self) -> int:
        self.flush()
        return super().last_seq()

    def flush(self) -> None:
        """Write what is not written yet: rows, then the events that tell of them, all at once."""
        self._kept.flush()
        self._all.log.log.do_each(self._at, self._events)
        self._events = []
