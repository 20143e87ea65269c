"""What every start of the Claude Code CLI has in common, with its own screen or without."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from kapelle.core.agent import AgentConfig
from kapelle.core.errors import ProgramMissing
from kapelle.core.ports import AgentOrder, ModelAccess

DEFAULT_MODE = "acceptEdits"


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


def permitted(config: AgentConfig, *, allow: tuple[str, ...] = (), deny: tuple[str, ...] = ()) -> list[str]:
    """Return what the CLI is told of tools that it may use without asking, and of those that it may not; some more of each."""
    allowed = [*config.allow, *allow]
    # What a rule forbids as a whole, the model need not see.
    denied = [*config.deny, *(rule for rule in config.rules.deny if "(" not in rule), *deny]
    return [
        part
        for flag, tools in (("--allowedTools", allowed), ("--disallowedTools", denied))
        if tools
        for part in (flag, ",".join(tools))
    ]


def environment(order: AgentOrder) -> dict[str, str]:
    """Return the CLI's own part of its environment."""
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
