"""How the Claude Code CLI is started: persistent, stream-json in and out, its conversation in a home of its own."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from kapelle.adapters.drivers.claude import asking
from kapelle.adapters.drivers.claude.protocol import ClaudeCodec
from kapelle.core.agent import AgentConfig
from kapelle.core.errors import ProgramMissing
from kapelle.core.ports import AgentOrder, Codec, DriverCapabilities, Launch, ModelAccess

PERMISSION_MODES = ("default", "acceptEdits", "dontAsk", "bypassPermissions", "auto", "plan")
BEHIND_A_GATEWAY_REFUSED = frozenset({"auto", "plan"})
DEFAULT_MODE = "acceptEdits"
TESTED = ("2.1.329", "2.1.329")
"""The oldest and the newest version of the CLI that all tests were run with."""
TOOLS = frozenset(
    {
        *("Agent", "AskUserQuestion", "Bash", "BashOutput", "CronCreate", "CronDelete"),
        *("CronList", "Edit", "EnterPlanMode", "EnterWorktree", "ExitPlanMode", "ExitWorktree"),
        *("Glob", "Grep", "KillShell", "LS", "LSP", "ListAgents"),
        *("ListMcpResourcesTool", "Monitor", "MultiEdit", "NotebookEdit", "NotebookRead", "PowerShell"),
        *("Read", "ReadMcpResourceTool", "ReportFindings", "ScheduleWakeup", "SendMessage", "Skill"),
        *("SlashCommand", "StructuredOutput", "Task", "TaskCreate", "TaskGet", "TaskList"),
        *("TaskOutput", "TaskStop", "TaskUpdate", "TodoWrite", "ToolSearch", "WebFetch"),
        *("WebSearch", "Workflow", "Write"),
    }
)
"""Tools of the CLI, of the versions that were tested and some before; those of MCP servers have names of their own."""
WRITERS = frozenset({"Edit", "MultiEdit", "NotebookEdit", "Write"})
LEAST_MEMORY = 200_000_000
"""Bytes: with 100 MB the CLI is killed, with 20 MB it reads its own code from the disk again and again and never gets on."""


def find_claude() -> str:
    """Return the path of the CLI: the user's own on PATH, else the copy that claude-agent-sdk brings.

    Raises:
        ProgramMissing: there is none.
    """
    if on_path := shutil.which("claude"):
        return on_path
    sdk = find_spec("claude_agent_sdk")
    for folder in sdk.submodule_search_locations or () if sdk is not None else ():
        bundled = Path(folder) / "_bundled" / "claude"
        if bundled.is_file():
            return str(bundled)
    raise ProgramMissing(
        "the Claude Code CLI (claude) is not installed",
        remedy="Install it from https://code.claude.com, or with Kapelle: pip install 'kapelle[claude]'",
    )


class ClaudeDriver:
    """See ``core.ports.Driver``."""

    name = "claude"
    capabilities = DriverCapabilities(
        conversation=True,
        reports_tools=True,
        reports_cost=True,
        structured_result=True,
        uses_gateway=True,
        fork=True,
        interrupt=True,
        asks=True,
        warm=True,
        tools=TOOLS,
        writers=WRITERS,
        least_memory=LEAST_MEMORY,
    )

    def __init__(self, program: str | None = None) -> None:
        self._program = program

    def launch(self, order: AgentOrder) -> Launch:
        argv = [self._program or find_claude(), "-p", "--verbose", "--replay-user-messages"]
        argv += ["--input-format", "stream-json", "--output-format", "stream-json"]
        argv += self._conversation(order)
        config = order.config
        argv += ["--permission-mode", config.permission_mode or DEFAULT_MODE]
        for flag, value in (
            ("--model", config.model),
            ("--append-system-prompt", config.prompt or None),
            ("--max-turns", config.max_turns),
            ("--max-budget-usd", order.budget_usd),
            ("--json-schema", order.result_schema),
            ("--mcp-config", order.mcp_config or None),
        ):
            if value is not None:
                argv += [flag, str(value)]
        allow = [*config.allow, *(["StructuredOutput"] if order.result_schema is not None else [])]
        # What a rule forbids as a whole, the model need not see.
        deny = [*config.deny, *(rule for rule in config.rules.deny if "(" not in rule)]
        for flag, tools in (("--allowedTools", allow), ("--disallowedTools", deny)):
            if tools:
                argv += [flag, ",".join(tools)]
        env = {**dict(config.env), **dict(order.env), **_environment(order)}
        launch = Launch(argv=tuple(argv), cwd=order.cwd, env=tuple(env.items()), stdin=True, limit=order.timeout)
        if order.warden is None:
            return launch
        more = asking.arguments(order.warden, order.folder, order.config)
        return replace(launch, argv=(*argv, *more), files=asking.files(order.warden), programs=(asking.interpreter(),))

    @staticmethod
    def _conversation(order: AgentOrder) -> list[str]:
        if order.resume:
            return ["--resume", order.conversation_id]
        if order.fork_from is not None:
            return ["--resume", order.fork_from, "--fork-session", "--session-id", order.conversation_id]
        return ["--session-id", order.conversation_id]

    def codec(self) -> Codec:
        return ClaudeCodec()

    def missing(self) -> str:
        if self._program is None:
            try:
                find_claude()
            except ProgramMissing as error:
                return error.in_full
        return ""

    def problems(self, config: AgentConfig, *, gateway: bool = True) -> Sequence[str]:
        found: list[str] = []
        mode = config.permission_mode
        if mode is not None and mode not in PERMISSION_MODES:
            found.append(f"claude has no permission mode {mode}; use one of {', '.join(PERMISSION_MODES)}")
        elif gateway and mode in BEHIND_A_GATEWAY_REFUSED:
            found.append(f"claude refuses permission_mode {mode} behind the gateway; use another, or gateway: off")
        if config.function is not None:
            found.append("function is for program: python")
        return found


def _environment(order: AgentOrder) -> dict[str, str]:
    env = {
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CONFIG_DIR": str(Path(order.memory or order.home) / ".claude"),
    }
    if order.memory:
        # What may hold secrets is kept in memory, not on a disk: the conversation, and what tools say while they run.
        env["CLAUDE_CODE_TMPDIR"] = order.memory
    if os.geteuid() == 0 and order.config.permission_mode == "bypassPermissions":
        # The CLI refuses this mode as root unless it is told that it is contained; that is what the operator asked for.
        env["IS_SANDBOX"] = "1"
    env |= _model(order.model) if order.model is not None else {}
    return env


def _model(access: ModelAccess) -> dict[str, str]:
    env: dict[str, str] = {}
    if access.base_url is not None:
        env["ANTHROPIC_BASE_URL"] = access.base_url
    elif access.direct_url is not None:
        env["ANTHROPIC_BASE_URL"] = access.direct_url
    if access.api_key is not None:
        env["ANTHROPIC_API_KEY"] = access.api_key
    if access.headers:
        env["ANTHROPIC_CUSTOM_HEADERS"] = "\n".join(f"{name}: {value}" for name, value in access.headers)
    if access.own_login:
        # The login lies in the operator's own configuration; a configuration of the agent's own would have none.
        own = os.environ.get("CLAUDE_CONFIG_DIR") or str(Path.home() / ".claude")
        env |= {"CLAUDE_CONFIG_DIR": own, "HOME": str(Path.home())}
        # A login by token lies in the environment; a key goes to the agent only where there is no gateway to hold it.
        for name in ("CLAUDE_CODE_OAUTH_TOKEN", *(("ANTHROPIC_API_KEY",) if access.base_url is None else ())):
            if name in os.environ:
                env[name] = os.environ[name]
    return env
