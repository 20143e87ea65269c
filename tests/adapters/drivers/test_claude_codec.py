"""The protocol of the CLI beyond what a transcript shows: bytes of every kind in, prompts out."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.adapters.drivers.claude.given import about
from kapelle.adapters.drivers.claude.messages import EXPECTED
from kapelle.adapters.drivers.claude.protocol import ClaudeCodec
from kapelle.adapters.drivers.lines import LONGEST
from kapelle.core.conversation import (
    ConversationEvent,
    ConversationStarted,
    ModelRetried,
    Prompt,
    PromptTaken,
    Said,
    ToolCalled,
    ToolReturned,
    Trouble,
    TurnEnded,
    Unrecognised,
)
from kapelle.core.ids import PromptId
from kapelle.core.ports import Ended

quick = settings(deadline=None)

UUID = "0e099d6a-59c1-4f7c-b543-4a18b381ca97"
ECHO = {
    "type": "user",
    "uuid": UUID,
    "isReplay": True,
    "message": {"role": "user", "content": [{"type": "text", "text": "Go."}]},
}


def line(content: Any) -> bytes:
    return json.dumps(content).encode() + b"\n"


def read(*contents: Any) -> list[ConversationEvent]:
    return list(ClaudeCodec().feed(b"".join(map(line, contents))))


def assistant(*blocks: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"type": "assistant", "message": {"role": "assistant", "content": list(blocks)}, **rest}


def returned(content: Any, **rest: Any) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": "t1", "content": content, **rest}
    return {"type": "user", "message": {"role": "user", "content": [block]}}


# --- Whatever arrives ---


@quick
@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"\n", b'{"type": "', b"assistant", b'"}\n']), max_size=12))
def test_no_bytes_make_it_raise(pieces: list[bytes]) -> None:
    codec = ClaudeCodec()
    for piece in pieces:
        codec.feed(piece)
    codec.finish(Ended(exit_code=1))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
names = [
    *("message", "content", "subtype", "uuid", "isReplay", "parent_tool_use_id", "session_id", "tools", "result", "is_error"),
    *("usage", "num_turns", "errors", "permission_denials", "structured_output", "total_cost_usd", "type", "text", "input"),
]
fields = st.dictionaries(st.sampled_from(names), json_values, max_size=4)
kinds = st.sampled_from(["system", "assistant", "user", "result", "stream_event", "text", "tool_use", "tool_result"])
blocks = st.builds(lambda rest, kind: {**rest, "type": kind}, fields, kinds | json_values)
messages = st.builds(
    lambda rest, kind, inner: {**rest, "type": kind, "message": {"role": "user", "content": inner}},
    fields,
    kinds | json_values,
    st.lists(blocks, max_size=3) | json_values,
)


@quick
@given(st.lists(blocks | messages | json_values, max_size=4))
def test_no_message_of_an_unknown_shape_makes_it_raise(contents: list[Any]) -> None:
    codec = ClaudeCodec()
    events = [*codec.feed(b"".join(map(line, contents))), *codec.finish(Ended(exit_code=0))]
    for event in events:
        repr(event).encode()


@pytest.mark.parametrize("depth", [50, 500, 900, 985, 995, 2000, 5000, 200_000])
@pytest.mark.parametrize(
    "around",
    [
        b"%s",
        b'{"type": %s}',
        b'{"type": "result", "structured_output": %s}',
        b'{"type": "assistant", "message": {"content": [{"type": "tool_use", "name": "StructuredOutput", "input": %s}]}}',
        b'{"type": "user", "message": {"content": [{"type": "tool_result", "content": %s}]}}',
    ],
)
def test_no_depth_of_json_makes_it_raise(around: bytes, depth: int) -> None:
    codec = ClaudeCodec()
    codec.feed(around % (b"[" * depth + b"]" * depth) + b"\n")
    assert codec.feed(line(assistant({"type": "text", "text": "on"}))) == [Said(text="on")]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"Error: something\n", "no_json"),
        (b'{"type": "assis\n', "no_json"),
        (b'{"type": "assistant", "message": {"content": "gr\xfc\xdfe"}}\n', "no_json"),
        (b'{"type": "brand_new", "data": 1}\n', "brand_new"),
        (b'{"type": "assistant", "message": 3}\n', "assistant"),
        (b'{"subtype": "init"}\n', "no_type"),
        (b'{"type": []}\n', "no_type"),
        (b"[]\n", "no_type"),
        (b"7\n", "no_type"),
    ],
)
def test_what_is_not_understood_is_kept(data: bytes, kind: str) -> None:
    assert ClaudeCodec().feed(data) == [Unrecognised(kind=kind, raw=data.decode(errors="replace").strip())]


def test_of_what_is_not_understood_only_the_beginning_is_kept() -> None:
    (found,) = ClaudeCodec().feed(b"x" * 10_000 + b"\n")
    assert found == Unrecognised(kind="no_json", raw="x" * 2000)
    (named,) = read({"type": "y" * 1000})
    assert isinstance(named, Unrecognised)
    assert named.kind == "y" * 100


def test_a_line_that_is_too_long_is_told_and_the_next_one_is_read() -> None:
    codec = ClaudeCodec()
    assert codec.feed(b"x" * (LONGEST + 1)) == []
    assert codec.feed(b"\n" + line(assistant({"type": "text", "text": "on"}))) == [
        Unrecognised(kind="too_long", raw=""),
        Said(text="on"),
    ]


def test_a_long_message_is_read() -> None:
    assert read(assistant({"type": "text", "text": "x" * 3_000_000})) == [Said(text="x" * 3_000_000)]


@pytest.mark.parametrize("kind", sorted(EXPECTED))
def test_what_is_expected_and_says_nothing_is_passed_over(kind: str) -> None:
    assert read({"type": kind, "anything": [1]}) == []


def test_empty_lines_are_passed_over() -> None:
    assert ClaudeCodec().feed(b"\n  \r\n\n") == []


def test_a_system_message_of_an_unknown_kind_is_passed_over() -> None:
    assert read({"type": "system", "subtype": "brand_new"}) == []


def test_half_of_a_letter_does_not_reach_those_who_must_write_it_down() -> None:
    # The CLI cuts long texts by their UTF-16 units: the first half of an emoji may be left at the end.
    call = {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "echo \ud83d"}}
    events = read(
        assistant({"type": "text", "text": "a\ud83d"}, call), returned("b\ud83d"), {"type": "result", "result": "\ud83d"}
    )
    assert unkeyed(events[:3]) == [
        Said(text="a?"),
        ToolCalled(call_id="t", tool="Bash", about="echo ?"),
        ToolReturned(call_id="t1", failed=False, about="b?"),
    ]
    assert repr(events).encode()


def test_whole_letters_by_two_escapes_are_kept() -> None:
    assert read(assistant({"type": "text", "text": "\U0001f600"})) == [Said(text="\U0001f600")]


# --- What is said ---


def test_the_start_of_a_conversation_is_told() -> None:
    init = {"type": "system", "subtype": "init", "session_id": "s", "model": "m", "tools": ["Bash"], "claude_code_version": "9"}
    assert read(init) == [ConversationStarted(conversation_id="s", model="m", tools=("Bash",), version="9")]


def test_a_retry_is_told_with_its_delay_in_seconds() -> None:
    retry = {"type": "system", "subtype": "api_retry", "attempt": 2, "retry_delay_ms": 1500, "error_status": 529}
    assert read(retry) == [ModelRetried(attempt=2, delay_s=1.5, status=529)]
    assert read({**retry, "retry_delay_ms": None, "error_status": None}) == [ModelRetried(attempt=2, delay_s=0)]


def unkeyed(events: Sequence[ConversationEvent]) -> list[ConversationEvent]:
    """Return *events* without what stands for all that a tool was called with."""
    return [replace(event, key="") if isinstance(event, ToolCalled) else event for event in events]


def test_the_same_call_has_the_same_key_and_another_one_another() -> None:
    def key(**arguments: object) -> str:
        (call,) = read(assistant({"type": "tool_use", "id": "t1", "name": "Bash", "input": arguments}))
        assert isinstance(call, ToolCalled)
        return call.key

    assert key(command="ls", timeout=1) == key(timeout=1, command="ls")
    assert len({key(command="ls"), key(command="ls -l"), key(command="ls", timeout=1), key()}) == 4


def test_text_and_tools_of_one_message_come_in_their_order() -> None:
    tool = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}}
    events = read(assistant({"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "I look."}, tool))
    assert unkeyed(events) == [Said(text="I look."), ToolCalled(call_id="t1", tool="Bash", about="ls")]


@pytest.mark.parametrize("content", ["", " \n", [{"type": "text", "text": "  "}], []])
def test_nothing_said_is_nothing(content: Any) -> None:
    assert read({"type": "assistant", "message": {"content": content}}) == []


def test_tools_of_a_subagent_count_and_its_words_do_not() -> None:
    tool = {"type": "tool_use", "id": "t1", "name": "Read", "input": {}}
    events = read(assistant({"type": "text", "text": "inner"}, tool, parent_tool_use_id="t0"))
    assert unkeyed(events) == [ToolCalled(call_id="t1", tool="Read")]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("ok", "ok"),
        ([{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}], "a  b"),
        (None, ""),
        (7, ""),
        ("x" * 1000, "x" * 400),
    ],
)
def test_a_tool_returns_with_the_beginning_of_its_answer(content: Any, text: str) -> None:
    assert read(returned(content)) == [ToolReturned(call_id="t1", failed=False, about=text)]
    assert read(returned(content, is_error=True)) == [ToolReturned(call_id="t1", failed=True, about=text)]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"command": "pytest -q\nrm x", "description": "Run"}, "pytest -q…"),
        ({"description": "Count", "prompt": "Count all"}, "Count"),
        ({"file_path": "/w/a.py", "content": "..."}, "/w/a.py"),
        ({"command": "x" * 500}, "x" * 399 + "…"),
        ({"command": "x" * 400}, "x" * 400),
        ({"file_path": " ", "pattern": "*.py"}, "*.py"),
        ({"file_path": 7}, ""),
        ({"other": "x"}, ""),
        ([1], ""),
        (None, ""),
    ],
)
def test_a_tool_call_is_told_in_one_short_line(arguments: Any, text: str) -> None:
    assert about(arguments) == text


# --- Turns ---


def test_an_echo_with_an_id_is_a_prompt_that_was_taken() -> None:
    assert read(ECHO) == [PromptTaken(prompt_id=PromptId(UUID))]


@pytest.mark.parametrize("change", [{"isReplay": False}, {"uuid": ""}, {"parent_tool_use_id": "t1"}])
def test_what_else_comes_in_the_role_of_the_user_is_no_prompt(change: dict[str, Any]) -> None:
    assert read({**ECHO, **change}) == []


def finished(*contents: Any, ended: Ended) -> list[ConversationEvent]:
    codec = ClaudeCodec()
    codec.feed(b"".join(map(line, contents)))
    return list(codec.finish(ended))


def test_an_end_without_a_result_is_a_crash() -> None:
    (event,) = finished(ECHO, ended=Ended(exit_code=137))
    assert event == TurnEnded(trouble=Trouble.CRASHED, message="claude ended with exit code 137 in the middle of its turn")


def test_an_end_by_the_time_limit_says_so() -> None:
    (event,) = finished(ECHO, ended=Ended(exit_code=None, timed_out=True))
    assert event == TurnEnded(trouble=Trouble.CRASHED, message="claude ran out of time in the middle of its turn")


def test_an_end_after_a_result_is_none_of_a_turn() -> None:
    assert finished(ECHO, {"type": "result"}, ended=Ended(exit_code=0)) == []
    assert finished(ended=Ended(exit_code=1)) == []


def test_a_result_whose_last_newline_is_missing_counts() -> None:
    codec = ClaudeCodec()
    codec.feed(line(ECHO) + line({"type": "result", "result": "Done."}).rstrip())
    assert codec.finish(Ended(exit_code=0)) == [TurnEnded(text="Done.")]


def test_a_last_line_that_was_cut_is_kept_and_the_turn_has_crashed() -> None:
    codec = ClaudeCodec()
    codec.feed(line(ECHO) + b'{"type": "result", "resu')
    cut, ended = codec.finish(Ended(exit_code=137))
    assert cut == Unrecognised(kind="no_json", raw='{"type": "result", "resu')
    assert isinstance(ended, TurnEnded)


def test_a_structured_result_may_come_by_the_result_or_by_its_tool() -> None:
    call = assistant({"type": "tool_use", "id": "t", "name": "StructuredOutput", "input": {"a": "ä"}})
    (by_result,) = read({"type": "result", "structured_output": {"a": 1}})
    _, by_tool = read(call, {"type": "result"})
    _, both = read(call, {"type": "result", "structured_output": {"a": 1}})
    *_, later = read(call, {"type": "result"}, {"type": "result"})
    assert [event.result for event in (by_result, by_tool, both, later) if isinstance(event, TurnEnded)] == [
        '{"a": 1}',
        '{"a": "ä"}',
        '{"a": 1}',
        None,
    ]


LIMITED = {
    "type": "result",
    "subtype": "success",
    "is_error": True,
    "api_error_status": 429,
    "result": "You've hit your 5-hour limit · resets 11:41am (UTC)",
}


def limit(status: str, resets: Any = 1795261291) -> dict[str, Any]:
    return {"type": "rate_limit_event", "rate_limit_info": {"status": status, "resetsAt": resets}}


@pytest.mark.parametrize(
    ("events", "resets_at"),
    [
        ([limit("rejected")], datetime(2026, 11, 21, 11, 41, 31, tzinfo=UTC)),
        ([limit("rejected"), limit("allowed")], None),
        ([limit("allowed")], None),
        ([limit("rejected", None)], None),
        ([limit("rejected", 1e300)], None),
        ([{"type": "rate_limit_event"}], None),
        ([], None),
    ],
)
def test_the_end_of_a_limit_is_told_with_the_turn_that_it_ended(events: list[Any], resets_at: datetime | None) -> None:
    (turn,) = read(*events, LIMITED)
    assert isinstance(turn, TurnEnded)
    assert (turn.trouble, turn.resets_at) == (Trouble.USAGE_LIMIT, resets_at)


def test_a_turn_that_ended_for_another_reason_has_no_end_of_a_limit() -> None:
    (turn,) = read(limit("rejected"), {**LIMITED, "api_error_status": 529, "result": "Overloaded"})
    assert isinstance(turn, TurnEnded)
    assert (turn.trouble, turn.resets_at) == (Trouble.OVERLOADED, None)


def test_refused_tools_are_named_once_each() -> None:
    denials = [{"tool_name": name} for name in ("Bash", "Write", "Bash")]
    (ended,) = read({"type": "result", "permission_denials": denials})
    assert isinstance(ended, TurnEnded)
    assert ended.denied == ("Bash", "Write")


# --- What is written ---


@quick
@given(st.text(alphabet=st.characters(), max_size=60))
def test_a_prompt_is_one_line_that_holds_its_id_and_its_text(text: str) -> None:
    data = ClaudeCodec().prompt(Prompt(prompt_id=PromptId(UUID), text=text))
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    content = json.loads(data)
    assert (content["type"], content["uuid"]) == ("user", UUID)
    (block,) = content["message"]["content"]
    before = "\n" if text.startswith("/") else ""
    assert block == {"type": "text", "text": before + text.encode(errors="replace").decode()}


@pytest.mark.parametrize("text", ["/help", "/model haiku", "/clear", "/"])
def test_no_prompt_is_a_command_to_the_cli(text: str) -> None:
    data = ClaudeCodec().prompt(Prompt(prompt_id=PromptId(UUID), text=text))
    assert json.loads(data)["message"]["content"] == [{"type": "text", "text": f"\n{text}"}]


@pytest.mark.parametrize(("method", "subtype"), [("interrupt", "interrupt"), ("goodbye", "end_session")])
def test_interrupt_and_goodbye_are_control_requests(method: str, subtype: str) -> None:
    data = getattr(ClaudeCodec(), method)()
    assert data.count(b"\n") == 1
    content = json.loads(data)
    assert (content["type"], content["request"]) == ("control_request", {"subtype": subtype})
    assert content["request_id"]


# --- More than anybody wants ---


@pytest.mark.parametrize(
    "content",
    [
        b'{"type": "result", "num_turns": "many"}',
        b'{"type": "result", "result": 7}',
        b'{"type": "result", "structured_output": 1e999}',
    ],
)
def test_an_end_of_a_turn_that_is_not_understood_ends_it_all_the_same(content: bytes) -> None:
    codec = ClaudeCodec()
    codec.feed(line(ECHO))
    babbled, ended = codec.feed(content + b"\n")
    assert babbled == Unrecognised(kind="result", raw=content.decode())
    assert isinstance(ended, TurnEnded)
    assert ended.trouble is Trouble.UNKNOWN
    assert not codec.finish(Ended(exit_code=0))


@pytest.mark.parametrize("number", ["1" * 400, "-5", "1e400", "-1e400", "9" * 20])
def test_numbers_that_nothing_can_hold_do_not_cost_the_turn_its_end(number: str) -> None:
    usage = f'{{"input_tokens": {number}, "output_tokens": 3}}'
    text = f'{{"type": "result", "result": "done", "num_turns": {number}, "total_cost_usd": {number}, "usage": {usage}}}\n'
    (ended,) = ClaudeCodec().feed(text.encode())
    assert isinstance(ended, TurnEnded)
    assert (ended.text, ended.trouble, ended.turns, ended.cost_usd) == ("done", None, 0, None)
    assert ended.usage is not None
    assert (ended.usage.input_tokens, ended.usage.output_tokens) == (0, 3)


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity", b"1" * 5000])
def test_what_json_does_not_know_is_not_understood(word: bytes) -> None:
    (found,) = ClaudeCodec().feed(b'{"type": "system", "attempt": ' + word + b"}\n")
    assert isinstance(found, Unrecognised)
    assert found.kind == "no_json"


def test_a_line_of_two_hundred_megabytes_is_dropped_and_the_next_one_is_read() -> None:
    codec = ClaudeCodec()
    piece = b"x" * (1 << 20)
    for _ in range(200):
        assert not codec.feed(piece)
    assert sum(map(len, codec._lines._parts)) <= LONGEST
    assert codec.feed(b"\n") == [Unrecognised(kind="too_long", raw="")]
    assert codec.feed(line(assistant({"type": "text", "text": "on"}))) == [Said(text="on")]


def test_of_very_much_babble_the_beginning_is_kept() -> None:
    codec = ClaudeCodec()
    found = codec.feed(b"what?\n" * 5000)
    assert [event.kind for event in found if isinstance(event, Unrecognised)] == ["no_json"] * 99 + ["and more"]
    assert codec.feed(line(assistant({"type": "text", "text": "on"}))) == [Said(text="on")]


# --- Transcripts, damaged ---

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.jsonl"))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.sampled_from(TRANSCRIPTS),
    st.lists(
        st.tuples(st.integers(0, 1 << 16), st.sampled_from([b"", b"\x00", b"\xff", b"[", b'"', b"\n", b"9" * 30, b"\\ud800"]))
    ),
    st.integers(1, 4096),
)
def test_no_damage_to_a_transcript_makes_it_raise(path: Path, damage: list[tuple[int, bytes]], piece: int) -> None:
    data = path.read_bytes()
    for place, instead in damage:
        at = place % len(data)
        data = data[:at] + instead + data[at + 1 :]
    codec = ClaudeCodec()
    events = [event for start in range(0, len(data), piece) for event in codec.feed(data[start : start + piece])]
    events += codec.finish(Ended(exit_code=1))
    for event in events:
        repr(event).encode()
