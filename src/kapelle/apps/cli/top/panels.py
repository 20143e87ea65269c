"""What stands on the screen: the fleet as lines and panels; pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from rich.text import Text

from kapelle.apps.cli.lines import count_tokens, money
from kapelle.apps.cli.output import state_text
from kapelle.apps.cli.standing import STYLES as CONDITIONS
from kapelle.apps.cli.steering import STYLES as STATES
from kapelle.apps.cli.top.fitting import Field, Panel, Row, bar, cell
from kapelle.apps.fleet import LOOKED, AgentStand, Fleet, RunStand, Waiting, share
from kapelle.apps.inbox import Item
from kapelle.apps.usage import total, unpaid
from kapelle.apps.views import done_text
from kapelle.core.account import told
from kapelle.core.budget import WARNING, Level
from kapelle.core.durations import format_duration
from kapelle.core.liveness import LADDERS
from kapelle.core.plain_text import counted
from kapelle.core.pool import Spare
from kapelle.core.sizes import format_size
from kapelle.core.task import TaskState

BAR = 10
MANY_TIMES = 10
"""From how much of a budget on it is told how many times it was spent."""
HIGH = 0.9
"""The share of a host from which on it is told in red."""

AGENTS = (
    Field(name="AGENT", keep=3),
    Field(name="CONFIG", keep=1, least=6),
    Field(name="TASK", keep=9, least=14),
    Field(name="RUN", keep=2, least=6),
    Field(name="STATE", keep=8),
    Field(name="DOES", keep=7, least=24),
    Field(name="AGE", keep=6, right=True),
    Field(name="TOKENS", keep=4, right=True),
    Field(name="COST", keep=5, right=True),
)
QUEUE = (
    Field(name="#", keep=8, right=True),
    Field(name="TASK", keep=9, least=8),
    Field(name="RUN", keep=3, least=6),
    Field(name="WAITS FOR", keep=7, least=12),
    Field(name="PRIORITY", keep=2),
    Field(name="AGE", keep=6, right=True),
)
SPEND = (
    Field(name="WHAT", keep=9, least=18),
    Field(name="SPENT", keep=8, least=14),
    Field(name="HOW FAR", keep=6),
    Field(name="TOKENS", keep=4, right=True),
    Field(name="CALLS", keep=3, right=True),
    Field(name="NOTE", keep=5, least=24),
)
QUESTIONS = (
    Field(name="ID", keep=3),
    Field(name="FOR", keep=7, least=8),
    Field(name="WHAT", keep=9, least=24),
    Field(name="WHY", keep=4, least=10),
    Field(name="UNTIL", keep=5),
    Field(name="ANSWERS", keep=2, least=10),
)


# --- The lines above --------------------------------------------------------------------------------------------------


def head(fleet: Fleet) -> list[Text]:
    """Return who leads, and what there is in short."""
    lead, age = fleet.lead, fleet.system.lead_age
    if lead is None:
        leads = Text("nobody leads: kapelle resume", style="yellow")
    else:
        leads = Text(f"process {lead.holder.pid} leads (term {lead.term})")
    parts = [Text("kapelle", style="bold"), leads]
    if age is not None:
        parts.append(Text(f"heard {format_duration(age)} ago", style="" if age < timedelta(seconds=15) else "yellow"))
    if fleet.system.gateway is not None:
        answers = fleet.system.gateway
        parts.append(Text("gateway answers" if answers else "gateway does not answer", style="" if answers else "bold red"))
    return [*parts, Text(f"{fleet.at.astimezone():%H:%M:%S}", style="dim")]


def hosts(fleet: Fleet) -> list[list[Text]]:
    """Return for each host how it does."""
    found = fleet.system.measure
    taken = len(fleet.agents) / fleet.slots if fleet.slots else 1.0
    parts = [
        Text(fleet.host, style="bold"),
        _gauge("slots", taken, f"{len(fleet.agents)}/{fleet.slots}", high=2.0),
        _gauge("cpu", found.load / found.cpus, f"{found.load:.1f} of {found.cpus:g}", high=1.5),
    ]
    if found.memory:
        used = 1 - found.memory_free / found.memory
        parts.append(_gauge("memory", used, f"{format_size(found.memory_free)} free"))
    if found.disk:
        parts.append(_gauge("disk", 1 - found.disk_free / found.disk, f"{format_size(found.disk_free)} free"))
    parts.append(Text(f"store {format_size(fleet.system.store)}", style="dim"))
    return [parts]


def _gauge(name: str, of_all: float, words: str, *, high: float = HIGH) -> Text:
    style = "red" if of_all >= high else "green"
    return Text.assemble((f"{name} ", "dim"), (bar(of_all, BAR // 2), style), f" {words}")


def notes(fleet: Fleet) -> list[Text]:
    """Return what everybody should see: the halt, alerts, accounts that are shut, agents that nobody looks after."""
    found: list[Text] = []
    if fleet.halted is not None:
        found.append(cell(f" HALTED  {fleet.halted.why} ", "bold white on red"))
    gone = sum(not stand.alive for stand in fleet.agents) if fleet.lead is None else 0
    if gone:
        whose = f"{counted(gone, 'agent')} {'has' if gone == 1 else 'have'} ended"
        found.append(cell(f"{whose}, and nobody has looked at what was done: kapelle resume", "yellow"))
    for alert in fleet.alerts:
        where = f" of {alert.project}" if alert.project else ""
        found.append(cell(f"alert {alert.name}{where}: {alert.told}, for {_age(fleet.at, alert.raised_at)}", "red"))
    found += [cell(told(account), "yellow") for account in fleet.accounts]
    return found


# --- The panels -------------------------------------------------------------------------------------------------------


def agents(fleet: Fleet) -> Panel:
    """Return the live agents, and those that stand ready."""
    stuck, ready = sum(_is_stuck(stand) for stand in fleet.agents), len(fleet.spares)
    counts = [f"{ready} spare" if ready else "", f"{stuck} stuck" if stuck else ""]
    parts = [f"{len(fleet.agents)} of {fleet.slots} slots", *counts]
    rows = [_agent(stand, fleet.at) for stand in fleet.agents] + [_spare(spare, fleet.at) for spare in fleet.spares]
    return Panel(title=_title("AGENTS", parts), fields=AGENTS, rows=tuple(rows), nothing="no agent is at work")


def _is_stuck(stand: AgentStand) -> bool:
    return stand.health is not None and stand.health.condition in LADDERS


def _agent(stand: AgentStand, now: datetime) -> Row:
    report, agent, spend = stand.report, stand.report.agent, stand.report.spend
    gone = not stand.alive and agent.process is not None
    return Row(
        key=agent.agent_id,
        cells=(
            cell(agent.agent_id),
            cell(agent.config),
            cell(report.task_name, "bold"),
            cell(report.run.spec.name),
            cell("ended", "yellow") if gone else cell(report.state, STATES.get(report.state, "")),
            _does(stand, now),
            cell(_age(now, agent.created_at)),
            cell(count_tokens(spend.usage.total) if spend.calls else ""),
            cell(money(spend.cost_usd) if spend.calls else ""),
        ),
    )


def _does(stand: AgentStand, now: datetime) -> Text:
    health, agent = stand.health, stand.report.agent
    if agent.frozen_by:
        return cell(f"held still by {agent.frozen_by}", "cyan")
    if health is None:
        return cell("" if stand.alive else "nobody has looked at what was done", "dim")
    stuck = "bold yellow" if health.condition in LADDERS else "yellow"
    return cell(health.words(now), CONDITIONS.get(health.condition, stuck))


def _spare(spare: Spare, now: datetime) -> Row:
    texts = (spare.agent_id, spare.config.name, "", "", f"spare, {spare.state.value}", "has no task yet")
    cells = (*(cell(text, "dim") for text in texts), cell(_age(now, spare.created_at), "dim"), cell(""), cell(""))
    return Row(key=spare.agent_id, cells=cells)


def queue(fleet: Fleet) -> Panel:
    """Return what is being merged and checked, and what waits for an agent, in the order in which it goes."""
    rows = [
        Row(
            key=each.change.change_id,
            cells=(
                cell(f"⇄{place}", "magenta"),
                cell(each.task.name),
                cell(each.run.spec.name),
                cell(f"merge into {each.change.target}: {each.standing}", "magenta"),
                cell(each.task.spec.priority.value),
                cell(_age(fleet.at, each.change.ready_at)),
            ),
        )
        for place, each in enumerate(fleet.merging, 1)
    ]
    led = fleet.lead is not None
    rows += [_waiting(each, cell("◆", "blue"), cell("its checks", "blue"), fleet.at) for each in fleet.checking]
    turn = cell("its turn" if led else "somebody to lead", "dim")
    rows += [_waiting(each, cell(str(place)), turn, fleet.at) for place, each in enumerate(fleet.waiting, 1)]
    pending = sum(dict(stand.overview.counts).get(TaskState.PENDING, 0) for stand in fleet.sums.runs)
    waiting, more = len(fleet.waiting), "+" if len(fleet.waiting) >= LOOKED else ""
    begun = sum(each.task.state is not TaskState.PENDING for each in fleet.waiting)
    parts = [
        f"{waiting}{more} waiting" if waiting else "",
        f"{len(fleet.checking)} checked" if fleet.checking else "",
        f"{len(fleet.merging)} to merge" if fleet.merging else "",
        f"{pending - waiting + begun} not due" if pending > waiting - begun and not more else "",
        f"{pending} in all" if more else "",
    ]
    return Panel(title=_title("QUEUE", parts), fields=QUEUE, rows=tuple(rows), nothing="nothing waits for an agent")


def _waiting(each: Waiting, place: Text, otherwise: Text, now: datetime) -> Row:
    return Row(
        key=each.task.task_id,
        cells=(
            place,
            cell(each.task.name),
            cell(each.run.spec.name),
            cell(each.why) if each.why else otherwise,
            cell(each.task.spec.priority.value),
            cell(_age(now, each.task.submitted_at)),
        ),
    )


def spend(fleet: Fleet) -> Panel:
    """Return what was spent today, how full the budgets are, and what open runs have spent."""
    sums = fleet.sums
    today = total(sums.today)
    first = (
        cell("today (UTC)", "bold"),
        cell(money(today.cost_usd), "bold"),
        cell(""),
        cell(count_tokens(today.usage.total) if today.calls else ""),
        cell(str(today.calls) if today.calls else ""),
        cell(unpaid(sums.today), "dim"),
    )
    rows = [Row(key="today", cells=first), *(_level(level) for level in sums.levels), *(_run(stand) for stand in sums.runs)]
    full = sum(share(level) >= 1 for level in sums.levels)
    nearly = sum(share(level) >= WARNING for level in sums.levels) - full
    budgets = [(full, "spent"), (nearly, "nearly spent")]
    parts = [f"{money(today.cost_usd)} today", *(f"{counted(count, 'budget')} {how}" for count, how in budgets if count)]
    return Panel(title=_title("SPEND", parts), fields=SPEND, rows=tuple(rows), nothing="nothing was spent")


def _level(level: Level) -> Row:
    full = share(level)
    style = "bold red" if full >= 1 else "yellow" if full >= WARNING else ""
    cells = (
        cell(f"budget of {level.budget.name}"),
        cell(level.told, style),
        cell(f"{bar(full, BAR)} {_so_full(full)}", style or "green"),
        cell(""),
        cell(""),
        cell("spent" if full >= 1 else "", style),
    )
    return Row(key=f"{level.budget.key} {level.resource.value}", cells=cells)


def _so_full(share: float) -> str:
    """Say how much of a budget is spent, in four letters as long as anybody wants to know."""
    return f"{share:4.0%}" if share < MANY_TIMES else f"{share:3.0f}x"


def _run(stand: RunStand) -> Row:
    run, spent = stand.overview.run, stand.overview.spend
    paid = {"subscription": "notional: a subscription pays", "rehearsed": "rehearsed: nothing was paid"}.get(stand.paid, "")
    note = ", ".join(part for part in ("paused" if run.paused else "", paid if spent.calls else "") if part)
    cells = (
        cell(f"run {run.spec.name}"),
        cell(money(spent.cost_usd) if spent.calls else ""),
        state_text(run.state.value, done_text(stand.overview.counts)),
        cell(count_tokens(spent.usage.total) if spent.calls else ""),
        cell(str(spent.calls) if spent.calls else ""),
        cell(note, "yellow" if run.paused else "dim"),
    )
    return Row(key=run.run_id, cells=cells)


def questions(fleet: Fleet) -> Panel:
    """Return what waits for a person."""
    rows = tuple(_question(item, fleet.at) for item in fleet.questions)
    parts = [f"{len(rows)} for you"] if rows else []
    return Panel(title=_title("QUESTIONS", parts), fields=QUESTIONS, rows=rows, nothing="nothing waits for you")


def _question(item: Item, now: datetime) -> Row:
    until = ""
    if item.deadline_at is not None and item.default is not None:
        until = f"{_age(item.deadline_at, now)}, then {item.default.value}"
    answers = " ".join(kind.value for kind in item.answers) or item.otherwise
    cells = (cell(item.item_id), cell(item.name, "bold"), cell(item.what), cell(item.because, "dim"), cell(until, "yellow"))
    return Row(key=item.item_id, cells=(*cells, cell(answers, "dim")))


def panels(fleet: Fleet) -> Sequence[tuple[str, Panel]]:
    """Return all panels, each with its name."""
    return (
        ("agents", agents(fleet)),
        ("questions", questions(fleet)),
        ("queue", queue(fleet)),
        ("spend", spend(fleet)),
    )


def _title(name: str, parts: Sequence[str]) -> str:
    said = " · ".join(part for part in parts if part)
    return f"{name}  {said}" if said else name


def _age(later: datetime, earlier: datetime) -> str:
    return format_duration(max(later - earlier, timedelta(0)))
