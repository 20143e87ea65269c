"""How the Claude Code CLI is started: persistent, stream-json in and out, its conversation in a home of its own."""

from collections.abc import Sequence

from kapelle.adapters.drivers.claude import asking
from kapelle.adapters.drivers.claude.screen import ScreenCodec, launch_screen
from kapelle.adapters.drivers.claude.starting import DEFAULT_MODE, environment, find_claude, permitted
from kapelle.core.agent import AgentConfig
from kapelle.core.errors import ProgramMissing
from kapelle.core.frozen import replace
from kapelle.core.ports import AgentOrder, Codec, DriverCapabilities, Launch

PERMISSION_MODES = ("default", "acceptEdits", "dontAsk", "bypassPermissions", "auto", "plan")
BEHIND_A_GATEWAY_REFUSED = frozenset({"auto", "plan"})
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
LASTING = frozenset({"CronCreate", "EnterWorktree", "Monitor", "ScheduleWakeup"})
LEAST_MEMORY = 200_000_000
"""Bytes: with 100 MB the CLI is killed, with 20 MB it reads its own code from the disk again and again and never gets on."""


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
        screen=True,
        warm=True,
        clears=True,
        tools=TOOLS,
        writers=WRITERS,
        lasting=LASTING,
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
        argv += permitted(config, allow=("StructuredOutput",) if order.result_schema is not None else ())
        env = {**dict(config.env), **dict(order.env), **environment(order)}
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
        # Loaded while the first agent starts: its messages take longer to load than their first takes to come.
        from kapelle.adapters.drivers.claude.protocol import ClaudeCodec

        return ClaudeCodec()

    def screen(self, order: AgentOrder, *, by_hand: bool) -> Launch:
        """See ``core.terminals.ScreenDriver``."""
        return launch_screen(order, self._program, by_hand=by_hand)

    def screen_codec(self) -> Codec:
        """See ``core.terminals.ScreenDriver``."""
        return ScreenCodec()

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
