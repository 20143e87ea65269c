"""Greedy agents and checks, through the real CLI: they take what processes, memory and disk they can, or stay for good."""

import json
from textwrap import dedent

import psutil
import pytest

from kapelle.adapters.system import cgroups
from kapelle.testing.places import Place

SOAKED = [pytest.param(name, marks=pytest.mark.soak) for name in ("podman", "docker")]
"""Containers are tried with everything else; `make soak` tries this in them, too."""
NAMES = ("forks", "memory", "disk", "stays")
AGENTS = """\
limits: {memory: 700MB, pids: 150, disk: 40MB, files: 512}
agents: {coder: {program: claude, tools: {allow: [Bash]}}}
"""
FLOW = """\
name: greedy
defaults: {agent: coder, max_attempts: 1}
tasks: {forks: {prompt: forks}, memory: {prompt: memory}, disk: {prompt: disk}, stays: {prompt: stays}}
"""
CHECKING = """\
limits: {memory: 700MB, pids: 150, disk: 40MB, files: 512}
agents: {writer: {program: command}}
gates:
""" + "".join(f'  {name}: {{rounds: 0, checks: [{{name: {name}, run: "python3 {name}.py"}}]}}\n' for name in NAMES)
CHECKED = """\
name: greedy
defaults: {agent: writer, max_attempts: 1}
tasks:
""" + "".join(f"  {name}: {{prompt: 'echo 1 > written-{name}.txt', gate: {name}}}\n" for name in NAMES)
SCRIPTS = {
    "forks": """
        import os
        first, last = os.pipe()
        try:
            while True:
                if os.fork() == 0:
                    os.close(last)
                    os.read(first, 1)  # it ends with the one that forks
                    os._exit(0)
        except OSError as error:
            # What can start nothing says so, and clears up: where nothing else tells, that is when it is looked at.
            print(error, flush=True)
            open("survived-forks.txt", "a").write("no more\\n")
            os.close(last)
            while True:
                try:
                    os.wait()
                except ChildProcessError:
                    break
        os._exit(0)
    """,
    "memory": """
        import os
        if os.fork() == 0:
            taken = bytearray(1_500_000_000)
            taken[::4096] = b"x" * len(taken[::4096])
        open("survived-memory.txt", "w").write(str(os.wait()[1]))
    """,
    "disk": """
        import os, signal
        for number in range(30):
            open(f"{number}.bin", "wb").write(os.urandom(2_000_000))
        signal.pause()
    """,
    "stays": """
        import os
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execve("/bin/sleep", ["sleep", "SECONDS"], {})
            os._exit(0)
        os.wait()
        open("survived-stays.txt", "w").write("away")
    """,
}
REHEARSAL = "rules:\n" + "".join(
    f"""
  - when: {{prompt: "{name}"}}
    turns:
      - tools: [{{Bash: {{command: "python3 {name}.py"}}}}]
      - {{say: "Done."}}
"""
    for name in SCRIPTS
)


def may_end(name: str, sandbox: str) -> set[str]:
    """Return how the task *name* may end: for want of room on the disk all of it is ended, the others may go on.

    Without control groups all of it is ended for want of memory, too, and for too many processes when that is seen in time.
    """
    if name == "disk":
        return {"failed"}
    if cgroups.promised() or sandbox not in {"bubblewrap", "process"} or name == "stays":
        return {"completed"}
    return {"failed"} if name == "memory" else {"completed", "failed"}


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize("sandbox", ["bubblewrap", pytest.param("process", marks=pytest.mark.soak), *SOAKED])
def test_what_agents_take_is_bounded_told_and_gone_when_it_is_over(
    place: Place, sandbox: str, request: pytest.FixtureRequest
) -> None:
    seconds = prepare(place, sandbox, AGENTS, request)
    place.write("flow.yml", FLOW)
    place.write("rehearsal.yml", REHEARSAL)

    answer = place.run("run", "../flow.yml", "--rehearse", "../rehearsal.yml")

    assert answer.code == 1, answer.out + answer.err
    events = [json.loads(line) for line in place.run("events", "--json").out.splitlines()]
    tasks = {task["name"]: task for task in place.run("show", "greedy", "--json").json["tasks"]}
    names = {task["id"]: name for name, task in tasks.items()}
    met = {names[event["task_id"]]: event["reason"] for event in events if event["kind"] == "limit.met"}
    assert met == {
        "forks": "it could not start further processes: it may have 150 at once",
        "memory": "it used more than the 700 MB of memory that it may",
        "disk": "it wrote more than the 40 MB on disk that it may",
    }
    states = {name: task["state"] for name, task in tasks.items()}
    assert {name for name in NAMES if states[name] not in may_end(name, sandbox)} == set(), states
    assert "it wrote more than the 40 MB on disk that it may" in answer.out + answer.err
    # What was too much is work all the same: it is in a commit before its workspace goes.
    (kept,) = (entry for entry in place.run("recover", "--json").json if tasks["disk"]["id"] in entry["ref"])
    sizes = [int(line.split()[3]) for line in place.git("ls-tree", "-l", kept["ref"]).splitlines() if line.endswith(".bin")]
    assert sum(sizes) > 36_000_000  # of 40 MB, the rest is its home
    assert not list(place.home.glob("workspaces/*/*.bin"))
    assert [found.pid for found in psutil.process_iter() if seconds in _command(found)] == []
    assert place.processes() == []


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize("sandbox", ["bubblewrap", *SOAKED])
def test_what_checks_take_is_bounded_and_told_and_gone_when_they_are_over(
    place: Place, sandbox: str, request: pytest.FixtureRequest
) -> None:
    seconds = prepare(place, sandbox, CHECKING, request)
    place.write("flow.yml", CHECKED)

    answer = place.run("run", "../flow.yml", "--json")

    assert answer.code == 1, answer.out + answer.err
    tasks = {task["name"]: task for task in answer.json["tasks"]}
    # What a check takes too much of, it fails by; one that survives that, or leaves somebody behind, ended well.
    states = {name: task["state"] for name, task in tasks.items()}
    assert {name for name in NAMES if states[name] not in may_end(name, sandbox)} == set(), states
    said = [json.loads(line) for line in place.run("events", "--json").out.splitlines()]
    met = {event["check"]: event["limit"] for event in said if event["kind"] == "check.ended" and event["where"] == "workspace"}
    assert met == {
        "forks": "it could not start further processes: it may have 150 at once",
        "memory": "it used more than the 700 MB of memory that it may",
        "disk": "it wrote more than the 40 MB on disk that it may",
        "stays": "",
    }
    assert "it wrote more than the 40 MB on disk that it may" in tasks["disk"]["failure"]["message"]
    assert [found.pid for found in psutil.process_iter() if seconds in _command(found)] == []
    assert place.processes() == []


def prepare(place: Place, sandbox: str, agents: str, request: pytest.FixtureRequest) -> str:
    """Lay the scripts and *agents* into the repository; return how many seconds who stays sleeps, to be told by."""
    if sandbox in {"podman", "docker"}:
        request.getfixturevalue(sandbox)
        sandbox = "container"
    seconds = f"{600 + hash(str(place.home)) % 1000}.25"
    for name, script in SCRIPTS.items():
        (place.repository / f"{name}.py").write_text(dedent(script).replace("SECONDS", seconds))
    (place.repository / ".kapelle" / "agents.yml").write_text(f"sandbox: {sandbox}\n{agents}")
    place.git("add", "-A")
    place.git("commit", "-qm", "greedy")
    return seconds


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
