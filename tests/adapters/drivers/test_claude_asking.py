"""How the CLI is made to ask its warden."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.drivers.claude import helper
from kapelle.adapters.drivers.claude.driver import ClaudeDriver
from kapelle.core.ports import AgentOrder, Launch
from kapelle.core.rules import Rules
from kapelle.core.warden import WardenAccess

MakeOrder = Callable[..., AgentOrder]


@pytest.fixture
def launch(make_order: MakeOrder) -> Callable[..., Launch]:
    return lambda **changes: ClaudeDriver("claude").launch(make_order(**changes))


def flag(launch: Launch, name: str) -> str:
    """Return the value behind a flag that is given once."""
    assert launch.argv.count(name) == 1
    return launch.argv[launch.argv.index(name) + 1]


WARDEN = WardenAccess(folder="/state/agents/it's/warden", token="token-1", patience=timedelta(minutes=10))  # noqa: S106  # nobody's


def test_without_a_warden_nothing_is_asked(launch: Callable[..., Launch]) -> None:
    found = launch()
    assert not {"--settings", "--mcp-config", "--permission-prompt-tool"} & set(found.argv)
    assert (found.files, found.programs) == ((), ())


def test_every_tool_is_asked_about_by_a_hook_that_outlasts_its_helper(make_order: MakeOrder) -> None:
    found = ClaudeDriver("claude").launch(replace(make_order(), warden=WARDEN))
    settings = json.loads(flag(found, "--settings"))
    (matched,) = settings["hooks"]["PreToolUse"]
    (hook,) = matched["hooks"]
    assert hook["type"] == "command"
    assert hook["timeout"] > WARDEN.patience.total_seconds()
    # Whatever a workspace says of hooks.
    assert settings["disableAllHooks"] is False


@pytest.mark.parametrize(
    ("rules", "asked", "unasked"),
    [
        (
            Rules(),
            ("Bash", "Write", "WebFetch", "mcp__db__read", "ReadMcpResourceTool", "Later"),
            ("Read", "Grep", "TodoWrite"),
        ),
        (Rules(deny=("Read(/etc/**)",)), ("Bash", "Read", "Grep"), ("TodoWrite",)),
        (Rules(ask=("*",)), ("Read", "TodoWrite"), ()),
    ],
)
def test_a_tool_about_which_no_rule_can_speak_is_not_asked_about(
    make_order: MakeOrder, rules: Rules, asked: Sequence[str], unasked: Sequence[str]
) -> None:
    order = make_order()
    found = ClaudeDriver("claude").launch(replace(order, config=replace(order.config, rules=rules), warden=WARDEN))
    (matched,) = json.loads(flag(found, "--settings"))["hooks"]["PreToolUse"]
    pattern = ".*" if matched["matcher"] == "*" else matched["matcher"]
    assert all(re.fullmatch(pattern, tool) for tool in asked)
    assert not any(re.fullmatch(pattern, tool) for tool in unasked)


def test_the_program_s_own_permissions_say_what_they_can_say_of_the_rules(make_order: MakeOrder) -> None:
    rules = Rules(deny=("WebFetch", "Bash(sudo *)", "Edit(a/**)"), ask=("Bash(npm *)", "Write(b)"))

    def permissions(mode: str | None) -> dict[str, list[str]]:
        config = replace(make_order().config, rules=rules, permission_mode=mode)
        found = ClaudeDriver("claude").launch(replace(make_order(), config=config, warden=WARDEN))
        return json.loads(flag(found, "--settings"))["permissions"]

    assert permissions(None) == {"deny": ["WebFetch", "Bash(sudo *)"], "ask": ["Bash(npm *)"]}
    assert permissions("dontAsk")["ask"] == []


def test_what_would_prompt_is_asked_by_a_hook_that_outlasts_its_helper(make_order: MakeOrder) -> None:
    found = ClaudeDriver("claude").launch(replace(make_order(), warden=WARDEN))
    assert not {"--mcp-config", "--permission-prompt-tool"} & set(found.argv)
    (matched,) = json.loads(flag(found, "--settings"))["hooks"]["PermissionRequest"]
    (hook,) = matched["hooks"]
    assert (matched["matcher"], hook["type"]) == ("*", "command")
    assert hook["timeout"] > WARDEN.patience.total_seconds()


def test_the_token_is_in_a_file_and_nowhere_else(make_order: MakeOrder) -> None:
    found = ClaudeDriver("claude").launch(replace(make_order(), warden=WARDEN))
    files = dict(found.files)
    assert json.loads(files["warden.json"]) == {"folder": WARDEN.folder, "token": "token-1", "patience": 600.0}
    assert "token-1" not in " ".join([*found.argv, *dict(found.env).values()])
    assert all(Path(program).is_file() for program in found.programs)


def test_what_a_rule_forbids_as_a_whole_the_model_does_not_see(launch: Callable[..., Launch]) -> None:
    found = launch(deny=("Agent",), rules=Rules(deny=("WebFetch", "Bash(sudo *)")))
    assert flag(found, "--disallowedTools") == "Agent,WebFetch"


Run = Callable[[bytes], "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def hooks(make_order: MakeOrder, tmp_path: Path) -> Callable[[str], Run]:
    """Run hooks, as the CLI does, with nobody to ask."""
    access = WardenAccess(folder=str(tmp_path), token="t", patience=timedelta(0))  # noqa: S106  # nobody's
    found = ClaudeDriver("claude").launch(replace(make_order(), folder=str(tmp_path), warden=access))
    for name, content in found.files:
        (tmp_path / name).write_text(content)
    known = json.loads(flag(found, "--settings"))["hooks"]

    def of(kind: str) -> Run:
        command = known[kind][0]["hooks"][0]["command"]
        return lambda said: subprocess.run(["sh", "-c", command], input=said, capture_output=True, check=False)

    return of


@pytest.fixture
def hook(hooks: Callable[[str], Run]) -> Run:
    """Run the hook before each tool."""
    return hooks("PreToolUse")


def test_with_nobody_to_ask_a_tool_is_denied_and_told_why(hook: Run) -> None:
    done = hook(b'{"tool_name": "Bash", "tool_input": {"command": "ls"}, "tool_use_id": "1", "cwd": "/"}')
    said = json.loads(done.stdout)["hookSpecificOutput"]
    assert (done.returncode, said["hookEventName"], said["permissionDecision"]) == (0, "PreToolUse", "deny")
    assert "nobody led Kapelle" in said["permissionDecisionReason"]


@pytest.mark.parametrize("said", [b"", b"nonsense", b"[]", b'{"tool_name": "Bash", "tool_input": 1}'])
def test_a_helper_that_fails_forbids_the_tool(said: bytes, hook: Run) -> None:
    # 2 is the one exit code by which a hook forbids.
    assert hook(said).returncode == 2


@pytest.mark.parametrize("said", [b'{"tool_name": "Bash", "tool_input": {"command": "ls"}, "cwd": "/"}', b"nonsense"])
def test_with_nobody_to_ask_a_prompt_is_denied(said: bytes, hooks: Callable[[str], Run]) -> None:
    done = hooks("PermissionRequest")(said)
    told = json.loads(done.stdout)["hookSpecificOutput"]
    assert (done.returncode, told["hookEventName"], told["decision"]["behavior"]) == (0, "PermissionRequest", "deny")
    assert told["decision"]["message"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_the_helper_reads_and_writes_json_as_everybody_does(value: object) -> None:
    assert json.loads(helper.written(value)) == value
    assert helper.read(f" {json.dumps(value)}\n") == value
    assert helper.read(json.dumps(value, ensure_ascii=False)) == value


def test_the_helper_loads_nothing_that_takes_long() -> None:
    # json and socket take longer to load than Python itself takes to start, and that is for every tool call.
    code = "import sys; path = sys.argv[1]; exec(open(path).read(), {'__name__': 'h', '__file__': path}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, helper.__file__], capture_output=True, check=True, text=True)
    assert not {"json", "socket", "re", "enum", "typing", "threading"} & set(done.stdout.split())
