"""A summary as one HTML page with charts: SVG and CSS alone, in light and dark, for wide and narrow screens."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from html import escape

from kapelle.apps.summary import STAGE_WORDS, Day, Summary
from kapelle.core.durations import format_duration
from kapelle.core.plain_text import shown
from kapelle.core.task import TaskState

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 200, 64, 26, 10
"""Of a chart, in its own units: it is drawn as wide as there is room."""
LABELS = 8
"""Days that are named below a chart at most."""
LEAST = 0.5
"""Units that something has in a chart at least which is there at all."""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Kapelle: {title}</title>
<style>
:root {{ color-scheme: light dark; --paper: #fdfdfc; --card: #fff; --ink: #1c2024; --soft: #60646c; --line: #dcdee3;
  --good: #2b8a5f; --bad: #c2410c; --other: #8b8d98; --cost: #3b6fd4; --time: #7c5cbf;
  --s0: #b9bbc6; --s1: #5eb0ef; --s2: #3b6fd4; --s3: #7c5cbf; --s4: #2b8a5f; }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper: #111214; --card: #191b1f; --ink: #ecedee; --soft: #a0a4ad;
  --line: #33363d;
  --good: #4cc38a; --bad: #ff8b5e; --other: #7e808a; --cost: #70a5ff; --time: #b79bff;
  --s0: #5a5d66; --s1: #6cb8f0; --s2: #5b8def; --s3: #a689e8; --s4: #4cc38a; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 70rem; padding: 1.5rem clamp(1rem, 4vw, 2.5rem) 3rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 1rem; margin: 0 0 .6rem; }}
p.when, footer {{ color: var(--soft); margin: .2rem 0 1.4rem; font-size: .9rem; }}
footer {{ margin-top: 1rem; }}
.facts {{ display: grid; grid-template-columns: repeat(4, 1fr); gap: .8rem; margin: 0 0 .8rem; }}
.facts div, section {{ background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; }}
dt {{ color: var(--soft); font-size: .82rem; }}
dd {{ margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }}
dd small {{ display: block; font-size: .8rem; color: var(--soft); }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: .8rem; }}
svg {{ width: 100%; height: auto; display: block; }}
svg text {{ fill: var(--soft); font-size: 12px; }}
svg line {{ stroke: var(--line); }}
ul.key {{ display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; margin: .5rem 0 0; padding: 0; font-size: .85rem;
  color: var(--soft); }}
ul.shares {{ display: grid; grid-template-columns: auto 1fr 1fr; gap: .35rem 1rem; }}
ul.shares li {{ display: grid; grid-column: 1 / -1; grid-template-columns: subgrid; }}
ul.shares b {{ font-weight: normal; text-align: right; font-variant-numeric: tabular-nums; color: var(--ink); }}
ul.key i {{ display: inline-block; width: .75rem; height: .75rem; border-radius: .15rem; margin-right: .35rem; }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: right; padding: .25rem .5rem; border-bottom: 1px solid var(--line); }}
th:first-child, td:first-child {{ text-align: left; }}
td:first-child {{ white-space: nowrap; }}
@media (max-width: 48rem) {{ .facts {{ grid-template-columns: 1fr 1fr; }} }}
@media (max-width: 36rem) {{ svg text {{ font-size: 17px; }} th, td {{ padding: .25rem .2rem; font-size: .8rem; }}
  section {{ padding: .7rem; }} .year {{ display: none; }} }}
.wide {{ overflow-x: auto; margin-top: .8rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="when">{when}</p>
<dl class="facts">{facts}</dl>
<div class="charts">{charts}</div>
{table}
<footer>Made by kapelle report on {made}. Days are in UTC.</footer>
</body>
</html>
"""


def page(found: Summary, now: datetime) -> str:
    """Return the page that tells *found*."""
    return PAGE.format(
        title=escape(shown(found.title)),
        when=escape(f"{found.since:%Y-%m-%d %H:%M} to {found.until:%Y-%m-%d %H:%M} UTC, {_count(found.runs, 'run')}"),
        facts="".join(_facts(found)),
        charts="".join(_charts(found)),
        table=_table(found.days),
        made=f"{now:%Y-%m-%d %H:%M} UTC",
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _facts(found: Summary) -> Iterator[str]:
    ended = found.ended
    failed = sum(found.failed_tries.values())
    helped = ", ".join(f"{number} {word}" for word, number in found.helped.items()) or "none was noted"
    yield _fact("completed", str(ended.get(TaskState.COMPLETED, 0)), f"of {_count(found.done + found.open, 'task')}")
    yield _fact("success", "-" if found.success is None else f"{found.success:.0%}", f"{ended.get(TaskState.FAILED, 0)} failed")
    yield _fact("throughput", "-" if found.per_hour is None else f"{found.per_hour:.1f}/h", f"{found.hours:.2f} h at work")
    late = "" if found.late is None else f"nine of ten within {format_duration(found.late)}"
    yield _fact("a task takes", "-" if found.typical is None else format_duration(found.typical), late)
    yield _fact("attempts", str(found.tries), f"{failed} failed")
    yield _fact(
        "sent back", str(found.gate_returns + found.merge_returns), f"{found.gate_returns} by checks, the rest by merges"
    )
    calls = _count(found.spend.calls, "model call")
    yield _fact("cost", f"${found.spend.cost_usd:.2f}", "; ".join(part for part in (calls, found.unpaid) if part))
    alerts = f"; {_count(found.alerts, 'alert')}" if found.alerts else ""
    yield _fact("stuck agents", str(found.helped.get("noted", 0)), f"{helped}{alerts}")


def _fact(name: str, value: str, more: str) -> str:
    return f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"


def _charts(found: Summary) -> Iterator[str]:
    if any(found.stages.values()):
        yield _card("Where the time of tasks went", _stages(found), _stage_key(found))
    if not found.days:
        return
    tasks = [[day.completed, day.failed, day.other] for day in found.days]
    key = _key([("--good", "completed"), ("--bad", "failed"), ("--other", "other")])
    days = found.days
    yield _card("Tasks by day", _bars(days, tasks, ["--good", "--bad", "--other"], _whole), key)
    yield _card("Cost by day", _bars(days, [[day.cost_usd] for day in days], ["--cost"], _dollars), "")
    typical = [[day.typical.total_seconds() if day.typical is not None else 0.0] for day in days]
    took = _bars(days, typical, ["--time"], _short)
    yield _card("How long a completed task took, by day (median)", took, "")


def _dollars(usd: float) -> str:
    return f"${usd:.2f}" if usd < 100 else f"${usd:.0f}"  # noqa: PLR2004  # cents of a hundred dollars tell nothing


def _short(seconds: float) -> str:
    minute, hour = 60, 3600
    value, unit = (seconds, "s") if seconds < minute else (seconds / minute, "m") if seconds < hour else (seconds / hour, "h")
    return f"{value:.1f}".removesuffix(".0") + unit


def _whole(count: float) -> str:
    """Return what is only counted whole; nothing for the half of an odd number, which would be told wrongly."""
    return f"{count:.0f}" if count == round(count) else ""


def _card(title: str, chart: str, key: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{chart}{key}</section>"


def _key(entries: Sequence[tuple[str, str]]) -> str:
    listed = "".join(f'<li><i style="background:var({colour})"></i>{escape(name)}</li>' for colour, name in entries)
    return f'<ul class="key">{listed}</ul>'


def _stages(found: Summary) -> str:
    total = sum(spent.total_seconds() for spent in found.stages.values())
    parts: list[str] = []
    at = 0.0
    for number, (state, spent) in enumerate(found.stages.items()):
        width = WIDTH * spent.total_seconds() / total
        if width:
            title = f"{STAGE_WORDS[state]}: {format_duration(spent)} ({spent.total_seconds() / total:.0%})"
            parts.append(_rect(at, 0, max(width, LEAST), 48, f"--s{number}", title))
        at += width
    label = "Share of the time of all tasks in each stage"
    return f'<svg viewBox="0 0 {WIDTH} 48" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _stage_key(found: Summary) -> str:
    total = sum(found.stages.values(), timedelta())
    listed = "".join(
        f'<li><span><i style="background:var(--s{number})"></i>{escape(STAGE_WORDS[state])}</span>'
        f"<b>{format_duration(spent)}</b><b>{spent / total:.0%}</b></li>"
        for number, (state, spent) in enumerate(found.stages.items())
        if spent
    )
    return f'<ul class="key shares">{listed}</ul>'


def _bars(days: Sequence[Day], values: Sequence[Sequence[float]], colours: Sequence[str], told: Callable[[float], str]) -> str:
    """Return a chart of stacked bars, one for each day."""
    most = max((sum(stack) for stack in values), default=0.0) or 1.0
    high, step = HEIGHT - BOTTOM - TOP, (WIDTH - LEFT) / len(days)
    width = min(step * 0.7, 60.0)
    parts = list(_scale(most, high, told))
    every = -(-len(days) // LABELS)
    for number, (day, stack) in enumerate(zip(days, values, strict=True)):
        middle = LEFT + step * (number + 0.5)
        floor = float(TOP + high)
        for value, colour in zip(stack, colours, strict=True):
            if value:
                tall = max(high * value / most, LEAST)
                floor -= tall
                parts.append(_rect(middle - width / 2, floor, width, tall, colour, f"{day.day:%Y-%m-%d}: {told(value)}"))
        if number % every == 0:
            parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{day.day:%m-%d}</text>')
    label = f"{_count(len(days), 'day')}, at most {told(most)} a day"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _scale(most: float, high: int, told: Callable[[float], str]) -> Iterator[str]:
    for share in (0.0, 0.5, 1.0):
        y = TOP + high * (1 - share)
        yield f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        text = told(most * share)
        if share in {0.0, 1.0} or text not in {"", told(0.0), told(most)}:
            yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, colour: str, title: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} rx="2" style="fill:var({colour})"><title>{escape(title)}</title></rect>'


def _table(days: Sequence[Day]) -> str:
    if not days:
        return ""
    rows = "".join(
        f'<tr><td><span class="year">{day.day:%Y-}</span>{day.day:%m-%d}</td>'
        f"<td>{day.completed}</td><td>{day.failed}</td><td>{day.other}</td>"
        f"<td>{'' if day.typical is None else format_duration(day.typical)}</td><td>${day.cost_usd:.2f}</td></tr>"
        for day in days
    )
    head = "<tr><th>day</th><th>completed</th><th>failed</th><th>other</th><th>median</th><th>cost</th></tr>"
    return f'<section class="wide"><h2>By day</h2><table><thead>{head}</thead><tbody>{rows}</tbody></table></section>'
