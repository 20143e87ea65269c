"""A rehearsal served by itself, as ``kapelle rehearse serve`` does it: in a process of its own, which ends by a signal."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import httpx2
import pytest

PROGRAM = """
import asyncio, sys
from pathlib import Path
from kapelle.adapters.gateway.standalone import serve_rehearsal
from kapelle.testing.evaluating import PlainEvaluator

def say(what):
    print(what, flush=True)

path, log = map(Path, sys.argv[1:])
asyncio.run(serve_rehearsal(path, host="127.0.0.1", port=0, log=log, evaluator=PlainEvaluator(), on_request=say, on_ready=say))
"""
SCRIPT = """
rules:
  - when: {task: api, attempt: 2}
    turns: [{say: "Again in {{ cwd }}."}]
  - when: {task: api}
    turns: [{error: 529}, {say: "In {{ cwd }}."}]
"""
ASKS = {
    "model": "claude-x",
    "tools": [{"name": "Bash"}],
    "system": "Primary working directory: /w/by-words\n",
    "messages": [{"role": "user", "content": "Go."}],
}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    folder = tmp_path_factory.mktemp("standalone")
    (folder / "rehearsal.yml").write_text(SCRIPT)
    argv = [sys.executable, "-c", PROGRAM, str(folder / "rehearsal.yml"), str(folder / "log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.terminate()
        _, problems = process.communicate(timeout=5)
        assert not problems


@pytest.fixture(scope="module")
def client(serving: subprocess.Popen[str]) -> Iterator[httpx2.Client]:
    assert serving.stdout is not None
    port = int(serving.stdout.readline())
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=5) as found:
        yield found


def said(response: httpx2.Response) -> str:
    return response.json()["content"][0]["text"]


def test_task_and_attempt_come_by_headers_and_the_directory_by_words(
    client: httpx2.Client, serving: subprocess.Popen[str]
) -> None:
    task = {"x-kapelle-task": "api", "x-api-key": "anything"}
    assert client.post("/v1/messages", json=ASKS, headers=task).status_code == 529
    assert said(client.post("/v1/messages", json=ASKS, headers=task)) == "In /w/by-words."
    assert said(client.post("/v1/messages", json=ASKS, headers={**task, "x-kapelle-attempt": "2"})) == "Again in /w/by-words."
    assert serving.stdout is not None
    told = list(islice((line for line in iter(serving.stdout.readline, "") if "task='api'" in line), 3))
    assert [f"status={status}" in line for status, line in zip((529, 200, 200), told, strict=True)] == [True] * 3
    assert all("claude-x" in line for line in told)


@pytest.mark.parametrize("attempt", ["x", "", "-1", "\xb2"])
def test_an_attempt_that_is_no_number_is_the_first(client: httpx2.Client, attempt: str) -> None:
    response = client.post("/v1/messages", json=ASKS, headers={"x-kapelle-attempt": attempt.encode("latin-1")})
    assert said(response) == "Nothing to do here."


def test_it_says_that_it_is_there(client: httpx2.Client) -> None:
    assert client.head("/api/hello").status_code == 200


def test_a_file_with_mistakes_is_not_served(tmp_path: Path) -> None:
    path = tmp_path / "rehearsal.yml"
    path.write_text("rules: [{turns: [{}]}]")
    argv = [sys.executable, "-c", PROGRAM, str(path), str(tmp_path / "log")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    assert done.returncode == 1
    assert "rehearsal.yml:1:18" in done.stderr
    assert not done.stdout
