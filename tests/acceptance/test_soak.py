"""The long test: `make soak`. Blows of every kind, at random moments, hundreds when asked for, and a table of what survived.

`KAPELLE_SOAK_KILLS` says how many; the seed is printed, and `KAPELLE_SOAK_SEED` repeats it.
"""

import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kapelle.testing.blows import BLOWS, disk_full
from kapelle.testing.places import Place, make_repository
from kapelle.testing.survival import Damage, Ordeal, Over, room_for, unmount

DEMO = Path(__file__).parents[2] / "examples" / "demo"
KILLS = int(os.environ.get("KAPELLE_SOAK_KILLS", "200"))
SEED = int(os.environ.get("KAPELLE_SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
SANDBOXES = ("process", "bubblewrap") if sys.platform == "linux" else ("process",)
NETWORKS = {"process": "open", "bubblewrap": "model-only"}
IN_A_RUN = 5
"""Blows that one run takes, at most."""
HEAD = "| what was killed or harmed | times | lost | twice | left over | seconds to recover: median | worst |"


@dataclass(kw_only=True, slots=True)
class Row:
    times: int = 0
    lost: int = 0
    twice: int = 0
    left: int = 0
    seconds: list[float] = field(default_factory=list)

    def take(self, damage: Damage) -> None:
        self.lost += len(damage.lost)
        self.twice += len(damage.twice)
        self.left += len(damage.left)


def table(rows: dict[str, Row]) -> str:
    lines = [HEAD, "|---|---|---|---|---|---|---|"]
    whole = Row()
    for name, row in [*sorted(rows.items()), ("all", whole)]:
        if row is not whole:
            whole.times, whole.seconds = whole.times + row.times, whole.seconds + row.seconds
            whole.lost, whole.twice, whole.left = whole.lost + row.lost, whole.twice + row.twice, whole.left + row.left
        middle, worst = (statistics.median(row.seconds), max(row.seconds)) if row.seconds else (0.0, 0.0)
        lines.append(f"| {name} | {row.times} | {row.lost} | {row.twice} | {row.left} | {middle:.1f} | {worst:.1f} |")
    return "\n".join(lines)


def one_run(folder: Path, chance: random.Random, names: list[str], rows: dict[str, Row]) -> list[str]:
    """Let one run take some blows; return what did not survive, and take the blows that were dealt off *names*."""
    repository = folder / "shop"
    shutil.copytree(DEMO / "repository", repository)
    home = folder / "state"
    small = names[0] == "disk full" and room_for(home, "24m")
    sandbox = chance.choice(SANDBOXES)
    ordeal = Ordeal(Place(repository=make_repository(repository), home=home), sandbox=sandbox, network=NETWORKS[sandbox])
    dealt: list[str] = []
    try:
        ordeal.begin()
        for _ in range(chance.randint(1, IN_A_RUN)):
            name = names.pop(0)
            if name == "disk full" and not small:
                continue
            blow = disk_full if name == "disk full" else BLOWS[name]
            try:
                seconds = blow(ordeal, chance)
            except Over:
                # The run had ended before the moment came: another run is dealt this blow.
                names.append(name)
                break
            except AssertionError as error:
                return [f"{[*dealt, name]} in {sandbox}: {error}"]
            rows[name].times += 1
            rows[name].seconds.append(seconds)
            dealt.append(name)
            if not names or (names[0] == "disk full" and not small):
                break
        try:
            ordeal.finish()
            damage = ordeal.damage()
        except (AssertionError, subprocess.TimeoutExpired) as error:
            damage = Damage(lost=[f"the run does not end: {error}"])
    finally:
        ordeal.close()
        if small:
            unmount(home)
    for name in set(dealt):
        rows[name].take(damage)
    return [f"{dealt} in {sandbox}: {problem}" for problem in damage.all]


@pytest.mark.soak
def test_nothing_is_lost_done_twice_or_left_whatever_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(SEED)  # noqa: S311  # not for secrets
    kinds = [*BLOWS, "disk full"]
    names = [kinds[number % len(kinds)] for number in range(KILLS)]
    chance.shuffle(names)
    rows: dict[str, Row] = defaultdict(Row)
    problems: list[str] = []
    begun = time.monotonic()
    number = 0
    while names:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        found = one_run(folder, chance, names, rows)
        problems += found
        if not found:
            shutil.rmtree(folder)
        with capsys.disabled():
            print(f"\n{KILLS - len(names)} of {KILLS}, run {number}, {time.monotonic() - begun:.0f} s", end="", flush=True)  # noqa: T201
    with capsys.disabled():
        print(f"\n\nseed {SEED}, {number} runs, {time.monotonic() - begun:.0f} s\n\n{table(rows)}")  # noqa: T201

    assert not problems, f"seed {SEED}:\n" + "\n".join(problems)
