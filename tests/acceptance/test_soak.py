"""The long test: `make soak`. Kill -9 of the leader again and again, at no particular moment: nothing lost, nothing twice."""

import os
import random
from pathlib import Path

import pytest

from kapelle.testing.places import Place

DEMO = Path(__file__).parents[2] / "examples" / "demo"
KILLS = int(os.environ.get("KAPELLE_SOAK_KILLS", "12"))


@pytest.mark.soak
def test_the_demo_survives_kill_9_of_its_leader_again_and_again(place: Place) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)  # noqa: S311  # not for secrets
    arguments = ("run", str(DEMO / "workflow.yml"), "--rehearse", str(DEMO / "rehearsal.yml"))
    for _ in range(KILLS):
        process = place.start(*arguments)
        lines = chance.randrange(1, 25)
        for _ in range(lines):
            if not (process.stdout and process.stdout.readline()):
                break
        process.kill()
        process.communicate()
        arguments = ("resume",)

    last = place.run("resume")

    assert last.code == 0, f"seed {seed}: {last.out}{last.err}"
    (report,) = place.run("list", "--json").json
    assert report["state"] == "completed", f"seed {seed}"
    merges = [
        line for line in place.git("log", "--first-parent", "--format=%s", "main").splitlines() if line.startswith("Merge")
    ]
    assert len(merges) == len(set(merges)) == 7, f"seed {seed}: {merges}"
    assert place.processes() == [], f"seed {seed}"
    assert place.git("status", "--porcelain") == "", f"seed {seed}"
