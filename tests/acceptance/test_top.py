"""`kapelle top` in a real terminal, before a real CLI at work: read, and used to attach and to freeze.

With KAPELLE_SCREENS set, the screens are written to docs/explain/screens/, to be read there.
"""

import os
import re
import sys
from pathlib import Path

import pytest

from kapelle.testing.multiplexer import window
from kapelle.testing.places import Place, make_repository, until

SCREENS = Path(__file__).parents[2] / "docs" / "explain" / "screens"
AGENTS = """\
agents:
  coder:
    program: claude
    sandbox: process
    tools: {allow: [Bash]}
    limit: 2
    rules: {ask: ["Bash(npm publish *)"], default: deny}
"""
WORKFLOW = """\
name: shop
defaults: {agent: coder, gate: none}
budget: {usd: 0.5}
tasks:
  api: {prompt: "Build it", priority: high}
  publish: {prompt: "Publish it", priority: high}
  docs: {prompt: "Build it"}
  release: {prompt: "Build it", needs: [api]}
"""
REHEARSAL = """\
rules:
  - when: {prompt: "^Build"}
    turns:
      - say: "I build it."
        tools: [{Bash: {command: "python3 -c 'import time; time.sleep(600)'"}}]
        usage: {input_tokens: 12000}
  - when: {prompt: "^Publish"}
    turns:
      - {say: "I publish it.", tools: [{Bash: {command: "npm publish --dry-run"}}]}
otherwise: {say: "Nothing to do."}
"""


def keep(name: str, shown: str) -> None:
    """Write a screen down as text, with nothing in it that is this machine's or this hour's."""
    if "KAPELLE_SCREENS" not in os.environ:
        return
    shown = re.sub(r"\b([rtgi])-[0-9a-z]{12}\b", r"\1-7f3k9q2mxw4d", shown)
    shown = re.sub(r"person:\w+", "person:you", shown)
    shown = re.sub(r"\d\d:\d\d:\d\d", "12:00:00", shown)
    shown = re.sub(r"process \d+ leads", "process 4711 leads", shown)
    (SCREENS / f"{name}.txt").write_text(shown + "\n", encoding="utf-8")


@pytest.mark.soak
def test_a_person_looks_at_the_fleet_and_steps_in(tmp_path: Path, program: object) -> None:
    program("tmux")  # type: ignore[operator]
    configured = tmp_path / "shop" / ".kapelle"
    configured.mkdir(parents=True)
    (configured / "agents.yml").write_text(AGENTS)
    place = Place(repository=make_repository(tmp_path / "shop"), home=tmp_path / "state")
    place.write("flow.yml", WORKFLOW)
    place.write("said.yml", REHEARSAL)
    leader = place.start("run", "../flow.yml", "--rehearse", "../said.yml", env={"KAPELLE_HEARTBEAT": "1s"})
    try:
        until(leader, "Bash python3")
        argv = (sys.executable, "-m", "kapelle", "top")
        with window(tmp_path / "mine", *argv, cwd=place.repository, env=place.environment) as mine:
            keep(
                "8-top", mine.until("process", "api", "works: Bash python3", "its limit", "Bash: npm publish", "budget of run")
            )
            mine.keys("a")
            mine.until("What it says follows", " it.", "Bash ")
            mine.keys("C-c")
            mine.until("AGENTS")
            mine.keys("f")
            mine.until("Frozen ", "held still by")
            (frozen,) = [agent for agent in place.run("agents", "--json").json if agent["shown_as"] == "frozen"]
            assert frozen["task"]["name"] in {"api", "publish"}
            mine.keys("i")
            keep("9-answer", mine.until("a allow", "d deny", "w always"))
            # Not Escape: with the next key behind it at once it would be another key.
            mine.keys("a")
            mine.until("Allowed: publish")
            mine.keys("q")
            assert "status 0" in mine.ended()
    finally:
        place.run("cancel", "shop")
        leader.communicate(timeout=60)
    assert place.processes() == []
