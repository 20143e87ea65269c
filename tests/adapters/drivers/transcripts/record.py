"""Records the transcripts beside it: ``python record.py [NAME ...]``. See README.md.

The real CLI is started exactly as the driver starts it, against the rehearsal beside this file.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kapelle.adapters.drivers.claude.driver import ClaudeDriver
from kapelle.adapters.gateway.server import ModelGateway
from kapelle.core.agent import AgentConfig
from kapelle.core.calls import ModelCall
from kapelle.core.conversation import Prompt, ToolCalled, TurnEnded
from kapelle.core.gateway import Ticket, Upstream
from kapelle.core.ids import AgentId, AttemptId, PromptId, RunId, TaskId
from kapelle.core.ports import AgentOrder, ModelAccess
from kapelle.testing.evaluating import PlainEvaluator

HERE = Path(__file__).parent
CODER = AgentConfig(name="coder", allow=("Bash", "Write", "Read", "Agent"))
# The same on every machine, so that no path of one gets into a transcript.
WORK = Path("/tmp/kapelle-transcripts")  # noqa: S108
SCHEMA = json.dumps({"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]})
# Long lists of what the CLI has on board, and what is of one machine.
DROPPED = (
    *("slash_commands", "terminal_slash_commands", "skills", "plugins", "capabilities", "agents", "memory_paths"),
    *("messaging_socket_path", "subagent_stats", "modelUsage", "output_file"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """How one transcript comes about."""

    prompts: tuple[str, ...] = ("Go.",)
    config: AgentConfig = CODER
    retries: int = 1
    budget: float | None = None
    schema: str | None = None
    on_tool: str = ""
    """What happens when a tool is called: ``interrupt`` or ``kill``."""
    turns: int | None = None
    """How many ends of turns are waited for, when it is not one per prompt."""


BY_NAME = {name: Scene() for name in ("overloaded", "rate_limited", "rehearsed_429", "usage_limit", "invalid_key")}
BY_NAME |= {name: Scene() for name in ("server_error", "too_long", "budget", "no_credit", "cut", "unreachable")}
BY_NAME |= {
    "work": Scene(prompts=("Add a greeting to this project.", "Did it run?")),
    "retried": Scene(retries=4),
    "max_turns": Scene(config=AgentConfig(name="coder", allow=("Bash",), max_turns=1)),
    "own_budget": Scene(budget=0.01),
    "structured": Scene(schema=SCHEMA),
    "wrong_structured": Scene(schema=SCHEMA),
    "denied": Scene(config=AgentConfig(name="coder", permission_mode="default")),
    "interrupted": Scene(on_tool="interrupt"),
    "killed": Scene(on_tool="kill"),
    "subagent": Scene(),
    "cleared": Scene(prompts=("Go.", "/clear", "Now another.")),
    "background": Scene(turns=2),
}


@dataclass(kw_only=True, slots=True)
class Unlimited:
    """A meter that lets everything pass."""

    calls: list[ModelCall] = field(default_factory=list)

    def admit(self, _agent_id: AgentId) -> None:
        """Let it pass."""

    async def kept(self, _call_id: str) -> None:
        """Keep nothing: there is no store."""

    def heard(self, _call_id: str) -> None:
        """It goes on."""

    def record(self, call: ModelCall) -> None:
        """Keep it."""
        self.calls.append(call)


def order(name: str, scene: Scene, base_url: str) -> AgentOrder:
    """Return what the driver is told."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "work").mkdir(parents=True)
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "CLAUDE_CODE_MAX_RETRIES": str(scene.retries)}
    return AgentOrder(
        agent_id=AgentId(name),
        config=scene.config,
        cwd=str(folder / "work"),
        folder=str(folder),
        home=str(folder),
        conversation_id=str(uuid.uuid4()),
        resume=False,
        result_schema=scene.schema,
        budget_usd=scene.budget,
        model=ModelAccess(base_url="http://127.0.0.1:9" if name == "unreachable" else base_url, api_key=name),
        env=tuple(env.items()),
    )


async def record(name: str, scene: Scene, base_url: str) -> None:
    """Play one scene and keep what the CLI wrote."""
    driver = ClaudeDriver()
    launch, codec = driver.launch(order(name, scene, base_url)), driver.codec()
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *launch.argv, cwd=launch.cwd, env=dict(launch.env), stdin=pipe, stdout=pipe, start_new_session=True
    )
    if child.stdin is None or child.stdout is None:
        raise RuntimeError("the pipes are missing")
    waiting, ends, data = list(scene.prompts), scene.turns or len(scene.prompts), b""

    def say() -> bytes:
        return codec.prompt(Prompt(prompt_id=PromptId(str(uuid.uuid4())), text=waiting.pop(0)))

    child.stdin.write(say())
    while piece := await child.stdout.read(1 << 16):
        data += piece
        for event in codec.feed(piece):
            if isinstance(event, ToolCalled) and scene.on_tool:
                await asyncio.sleep(0.5)  # the tool is to be in the middle of its work
                if scene.on_tool == "kill":
                    os.killpg(child.pid, signal.SIGKILL)
                else:
                    child.stdin.write(codec.interrupt())
            if isinstance(event, TurnEnded):
                ends -= 1
                child.stdin.write(say() if waiting else b"" if ends else codec.goodbye())
    await child.wait()
    lines = [scrubbed(json.loads(line)) for line in data.splitlines()]
    (HERE / f"{name}.jsonl").write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
    shutil.rmtree(WORK / name, ignore_errors=True)


def scrubbed(value: Any) -> Any:
    """Return *value* without what is long and of no use here."""
    if isinstance(value, dict):
        return {key: scrubbed(inner) for key, inner in value.items() if key not in DROPPED}
    return [scrubbed(inner) for inner in value] if isinstance(value, list) else value


async def main(names: list[str]) -> None:
    """Record the transcripts with these names, or all."""
    gateway = ModelGateway(
        port_file=WORK / "port",
        credentials=_NoCredentials(),
        evaluator=PlainEvaluator(),
        now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        new_id=lambda: str(uuid.uuid4()),
    )
    shutil.rmtree(WORK, ignore_errors=True)
    base_url = await gateway.start(Unlimited())
    upstream = Upstream(rehearsal=str(HERE / "rehearsal.yml"), log=str(WORK / "log"))
    for name in names or list(BY_NAME):
        gateway.admit(
            Ticket(
                token=name,
                agent_id=AgentId(name),
                run_id=RunId("r"),
                task_id=TaskId("t"),
                attempt_id=AttemptId("a"),
                task=name,
                attempt=1,
                round=0,
                cwd=str(WORK / name / "work"),
                upstream=upstream,
            )
        )
        await record(name, BY_NAME[name], base_url)
    await gateway.stop()
    shutil.rmtree(WORK)


class _NoCredentials:
    def resolve(self, _reference: str) -> str | None:
        """There are none."""
        return None


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
