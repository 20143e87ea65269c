"""Kapelle from Python: tasks side by side, a Python function as a task, results, events. Rehearsed: it needs no key."""

import asyncio
import subprocess
import tempfile
from pathlib import Path

from kapelle import AgentConfig, Check, Gate, Orchestrator, Task, TaskResult

REHEARSAL = """
rules:
  - when: {task: greet}
    turns:
      - tools: [{Write: {file_path: "{{ cwd }}/hello.py", content: "print('hello')\\n"}}]
      - {say: "Wrote hello.py."}
  - when: {task: part}
    turns:
      - tools: [{Write: {file_path: "{{ cwd }}/goodbye.py", content: "print('goodbye')\\n"}}]
      - {say: "Wrote goodbye.py."}
"""
COUNT = '''
"""A function that is a task: it gets the prompt and the directory, and returns a structured result."""


def files(task):
    return {"files": len(list(task.cwd.glob("*.py")))}
'''


def make_repository(folder: Path) -> Path:
    """Make a repository with one commit."""
    repository = folder / "greetings"
    repository.mkdir()
    (repository / "counting.py").write_text(COUNT, encoding="utf-8")
    (folder / "rehearsal.yml").write_text(REHEARSAL, encoding="utf-8")
    for arguments in (
        ("init", "-q", "-b", "main"),
        ("config", "user.name", "You"),
        ("config", "user.email", "you@example.org"),
        ("add", "-A"),
        ("commit", "-q", "-m", "begin"),
    ):
        subprocess.run(["git", *arguments], cwd=repository, check=True)
    return repository


def tell(result: TaskResult) -> None:
    """Say how a task ended."""
    print(f"{result.name}: {result.state} - {result.summary or result.result}")


async def main(folder: Path) -> None:
    """Run two agents side by side, then a function on what they merged."""
    repository = make_repository(folder)
    coder = AgentConfig(name="coder", program="claude", permission_mode="acceptEdits")
    counter = AgentConfig(name="counter", program="python", function="counting:files")
    compiles = Gate(checks=[Check(name="compile", run="python3 -m compileall -q .")])
    async with Orchestrator(
        repository,
        agents=[coder, counter],
        gates={"compiles": compiles},
        rehearse=folder / "rehearsal.yml",
        home=folder / "state",
    ) as orchestra:
        orchestra.on_completion(tell)
        both = await orchestra.run_parallel(
            [
                Task(name="greet", prompt="Write hello.py", agent="coder", gate="compiles"),
                Task(name="part", prompt="Write goodbye.py", agent="coder", gate="compiles"),
            ]
        )
        print(f"parallel: {both.state}, {len(both.tasks)} tasks, ${both.cost_usd:.4f}")
        task = await orchestra.submit_task(Task(name="count", prompt="How many?", agent="counter", reads_only=True))
        result = await orchestra.result(task)
        print(f"files on main: {result.result['files']}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="kapelle-example-") as place:
        asyncio.run(main(Path(place)))
