import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.adapters.gateway.reading import LONGEST, EventReader, ReplyReader
from kapelle.core.budget import Usage

quick = settings(deadline=None)


def event(kind: str, **content: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **content}, ensure_ascii=False)}\n\n".encode()


def delta(index: int, **content: str) -> bytes:
    return event("content_block_delta", index=index, delta=content)


START = event(
    "message_start",
    message={
        "model": "claude-sonnet-5-5-20260101",
        "content": [],
        "usage": {
            "input_tokens": 12,
            "output_tokens": 1,
            "cache_read_input_tokens": 3000,
            "cache_creation_input_tokens": 400,
            "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 100},
            "service_tier": "standard",
        },
    },
)
THINKING = (
    event("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""})
    + delta(0, type="thinking_delta", thinking="Let me see. " * 4)
    + delta(0, type="signature_delta", signature="EqQBCg==")
    + event("content_block_stop", index=0)
)
TEXT = (
    event("content_block_start", index=1, content_block={"type": "text", "text": ""})
    + event("ping")
    + delta(1, type="text_delta", text="Grüße, ")
    + delta(1, type="text_delta", text="\u20ac \U0001f600\n\ndata: no event")
    + event("content_block_stop", index=1)
)
TOOL = (
    event("content_block_start", index=2, content_block={"type": "tool_use", "id": "toolu_1", "name": "Write", "input": {}})
    + delta(2, type="input_json_delta", partial_json="")
    + delta(2, type="input_json_delta", partial_json='{"file_path": "/w/a.py", "con')
    + delta(2, type="input_json_delta", partial_json='tent": "x = \\"{1}\\"\\n"}')
    + event("content_block_stop", index=2)
)
END = event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 77}) + event("message_stop")
STREAM = START + THINKING + TEXT + TOOL + END


def read(*pieces: bytes, streaming: bool = True) -> ReplyReader:
    reader = ReplyReader(streaming=streaming)
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    return reader


def told(reader: ReplyReader) -> tuple[Any, ...]:
    return (reader.model, reader.text, reader.tools, reader.usage, reader.hour_writes, reader.complete, reader.error)


def test_a_stream_is_put_together() -> None:
    reader = read(STREAM)
    assert reader.text == "Grüße, \u20ac \U0001f600\n\ndata: no event"
    assert reader.tools == [("Write", {"file_path": "/w/a.py", "content": 'x = "{1}"\n'})]
    assert reader.model == "claude-sonnet-5-5-20260101"
    assert reader.usage == Usage(input_tokens=12, output_tokens=77, cache_read_tokens=3000, cache_write_tokens=400)
    assert reader.hour_writes == 100
    assert reader.complete
    assert not reader.error


def test_a_stream_cut_at_every_byte_says_the_same() -> None:
    whole = told(read(STREAM))
    for cut in range(len(STREAM) + 1):
        assert told(read(STREAM[:cut], STREAM[cut:])) == whole, cut


def test_a_stream_that_comes_byte_by_byte_says_the_same() -> None:
    assert told(read(*(STREAM[i : i + 1] for i in range(len(STREAM))))) == told(read(STREAM))


def test_lines_may_end_as_they_do_in_windows() -> None:
    assert told(read(STREAM.replace(b"\n", b"\r\n"))) == told(read(STREAM))


def test_comments_and_other_fields_of_a_stream_are_ignored() -> None:
    assert told(read(b": hello\n\nid: 3\nretry: 10\n\n" + STREAM)) == told(read(STREAM))


def test_data_over_several_lines_is_one_event() -> None:
    events = EventReader()
    assert list(events.feed(b"data: a\ndata:b\n\ndata: c\n\n")) == [b"a\nb", b"c"]


@quick
@given(st.lists(st.binary(max_size=60), max_size=12), st.booleans())
def test_no_bytes_make_it_raise(pieces: list[bytes], streaming: bool) -> None:
    reader = read(*pieces, streaming=streaming)
    assert reader.usage.total >= 0
    assert isinstance(reader.text, str)
    assert list(reader.tools) is not None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    [
        "index",
        "message",
        "content_block",
        "delta",
        "usage",
        "error",
        "content",
        "text",
        "input",
        "partial_json",
        "name",
        "model",
    ]
)
kinds = st.sampled_from(
    [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    ]
)
events = st.builds(
    lambda kind, rest: {**rest, "type": kind},
    kinds | json_values,
    st.dictionaries(fields, json_values | st.dictionaries(fields, json_values, max_size=3), max_size=5),
)


@quick
@given(st.lists(events, max_size=6), st.booleans())
def test_no_event_of_an_unknown_shape_makes_it_raise(given_events: list[dict[str, Any]], streaming: bool) -> None:
    whole = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in given_events)
    reader = read(START + whole) if streaming else read(json.dumps(given_events[:1]).encode(), streaming=False)
    assert isinstance(reader.usage, Usage)
    assert isinstance(reader.text, str)
    assert list(reader.tools) is not None


def test_a_line_that_never_ends_is_given_up_and_does_not_fill_the_memory() -> None:
    reader = read(b"data: ", *[b"x" * (LONGEST // 4)] * 9)
    assert reader._events is not None
    assert len(reader._events._rest) <= LONGEST


def test_a_reply_goes_on_after_a_line_that_was_given_up() -> None:
    reader = read(b"data: " + b"x" * (LONGEST + 1), b"\n\n", STREAM)
    assert told(reader) == told(read(STREAM))


def test_a_reply_without_streaming_says_the_same() -> None:
    body = {
        "type": "message",
        "model": "claude-sonnet-5-5",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "Done."},
            {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "ls"}},
        ],
        "usage": {"input_tokens": 5, "output_tokens": 9},
    }
    data = json.dumps(body).encode()
    reader = read(data[:20], data[20:], streaming=False)
    assert (reader.text, reader.tools) == ("Done.", [("Bash", {"command": "ls"})])
    assert reader.usage == Usage(input_tokens=5, output_tokens=9)
    assert reader.complete


def test_a_body_that_was_cut_is_not_complete() -> None:
    assert not read(b'{"type": "message", "usage": {"inp', streaming=False).complete


def test_an_error_is_told_in_the_words_of_the_api() -> None:
    body = b'{"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}'
    for reader in (read(body, streaming=False), read(START + b"event: error\ndata: " + body + b"\n\n")):
        assert (reader.error, reader.message) == ("rate_limit_error", "slow down")
        assert not reader.complete


def test_an_error_without_words_is_an_error() -> None:
    assert read(b'{"type": "error"}', streaming=False).error == "error"


def test_a_reply_that_was_cut_is_counted_by_what_it_had_written() -> None:
    said = "word " * 400
    begun = START + event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    reader = read(begun + delta(0, type="text_delta", text=said))
    assert not reader.complete
    assert reader.usage.output_tokens == len(said) // 4
    assert reader.usage.input_tokens == 12


def test_a_reply_that_was_cut_in_its_tool_call_is_counted_too() -> None:
    reader = read(START + TOOL)
    assert reader.usage.output_tokens >= 10


def test_a_reply_that_was_cut_while_it_thought_is_counted_too() -> None:
    assert read(START + THINKING).usage.output_tokens == len("Let me see. " * 4) // 4


def test_thoughts_are_not_what_a_reply_said() -> None:
    assert "Let me see" not in read(STREAM).text


def test_a_cut_reply_is_never_counted_lower_than_the_api_had_counted() -> None:
    assert read(START).usage.output_tokens == 1
