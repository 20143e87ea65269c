import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from kapelle.adapters.drivers.claude.driver import ClaudeDriver, find_claude
from kapelle.adapters.drivers.claude.protocol import ClaudeCodec
from kapelle.core.agent import AgentConfig
from kapelle.core.errors import ProgramMissing
from kapelle.core.ports import AgentOrder, Launch, ModelAccess

MakeOrder = Callable[..., AgentOrder]
GATEWAY = ModelAccess(base_url="http://127.0.0.1:4711", api_key="token-1", headers=(("X-Kapelle-Token", "a"), ("X-B", "b")))


@pytest.fixture
def launch(make_order: MakeOrder) -> Callable[..., Launch]:
    return lambda **changes: ClaudeDriver("claude").launch(make_order(**changes))


def flag(launch: Launch, name: str) -> str | None:
    """Return the value behind a flag that is given at most once."""
    assert launch.argv.count(name) <= 1
    return launch.argv[launch.argv.index(name) + 1] if name in launch.argv else None


def test_it_is_started_to_talk_in_json_and_to_stay(launch: Callable[..., Launch]) -> None:
    found = launch()
    assert found.argv[0] == "claude"
    assert {"-p", "--verbose", "--replay-user-messages"} < set(found.argv)
    assert (flag(found, "--input-format"), flag(found, "--output-format")) == ("stream-json", "stream-json")
    assert (found.cwd, found.stdin, found.limit) == ("/w/slot-1", True, timedelta(minutes=7))


def test_the_prompt_goes_by_standard_input_alone(launch: Callable[..., Launch]) -> None:
    assert not [argument for argument in launch().argv if "echo hi" in argument]


def test_a_new_conversation_has_the_id_that_was_chosen(launch: Callable[..., Launch]) -> None:
    found = launch()
    assert flag(found, "--session-id") == "11111111-2222-3333-4444-555555555555"
    assert flag(found, "--resume") is None


def test_a_conversation_that_exists_is_resumed(launch: Callable[..., Launch]) -> None:
    found = launch(resume=True, fork_from="99999999-0000-0000-0000-000000000000")
    assert flag(found, "--resume") == "11111111-2222-3333-4444-555555555555"
    assert not {"--session-id", "--fork-session"} & set(found.argv)


def test_a_conversation_may_begin_as_a_copy_of_another(launch: Callable[..., Launch]) -> None:
    found = launch(fork_from="99999999-0000-0000-0000-000000000000")
    assert flag(found, "--resume") == "99999999-0000-0000-0000-000000000000"
    assert flag(found, "--session-id") == "11111111-2222-3333-4444-555555555555"
    assert "--fork-session" in found.argv


def test_what_is_not_configured_is_left_to_the_program(launch: Callable[..., Launch]) -> None:
    flags = {argument for argument in launch().argv if argument.startswith("--")}
    optional = {"--model", "--append-system-prompt", "--max-turns", "--max-budget-usd", "--json-schema"}
    assert not flags & {*optional, "--allowedTools", "--disallowedTools", "--dangerously-skip-permissions"}


def test_what_is_configured_is_passed_on(launch: Callable[..., Launch]) -> None:
    found = launch(
        model="opus",
        prompt="You write tests.",
        max_turns=20,
        budget_usd=1.5,
        allow=("Bash(python3 *)", "Read"),
        deny=("WebFetch", "Bash(git push *)"),
        permission_mode="dontAsk",
    )
    assert flag(found, "--model") == "opus"
    assert flag(found, "--append-system-prompt") == "You write tests."
    assert flag(found, "--max-turns") == "20"
    assert flag(found, "--max-budget-usd") == "1.5"
    assert flag(found, "--allowedTools") == "Bash(python3 *),Read"
    assert flag(found, "--disallowedTools") == "WebFetch,Bash(git push *)"
    assert flag(found, "--permission-mode") == "dontAsk"


def test_without_a_permission_mode_edits_are_accepted(launch: Callable[..., Launch]) -> None:
    assert flag(launch(), "--permission-mode") == "acceptEdits"


def test_a_result_by_schema_lets_its_tool_pass(launch: Callable[..., Launch]) -> None:
    schema = '{"type": "object"}'
    found = launch(result_schema=schema, allow=("Read",))
    assert flag(found, "--json-schema") == schema
    assert flag(found, "--allowedTools") == "Read,StructuredOutput"


def test_the_environment_is_scrubbed(launch: Callable[..., Launch], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "secret")
    env = dict(launch().env)
    assert "secret" not in env.values()
    assert env == {
        "FROM_CONFIG": "c",
        "FROM_ORDER": "o",
        "BOTH": "o",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CONFIG_DIR": "/state/homes/a1/.claude",
    }


def test_the_model_is_reached_by_the_gateway_with_the_agents_own_token(make_order: MakeOrder) -> None:
    env = dict(ClaudeDriver("claude").launch(replace(make_order(), model=GATEWAY)).env)
    assert env["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:4711"
    assert env["ANTHROPIC_API_KEY"] == "token-1"
    assert env["ANTHROPIC_CUSTOM_HEADERS"] == "X-Kapelle-Token: a\nX-B: b"
    assert env["CLAUDE_CONFIG_DIR"] == "/state/homes/a1/.claude"


def test_neither_config_nor_workspace_can_change_where_the_model_is(make_order: MakeOrder) -> None:
    order = make_order(env=(("ANTHROPIC_BASE_URL", "http://evil"), ("CLAUDE_CONFIG_DIR", "/evil")))
    env = dict(ClaudeDriver("claude").launch(replace(order, model=GATEWAY)).env)
    assert env["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:4711"
    assert env["CLAUDE_CONFIG_DIR"] == "/state/homes/a1/.claude"


def test_with_secrets_what_it_keeps_is_in_memory_and_its_servers_are_named_in_a_file(make_order: MakeOrder) -> None:
    order = replace(make_order(), memory="/memory/a1", mcp_config="/run/kapelle/secrets/mcp.json")
    found = ClaudeDriver("claude").launch(order)
    env = dict(found.env)
    assert (env["CLAUDE_CONFIG_DIR"], env["CLAUDE_CODE_TMPDIR"]) == ("/memory/a1/.claude", "/memory/a1")
    assert flag(found, "--mcp-config") == "/run/kapelle/secrets/mcp.json"
    assert "--mcp-config" not in ClaudeDriver("claude").launch(make_order()).argv


def test_the_token_does_not_show_in_a_list_of_processes(make_order: MakeOrder) -> None:
    assert "token-1" not in str(ClaudeDriver("claude").launch(replace(make_order(), model=GATEWAY)).argv)


def test_a_login_of_ones_own_is_found_where_it_lies(
    make_order: MakeOrder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-operator")
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    access = ModelAccess(base_url="http://127.0.0.1:4711", headers=(("X-Kapelle-Token", "t"),), own_login=True)
    env = dict(ClaudeDriver("claude").launch(replace(make_order(), model=access)).env)
    assert (env["HOME"], env["CLAUDE_CONFIG_DIR"]) == (str(tmp_path), str(tmp_path / ".claude"))
    # Behind the gateway the operator's key is not for agents.
    assert "ANTHROPIC_API_KEY" not in env
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", "/own/claude")
    assert dict(ClaudeDriver("claude").launch(replace(make_order(), model=access)).env)["CLAUDE_CONFIG_DIR"] == "/own/claude"


def test_without_a_gateway_the_operators_credentials_are_passed_on(
    make_order: MakeOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-operator")
    monkeypatch.setenv("CLAUDE_CODE_OAUTH_TOKEN", "oauth")
    env = dict(ClaudeDriver("claude").launch(replace(make_order(), model=ModelAccess(base_url=None, own_login=True))).env)
    assert (env["ANTHROPIC_API_KEY"], env["CLAUDE_CODE_OAUTH_TOKEN"]) == ("sk-operator", "oauth")
    assert "ANTHROPIC_BASE_URL" not in env


@pytest.mark.parametrize(("mode", "contained"), [("bypassPermissions", True), ("acceptEdits", False), (None, False)])
def test_root_says_that_it_is_contained_where_everything_is_allowed(
    launch: Callable[..., Launch], mode: str | None, *, contained: bool
) -> None:
    # Only root is refused by the program, and told that it is contained.
    assert ("IS_SANDBOX" in dict(launch(permission_mode=mode).env)) is (contained and os.geteuid() == 0)


# --- The program ---


def executable(path: Path) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_program_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = executable(tmp_path / "claude")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_claude() == str(program)


def test_else_the_copy_in_kapelles_own_environment_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "claude_agent_sdk"
    (package / "_bundled").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    program = executable(package / "_bundled" / "claude")
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.delitem(sys.modules, "claude_agent_sdk", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert find_claude() == str(program)


def test_a_program_that_is_not_there_is_told_with_what_to_do(
    make_order: MakeOrder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    # How Python says that a module is not installed.
    monkeypatch.setitem(sys.modules, "claude_agent_sdk", None)
    with pytest.raises(ProgramMissing, match="not installed") as caught:
        ClaudeDriver().launch(make_order())
    assert "pip install 'kapelle[claude]'" in caught.value.advice


def test_a_driver_that_was_given_a_program_takes_it(make_order: MakeOrder) -> None:
    assert ClaudeDriver("/opt/claude").launch(make_order()).argv[0] == "/opt/claude"


# --- The rest of the port ---


@pytest.mark.parametrize("mode", [None, "default", "acceptEdits", "dontAsk", "bypassPermissions"])
def test_a_permission_mode_of_the_program_is_well(mode: str | None) -> None:
    assert ClaudeDriver().problems(AgentConfig(name="c", permission_mode=mode)) == []


def test_what_the_program_does_not_know_is_told() -> None:
    found = ClaudeDriver().problems(AgentConfig(name="c", permission_mode="yolo", function="a:b"))
    assert len(found) == 2
    assert "yolo" in found[0]
    assert "acceptEdits" in found[0]
    assert "python" in found[1]


def test_every_process_is_read_by_a_codec_of_its_own() -> None:
    driver = ClaudeDriver()
    assert isinstance(driver.codec(), ClaudeCodec)
    assert driver.codec() is not driver.codec()


@pytest.mark.parametrize("mode", ["auto", "plan"])
def test_a_mode_that_is_refused_behind_the_gateway_is_told_beforehand(mode: str) -> None:
    config = AgentConfig(name="c", permission_mode=mode)
    (problem,) = ClaudeDriver().problems(config)
    assert "gateway: off" in problem
    assert ClaudeDriver().problems(config, gateway=False) == []
