"""`kapelle rehearse`: rehearsal files by themselves."""

from pathlib import Path
from typing import Annotated

import typer

from kapelle.apps import compose
from kapelle.apps.cli.common import Json, go
from kapelle.apps.cli.lines import print_json, say

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Serve or check a rehearsal: a scripted model, without a key and for free."
)
File = Annotated[Path, typer.Argument(help="A rehearsal file.")]


@app.command()
def serve(
    file: File,
    *,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 for any free one.")] = 0,
    log: Annotated[Path | None, typer.Option("--log", help="Where it is counted which faults have happened.")] = None,
    json: Json = False,
) -> None:
    """Serve a rehearsal as a Messages API, for any claude: set ANTHROPIC_BASE_URL to the address it prints."""

    def ready(listening: int) -> None:
        address = f"http://{host}:{listening}"
        if json:
            print_json({"address": address})
            return
        say(f"Rehearsing {file} at {address}")
        say(f"  ANTHROPIC_BASE_URL={address} ANTHROPIC_API_KEY=rehearsal claude -p '...'")

    def told(request: object) -> None:
        if json:
            print_json({"request": repr(request)})
        else:
            say(str(request))

    place = log or file.with_suffix(".log")
    go(compose.serve_rehearsal(file, host=host, port=port, log=place, on_request=told, on_ready=ready))


@app.command()
def check(file: File, *, json: Json = False) -> None:
    """Check a rehearsal file; every mistake is told with its place."""
    rehearsal = compose.load_rehearsal(file)
    if json:
        print_json({"rules": len(rehearsal.rules)})
    else:
        say(f"{file}: {len(rehearsal.rules)} rules, no mistakes")


@app.command()
def schema(*, json: Json = True) -> None:
    """Print the JSON Schema of rehearsal files, for editors."""
    del json  # it is JSON in any case
    print_json(compose.rehearsal_schema())
