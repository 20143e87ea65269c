"""`init`, `validate` and `config`."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from kapelle.apps import compose, models
from kapelle.apps.cli.common import Folder, Json, configuration, go, pairs
from kapelle.apps.cli.lines import note, print_json, say
from kapelle.apps.cli.output import out
from kapelle.apps.initialise import Plan, plan_for, write
from kapelle.apps.runs import prepare, workshop
from kapelle.apps.settings import AGENTS_FILE, PROJECT_FILE
from kapelle.apps.workflows import Workshop, agent_configs, gates, read_workflow
from kapelle.core.durations import format_duration
from kapelle.core.errors import FileInvalid, UsageError, WouldOverwrite
from kapelle.core.plain_text import counted


def init(
    folder: Annotated[Path | None, typer.Argument(help="The repository; default: the current directory.")] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write files anew that are there already.")] = False,
    json: Json = False,
) -> None:
    """Write .kapelle/project.yml, .kapelle/agents.yml and prompts, after a look at what the repository is."""
    place = (folder or Path.cwd()).resolve()
    if not place.is_dir():
        raise UsageError(f"{place} is no directory", remedy="Give the path of a repository.")
    plan = plan_for(place)
    if not (yes or json) and sys.stdin.isatty():
        plan = _talk(plan)
    existing = plan.existing()
    if existing and not force:
        names = ", ".join(str(path.relative_to(plan.root)) for path in existing)
        asked = not yes and not json and sys.stdin.isatty()
        if not (asked and typer.confirm(f"{names} would be overwritten. Write anew?", default=False)):
            raise WouldOverwrite(f"{names} would be overwritten")
    written = write(plan, verify=lambda: _verify(plan.root))
    if json:
        print_json({"written": [str(path.relative_to(plan.root)) for path in written], "looks_like": plan.kind.name})
        return
    console = out()
    console.print(f"This looks like {plan.kind.description}.")
    for path in written:
        console.print(Text(f"  wrote {path.relative_to(plan.root)}", style="green"))
    if not (place / ".git").exists():
        console.print(Text("This is no git repository yet: git init, and make a first commit.", style="yellow"))
    if plan.test is None and plan.kind.lint is None:
        console.print(Text("No gate was written: name your tests under gates in agents.yml.", style="yellow"))
    console.print("Next: kapelle run --agent backend --prompt 'what is to be done'")


def _talk(plan: Plan) -> Plan:
    note(f"This looks like {plan.kind.description}.")
    name = typer.prompt("Name of the project", default=plan.name)
    test = typer.prompt("Command that tests it (empty: none)", default=plan.test or "", show_default=True)
    return plan.having(name=name, test=test or None)


def _verify(root: Path) -> None:
    """Read back what was written, as every other command will."""
    found = configuration(root)
    shop = Workshop(
        configuration=found,
        drivers=compose.drivers(),
        sandboxes=compose.sandboxes(),
        repository=None,
        evaluator=compose.evaluator(),
    )
    _, wrong = agent_configs(shop)
    if wrong:
        raise FileInvalid(wrong)


def validate(
    file: Annotated[Path | None, typer.Argument(help="A workflow file; without one the configuration is checked.")] = None,
    *,
    inputs: Annotated[list[str] | None, typer.Option("--input", "-i", help="NAME=VALUE.")] = None,
    schema: Annotated[str | None, typer.Option("--schema", help="Print a JSON Schema: workflow, project or agents.")] = None,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Check a workflow file (or the configuration); every mistake is told with its place. Nothing is submitted."""
    if schema is not None:
        if schema not in models.SCHEMAS:
            raise UsageError(f"there is no schema {schema}", remedy=f"One of: {', '.join(models.SCHEMAS)}.")
        print_json(models.json_schema(schema))
        return
    go(_validate(repository, file, inputs or [], as_json=json))


async def _validate(folder: Path | None, file: Path | None, inputs: list[str], *, as_json: bool) -> None:
    found = configuration(folder)
    if file is None:
        if not found.agents.agents:
            raise UsageError(f"no agent is configured in {found.root}", remedy="`kapelle init` writes a beginning.")
        configs, wrong = agent_configs(await workshop(found))
        if wrong:
            raise FileInvalid(wrong)
        summary: dict[str, Any] = {
            "agents": [config.name for config in configs],
            "gates": [gate.name for gate in gates(found)],
        }
        words = f"{counted(len(configs), 'agent')}, {counted(len(summary['gates']), 'gate')}, no mistakes"
    else:
        document, workflow = read_workflow(file)
        spec = await prepare(found, document, workflow, inputs=pairs(inputs), check_only=True)
        summary = {"name": spec.name, "tasks": [task.name for task in spec.tasks], "target": spec.target}
        words = f"{file}: {counted(len(spec.tasks), 'task')}, no mistakes"
    print_json(summary) if as_json else say(words)


def config(
    *,
    explain: Annotated[bool, typer.Option("--explain", help="Say where each value came from.")] = False,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Show every setting, its value and, with --explain, where it came from and how to change it."""
    found = configuration(repository)
    if json:
        print_json(
            [
                {
                    "name": origin.setting.name,
                    "value": _shown(getattr(found.settings, origin.setting.name)),
                    "source": origin.source,
                    "about": origin.setting.about,
                    "variable": origin.setting.variable,
                }
                for origin in found.origins
            ]
        )
        return
    console = out()
    longest = max(len(origin.setting.name) for origin in found.origins)
    for origin in found.origins:
        setting = origin.setting
        value = _shown(getattr(found.settings, setting.name))
        shown = "-" if value is None or value in ("", []) else str(value)
        line = Text.assemble((f"{setting.name:<{longest}}  ", "bold"), shown)
        if not explain:
            console.print(line)
            continue
        console.print(line.append(f"  ({origin.source})", style="cyan"))
        keys = (PROJECT_FILE, setting.project) if setting.project else (AGENTS_FILE, setting.agents)
        places = [setting.variable, *([f"{'.'.join(keys[1])} in {keys[0]}"] if keys[1] else [])]
        console.print(Text(f"    {setting.about}; set it by {' or '.join(places)}", style="dim"))


def _shown(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, tuple):
        return list(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return value
