"""The tables. Column names are the field names of the dataclasses in ``core``; times are microseconds since 1970 in UTC.

What is asked for in a WHERE or an ORDER BY is a column; what is only ever read as a whole is JSON text.
"""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, Table, Text, text

metadata = MetaData()


def _text(name: str, *, null: bool = False, key: bool = False) -> Column[str]:
    return Column(name, Text, nullable=null, primary_key=key)


def _whole(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, Integer, nullable=null)


def _time(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=null)


def _real(name: str, *, null: bool = False) -> Column[float]:
    return Column(name, Float, nullable=null)


about = Table("about", metadata, _text("name", key=True), _text("value"))

lead = Table(
    "lead",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    _whole("term"),
    _text("boot_id"),
    _whole("pid"),
    _text("started"),
    _time("renewed_at"),
    _whole("given_up"),
)

requests = Table(
    "requests",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("request_id", Text, nullable=False, unique=True),
    _text("kind"),
    _text("body"),
    _text("principal"),
    _time("asked_at"),
    _time("settled_at", null=True),
    _text("refusal", null=True),
)
Index("requests_open", requests.c.seq, sqlite_where=text("settled_at IS NULL"), postgresql_where=text("settled_at IS NULL"))

# What was submitted never changes and may be big: it is apart from the rows that change.
run_specs = Table("run_specs", metadata, _text("run_id", key=True), _text("spec"))
task_specs = Table("task_specs", metadata, _text("task_id", key=True), _text("spec"))

runs = Table(
    "runs",
    metadata,
    _text("run_id", key=True),
    _text("state"),
    _whole("paused"),
    _whole("unfinished"),
    _text("principal"),
    _time("submitted_at"),
    _time("ended_at", null=True),
)
Index("runs_open", runs.c.run_id, sqlite_where=text("ended_at IS NULL"), postgresql_where=text("ended_at IS NULL"))
Index("runs_by_time", runs.c.submitted_at)

tasks = Table(
    "tasks",
    metadata,
    _text("task_id", key=True),
    _text("run_id"),
    _whole("position"),
    _text("name"),
    _text("state"),
    _text("waits_for", null=True),
    _text("detail"),
    _real("rank"),
    _whole("unmet"),
    _whole("held"),
    _whole("unapproved"),
    _time("due_at", null=True),
    _whole("approved"),
    _whole("attempts"),
    _text("attempt_id", null=True),
    _whole("round"),
    _time("submitted_at"),
    _time("started_at", null=True),
    _time("ended_at", null=True),
    _text("failure", null=True),
    _text("summary"),
    _text("result", null=True),
    _text("commit", null=True),
    _text("retry_of", null=True),
    Column("path", Float, nullable=False, server_default="0"),
    Column("paused", Integer, nullable=False, server_default="0"),
)
# The conditions of the partial indexes are literals: SQLite uses such an index only when the query says the same words.
READY = "state = 'pending' AND unmet = 0 AND held = 0 AND unapproved = 0"
BUSY = "state IN ('assigned', 'running', 'validating', 'merging')"
Index("tasks_ready", tasks.c.rank, tasks.c.task_id, sqlite_where=text(READY), postgresql_where=text(READY))
Index(
    "tasks_ready_of_run", tasks.c.run_id, tasks.c.rank, tasks.c.task_id, sqlite_where=text(READY), postgresql_where=text(READY)
)
Index("tasks_busy", tasks.c.state, tasks.c.rank, sqlite_where=text(BUSY), postgresql_where=text(BUSY))
LATER = "state = 'pending' AND due_at IS NOT NULL"
Index("tasks_later", tasks.c.due_at, sqlite_where=text(LATER), postgresql_where=text(LATER))
Index("tasks_of_run", tasks.c.run_id, tasks.c.position)

needs = Table("needs", metadata, _text("task_id", key=True), _text("need_id", key=True))
Index("needed_by", needs.c.need_id)

took = Table(
    "took",
    metadata,
    _text("project", key=True),
    _text("name", key=True),
    _text("config", key=True),
    _real("seconds"),
    _whole("times"),
)

attempts = Table(
    "attempts",
    metadata,
    _text("attempt_id", key=True),
    _text("task_id"),
    _text("run_id"),
    _whole("number"),
    _whole("term"),
    _text("config"),
    _text("conversation_id"),
    _whole("round"),
    _whole("gate_rounds"),
    _whole("merge_returns"),
    _whole("result_rounds"),
    _whole("interruptions"),
    _whole("crashes"),
    _whole("tool_calls"),
    _real("own_cost_usd"),
    _text("workspace_id", null=True),
    _time("started_at"),
    _time("ended_at", null=True),
    _text("outcome", null=True),
    _time("interrupted_at", null=True),
    Column("overflows", Integer, nullable=False, server_default="0"),
    Column("overflow_calls", Integer, nullable=False, server_default="0"),
    Column("held_by", Text, nullable=False, server_default=""),
    _text("home", null=True),
)
Index("attempts_of_task", attempts.c.task_id, attempts.c.number)
Index("attempts_open", attempts.c.attempt_id, sqlite_where=text("ended_at IS NULL"), postgresql_where=text("ended_at IS NULL"))

prompts = Table(
    "prompts",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("prompt_id", Text, nullable=False, unique=True),
    _text("attempt_id"),
    _whole("round"),
    _text("text"),
    _text("state"),
    Column("aside", Integer, nullable=False, server_default="0"),
    Column("sender", Text, nullable=False, server_default=""),
)
Index("prompts_of_attempt", prompts.c.attempt_id, prompts.c.seq)

agents = Table(
    "agents",
    metadata,
    _text("agent_id", key=True),
    _text("run_id"),
    _text("task_id"),
    _text("attempt_id"),
    _whole("term"),
    _text("config"),
    _text("host"),
    _text("state"),
    _text("folder"),
    _text("process", null=True),
    _whole("offset"),
    _time("deadline_at"),
    _time("created_at"),
    _time("stopped_at", null=True),
    _text("token"),
    Column("frozen_by", Text, nullable=False, server_default=""),
    _time("frozen_at", null=True),
    _time("ends_at", null=True),
    Column("by_hand", Integer, nullable=False, server_default="0"),
)
Index("agents_of_run", agents.c.run_id)
Index("agents_of_task", agents.c.task_id, agents.c.created_at)
Index("agents_live", agents.c.attempt_id, sqlite_where=text("stopped_at IS NULL"), postgresql_where=text("stopped_at IS NULL"))

spares = Table(
    "spares",
    metadata,
    _text("agent_id", key=True),
    _text("attempt_id"),
    _text("workspace_id"),
    _text("conversation_id"),
    _text("make"),
    _text("fit"),
    _whole("term"),
    _text("host"),
    _text("state"),
    _text("path"),
    _text("base", null=True),
    _whole("first_port", null=True),
    _text("folder"),
    _text("process", null=True),
    _text("reason"),
    _time("created_at"),
    _time("ready_at", null=True),
    _time("looked_at", null=True),
    _text("merged"),
    _text("token"),
    _text("run_id", null=True),
    _text("home", null=True),
    Column("offset", Integer, nullable=False, server_default="0"),
    Column("bounded", Integer, nullable=False, server_default="0"),
)

standing_pools = Table(
    "standing_pools",
    metadata,
    _text("key", key=True),
    _text("project"),
    _text("config"),
    _whole("wanted"),
    _text("spec"),
    _text("principal"),
    _time("at"),
)

assignments = Table(
    "assignments",
    metadata,
    _text("task_id", key=True),
    _text("config"),
    _whole("forced"),
    _text("principal"),
    _time("at"),
)

accounts = Table(
    "accounts",
    metadata,
    _text("account_id", key=True),
    _text("name"),
    _text("state"),
    _text("trouble", null=True),
    _text("reason"),
    _time("began_at", null=True),
    _time("resets_at", null=True),
    _time("next_at", null=True),
    _whole("refusals"),
    _text("tried_by", null=True),
    _whole("started"),
    _text("key"),
)

questions = Table(
    "questions",
    metadata,
    _text("question_id", key=True),
    _text("run_id"),
    _text("task_id"),
    _text("attempt_id"),
    _text("agent_id"),
    _text("call_id"),
    _text("tool"),
    _text("what"),
    _text("rule"),
    _text("reason"),
    _text("keys"),
    _text("default"),
    _text("state"),
    _text("answer", null=True),
    _text("answered_by"),
    _text("note"),
    _time("asked_at"),
    _time("deadline_at"),
    _time("settled_at", null=True),
)
ASKED = "state = 'open'"
Index("questions_open", questions.c.asked_at, sqlite_where=text(ASKED), postgresql_where=text(ASKED))
Index("questions_of_call", questions.c.agent_id, questions.c.call_id)
ALWAYS = "answer = 'always'"
Index("questions_always", questions.c.run_id, sqlite_where=text(ALWAYS), postgresql_where=text(ALWAYS))

spent = Table(
    "spent",
    metadata,
    _text("spent_id", key=True),
    _text("key"),
    _text("resource"),
    _text("name"),
    _text("run_id"),
    _text("task_id"),
    _real("limit"),
    _real("spent"),
    _text("state"),
    _real("more"),
    _text("answered_by"),
    _text("note"),
    _time("asked_at"),
    _time("deadline_at", null=True),
    _time("settled_at", null=True),
    _time("over_at", null=True),
)
NOT_OVER = "over_at IS NULL"
Index("spent_standing", spent.c.asked_at, sqlite_where=text(NOT_OVER), postgresql_where=text(NOT_OVER))

halts = Table(
    "halts",
    metadata,
    _text("halt_id", key=True),
    _text("by"),
    _text("reason"),
    _time("began_at"),
    _time("lifted_at", null=True),
    _text("lifted_by"),
)
OFF = "lifted_at IS NULL"
Index("halts_standing", halts.c.began_at, sqlite_where=text(OFF), postgresql_where=text(OFF))
standings = Table(
    "standings",
    metadata,
    _text("attempt_id", key=True),
    _text("agent_id"),
    _text("run_id"),
    _text("task_id"),
    _text("condition"),
    _time("since"),
    _text("reasons"),
    _text("grade"),
    _time("answered_at", null=True),
    _whole("interrupts"),
    _whole("restarts"),
    _whole("warned"),
    _time("beat_at"),
    _time("worked_at"),
    _text("doing"),
)

alerts = Table(
    "alerts",
    metadata,
    _text("name", key=True),
    _text("project", key=True),
    _real("limit"),
    _real("value"),
    _text("told"),
    _time("raised_at"),
)

workspaces = Table(
    "workspaces",
    metadata,
    _text("workspace_id", key=True),
    _text("run_id"),
    _text("task_id", null=True),
    _text("path"),
    _text("repository", null=True),
    _text("base", null=True),
    _whole("first_port", null=True),
    _whole("ready"),
    _whole("owned"),
)

changes = Table(
    "changes",
    metadata,
    _text("change_id", key=True),
    _text("run_id"),
    _text("task_id"),
    _text("attempt_id"),
    _text("repository"),
    _text("target"),
    _text("base"),
    _text("head"),
    _text("tree"),
    _real("rank"),
    _text("state"),
    _time("ready_at"),
    _time("ended_at", null=True),
    _text("merged_as", null=True),
    _text("receipt", null=True),
    _text("note"),
    _text("proof", null=True),
    _text("batch_id", null=True),
    Column("red", Text, nullable=False, server_default=""),
    Column("protected", Text, nullable=False, server_default="[]"),
    Column("approved_by", Text, nullable=False, server_default=""),
)
Index("changes_queued", changes.c.rank, sqlite_where=text("state = 'queued'"), postgresql_where=text("state = 'queued'"))
Index("changes_of_task", changes.c.task_id, changes.c.ready_at)
MERGED = "merged_as IS NOT NULL"
Index("changes_merged", changes.c.merged_as, sqlite_where=text(MERGED), postgresql_where=text(MERGED))

integrations = Table(
    "integrations",
    metadata,
    _text("repository", key=True),
    _text("target", key=True),
    _text("line", key=True),
    _text("tip"),
    _text("delivered"),
    _text("held_up"),
)

receipts = Table(
    "receipts",
    metadata,
    _text("key", key=True),
    _text("tree"),
    _text("gate"),
    _text("commit"),
    _text("checks"),
    _whole("tool_calls"),
    _text("declared"),
    _text("changed"),
    _time("made_at"),
)
Index("receipts_of_tree", receipts.c.tree)

calls = Table(
    "calls",
    metadata,
    _text("call_id", key=True),
    _text("agent_id"),
    _text("run_id"),
    _text("task_id"),
    _text("attempt_id"),
    _text("model"),
    _whole("input_tokens"),
    _whole("output_tokens"),
    _whole("cache_read_tokens"),
    _whole("cache_write_tokens"),
    _real("cost_usd"),
    _whole("status"),
    _real("seconds"),
    _text("error"),
    _whole("priced"),
    _time("at"),
    Column("project", Text, nullable=False, server_default=""),
    Column("account_id", Text, nullable=False, server_default=""),
    Column("settled", Integer, nullable=False, server_default="1"),
)
Index("calls_on_their_way", calls.c.at, sqlite_where=text("settled = 0"), postgresql_where=text("settled = 0"))
Index("calls_of_run", calls.c.run_id, calls.c.task_id)
Index("calls_of_project", calls.c.project, calls.c.at)
Index("calls_of_account", calls.c.account_id, calls.c.at)
Index("calls_at", calls.c.at)

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    _time("at"),
    _whole("term"),
    _text("kind"),
    _text("run_id", null=True),
    _text("task_id", null=True),
    _text("body"),
    sqlite_autoincrement=True,
)
Index("events_of_run", events.c.run_id, events.c.seq)
