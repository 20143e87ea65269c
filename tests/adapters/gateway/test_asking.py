import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.adapters.gateway.asking import Asked, json_object, read_request
from kapelle.core.wording import go_on

quick = settings(deadline=None)

REMINDER = "<system-reminder>\nThe date is 2026-01-01.\n</system-reminder>"


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def user(*said: str | dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [text(one) if isinstance(one, str) else one for one in said]}


def replied(*said: str, tool: str | None = None) -> dict[str, Any]:
    blocks = [text(one) for one in said]
    return {"role": "assistant", "content": [*blocks, *([{"type": "tool_use", "id": tool, "name": "Bash"}] if tool else [])]}


def result(tool: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": tool, "content": [text("file.py")]}


def asked(*messages: dict[str, Any], **rest: Any) -> Asked:
    content = {"model": "claude-opus-5-5", "stream": True, "tools": [{"name": "Bash"}], "messages": list(messages), **rest}
    return read_request(json.dumps(content).encode())


def test_the_first_prompt_has_no_reply_yet() -> None:
    found = asked(user("Do it."))
    assert (found.prompt, found.prompts, found.replies) == ("Do it.", 1, 0)
    assert (found.model, found.streaming, found.on_the_side) == ("claude-opus-5-5", True, False)


def test_a_prompt_may_be_a_plain_string() -> None:
    assert asked({"role": "user", "content": " Do it.\n"}).prompt == "Do it."


def test_reminders_of_the_program_are_no_prompts() -> None:
    found = asked(user(REMINDER, "Do it.", REMINDER))
    assert (found.prompt, found.prompts) == ("Do it.", 1)


@pytest.mark.parametrize(
    "aside",
    [
        REMINDER,
        "<local-command-stdout>ok</local-command-stdout>",
        "<command-name>/clear</command-name>",
        "<command-message>clear</command-message>",
        "<command-args></command-args>",
        "[Request interrupted by user for tool use]",
        "  \n",
    ],
)
def test_what_the_program_says_in_the_role_of_the_user_is_no_prompt(aside: str) -> None:
    found = asked(user("Do it."), replied("Yes."), user(aside))
    assert (found.prompt, found.prompts, found.replies) == ("Do it.", 1, 1)


def test_a_tool_result_is_no_prompt_and_replies_are_counted_across_it() -> None:
    found = asked(user("Do it."), replied("I look.", tool="t1"), user(result("t1")), replied(tool="t2"), user(result("t2")))
    assert (found.prompt, found.prompts, found.replies) == ("Do it.", 1, 2)


def test_text_beside_a_tool_result_belongs_to_the_tool() -> None:
    found = asked(user("Do it."), replied(tool="t1"), user(result("t1"), "Base directory for this skill: /x"))
    assert (found.prompt, found.replies) == ("Do it.", 1)


def test_a_second_prompt_begins_to_count_replies_anew() -> None:
    found = asked(user("One."), replied("1"), user("Two."), replied("2", tool="t"), user(result("t")))
    assert (found.prompt, found.prompts, found.replies) == ("Two.", 2, 1)


def test_a_reply_in_several_messages_is_one_reply() -> None:
    assert asked(user("Do it."), replied("I look."), replied(tool="t1"), user(result("t1"))).replies == 1


def test_an_answer_that_no_model_gave_is_no_reply() -> None:
    found = asked(user("Do it."), replied("No response requested."), user("Go on."))
    assert (found.prompt, found.replies) == ("Go on.", 0)
    assert asked(user("Do it."), {"role": "assistant", "content": "No response requested."}).replies == 0


def test_a_prompt_to_go_on_after_a_crash_lets_the_count_go_on() -> None:
    found = asked(user("Do it."), replied(tool="t1"), user(result("t1")), user(go_on()))
    assert (found.prompt, found.prompts, found.replies) == ("Do it.", 1, 1)


def test_messages_of_the_system_are_passed_over() -> None:
    found = asked({"role": "system", "content": "You are helpful."}, user("Do it."))
    assert (found.prompt, found.prompts) == ("Do it.", 1)


def test_a_question_without_tools_is_on_the_side() -> None:
    assert asked(user("Write a title."), tools=[]).on_the_side
    assert read_request(b'{"messages": [{"role": "user", "content": "Write a title."}]}').on_the_side


def test_a_question_for_a_summary_is_on_the_side_though_tools_are_listed() -> None:
    prompt = "CRITICAL: Respond with TEXT ONLY. Do NOT call any tools.\n...\n<summary>\n...\n</summary>"
    assert asked(user("Do it."), replied("Yes."), user(prompt)).on_the_side


@pytest.mark.parametrize(
    ("line", "cwd"),
    [
        ("Primary working directory: /w/some place/x\nIs a git repository: true", "/w/some place/x"),
        ("Working directory: /w/x", "/w/x"),
        ("<env>Working directory: /w/x</env>", "/w/x"),
        ("Working directory: unknown", ""),
    ],
)
def test_the_working_directory_is_read_from_the_words_of_the_program(line: str, cwd: str) -> None:
    assert asked(user("Do it."), system=[text("You are."), text(f"# Environment\n{line}")]).cwd == cwd
    assert asked(user(f"<system-reminder>{line}</system-reminder>", "Do it.")).cwd == cwd


def test_the_system_prompt_is_believed_before_a_conversation() -> None:
    said = user("Working directory: /somewhere/else")
    assert asked(said, system="Working directory: /w/x").cwd == "/w/x"


def test_what_was_said_is_measured() -> None:
    short, long = asked(user("a")), asked(user("a" * 1001))
    assert long.characters == short.characters + 1000


@quick
@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(body: bytes) -> None:
    assert isinstance(read_request(body), Asked)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
blocks = st.dictionaries(st.sampled_from(["type", "text", "content"]), json_values | st.sampled_from(["text", "tool_result"]))
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]) | json_values},
    optional={"content": json_values | st.lists(blocks | json_values, max_size=3)},
)
requests = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("model", "stream", "tools", "system"), json_values) | {"messages": st.lists(messages)}
)


@quick
@given(requests | json_values)
def test_no_json_makes_it_raise(content: Any) -> None:
    found = read_request(json.dumps(content).encode())
    assert found.replies >= 0
    assert found.prompts >= 0


@pytest.mark.parametrize("depth", [100, 900, 990, 1500, 4000, 100_000])
def test_no_depth_of_json_makes_it_raise(depth: int) -> None:
    deep = b"[" * depth + b"1" + b"]" * depth
    for body in (b'{"system": %s}' % deep, b'{"messages": [{"role": "user", "content": %s}]}' % deep):
        assert isinstance(read_request(body), Asked)


def test_a_text_block_without_text_says_nothing() -> None:
    assert asked(user("Do it.", {"type": "text"})).prompt == "Do it."


@pytest.mark.parametrize("said", [[{"text": [1]}], [{"text": {}}], [None], 7, {"text": "x"}, [[]]])
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_no_shape_of_a_message_makes_it_raise(role: str, said: Any) -> None:
    assert asked(user("Do it."), {"role": role, "content": said}).prompts == 1


def test_only_an_object_is_taken_for_one() -> None:
    assert json_object(b'{"a": 1}') == {"a": 1}
    assert json_object(b"[1]") == json_object(b"{") == json_object(b"\xff\xfe") == {}
