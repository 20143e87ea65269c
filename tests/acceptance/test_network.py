"""What agents and checks reach from a closed sandbox, through the real CLI: their model, what is listed, and nothing else."""

import json
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kapelle.testing.places import Place

ASKS = """\
import glob, json, os, socket, sys, urllib.request

def asked(name, act):
    try:
        print(name, "reached", act())
    except OSError as error:
        print(name, "not reached:", error)

def web(address):
    return urllib.request.urlopen(address, timeout=20).read().decode().strip()

def direct(host, port):
    return bool(socket.create_connection((host, port), timeout=5))

def unix(path):
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(path)
        return path

asked("listed", lambda: web("http://127.0.0.2:PORT/"))
asked("unlisted", lambda: web("http://unlisted.example/"))
asked("tunnel", lambda: web("https://unlisted.example/"))
asked("metadata", lambda: web("http://169.254.169.254/latest/meta-data/"))
asked("otherwise-metadata", lambda: web("http://2852039166/latest/meta-data/"))
asked("direct", lambda: direct("127.0.0.2", PORT))
asked("direct-metadata", lambda: direct("169.254.169.254", 80))
asked("resolver", lambda: socket.getaddrinfo("pypi.org", 443))
for path in glob.glob("STATE/agents/*/ways/proxy") or ["STATE/agents/other/ways/proxy"]:
    asked("another-agents-socket", lambda: unix(path))
"""
AGENTS = """\
sandbox: SANDBOX
network: {allow: ["127.0.0.2:PORT", 169.254.169.254, "2852039166"], private: [127.0.0.0/8]}
agents:
  coder: {program: claude, tools: {allow: [Bash]}}
  alone: {program: claude, tools: {allow: [Bash]}, network: model-only}
gates: {asks: {rounds: 0, checks: [{name: asks, run: "python3 asks.py > said; cat said; false", required: false}]}}
"""
FLOW = """\
name: asking
defaults: {gate: asks, max_attempts: 1}
tasks: {one: {agent: coder, prompt: Ask everybody}, two: {agent: alone, prompt: Ask everybody}}
"""
REHEARSAL = """\
rules:
  - when: {prompt: "Ask everybody"}
    turns:
      - tools: [{Bash: {command: "python3 asks.py > {{ task }}.txt; echo done"}}]
      - {say: "I asked."}
"""


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # as the library calls it
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # as the library calls it
        """Say nothing."""


@pytest.fixture
def web() -> Generator[int]:
    server = ThreadingHTTPServer(("127.0.0.2", 0), Hello)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def asked(text: str) -> dict[str, str]:
    return {line.split()[0]: line.partition(" ")[2] for line in text.splitlines()}


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize(
    "sandbox", ["bubblewrap", *[pytest.param(name, marks=pytest.mark.soak) for name in ("podman", "docker")]]
)
def test_only_what_is_allowed_is_reached_and_every_decision_is_told(
    place: Place, web: int, sandbox: str, request: pytest.FixtureRequest
) -> None:
    if sandbox != "bubblewrap":
        request.getfixturevalue(sandbox)
        sandbox = "container"
    (place.repository / ".gitignore").write_text("said\n")
    (place.repository / "asks.py").write_text(ASKS.replace("PORT", str(web)).replace("STATE", str(place.home)))
    (place.repository / ".kapelle" / "agents.yml").write_text(AGENTS.replace("PORT", str(web)).replace("SANDBOX", sandbox))
    place.git("add", "-A")
    place.git("commit", "-qm", "asks")
    place.write("flow.yml", FLOW)
    place.write("rehearsal.yml", REHEARSAL)

    answer = place.run("run", "../flow.yml", "--rehearse", "../rehearsal.yml")

    assert answer.code == 0, answer.out + answer.err
    events = [json.loads(line) for line in place.run("events", "--json").out.splitlines()]
    checks = [asked(event["tail"]) for event in events if event["kind"] == "check.ended"]
    one, two = asked(place.git("show", "main:one.txt")), asked(place.git("show", "main:two.txt"))
    assert len(checks) >= 2
    for said in (one, *checks):
        assert said["listed"] == "reached hello"
        # That it was listed does not make it public.
        assert "which is not public" in said["metadata"]
        assert "which is not public" in said["otherwise-metadata"]
    assert "it may reach its model and nothing else" in two["listed"]
    for said in (one, two, *checks):
        assert [name for name, what in said.items() if what.startswith("reached") and name != "listed"] == []
    assert "may not be reached: it is not among the hosts" in one["unlisted"]
    assert "403" in one["tunnel"]
    tasks = {task["id"]: task["name"] for task in place.run("show", "asking", "--json").json["tasks"]}
    # Where both were merged together, what the gate of that asked for is of no one task.
    told = {(tasks.get(event["task_id"]), event["kind"], event["host"], event["port"]) for event in events if "port" in event}
    assert ("one", "network.allowed", "127.0.0.2", web) in told
    assert ("one", "network.denied", "unlisted.example", 443) in told
    assert ("one", "network.denied", "169.254.169.254", 80) in told
    assert ("two", "network.denied", "127.0.0.2", web) in told
    assert place.processes() == []
    assert [str(path) for path in Path(place.home).rglob("*") if path.is_socket()] == []
