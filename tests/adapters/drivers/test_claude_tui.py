"""The CLI's own screen: what is started, and what is read of it, cut at every byte."""

import json
from datetime import timedelta
from typing import Any

import pytest

from kapelle.adapters.drivers.claude.driver import ClaudeDriver
from kapelle.adapters.drivers.claude.given import key_of
from kapelle.adapters.drivers.claude.screen import ScreenCodec
from kapelle.adapters.drivers.claude.tui import ClaudeTuiDriver
from kapelle.core.agent import AgentConfig
from kapelle.core.conversation import (
    ConversationStarted,
    Prompt,
    PromptTaken,
    Said,
    ToolCalled,
    ToolReturned,
    Trouble,
    TurnEnded,
    Unrecognised,
)
from kapelle.core.ids import AgentId, PromptId
from kapelle.core.ports import AgentOrder, Ended, ModelAccess
from kapelle.core.rules import Rules
from kapelle.core.terminals import ScreenDriver
from kapelle.core.warden import WardenAccess

TOKEN = "kapelle-token"  # noqa: S105  # of nobody


def hook(kind: str, **given: Any) -> dict[str, Any]:
    return {"hook": {"hook_event_name": kind, **given}}


LINES = [
    {"screen": "open"},
    hook("SessionStart", session_id="c-1", model="model-1"),
    {"taken": "p-1"},
    hook("UserPromptSubmit", prompt=""),
    {"said": "I look."},
    hook("PreToolUse", tool_name="Bash", tool_use_id="u-1", tool_input={"command": "ls"}),
    hook("PostToolUse", tool_name="Bash", tool_use_id="u-1"),
    {"said": "Done, \u00e9\u4e2d."},
    hook("Stop", last_assistant_message="Done, \u00e9\u4e2d."),
    {"ended": 0},
]
SPOOL = "".join(json.dumps(line) + "\n" for line in LINES).encode()
EVENTS = [
    ConversationStarted(conversation_id="c-1", model="model-1"),
    PromptTaken(prompt_id=PromptId("p-1")),
    Said(text="I look."),
    ToolCalled(call_id="u-1", tool="Bash", about="ls", key=key_of({"command": "ls"})),
    ToolReturned(call_id="u-1", failed=False),
    Said(text="Done, \u00e9\u4e2d."),
    TurnEnded(text="Done, \u00e9\u4e2d.", turns=1),
]


def order(**changes: Any) -> AgentOrder:
    values: dict[str, Any] = {
        "agent_id": AgentId("g-1"),
        "config": AgentConfig(name="coder v2.1", program="claude-tui", rules=Rules()),
        "cwd": "/work",
        "folder": "/agents/g-1",
        "home": "/homes/a-1",
        "conversation_id": "c-1",
        "resume": False,
        "timeout": timedelta(minutes=5),
        "model": ModelAccess(base_url="http://127.0.0.1:1", api_key="kapelle-token"),
        "warden": WardenAccess(folder="/agents/g-1/warden", token=TOKEN, patience=timedelta(seconds=60)),
    }
    return AgentOrder(**(values | changes))


def settings(argv: tuple[str, ...]) -> dict[str, Any]:
    return json.loads(argv[argv.index("--settings") + 1])


def test_it_is_read_whole_however_it_is_cut() -> None:
    for cut in range(len(SPOOL)):
        codec = ScreenCodec()
        found = [*codec.feed(SPOOL[:cut]), *codec.feed(SPOOL[cut:]), *codec.finish(Ended(exit_code=0))]
        assert found == EVENTS


def test_an_end_in_the_middle_of_a_turn_is_a_crash() -> None:
    codec = ScreenCodec()
    codec.feed(b'{"taken": "p-1"}\n')
    (ended,) = codec.finish(Ended(exit_code=137))
    assert isinstance(ended, TurnEnded)
    assert ended.trouble is Trouble.CRASHED


def test_what_breaks_a_turn_off_is_told() -> None:
    codec = ScreenCodec()
    (ended,) = codec.feed(b'{"interrupted": true}\n')
    assert isinstance(ended, TurnEnded)
    assert ended.trouble is Trouble.INTERRUPTED
    (failed,) = codec.feed(json.dumps(hook("StopFailure", error="overloaded_error")).encode() + b"\n")
    assert isinstance(failed, TurnEnded)
    assert failed.trouble is not None


def test_nothing_that_arrives_is_fatal() -> None:
    for line in (b"no json\n", b"[1]\n", b'{"hook": 1}\n', b'{"taken": 1}\n', b"\xff\xfe\n"):
        assert [type(event) for event in ScreenCodec().feed(line)] == [Unrecognised]


def test_a_prompt_is_one_line_whatever_is_in_it() -> None:
    said = ScreenCodec().prompt(Prompt(prompt_id=PromptId("p-1"), text='a\nb"\u2028'))
    assert said.count(b"\n") == 1
    assert json.loads(said) == {"prompt": "p-1", "text": 'a\nb"\u2028'}


def test_its_screen_is_described_and_its_conversation_found() -> None:
    launch = ClaudeTuiDriver("/bin/claude").launch(order())
    assert launch.screen is not None
    assert (launch.screen.name, launch.screen.by_hand, launch.screen.resumed) == ("coder-v2-1-g-1", False, False)
    assert launch.screen.conversation == "/homes/a-1/.claude/projects"
    assert launch.screen.conversation_file == "c-1.jsonl"
    assert ("--session-id", "c-1") in zip(launch.argv, launch.argv[1:], strict=False)
    assert "AskUserQuestion" in launch.argv[launch.argv.index("--disallowedTools") + 1]
    hooks = settings(launch.argv)["hooks"]
    assert {"SessionStart", "UserPromptSubmit", "PreToolUse", "Stop", "PermissionRequest"} <= hooks.keys()
    # The warden is asked first, and the same call is told of as well.
    assert len(hooks["PreToolUse"]) == 2


def test_a_person_is_asked_on_the_screen_and_is_in_the_same_conversation() -> None:
    driver = ClaudeDriver("/bin/claude")
    assert isinstance(driver, ScreenDriver)
    launch = driver.screen(order(resume=True), by_hand=True)
    assert launch.screen is not None
    assert (launch.screen.by_hand, launch.screen.resumed) == (True, True)
    assert ("--resume", "c-1") in zip(launch.argv, launch.argv[1:], strict=False)
    assert "PermissionRequest" not in settings(launch.argv)["hooks"]
    assert "--disallowedTools" not in launch.argv


def test_what_it_cannot_do_is_said_before() -> None:
    assert "max_turns" in ClaudeTuiDriver().problems(AgentConfig(name="coder", max_turns=3))[0]
    assert ClaudeTuiDriver().problems(AgentConfig(name="coder")) == []


def test_calls_with_other_arguments_are_other_calls() -> None:
    """An agent that tries one command after the other does not go round in a loop."""
    codec = ScreenCodec()
    lines = [hook("PreToolUse", tool_name="Bash", tool_use_id="u", tool_input={"command": what}) for what in ("a", "b", "a")]
    found = [event for line in lines for event in codec.feed(json.dumps(line).encode() + b"\n")]
    first, second, third = (event.key for event in found if isinstance(event, ToolCalled))
    assert first == third != second != ""


@pytest.mark.parametrize("text", ["/exit", "  /exit now", "!rm -rf .", "\n!ls"])
def test_a_prompt_is_no_command_of_the_program(text: str) -> None:
    """The CLI takes what is short and begins so for a command; what has many lines is something that was pasted."""
    said = json.loads(ScreenCodec().prompt(Prompt(prompt_id=PromptId("p-1"), text=text)))["text"]
    assert said.endswith(text)
    assert said.count("\n") >= 12


def test_enter_after_a_backslash_is_no_letter() -> None:
    said = json.loads(ScreenCodec().prompt(Prompt(prompt_id=PromptId("p-1"), text="a\\")))["text"]
    assert said == "a\\ "
