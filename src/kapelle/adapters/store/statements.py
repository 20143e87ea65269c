"""The queries, each built once: shared by all transactions of a store."""

from functools import cached_property
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Float,
    LargeBinary,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.engine import Dialect

from kapelle.adapters.store import schema
from kapelle.adapters.store.calls import COLUMNS
from kapelle.adapters.store.clauses import Mapper, Statement, insert_into, worked_since
from kapelle.adapters.store.computed import run_account, run_project, task_name, unapproved, zero
from kapelle.adapters.store.rows import ESCAPE, LONGEST_BODY
from kapelle.core.account import Account
from kapelle.core.agent import Agent
from kapelle.core.attempt import Attempt, PromptRecord
from kapelle.core.gate import Receipt
from kapelle.core.halt import Halt
from kapelle.core.liveness import Standing
from kapelle.core.merge import Change, Integration
from kapelle.core.paths import Took
from kapelle.core.pool import Assignment, Spare, StandingPool
from kapelle.core.question import Question
from kapelle.core.run import Run
from kapelle.core.spent import SpentBudget
from kapelle.core.standings import Alert
from kapelle.core.store import Edge, WorkspaceRow
from kapelle.core.task import Task


class RunStatements:
    """Runs."""

    def __init__(self, dialect: Dialect) -> None:
        runs, tasks, calls = schema.runs, schema.tasks, schema.calls
        of_spec = {"project": run_project, "account_id": run_account}
        self.rows = Mapper(Run, runs, dialect, apart=("spec", schema.run_specs), extra=of_spec, once=tuple(of_spec))
        columns = self.rows.columns
        # Put in order by whoever asks: asked to, SQLite would go through all runs there ever were, in the order of time.
        not_ended = select(*columns).where(text("ended_at IS NULL"))
        self.open = Statement(not_ended, dialect)
        self.open_ids = Statement(select(runs.c.run_id).where(text("ended_at IS NULL")), dialect)
        self.done = Statement(not_ended.where(runs.c.unfinished <= literal_column("0")), dialect)
        self.newest = Statement(
            select(*columns).order_by(runs.c.submitted_at.desc(), runs.c.run_id).limit(bindparam("limit")), dialect
        )
        alike = select(runs.c.run_id).where(runs.c.run_id.like(bindparam("pattern"), escape=ESCAPE))
        self.like = Statement(alike.order_by(runs.c.run_id).limit(2), dialect)
        called = func.json_extract(schema.run_specs.c.spec, literal_column("'$.name'")) == bindparam("name")
        by_name = select(*columns).where(runs.c.run_id.in_(select(schema.run_specs.c.run_id).where(called)))
        newest_first = by_name.order_by(runs.c.submitted_at.desc(), runs.c.run_id).limit(bindparam("limit"))
        self.named = Statement(newest_first, dialect)
        self.counts = Statement(
            select(tasks.c.state, tasks.c.waits_for, func.count())
            .where(tasks.c.run_id == bindparam("run_id"))
            .group_by(tasks.c.state, tasks.c.waits_for),
            dialect,
        )
        self.hold = Statement(
            update(tasks).where(tasks.c.run_id == bindparam("of_run")).values(held=bindparam("to_held")), dialect
        )
        self.spend = Statement(select(*_sums()).where(calls.c.run_id == bindparam("run_id"), _settled()), dialect)


def _settled() -> ColumnElement[bool]:
    return schema.calls.c.settled == literal_column("1")


def _sums() -> list[ColumnElement[Any]]:
    calls = schema.calls
    whole = [calls.c.input_tokens, calls.c.output_tokens, calls.c.cache_read_tokens, calls.c.cache_write_tokens]
    sums: list[ColumnElement[Any]] = [func.coalesce(func.sum(column), 0) for column in whole]
    return [*sums, func.coalesce(func.sum(calls.c.cost_usd), 0.0), func.count()]


class TaskStatements:
    """Tasks and needs."""

    def __init__(self, dialect: Dialect) -> None:
        tasks, needs = schema.tasks, schema.needs
        self.rows = Mapper(
            Task,
            tasks,
            dialect,
            apart=("spec", schema.task_specs),
            extra={
                "name": task_name,
                "held": zero,
                "unapproved": unapproved,
            },
            once=("name", "held"),
            numbered="position",
        )
        self.needs = Mapper(Edge, needs, dialect)
        columns = self.rows.columns
        due = or_(tasks.c.due_at.is_(None), tasks.c.due_at <= bindparam("now"))
        after = (bindparam("after_rank", type_=Float()), bindparam("after_id", type_=Text()))
        self.due = Statement(
            select(*columns)
            .where(text(schema.READY), due, tuple_(tasks.c.rank, tasks.c.task_id) > tuple_(*after))
            .order_by(tasks.c.rank, tasks.c.task_id)
            .limit(bindparam("limit")),
            dialect,
        )
        self.due_of_run = Statement(
            select(*columns)
            .where(text(schema.READY), tasks.c.run_id == bindparam("run_id"), due)
            .order_by(tasks.c.rank, tasks.c.task_id)
            .limit(bindparam("limit")),
            dialect,
        )
        self.runs_due = Statement(_runs_due(), dialect)
        self.next_due = Statement(
            select(func.min(tasks.c.due_at)).where(text(schema.LATER), tasks.c.due_at > bindparam("now")), dialect
        )
        self.of_run = Statement(
            select(*columns).where(tasks.c.run_id == bindparam("run_id")).order_by(tasks.c.position), dialect
        )
        self.in_state = Statement(
            select(*columns)
            # Compared with an expression: SQLite plans anew for each value of a bare parameter that bears on a partial index.
            .where(text(schema.BUSY), tasks.c.state == bindparam("state", type_=Text()).concat(literal_column("''")))
            .order_by(tasks.c.rank)
            .limit(bindparam("limit")),
            dialect,
        )
        waits = (
            tasks.c.run_id == bindparam("run_id"),
            tasks.c.waits_for == bindparam("wait", type_=Text()),
            tasks.c.ended_at.is_(None),
        )
        waiting = select(*columns).where(*waits).order_by(tasks.c.rank, tasks.c.task_id)
        self.waiting = Statement(waiting.limit(bindparam("limit")), dialect)
        self.its_needs = Statement(
            select(*columns)
            .join(needs, needs.c.need_id == tasks.c.task_id)
            .where(needs.c.task_id == bindparam("task_id"))
            .order_by(tasks.c.position),
            dialect,
        )
        self.needed_by = Statement(
            select(*columns)
            .join(needs, needs.c.task_id == tasks.c.task_id)
            .where(needs.c.need_id == bindparam("task_id"))
            .order_by(tasks.c.position),
            dialect,
        )
        own = select(tasks.c.task_id).where(tasks.c.run_id == bindparam("run_id"))
        self.retries = Statement(
            select(*columns).where(tasks.c.retry_of.in_(own)).order_by(tasks.c.submitted_at, tasks.c.run_id, tasks.c.position),
            dialect,
        )
        like = tasks.c.task_id.like(bindparam("pattern"), escape=ESCAPE)
        newest = select(*columns).where(like).order_by(tasks.c.submitted_at.desc(), tasks.c.position).limit(2)
        self.like = Statement(newest, dialect)
        self.like_in_run = Statement(newest.where(tasks.c.run_id == bindparam("run_id")), dialect)
        self.named = Statement(
            select(*columns).where(tasks.c.run_id == bindparam("run_id"), tasks.c.name == bindparam("name")).limit(2), dialect
        )


def _runs_due() -> Any:
    """Return a query that jumps from run to run in the index of their due tasks: however many wait, it reads one of each."""
    tasks = schema.tasks
    first = select(func.min(tasks.c.run_id).label("run_id")).where(
        text(schema.READY), tasks.c.run_id > bindparam("after", type_=Text())
    )
    heads = first.cte("heads", recursive=True)
    behind = select(func.min(tasks.c.run_id)).where(text(schema.READY), tasks.c.run_id > heads.c.run_id).scalar_subquery()
    heads = heads.union_all(select(behind).where(heads.c.run_id.is_not(None)))
    return select(heads.c.run_id).where(heads.c.run_id.is_not(None)).limit(bindparam("limit"))


class HistoryStatements:
    """How long tasks took."""

    def __init__(self, dialect: Dialect) -> None:
        took = schema.took
        self.rows = Mapper(Took, took, dialect)
        of_project = select(*self.rows.columns).where(took.c.project == bindparam("project"))
        self.of_project = Statement(of_project.order_by(took.c.name, took.c.config).limit(bindparam("limit")), dialect)
        alike = of_project.where(took.c.name == bindparam("name"), took.c.config == bindparam("config"))
        self.alike = Statement(alike, dialect)


class AttemptStatements:
    """Attempts and prompts."""

    def __init__(self, dialect: Dialect) -> None:
        attempts, prompts, agents, tasks = schema.attempts, schema.prompts, schema.agents, schema.tasks
        self.rows = Mapper(Attempt, attempts, dialect)
        self.prompt_rows = Mapper(PromptRecord, prompts, dialect)
        columns = self.rows.columns
        self.of_task = Statement(
            select(*columns).where(attempts.c.task_id == bindparam("task_id")).order_by(attempts.c.number), dialect
        )
        of_run = select(attempts.c.outcome, func.count()).join(tasks, tasks.c.task_id == attempts.c.task_id)
        ends = of_run.where(tasks.c.run_id == bindparam("run_id")).group_by(attempts.c.outcome)
        self.outcomes = Statement(ends, dialect)
        agent_live = exists().where(and_(agents.c.attempt_id == attempts.c.attempt_id, text("agents.stopped_at IS NULL")))
        self.without_agent = Statement(
            select(*columns)
            .join(tasks, tasks.c.attempt_id == attempts.c.attempt_id)
            .where(
                text("attempts.ended_at IS NULL"), text(schema.BUSY), tasks.c.state == literal_column("'running'"), ~agent_live
            )
            .order_by(tasks.c.rank),
            dialect,
        )
        self.prompts = Statement(
            select(*self.prompt_rows.columns).where(prompts.c.attempt_id == bindparam("attempt_id")).order_by(prompts.c.seq),
            dialect,
        )


class AgentStatements:
    """Agents and workspaces."""

    def __init__(self, dialect: Dialect) -> None:
        agents, workspaces = schema.agents, schema.workspaces
        self.rows = Mapper(Agent, agents, dialect)
        self.workspace_rows = Mapper(WorkspaceRow, workspaces, dialect)
        self.live = Statement(
            select(*self.rows.columns).where(text("stopped_at IS NULL")).order_by(agents.c.created_at, agents.c.agent_id),
            dialect,
        )
        newest = select(*self.rows.columns).order_by(agents.c.created_at.desc(), agents.c.agent_id)
        self.like = Statement(newest.where(agents.c.agent_id.like(bindparam("pattern"), escape=ESCAPE)).limit(2), dialect)
        self.newest = Statement(newest.limit(bindparam("limit")), dialect)
        of_task = newest.where(agents.c.task_id == bindparam("task_id"))
        self.of_task = Statement(of_task.limit(bindparam("limit")), dialect)
        worked = func.sum(agents.c.stopped_at - agents.c.created_at - agents.c.rested)
        self.worked = Statement(
            select(agents.c.task_id, worked)
            .where(agents.c.run_id == bindparam("run_id"), agents.c.stopped_at.is_not(None))
            .group_by(agents.c.task_id),
            dialect,
        )
        self.worked_since = Statement(worked_since(), dialect)
        runs = schema.runs
        by_all = worked_since().join(runs, runs.c.run_id == agents.c.run_id)
        self.worked_of_project = Statement(by_all.where(runs.c.project == bindparam("whose")), dialect)
        self.worked_of_account = Statement(by_all.where(runs.c.account_id == bindparam("whose")), dialect)
        self.workspaces = Statement(select(*self.workspace_rows.columns), dialect)
        self.drop = Statement(workspaces.delete().where(workspaces.c.workspace_id == bindparam("workspace_id")), dialect)


class PoolStatements:
    """Spares and standing pools."""

    def __init__(self, dialect: Dialect) -> None:
        spares, standing = schema.spares, schema.standing_pools
        self.rows = Mapper(Spare, spares, dialect)
        self.all = Statement(select(*self.rows.columns).order_by(spares.c.created_at, spares.c.agent_id), dialect)
        self.drop = Statement(spares.delete().where(spares.c.agent_id == bindparam("agent_id")), dialect)
        self.standing_rows = Mapper(StandingPool, standing, dialect)
        self.standing = Statement(select(*self.standing_rows.columns).order_by(standing.c.project, standing.c.config), dialect)
        self.drop_standing = Statement(standing.delete().where(standing.c.key == bindparam("key")), dialect)
        given = schema.assignments
        self.given_rows = Mapper(Assignment, given, dialect)
        self.given = Statement(select(*self.given_rows.columns).order_by(given.c.at, given.c.task_id), dialect)
        self.drop_given = Statement(given.delete().where(given.c.task_id == bindparam("task_id")), dialect)


class AccountStatements:
    """Accounts."""

    def __init__(self, dialect: Dialect) -> None:
        accounts = schema.accounts
        self.rows = Mapper(Account, accounts, dialect)
        self.not_open = Statement(
            select(*self.rows.columns).where(accounts.c.state != literal_column("'open'")).order_by(accounts.c.account_id),
            dialect,
        )


class QuestionStatements:
    """Questions of agents."""

    def __init__(self, dialect: Dialect) -> None:
        questions = schema.questions
        self.rows = Mapper(Question, questions, dialect)
        every = select(*self.rows.columns)
        in_order = (questions.c.asked_at, questions.c.question_id)
        self.open = Statement(every.where(text(schema.ASKED)).order_by(*in_order), dialect)
        self.asked = Statement(
            every.where(questions.c.agent_id == bindparam("agent_id"), questions.c.call_id == bindparam("call_id")), dialect
        )
        same = [questions.c[name] == bindparam(name) for name in ("agent_id", "tool", "what")]
        newest = (questions.c.asked_at.desc(), questions.c.question_id.desc())
        self.ruled = Statement(every.where(*same, questions.c.rule != "").order_by(*newest).limit(1), dialect)
        of_run = every.where(text(schema.ALWAYS), questions.c.run_id == bindparam("run_id"))
        self.always = Statement(of_run.order_by(*in_order), dialect)
        like = every.where(questions.c.question_id.like(bindparam("pattern"), escape=ESCAPE))
        self.like = Statement(like.order_by(questions.c.asked_at.desc(), questions.c.question_id).limit(2), dialect)


class BrakeStatements:
    """Spent budgets, and the off switch."""

    def __init__(self, dialect: Dialect) -> None:
        spent, halts = schema.spent, schema.halts
        self.rows = Mapper(SpentBudget, spent, dialect)
        every = select(*self.rows.columns)
        self.standing = Statement(every.where(text(schema.NOT_OVER)).order_by(spent.c.asked_at, spent.c.spent_id), dialect)
        self.newest = Statement(every.order_by(spent.c.asked_at.desc(), spent.c.spent_id), dialect)
        self.halt_rows = Mapper(Halt, halts, dialect)
        off = select(*self.halt_rows.columns).where(text(schema.OFF))
        self.halt = Statement(off.order_by(halts.c.began_at, halts.c.halt_id).limit(1), dialect)


class StandingStatements:
    """How agents stand, and alerts."""

    def __init__(self, dialect: Dialect) -> None:
        standings, alerts = schema.standings, schema.alerts
        self.rows = Mapper(Standing, standings, dialect)
        self.alert_rows = Mapper(Alert, alerts, dialect)
        self.all = Statement(select(*self.rows.columns).order_by(standings.c.attempt_id), dialect)
        self.drop = Statement(standings.delete().where(standings.c.attempt_id == bindparam("attempt_id")), dialect)
        self.alerts = Statement(select(*self.alert_rows.columns).order_by(alerts.c.name, alerts.c.project), dialect)
        this = (alerts.c.name == bindparam("name"), alerts.c.project == bindparam("project"))
        self.clear = Statement(alerts.delete().where(*this), dialect)


class ChangeStatements:
    """The merge queue."""

    def __init__(self, dialect: Dialect) -> None:
        changes, integrations = schema.changes, schema.integrations
        self.rows = Mapper(Change, changes, dialect)
        self.integration_rows = Mapper(Integration, integrations, dialect)
        self.receipt_rows = Mapper(Receipt, schema.receipts, dialect)
        self.queued = Statement(
            select(*self.rows.columns)
            .where(changes.c.state == literal_column("'queued'"))
            .order_by(changes.c.rank, changes.c.change_id),
            dialect,
        )
        self.of_task = Statement(
            select(*self.rows.columns)
            .where(changes.c.task_id == bindparam("task_id"))
            .order_by(changes.c.ready_at, changes.c.change_id),
            dialect,
        )
        of_run = select(*self.rows.columns).join(schema.tasks, schema.tasks.c.task_id == changes.c.task_id)
        merged = of_run.where(schema.tasks.c.run_id == bindparam("run_id"), changes.c.state == literal_column("'merged'"))
        newest = merged.order_by(changes.c.ended_at.desc(), changes.c.change_id.desc()).limit(bindparam("limit"))
        self.merged = Statement(newest, dialect)
        receipts = schema.receipts
        self.receipts_of = Statement(
            select(*self.receipt_rows.columns)
            .where(receipts.c.tree == bindparam("tree"))
            .order_by(receipts.c.made_at, receipts.c.key),
            dialect,
        )
        self.merged_as = Statement(
            select(*self.rows.columns)
            .where(text("merged_as IS NOT NULL"), changes.c.merged_as == bindparam("commit"))
            .order_by(changes.c.rank, changes.c.change_id),
            dialect,
        )
        columns = self.integration_rows.columns
        self.integration = Statement(
            select(*columns).where(
                integrations.c.repository == bindparam("repository"),
                integrations.c.target == bindparam("target"),
                integrations.c.line == bindparam("line"),
            ),
            dialect,
        )
        self.integrations = Statement(select(*columns), dialect)


def _bytes_of(column: Any, dialect: Dialect) -> Any:
    if dialect.name == "postgresql":
        return func.convert_to(func.left(column, LONGEST_BODY + 1), "UTF8")
    return func.substr(cast(column, LargeBinary), 1, LONGEST_BODY + 1)


class LogStatements:
    """Events, requests, model calls and the lead."""

    def __init__(self, dialect: Dialect) -> None:
        events, requests, calls, lead, about = schema.events, schema.requests, schema.calls, schema.lead, schema.about
        names = ("at", "term", "kind", "run_id", "task_id", "body")
        self.log = Statement(insert(events).values({name: bindparam(name) for name in names}).inline(), dialect)
        read = select(events.c.seq, *[events.c[name] for name in names]).where(events.c.seq > bindparam("after"))
        self.events = Statement(read.order_by(events.c.seq).limit(bindparam("limit")), dialect)
        of_run = read.where(events.c.run_id == bindparam("run_id"))
        self.events_of_run = Statement(of_run.order_by(events.c.seq).limit(bindparam("limit")), dialect)
        of_task = of_run.where(events.c.task_id == bindparam("task_id"), events.c.kind == bindparam("kind"))
        self.events_of_task = Statement(of_task.order_by(events.c.seq.desc()).limit(bindparam("limit")), dialect)
        self.last_seq = Statement(select(func.coalesce(func.max(events.c.seq), 0)), dialect)

        asked = ("request_id", "kind", "body", "principal", "asked_at")
        self.ask = Statement(
            insert_into(requests, dialect).values({name: bindparam(name) for name in asked}).on_conflict_do_nothing(), dialect
        )
        # As bytes, and not all of them: anybody may append a request, and text that is none must not stop who reads it.
        columns = [
            requests.c.seq,
            *[_bytes_of(requests.c[name], dialect) for name in ("request_id", "kind", "body", "principal")],
            *[requests.c[name] for name in ("asked_at", "settled_at", "refusal")],
        ]
        self.requests_open = Statement(
            select(*columns).where(text("settled_at IS NULL")).order_by(requests.c.seq).limit(bindparam("limit")), dialect
        )
        self.request = Statement(select(*columns).where(requests.c.request_id == bindparam("request_id")), dialect)
        outcome = select(requests.c.settled_at, requests.c.refusal).where(requests.c.request_id == bindparam("request_id"))
        self.settlement = Statement(outcome, dialect)
        self.settle_bytes = Statement(
            update(requests)
            .where(cast(requests.c.request_id, LargeBinary) == bindparam("which"))
            .values(settled_at=bindparam("at"), refusal=bindparam("because")),
            dialect,
        )
        self.settle_nameless = Statement(
            update(requests)
            .where(requests.c.seq == bindparam("which"))
            .values(settled_at=bindparam("at"), refusal=bindparam("because")),
            dialect,
        )
        self.settle = Statement(
            update(requests)
            .where(requests.c.request_id == bindparam("which"))
            .values(settled_at=bindparam("at"), refusal=bindparam("because")),
            dialect,
        )

        booked: dict[str, BindParameter[Any]] = {column.name: bindparam(column.name) for column in calls.c}
        self.keep_call = Statement(insert_into(calls, dialect).values(booked).on_conflict_do_nothing(), dialect)
        not_ended = (calls.c.call_id == bindparam("which"), calls.c.settled == literal_column("0"))
        self.drop_call = Statement(calls.delete().where(*not_ended), dialect)
        booking = insert_into(calls, dialect).values(booked)
        ended = {column.name: booking.excluded[column.name] for column in calls.c if not column.primary_key}
        self.book = Statement(
            booking.on_conflict_do_update(index_elements=[calls.c.call_id], set_=ended, where=calls.c.settled == 0), dialect
        )
        said = [func.json_extract(events.c.body, literal_column(f"'$.{name}'")) for name in ("key", "resource", "limit")]
        self.warned = Statement(select(*said).where(text(schema.WARNED), said[0].is_not(None)).order_by(events.c.seq), dialect)
        columns = [calls.c[name] for name in COLUMNS]
        on_their_way = select(*columns).where(text("settled = 0")).order_by(calls.c.at, calls.c.call_id)
        self.on_their_way = Statement(on_their_way, dialect)
        of_run = select(calls.c.task_id, *_sums()).where(calls.c.run_id == bindparam("run_id"), _settled())
        self.spend_by_task = Statement(of_run.group_by(calls.c.task_id), dialect)
        by_agent = select(calls.c.agent_id, *_sums()).where(calls.c.run_id == bindparam("run_id"), _settled())
        self.spend_by_agent = Statement(by_agent.group_by(calls.c.agent_id), dialect)
        self.spend_by_run = Statement(
            select(calls.c.run_id, *_sums())
            .join(schema.runs, schema.runs.c.run_id == calls.c.run_id)
            .where(schema.runs.c.ended_at.is_(None), _settled())
            .group_by(calls.c.run_id),
            dialect,
        )

        late = (calls.c.at >= bindparam("since"), _settled())
        self.spend_of_all = Statement(select(*_sums()).where(*late), dialect)
        self.spend_of_project = Statement(select(*_sums()).where(calls.c.project == bindparam("whose"), *late), dialect)
        self.spend_of_account = Statement(select(*_sums()).where(calls.c.account_id == bindparam("whose"), *late), dialect)

        held = ("term", "boot_id", "pid", "started", "renewed_at", "given_up")
        self.lead = Statement(select(*[lead.c[name] for name in held]), dialect)
        self.term = Statement(select(lead.c.term), dialect)
        taken = insert_into(lead, dialect).values({"one": literal_column("1"), **{name: bindparam(name) for name in held}})
        self.take = Statement(
            taken.on_conflict_do_update(index_elements=[lead.c.one], set_={name: taken.excluded[name] for name in held}),
            dialect,
        )
        self.renew = Statement(
            update(lead).where(lead.c.term == bindparam("my_term")).values(renewed_at=bindparam("at")), dialect
        )
        self.give_up = Statement(
            update(lead).where(lead.c.term == bindparam("my_term")).values(given_up=literal_column("1")), dialect
        )
        self.about = Statement(select(about.c.value).where(about.c.name == bindparam("name")), dialect)
        self.set_about = Statement(
            insert_into(about, dialect).values(name=bindparam("name"), value=bindparam("value")).on_conflict_do_nothing(),
            dialect,
        )


class UsageStatements:
    """What was spent, group by group; each attribute is named for what it groups by."""

    def __init__(self, dialect: Dialect) -> None:
        calls, agents = schema.calls, schema.agents
        seconds = calls.c.at / literal_column("1000000")
        day = func.strftime(literal_column("'%Y-%m-%d'"), seconds, literal_column("'unixepoch'"))
        config = select(agents.c.config).where(agents.c.agent_id == calls.c.agent_id).scalar_subquery()
        self.task = Statement(_used(calls.c.task_id), dialect)
        self.run = Statement(_used(calls.c.run_id), dialect)
        self.agent = Statement(_used(func.coalesce(config, literal_column("''"))), dialect)
        self.model = Statement(_used(calls.c.model), dialect)
        self.day = Statement(_used(day, in_order=True), dialect)
        self.project = Statement(_used(calls.c.project), dialect)
        self.account = Statement(_used(calls.c.account_id), dialect)


def _used(group: ColumnElement[Any], *, in_order: bool = False) -> Select[Any]:
    calls, which = schema.calls, group.label("which")
    within = (calls.c.at >= bindparam("since"), calls.c.at < bindparam("until"), _settled())
    ours = or_(bindparam("run_id") == literal_column("''"), calls.c.run_id == bindparam("run_id"))
    sums = select(which, calls.c.account_id, *_sums(), func.sum(calls.c.seconds)).where(*within, ours)
    named: list[ColumnElement[Any]] = [literal_column("which"), calls.c.account_id]
    order = named if in_order else [func.sum(calls.c.cost_usd).desc(), *named]
    return sums.group_by(*named).order_by(*order)


class Statements:
    """All queries of one dialect; each group is built when it is first needed, since most commands need few of them."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    @cached_property
    def runs(self) -> RunStatements:
        """Runs."""
        return RunStatements(self._dialect)

    @cached_property
    def tasks(self) -> TaskStatements:
        """Tasks and needs."""
        return TaskStatements(self._dialect)

    @cached_property
    def history(self) -> HistoryStatements:
        """How long tasks took."""
        return HistoryStatements(self._dialect)

    @cached_property
    def attempts(self) -> AttemptStatements:
        """Attempts and prompts."""
        return AttemptStatements(self._dialect)

    @cached_property
    def agents(self) -> AgentStatements:
        """Agents and workspaces."""
        return AgentStatements(self._dialect)

    @cached_property
    def pool(self) -> PoolStatements:
        """Spares and standing pools."""
        return PoolStatements(self._dialect)

    @cached_property
    def accounts(self) -> AccountStatements:
        """Accounts."""
        return AccountStatements(self._dialect)

    @cached_property
    def questions(self) -> QuestionStatements:
        """Questions of agents."""
        return QuestionStatements(self._dialect)

    @cached_property
    def brakes(self) -> BrakeStatements:
        """Spent budgets, and the off switch."""
        return BrakeStatements(self._dialect)

    @cached_property
    def standings(self) -> StandingStatements:
        """How agents stand, and alerts."""
        return StandingStatements(self._dialect)

    @cached_property
    def changes(self) -> ChangeStatements:
        """The merge queue."""
        return ChangeStatements(self._dialect)

    @cached_property
    def log(self) -> LogStatements:
        """Events, requests, model calls and the lead."""
        return LogStatements(self._dialect)

    @cached_property
    def usage(self) -> UsageStatements:
        """What was spent."""
        return UsageStatements(self._dialect)
