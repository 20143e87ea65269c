import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.adapters.gateway.reading import ReplyReader
from kapelle.adapters.gateway.replies import Reply, ToolUse, error_body, streamed, whole
from kapelle.core.budget import Usage

quick = settings(deadline=None)

REPLY = Reply(
    message_id="msg_0a1b",
    model="claude-x",
    text="Grüße \U0001f600\r\n" * 20,
    tools=(ToolUse(name="Bash", arguments='{"command": "ls"}'), ToolUse(name="Write", arguments='{"content": "\\u20ac\\n"}')),
    usage=Usage(input_tokens=7, output_tokens=8, cache_read_tokens=9, cache_write_tokens=10),
)


def read(*pieces: bytes, streaming: bool) -> ReplyReader:
    reader = ReplyReader(streaming=streaming)
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    return reader


names = st.text(min_size=1, max_size=10)
arguments = st.dictionaries(
    names, st.text(max_size=20) | st.integers() | st.booleans() | st.none() | st.lists(st.text()), max_size=3
)
counts = st.integers(0, 10**9)
replies = st.builds(
    Reply,
    message_id=st.just("msg_1"),
    model=names,
    text=st.text(max_size=200),
    tools=st.lists(st.builds(ToolUse, name=names, arguments=arguments.map(json.dumps)), max_size=3),
    usage=st.builds(Usage, input_tokens=counts, output_tokens=counts, cache_read_tokens=counts, cache_write_tokens=counts),
)


@quick
@given(replies, st.integers(1, 50))
def test_a_reply_that_is_streamed_is_read_back_as_it_was(reply: Reply, piece: int) -> None:
    reader = read(*streamed(reply, piece), streaming=True)
    assert (reader.text, reader.model, reader.usage, reader.complete) == (reply.text, reply.model, reply.usage, True)
    assert reader.tools == [(tool.name, json.loads(tool.arguments)) for tool in reply.tools]


@quick
@given(replies)
def test_a_reply_in_one_body_is_read_back_as_it_was(reply: Reply) -> None:
    reader = read(whole(reply), streaming=False)
    assert (reader.text, reader.model, reader.usage, reader.complete) == (reply.text, reply.model, reply.usage, True)
    assert reader.tools == [(tool.name, json.loads(tool.arguments)) for tool in reply.tools]


def test_a_stream_has_the_order_of_the_api() -> None:
    kinds = [piece.partition(b"\n")[0].removeprefix(b"event: ").decode() for piece in streamed(REPLY, 10_000)]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert kinds == ["message_start", *block, *block, *block, "message_delta", "message_stop"]


def test_output_is_told_only_at_the_end_of_a_stream() -> None:
    first, *_, last, _ = [json.loads(piece.split(b"data: ", 1)[1]) for piece in streamed(REPLY)]
    assert first["message"]["usage"]["output_tokens"] == 1
    assert last["usage"] == {"output_tokens": 8}
    assert last["delta"]["stop_reason"] == "tool_use"


def test_every_tool_call_has_an_id_of_its_own() -> None:
    content = json.loads(whole(REPLY))["content"]
    assert [block.get("id") for block in content] == [None, "toolu_0a1b00", "toolu_0a1b01"]


def test_a_reply_without_words_is_an_empty_text() -> None:
    silent = Reply(message_id="msg_1", model="m", text="", tools=(), usage=Usage())
    assert json.loads(whole(silent))["content"] == [{"type": "text", "text": ""}]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (529, "overloaded_error"), (418, "api_error")],
)
def test_errors_have_the_shape_of_the_api(status: int, kind: str) -> None:
    assert json.loads(error_body(status, "No.")) == {"type": "error", "error": {"type": kind, "message": "No."}}
    assert read(error_body(status, "No."), streaming=False).error == kind


def test_an_error_may_be_of_a_kind_of_its_own() -> None:
    assert json.loads(error_body(400, "No.", "billing_error"))["error"]["type"] == "billing_error"
