"""A Python function as an agent, in a process of its own."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

from kapelle.adapters.drivers.lines import Lines, Telling, json_in
from kapelle.core.agent import AgentConfig
from kapelle.core.conversation import ConversationEvent, Prompt, Trouble, TurnEnded
from kapelle.core.ids import PromptId
from kapelle.core.ports import AgentOrder, Codec, DriverCapabilities, Ended, Launch

JOB = "task.json"


class PythonDriver:
    """See ``core.ports.Driver``."""

    name = "python"
    capabilities = DriverCapabilities(structured_result=True)

    def launch(self, order: AgentOrder) -> Launch:
        content = {
            "function": order.config.function or "",
            "prompt": order.first_prompt.text if order.first_prompt is not None else "",
            "cwd": order.cwd,
        }
        path = f"{order.folder}/{JOB}"
        # -B: a task that only reads must not leave compiled files behind.
        argv = (sys.executable, "-B", "-m", "kapelle.adapters.drivers.python_runner", path)
        env = {**dict(order.config.env), **dict(order.env)}
        files = ((JOB, json.dumps(content)),)
        return Launch(argv=argv, cwd=order.cwd, env=tuple(env.items()), limit=order.timeout, files=files)

    def codec(self) -> Codec:
        return PythonCodec()

    def missing(self) -> str:
        return ""

    def problems(self, config: AgentConfig, *, gateway: bool = True) -> Sequence[str]:
        module, _, name = (config.function or "").partition(":")
        if not module or not name.isidentifier():
            return ["program: python needs function: package.module:function"]
        return ()


class PythonCodec:
    """What the function prints is text; the runner's last line is its answer."""

    MARK = b"\x1ekapelle "

    def __init__(self) -> None:
        self._lines = Lines()
        self._telling = Telling()
        self._answer: dict[str, Any] | None = None

    def feed(self, data: bytes) -> Sequence[ConversationEvent]:
        found: list[ConversationEvent] = []
        for line in self._lines.feed(data):
            if line is None or not line.strip():
                continue
            if (answer := self._answer_in(line)) is not None:
                self._answer = answer
            else:
                found.extend(self._telling.tell(line)[1])
        return found

    def _answer_in(self, line: bytes) -> dict[str, Any] | None:
        if not line.startswith(self.MARK):
            return None
        try:
            answer = json_in(line.removeprefix(self.MARK))
        except ValueError:
            return None
        return cast("dict[str, Any]", answer) if isinstance(answer, dict) else None

    def finish(self, ended: Ended) -> Sequence[ConversationEvent]:
        rest = self._lines.rest()
        found: list[ConversationEvent] = list(self._telling.tell(rest)[1]) if rest.strip() else []
        return [*found, self._ended(ended)]

    def _ended(self, ended: Ended) -> TurnEnded:
        if self._answer is None:
            how = "ran out of time" if ended.timed_out else f"ended with exit code {ended.exit_code}"
            return TurnEnded(trouble=Trouble.CRASHED, message=f"the function's process {how} without an answer")
        if "error" in self._answer:
            return TurnEnded(trouble=Trouble.CRASHED, message=str(self._answer["error"]))
        value = self._answer.get("value")
        text = value if isinstance(value, str) else ""
        try:
            result = None if value is None else json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (ValueError, RecursionError) as error:
            return TurnEnded(trouble=Trouble.CRASHED, message=f"what the function returned is no JSON: {error}")
        return TurnEnded(text=text, result=result)

    def prompt(self, prompt: Prompt) -> bytes:
        return b""

    def assign(self, env: Mapping[str, str]) -> bytes:  # as the port has it
        return b""

    def clear(self, prompt_id: PromptId) -> bytes:  # as the port has it
        return b""

    def interrupt(self) -> bytes:
        return b""

    def goodbye(self) -> bytes:
        return b""
