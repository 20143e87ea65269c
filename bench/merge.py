"""The merge queue: how many changes one run of the gate brings onto the target, with real git and real processes.

Sixteen tasks each write a file of their own; the gate takes a second. Then the same with one change that passes in its own
workspace and fails once it is merged. Only gates on merged trees are counted: those are what the queue costs.
"""

import json
import tempfile
import time
from pathlib import Path

from bench.machine import Figures
from bench.places import environment, kapelle, repository

MANY, FEW = 16, 3
GATE = "sleep 1; test ! -e bad.txt || test ! -e t0.txt"
AGENTS = f"""\
agents: {{script: {{program: command}}}}
gates:
  check: {{checks: [{{name: together, run: "{GATE}"}}], rounds: 0}}
"""


async def measure(*, small: bool = False) -> Figures:
    """Measure once."""
    many = FEW if small else MANY
    good, seconds, _ = _run(many, bad=False)
    mixed, _, named = _run(many, bad=True)
    return {
        "gates_16_good": good,
        "gates_15_good_1_bad": mixed,
        "bad_named_rightly": float(named),
        "merges_per_gate": many / max(good, 1),
        "seconds_16_good": seconds,
    }


def _run(many: int, *, bad: bool) -> tuple[int, float, bool]:
    """Return how many gates ran on merged trees, the seconds it took, and whether exactly the bad one failed."""
    with tempfile.TemporaryDirectory(prefix="kapelle-bench-") as place:
        folder = Path(place)
        where = repository(folder / "repository", {".kapelle/agents.yml": AGENTS})
        lines = ["name: merge", "defaults: {agent: script, gate: check, max_attempts: 1}", "tasks:"]
        # The first has to be in before the bad one comes, which is bad only together with it.
        lines += [f'  t{n}: {{prompt: "echo {n} > t{n}.txt", priority: {"high" if n == 0 else "normal"}}}' for n in range(many)]
        if bad:
            lines[-1] = '  bad: {prompt: "echo bad > bad.txt", priority: low}'
        (folder / "flow.yml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        env = environment(folder / "home", KAPELLE_SLOTS=str(many))
        begun = time.perf_counter()
        kapelle(where, env, ["run", "../flow.yml"], codes=frozenset({0, 1}))
        seconds = time.perf_counter() - begun
        events = [json.loads(line) for line in kapelle(where, env, ["events", "--json"]).splitlines()]
        (run,) = json.loads(kapelle(where, env, ["list", "--json"]))
        tasks = json.loads(kapelle(where, env, ["show", run["id"], "--json"]))["tasks"]
    gates = sum(event["kind"] == "check.ended" and event["where"] == "merged" for event in events)
    failed = [task["name"] for task in tasks if task["state"] != "completed"]
    return gates, seconds, failed == (["bad"] if bad else [])
