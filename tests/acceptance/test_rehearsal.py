"""The gateway and its two upstreams, seen by the real CLI."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kapelle.testing.places import Place, until

WORKFLOW = """\
name: two
defaults: {agent: coder, gate: python}
tasks:
  one: {prompt: "Write a.txt"}
  two: {prompt: "Write b.txt"}
"""
# Served by itself, it stands for the real API: it knows a request by its prompt only.
SERVED = """\
rules:
  - when: {prompt: "Write a.txt"}
    turns:
      - say: "{{ '{{' }} braces }}"
        tools: [{Write: {file_path: "{{ cwd }}/a.txt", content: "{{ '{{ y }}' }}\\n"}}]
      - {say: "Wrote a.txt.", usage: {input_tokens: 10, output_tokens: 5, cache_read_tokens: 100, cache_write_tokens: 50}}
  - when: {prompt: "Write b.txt"}
    turns:
      - {error: 529}
      - tools: [{Write: {file_path: "{{ cwd }}/b.txt", content: "b\\n"}}]
      - {say: "Wrote b.txt."}
"""


@pytest.fixture
def api(place: Place) -> Iterator[str]:
    """Serve a rehearsal as if it were the real API; return its address."""
    place.write("served.yml", SERVED)
    server = place.start("rehearse", "serve", "../served.yml", "--json")
    yield json.loads(until(server, "address"))["address"]
    server.terminate()
    server.communicate()


def test_with_a_key_the_gateway_holds_it_and_what_the_model_says_can_be_recorded_and_replayed(place: Place, api: str) -> None:
    place.write("workflow.yml", WORKFLOW)
    env = {"ANTHROPIC_BASE_URL": api, "ANTHROPIC_API_KEY": "sk-planted-real-key"}
    real = place.run("run", "../workflow.yml", "--record", "../recorded.yml", "--json", env=env)
    assert real.code == 0, real.out + real.err
    tree = place.git("rev-parse", "main^{tree}")
    tokens = {task["name"]: task["tokens"] for task in real.json["tasks"]}
    assert tokens["one"]["cache_read"] == 100
    for path in place.home.rglob("*"):
        assert not path.is_file() or b"sk-planted-real-key" not in path.read_bytes(), path

    place.git("reset", "-q", "--hard", place.git("rev-list", "--max-parents=0", "main"))
    replayed = place.run("run", "../workflow.yml", "--rehearse", "../recorded.yml", "--json")

    assert replayed.code == 0, replayed.out + replayed.err
    assert place.git("rev-parse", "main^{tree}") == tree
    assert {task["name"]: task["tokens"] for task in replayed.json["tasks"]} == tokens


@pytest.mark.soak
def test_a_key_that_is_not_to_be_had_lets_the_tasks_wait(place: Place, api: str) -> None:
    place.write("workflow.yml", "name: one\ntasks: {one: {agent: coder, gate: python, prompt: 'Write a.txt'}}\n")
    env = {"ANTHROPIC_BASE_URL": api, "ANTHROPIC_API_KEY": "sk-planted"}
    submitted = place.run("submit", "../workflow.yml", "--json", env=env)
    assert submitted.code == 0

    leader = place.start("resume")
    said = until(leader, "waits for credentials")
    leader.terminate()
    leader.communicate()

    assert "ANTHROPIC_API_KEY is not set" in said
    assert place.run("resume", env=env).code == 0


@pytest.mark.soak
def test_faults_of_the_api_are_no_failed_attempts(place: Place) -> None:
    place.write("workflow.yml", WORKFLOW)
    place.write(
        "rehearsal.yml",
        """\
        rules:
          - when: {task: one}
            turns:
              - {error: 529, times: 2}
              - tools: [{Write: {file_path: "{{ cwd }}/a.txt", content: "a\\n"}}]
              - {error: 500}
              - {say: "Wrote it."}
          - when: {task: two}
            turns:
              - {cut: true}
              - tools: [{Write: {file_path: "{{ cwd }}/b.txt", content: "b\\n"}}]
              - {error: 429, retry_after: 0.1}
              - {say: "Wrote it.", drip: 5ms}
        """,
    )

    answer = place.run("run", "../workflow.yml", "--rehearse", "../rehearsal.yml", "--json")

    assert answer.code == 0, answer.out + answer.err
    assert [task["attempts"] for task in answer.json["tasks"]] == [1, 1]


def test_a_budget_stops_the_model_calls_and_says_so(place: Place) -> None:
    place.write("workflow.yml", WORKFLOW.replace("gate: python", "gate: python, budget_usd: 0.001, max_attempts: 1"))
    place.write(
        "rehearsal.yml",
        """\
        rules:
          - when: {task: "*"}
            turns:
              - tools: [{Write: {file_path: "{{ cwd }}/{{ task }}.txt", content: "a\\n"}}]
                usage: {input_tokens: 1000000, output_tokens: 10}
              - {say: "Wrote it."}
        """,
    )

    env = {"KAPELLE_ON_SPENT": "stop"}
    answer = place.run("run", "../workflow.yml", "--rehearse", "../rehearsal.yml", "--json", env=env)

    assert answer.code == 1
    for task in answer.json["tasks"]:
        assert task["state"] == "failed"
        assert "budget" in task["failure"]["message"]
    calls = [json.loads(line) for line in place.run("events", "--json").out.splitlines()]
    paid = [event for event in calls if event["kind"] == "model.called" and event["status"] == 200]
    assert len(paid) == 2
    # What was done before the money ran out is kept.
    kept = place.git("for-each-ref", "--format=%(refname)", "refs/kapelle").splitlines()
    assert len([ref for ref in kept if "/kept/" in ref]) == 2


def test_a_structured_result_that_does_not_fit_goes_back(place: Place) -> None:
    place.write(
        "workflow.yml",
        """\
        name: result
        tasks:
          audit:
            {agent: reviewer, reads_only: true, gate: none, prompt: "Audit",
             result: {type: object, properties: {n: {type: integer, minimum: 1}}, required: [n]}}
          after: {needs: [audit], agent: script, gate: none, workspace: scratch, prompt: "echo {{ tasks.audit.result.n + 1 }}"}
        """,
    )
    place.write(
        "rehearsal.yml",
        """\
        rules:
          - when: {task: audit, round: 0}
            turns: [{say: "I looked.", tools: [{Read: {file_path: "{{ cwd }}/shop/cart.py"}}]}, {say: "Nothing structured."}]
          - when: {task: audit}
            turns: [{tools: [{StructuredOutput: {n: 4}}]}, {say: "There."}]
        """,
    )

    answer = place.run("run", "../workflow.yml", "--rehearse", "../rehearsal.yml", "--json")

    assert answer.code == 0, answer.out + answer.err
    tasks = {task["name"]: task for task in answer.json["tasks"]}
    assert tasks["audit"]["result"] == {"n": 4}
    assert tasks["after"]["summary"] == "5"


def test_claiming_success_without_doing_anything_is_no_success(place: Place) -> None:
    place.write("workflow.yml", "name: lie\ntasks: {one: {agent: coder, gate: python, prompt: x, max_attempts: 1}}\n")
    place.write("rehearsal.yml", "otherwise: {say: 'All done!'}\n")

    answer = place.run("run", "../workflow.yml", "--rehearse", "../rehearsal.yml", "--json")

    assert answer.code == 1
    assert answer.json["tasks"][0]["failure"]["kind"] == "no_work"


def test_rehearse_serve_answers_any_claude(place: Place, api: str, tmp_path: Path) -> None:
    from kapelle.adapters.drivers.claude.driver import find_claude

    env = {
        **place.environment,
        "ANTHROPIC_BASE_URL": api,
        "ANTHROPIC_API_KEY": "rehearsal",
        "CLAUDE_CONFIG_DIR": str(tmp_path / "c"),
    }
    argv = [find_claude(), "-p", "Write a.txt", "--permission-mode", "acceptEdits"]
    done = subprocess.run(
        argv, cwd=place.repository, env=env, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Wrote a.txt." in done.stdout
    assert (place.repository / "a.txt").read_text() == "{{ y }}\n"


def test_without_the_gateway_the_cli_s_own_count_is_booked(place: Place, api: str) -> None:
    (place.repository / ".kapelle" / "project.yml").write_text("gateway: off\n", encoding="utf-8")
    place.git("add", "-A")
    place.git("commit", "-q", "-m", "no gateway")
    place.write(
        "workflow.yml", "name: one\ntasks: {one: {agent: coder, gate: python, prompt: 'Write a.txt', budget_usd: 1.0}}\n"
    )
    env = {"ANTHROPIC_BASE_URL": api, "ANTHROPIC_API_KEY": "sk-planted"}

    answer = place.run("run", "../workflow.yml", "--json", env=env)

    assert answer.code == 0, answer.out + answer.err
    assert answer.json["cost_usd"] > 0
    assert answer.json["tasks"][0]["tokens"]["output"] > 0
    events = [json.loads(line) for line in place.run("events", "--json").out.splitlines()]
    assert not [event for event in events if event["kind"] == "model.called"]


def test_a_login_of_the_cli_s_own_is_passed_through_and_still_metered(place: Place, api: str) -> None:
    place.write("workflow.yml", "name: one\ntasks: {one: {agent: coder, gate: python, prompt: 'Write a.txt'}}\n")
    env = {"ANTHROPIC_BASE_URL": api, "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-planted"}

    answer = place.run("run", "../workflow.yml", "--json", env=env)

    assert answer.code == 0, answer.out + answer.err
    events = [json.loads(line) for line in place.run("events", "--json").out.splitlines()]
    assert len([event for event in events if event["kind"] == "model.called"]) == 2
    assert answer.json["tasks"][0]["tokens"]["cache_read"] == 100


@pytest.mark.soak
def test_a_correction_of_the_same_size_within_the_same_second_is_seen_by_the_gate(place: Place) -> None:
    # Python takes a compiled file for that of a source of the same size and second.
    place.write("workflow.yml", "name: quick\ntasks: {one: {agent: coder, gate: python, max_attempts: 1, prompt: x}}\n")
    place.write(
        "rehearsal.yml",
        """\
        rules:
          - when: {task: one, round: 0}
            turns:
              - tools:
                  - Write: {file_path: "{{ cwd }}/shop/sub.py", content: "def sub(a, b):\\n    return a + b\\n"}
                  - Write:
                      file_path: "{{ cwd }}/tests/test_sub.py"
                      content: |
                        import unittest

                        from shop.sub import sub


                        class SubTest(unittest.TestCase):
                            def test_it_subtracts(self) -> None:
                                self.assertEqual(sub(3, 2), 1)
              - {tools: [{Bash: {command: "python3 -m unittest -q"}}]}
              - {say: "Wrote it."}
          - when: {task: one}
            turns:
              - tools: [{Edit: {file_path: "{{ cwd }}/shop/sub.py", old_string: "a + b", new_string: "a - b"}}]
              - {say: "Mended it."}
        """,
    )

    answer = place.run("run", "../workflow.yml", "--rehearse", "../rehearsal.yml", "--json")

    assert answer.code == 0, answer.out + answer.err
    assert answer.json["tasks"][0]["gate_rounds"] == 1
