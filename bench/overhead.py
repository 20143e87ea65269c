"""What Kapelle costs on top of the CLI: real ``claude`` processes, rehearsed, against the same prompts by ``xargs -P``.

Each conversation makes three tool calls (Read, Write, Bash), and the model takes 100 ms for a reply. Kapelle's side is timed
from the start of ``kapelle run`` to its end: Python, worktrees, commits, gates (``true``) and merges included. The bare side is
timed from the start of xargs to its end, each process in a copy of the repository that was made before; its model is the same
rehearsal in a server of its own, whose processor time is counted, since Kapelle's is too.
"""

import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.machine import Figures
from bench.places import environment, git, kapelle, repository
from kapelle.adapters.drivers.claude.driver import find_claude

SIZES = (1, 4, 8)
REUSED = 8
"""How many tasks are also done with as many agents as Kapelle chooses for the machine, each for one task after the other."""
TOOLS = "Read,Write,Bash(cat *)"
AGENTS = ".kapelle/agents.yml"
FILES = {
    "notes.txt": "A sample.\n",
    AGENTS: """\
agents: {coder: {program: claude, reuse: REUSE, tools: {allow: [Read, Write, "Bash(cat *)"]}}}
gates: {check: {checks: [{name: "true", run: "true"}]}}
""",
}
REHEARSAL = """\
rules:
  - when: {prompt: "Write down"}
    turns:
      - {say: "I look.", tools: [{Read: {file_path: "{{ cwd }}/notes.txt"}}], delay: 100ms}
      - {tools: [{Write: {file_path: "{{ cwd }}/{{ task }}.txt", content: "of {{ task }}"}}], delay: 100ms}
      - {tools: [{Bash: {command: "cat {{ task }}.txt"}}], delay: 100ms}
      - {say: "Written down.", delay: 100ms}
otherwise: {say: "Nothing to do."}
"""
PROMPT = "Write down what the notes say."
BARE = """\
cd "$FOLDER/copy-$0" && exec env ANTHROPIC_CUSTOM_HEADERS="X-Kapelle-Task: t$0" "$CLAUDE" -p "$PROMPT" \
  --permission-mode acceptEdits --allowedTools "$TOOLS" < /dev/null
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Seconds on the clock and seconds of processor time."""

    wall: float
    cpu: float


async def measure(*, small: bool = False) -> Figures:
    """Measure once: each size with Kapelle and bare, side by side."""
    found: dict[str, float | str] = {}
    for size in SIZES[:1] if small else SIZES:
        with tempfile.TemporaryDirectory(prefix="kapelle-bench-") as place:
            folder = Path(place)
            bare, ours = _bare(folder, size), _kapelle(folder / "ours", size, slots=size)
            if size == REUSED:
                fewer, again = _kapelle(folder / "fewer", size), _kapelle(folder / "again", size, reuse="same-run")
                found |= _compared(f"n{size}_own_slots", fewer, bare) | _compared(f"n{size}_reuse", again, bare)
        found |= {f"bare_s_n{size}": bare.wall, f"kapelle_s_n{size}": ours.wall}
        found |= {f"bare_cpu_s_n{size}": bare.cpu, f"kapelle_cpu_s_n{size}": ours.cpu}
        found |= _compared(f"n{size}", ours, bare)
    return found


def _compared(name: str, ours: Cost, bare: Cost) -> dict[str, float | str]:
    return {f"wall_ratio_{name}": ours.wall / bare.wall, f"cpu_ratio_{name}": ours.cpu / bare.cpu}


@contextlib.contextmanager
def _timed(found: list[Cost]) -> Generator[None]:
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    yield
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found.append(Cost(wall=time.perf_counter() - begun, cpu=cpu))


def _kapelle(folder: Path, size: int, *, slots: int | None = None, reuse: str = "never") -> Cost:
    """Time Kapelle with so many *slots*, or as many as it chooses for this machine."""
    where = repository(folder / "repository", {**FILES, AGENTS: FILES[AGENTS].replace("REUSE", reuse)})
    tasks = "\n".join(f'  t{number}: {{prompt: "{PROMPT}"}}' for number in range(size))
    (folder / "flow.yml").write_text(f"name: overhead\ndefaults: {{agent: coder, gate: check}}\ntasks:\n{tasks}\n")
    (folder / "rehearsal.yml").write_text(REHEARSAL)
    # What it is compared with is in no sandbox; what one adds is a benchmark of its own.
    chosen = {"KAPELLE_SLOTS": str(slots)} if slots else {}
    env = environment(folder / "home", **chosen, KAPELLE_SANDBOX="process", HOME=str(folder), TMPDIR=str(folder))
    found: list[Cost] = []
    with _timed(found):
        kapelle(where, env, ["run", "../flow.yml", "--rehearse", "../rehearsal.yml"])
    _all_there(where, size)
    return found[0]


def _all_there(where: Path, size: int) -> None:
    for number in range(size):
        if git(where, "show", f"main:t{number}.txt") != f"of t{number}":
            raise RuntimeError(f"task {number} did not do its work")


def _bare(folder: Path, size: int) -> Cost:
    for number in range(size):
        repository(folder / f"copy-{number}", FILES)
    (folder / "bare.yml").write_text(REHEARSAL)
    with _served(folder) as (server, address):
        env = environment(
            folder / "home-of-bare",
            HOME=str(folder),
            TMPDIR=str(folder),
            FOLDER=str(folder),
            CLAUDE=find_claude(),
            TOOLS=TOOLS,
            PROMPT=PROMPT,
            CLAUDE_CONFIG_DIR=str(folder / ".claude"),
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
            DISABLE_AUTOUPDATER="1",
            ANTHROPIC_BASE_URL=address,
            ANTHROPIC_API_KEY="rehearsed",
        )
        before = sum(server.cpu_times()[:2])
        found: list[Cost] = []
        numbers = "".join(f"{number}\n" for number in range(size))
        with _timed(found):
            xargs = ["xargs", "-P", str(size), "-n", "1", "sh", "-c", BARE]
            done = subprocess.run(xargs, input=numbers, env=env, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"xargs ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        cpu = found[0].cpu + sum(server.cpu_times()[:2]) - before
    for number in range(size):
        if (folder / f"copy-{number}" / f"t{number}.txt").read_text() != f"of t{number}":
            raise RuntimeError(f"the bare process {number} did not do its work")
    return Cost(wall=found[0].wall, cpu=cpu)


@contextlib.contextmanager
def _served(folder: Path) -> "Generator[tuple[psutil.Process, str]]":
    """Serve the rehearsal in a process of its own; give it and its address."""
    serving = subprocess.Popen(
        [sys.executable, "-m", "kapelle", "rehearse", "serve", "bare.yml", "--json"],
        cwd=folder,
        env=environment(folder / "home-of-server", HOME=str(folder), PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if serving.stdout is None:
            raise RuntimeError("the server has no output")
        first = json.loads(serving.stdout.readline())
        yield psutil.Process(serving.pid), str(first["address"])
    finally:
        serving.terminate()
        serving.communicate()
