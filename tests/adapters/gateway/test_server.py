"""The gateway in front of a rehearsal: tokens, budgets, its port."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from kapelle.adapters.evaluators.process import ProcessEvaluator
from kapelle.adapters.gateway.answering import LARGEST, MOST_AT_ONCE
from kapelle.adapters.gateway.connections import OF_ONE, UNKNOWN
from kapelle.adapters.gateway.prices import PRICES, cost_of
from kapelle.adapters.gateway.reading import ReplyReader
from kapelle.adapters.gateway.server import ModelGateway
from kapelle.core.budget import Usage
from kapelle.core.conversation import Trouble
from kapelle.core.errors import GatewayFailed
from kapelle.core.gateway import Ticket, Upstream
from kapelle.core.ids import AgentId

KEY = {"x-api-key": "token-1"}
ASKS = {
    "model": "claude-sonnet-5-5",
    "stream": True,
    "tools": [{"name": "Bash"}],
    "messages": [{"role": "user", "content": "Go."}],
}
PLAIN = {**ASKS, "stream": False}

Make = Callable[..., ModelGateway]
MakeTicket = Callable[..., Ticket]


@pytest.fixture
def rehearsed(tmp_path: Path, make_ticket: MakeTicket) -> Callable[..., Ticket]:
    def make(script: str, **changes: Any) -> Ticket:
        path = tmp_path / "rehearsal.yml"
        path.write_text(script)
        return make_ticket(upstream=Upstream(rehearsal=str(path), log=str(tmp_path / "requests.log")), **changes)

    return make


def error_of(response: httpx2.Response) -> dict[str, str]:
    content = response.json()
    assert content["type"] == "error"
    return content["error"]


def read(response: httpx2.Response) -> ReplyReader:
    reader = ReplyReader(streaming=response.headers["content-type"].startswith("text/event-stream"))
    reader.feed(response.content)
    reader.finish()
    return reader


# --- Tokens ---


async def test_an_unknown_token_is_refused(make_gateway: Make, meter: Any, client: httpx2.AsyncClient) -> None:
    url = await make_gateway().start(meter)
    for headers in ({}, {"x-api-key": "other"}, {"authorization": "Bearer sk-real"}, {"x-kapelle-token": ""}):
        response = await client.post(f"{url}/v1/messages", json=ASKS, headers=headers)
        assert response.status_code == 401
        assert error_of(response)["type"] == "authentication_error"
        assert "its agent was stopped" in error_of(response)["message"]
    assert not meter.asked
    assert not meter.calls


async def test_a_token_is_found_where_a_program_can_put_it(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{say: hello}]}]"))
    beside_a_login = {"x-kapelle-token": "token-1", "authorization": "Bearer own-login"}
    for headers in (KEY, {"authorization": "Bearer token-1"}, beside_a_login):
        assert read(await client.post(f"{url}/v1/messages", json=ASKS, headers=headers)).text == "hello"


async def test_anybody_may_ask_whether_it_is_there(make_gateway: Make, meter: Any, client: httpx2.AsyncClient) -> None:
    url = await make_gateway().start(meter)
    assert (await client.head(f"{url}/api/hello")).status_code == 200


async def test_the_token_of_a_dismissed_agent_is_refused_and_that_of_another_is_not(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    script = "rules: [{turns: [{say: hello}]}]"
    gateway.admit(rehearsed(script))
    gateway.admit(rehearsed(script, token="token-2", agent_id=AgentId("g2")))  # noqa: S106
    gateway.dismiss(AgentId("g1"))
    assert (await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)).status_code == 401
    assert (await client.post(f"{url}/v1/messages", json=ASKS, headers={"x-api-key": "token-2"})).status_code == 200


async def test_a_ticket_admitted_again_changes_the_round(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    script = "rules: [{when: {round: 0}, turns: [{say: first}]}, {when: {round: 1}, turns: [{say: mended}]}]"
    said = []
    for round_ in (0, 1):
        gateway.admit(rehearsed(script, round=round_))
        said.append(read(await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)).text)
    assert said == ["first", "mended"]


# --- Budgets ---


async def test_a_call_beyond_the_budget_is_refused_in_words_that_are_known_again(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{say: hello}]}]"))
    meter.refusal = "the budget of run shop is spent ($1.00 of $1.00)"
    response = await client.post(f"{url}/v1/messages?beta=true", json=ASKS, headers=KEY)
    assert response.status_code == 400
    assert error_of(response)["message"] == "kapelle budget: the budget of run shop is spent ($1.00 of $1.00)"
    assert meter.asked == ["g1"]
    assert not meter.calls


@pytest.mark.parametrize(
    ("why", "status", "words"),
    [(Trouble.USAGE_LIMIT, 429, "kapelle limit: until noon"), (Trouble.INVALID_KEY, 401, "kapelle credentials: until noon")],
)
async def test_a_call_of_a_shut_account_is_refused_so_that_nobody_asks_again(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket, why: Trouble, status: int, words: str
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{say: hello}]}]"))
    meter.refusal, meter.why = "until noon", why
    response = await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)
    assert (response.status_code, error_of(response)["message"]) == (status, words)
    assert response.headers["x-should-retry"] == "false"
    assert not meter.calls


async def test_a_limit_is_recognised_and_told_in_the_gateways_words(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{error: 429, usage_limit: 90s}, {say: a}]}]"))
    response = await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)
    assert response.status_code == 429
    assert error_of(response)["message"].startswith(
        "kapelle limit: You've hit your usage limit. It resets at 2026-01-01T00:01Z"
    )
    assert response.headers["x-should-retry"] == "false"
    call = await meter.booked()
    assert (call.trouble, call.of_account) == (Trouble.USAGE_LIMIT, True)
    assert call.resets_at == datetime(2026, 1, 1, 0, 1, 30, tzinfo=UTC)


async def test_a_rehearsed_error_may_be_anything_at_all(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    turns = "{error: 418, error_type: teapot, message: short and stout}, {error: 503, body: <html>}, {error: 500, body: {a: 1}}"
    gateway.admit(rehearsed(f"rules: [{{turns: [{turns}, {{say: a}}]}}]"))
    answers = [await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [418, 503, 500]
    assert error_of(answers[0]) == {"type": "teapot", "message": "short and stout"}
    assert (answers[1].text, answers[2].json()) == ("<html>", {"a": 1})
    assert [call.trouble for call in meter.calls] == [Trouble.API_ERROR, Trouble.OVERLOADED, Trouble.API_ERROR]


@pytest.mark.parametrize("asks", [ASKS, PLAIN])
async def test_a_rehearsed_refusal_ends_its_reply_as_the_model_does(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket, asks: Any
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{say: I begin, refuse: true}]}]"))
    response = await client.post(f"{url}/v1/messages", json=asks, headers=KEY)
    reply = read(response)
    assert (reply.text, reply.refused) == ("I begin", True)
    call = await meter.booked()
    assert (call.status, call.trouble, call.error, call.of_account) == (200, Trouble.REFUSED, "refusal", False)


async def test_a_shared_fault_is_counted_over_all_tasks(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    script = "rules: [{turns: [{error: 500, shared: true}, {say: hello}]}]"
    gateway.admit(rehearsed(script))
    gateway.admit(rehearsed(script, token="token-2", task="web", agent_id=AgentId("g2")))  # noqa: S106
    tokens = ["token-1", "token-2", "token-1"]
    answers = [await client.post(f"{url}/v1/messages", json=ASKS, headers={"x-api-key": token}) for token in tokens]
    assert [answer.status_code for answer in answers] == [500, 200, 200]


async def test_counting_tokens_costs_nothing_and_is_not_asked_for(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed(""))
    meter.refusal = "spent"
    response = await client.post(f"{url}/v1/messages/count_tokens", content=b"x" * 400, headers=KEY)
    assert response.json() == {"input_tokens": 100}
    assert not meter.asked
    assert not meter.calls


# --- What a rehearsal says ---


@pytest.mark.parametrize("body", [ASKS, PLAIN])
async def test_a_rehearsed_call_is_answered_and_booked_once(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket, body: dict[str, Any]
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    usage = Usage(input_tokens=1000, output_tokens=200, cache_read_tokens=30, cache_write_tokens=4)
    given = "{input_tokens: 1000, output_tokens: 200, cache_read_tokens: 30, cache_write_tokens: 4}"
    gateway.admit(rehearsed(f"rules: [{{turns: [{{say: '{{{{ cwd }}}}', tools: [{{Bash: {{}}}}], usage: {given}}}]}}]"))
    reply = read(await client.post(f"{url}/v1/messages", json=body, headers=KEY))
    assert (reply.text, reply.tools, reply.usage) == ("/w/slot-1", [("Bash", {})], usage)
    call = await meter.booked()
    assert meter.calls == [call]
    assert (call.call_id, call.agent_id, call.run_id, call.task_id, call.attempt_id) == ("m1", "g1", "r1", "t1", "a1")
    assert (call.model, call.usage, call.status, call.error, call.priced) == ("claude-sonnet-5-5", usage, 200, "", True)
    assert call.cost_usd == pytest.approx(cost_of(usage, PRICES["claude-sonnet-5-5"]))
    assert call.seconds >= 0


async def test_a_model_without_a_price_is_booked_as_such(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{say: hello}]}]"))
    await client.post(f"{url}/v1/messages", json={**ASKS, "model": "gpt-9"}, headers=KEY)
    call = await meter.booked()
    assert (call.model, call.cost_usd, call.priced) == ("gpt-9", 0.0, False)


async def test_the_directory_of_the_agent_is_known_from_its_ticket_or_its_words(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    body = {**ASKS, "system": "Working directory: /by/words"}
    said = []
    for cwd in ("/by/ticket", ""):
        gateway.admit(rehearsed("rules: [{turns: [{say: '{{ cwd }}'}]}]", cwd=cwd))
        said.append(read(await client.post(f"{url}/v1/messages", json=body, headers=KEY)).text)
    assert said == ["/by/ticket", "/by/words"]


async def test_a_rehearsed_error_has_the_shape_and_the_headers_of_the_api_and_is_booked(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{error: 429, retry_after: 1.5, headers: {x-it: there}}, {say: a}]}]"))
    response = await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)
    assert (response.status_code, error_of(response)["type"]) == (429, "rate_limit_error")
    assert response.headers["retry-after"] == "1.5"
    assert response.headers["x-it"] == "there"
    call = await meter.booked()
    assert (call.status, call.error, call.usage, call.cost_usd) == (429, "rate_limit_error", Usage(), 0.0)


@pytest.mark.parametrize(("fault", "kind"), [("cut: true", "cut"), ("stall: 1ms", "stalled")])
async def test_a_reply_that_breaks_off_is_booked_once_and_quietly(
    make_gateway: Make,
    meter: Any,
    client: httpx2.AsyncClient,
    rehearsed: MakeTicket,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    kind: str,
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed(f"rules: [{{turns: [{{{fault}}}, {{say: hello}}]}}]"))
    with pytest.raises(httpx2.RemoteProtocolError):
        await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)
    assert read(await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)).text == "hello"
    assert [(await meter.booked()).error, (await meter.booked()).error] == [kind, ""]
    assert len(meter.calls) == 2
    assert not caplog.records


async def test_a_reply_may_take_its_time(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{say: hello, delay: 1ms, drip: 1ms}]}]"))
    assert read(await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)).text == "hello"


async def test_a_reply_that_the_agent_gives_up_is_booked_all_the_same(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{say: hello, drip: 1h}]}]"))
    async with client.stream("POST", f"{url}/v1/messages", json=ASKS, headers=KEY) as response:
        await anext(response.aiter_raw())
    call = await meter.booked()
    assert (call.status, call.error) == (200, "cut")
    assert meter.calls == [call]


async def test_faults_that_happened_are_remembered_by_the_next_gateway(
    make_gateway: Make, meter: Any, rehearsed: MakeTicket
) -> None:
    statuses = []
    for _ in range(3):
        gateway = make_gateway()
        url = await gateway.start(meter)
        gateway.admit(rehearsed("rules: [{turns: [{error: 529, times: 2}, {say: hello}]}]"))
        async with httpx2.AsyncClient(trust_env=False) as own:
            statuses.append((await own.post(f"{url}/v1/messages", json=ASKS, headers=KEY)).status_code)
        await gateway.stop()
    assert statuses == [529, 529, 200]


async def test_a_rehearsal_that_cannot_be_used_says_why(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket, make_ticket: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{}]}]"))
    gateway.admit(make_ticket("token-2", upstream=Upstream(rehearsal="/nowhere.yml")))
    response = await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)
    assert response.status_code == 500
    assert "rehearsal.yml:1:18" in error_of(response)["message"]
    missing = await client.post(f"{url}/v1/messages", json=ASKS, headers={"x-api-key": "token-2"})
    assert "/nowhere.yml cannot be read" in error_of(missing)["message"]


async def test_a_request_that_makes_no_sense_is_answered_all_the_same(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{say: hello}]}]"))
    for body in (b"", b"{", b"\xff\x00", b"[]", b'{"messages": 3, "tools": {}}', b'{"model": ["x"]}'):
        assert (await client.post(f"{url}/v1/messages", content=body, headers=KEY)).status_code == 200


async def test_a_rehearsal_has_no_other_paths(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed(""))
    response = await client.get(f"{url}/v1/models", headers=KEY)
    assert (response.status_code, error_of(response)["type"]) == (404, "not_found_error")


# --- Its port ---


async def test_a_gateway_that_is_started_again_listens_on_the_same_address(
    make_gateway: Make, meter: Any, tmp_path: Path
) -> None:
    first = make_gateway()
    url = await first.start(meter)
    await first.stop()
    assert await make_gateway().start(meter) == url
    assert url == f"http://127.0.0.1:{(tmp_path / 'state' / 'gateway.port').read_text()}"


async def test_an_address_that_somebody_else_took_is_left_to_them(make_gateway: Make, meter: Any, tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        port_file.write_text(str(taken))
        url = await make_gateway(port_file=port_file).start(meter)
    assert not url.endswith(f":{taken}")
    assert url.endswith(f":{port_file.read_text()}")


@pytest.mark.parametrize("content", [b"", b"\xff", b"70000", b"-1"])
async def test_a_damaged_port_file_is_written_anew(make_gateway: Make, meter: Any, tmp_path: Path, content: bytes) -> None:
    port_file = tmp_path / "port"
    port_file.write_bytes(content)
    url = await make_gateway(port_file=port_file).start(meter)
    assert url.endswith(f":{int(port_file.read_text())}")


async def test_a_port_that_was_asked_for_is_taken_or_refused(make_gateway: Make, meter: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(GatewayFailed, match=f"port {taken} cannot be listened on"):
            await make_gateway(port=taken).start(meter)
    assert (await make_gateway(port=taken).start(meter)).endswith(f":{taken}")


async def test_a_gateway_listens_on_this_machine_alone(make_gateway: Make, meter: Any) -> None:
    assert (await make_gateway().start(meter)).startswith("http://127.0.0.1:")


async def test_a_gateway_may_be_stopped_at_once_and_twice(make_gateway: Make, meter: Any) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    await gateway.stop()
    await gateway.stop()
    with pytest.raises(httpx2.ConnectError):
        async with httpx2.AsyncClient(trust_env=False) as own:
            await own.get(url)
    await make_gateway().stop()


async def test_a_pattern_of_a_rehearsal_that_backtracks_is_told_once_and_not_asked_again(
    make_gateway: Make, meter: Any, rehearsed: MakeTicket, client: httpx2.AsyncClient
) -> None:
    evaluator = ProcessEvaluator()
    gateway = make_gateway(evaluator=evaluator)
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{when: {prompt: '(a+)+$'}, turns: [{say: hello}]}]"))
    asks = {**PLAIN, "messages": [{"role": "user", "content": "a" * 40 + "b"}]}

    answer = await client.post(f"{url}/v1/messages", json=asks, headers=KEY)
    evaluator.close()

    assert answer.status_code == 400
    assert "took longer than 1 s" in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"


async def test_a_request_that_is_too_large_is_refused(
    make_gateway: Make, meter: Any, rehearsed: MakeTicket, client: httpx2.AsyncClient
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: []"))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(66):
            yield b" " * (1 << 20)

    answer = await client.post(f"{url}/v1/messages", content=pieces(), headers=KEY)

    assert answer.status_code == 413
    assert not meter.calls


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b"\xff\x00",
        b"[" * 100_000,
        b'{"tools": [1], "messages": [{"role": "user", "content": ' + b"[" * 900 + b"]" * 900 + b"}]}",
        b'{"messages": {"a": 1}, "model": ["x"], "stream": "yes"}',
        b'{"tools": [1], "messages": [{"role": "user", "content": "' + b"TEXT ONLY " * 100_000 + b'"}]}',
        b'{"system": "' + b"Working directory: / " * 100_000 + b'"}',
    ],
)
async def test_whatever_is_asked_is_answered(
    make_gateway: Make, meter: Any, rehearsed: MakeTicket, client: httpx2.AsyncClient, body: bytes
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{when: {prompt: x}, turns: [{say: hello}]}]"))

    async with asyncio.timeout(20):
        answer = await client.post(f"{url}/v1/messages", content=body, headers=KEY)

    assert answer.status_code == 200


async def test_a_port_that_cannot_be_written_down_is_told(make_gateway: Make, meter: Any, tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    port_file.mkdir()
    with pytest.raises(GatewayFailed, match="cannot be written"):
        await make_gateway(port_file=port_file).start(meter)


# --- What one agent alone may have ---


async def asked_by_hand(url: str, *, token: str = "token-1", body: bytes = b"", length: int | None = None) -> Any:  # noqa: S107
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    size = len(body) if length is None else length
    head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {token}\r\nContent-Length: {size}\r\n\r\n"
    writer.write(head.encode() + body)
    return reader, writer


async def test_an_agent_has_only_so_many_connections_and_others_have_theirs(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    script = "rules: [{turns: [{say: hello}]}]"
    gateway.admit(rehearsed(script))
    gateway.admit(rehearsed(script, token="token-2", agent_id=AgentId("g2")))  # noqa: S106
    held = [await asked_by_hand(url, length=10) for _ in range(OF_ONE)]
    refused = await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)
    while refused.status_code != 503:
        # Not all of the others have been read yet.
        refused = await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)
    assert error_of(refused)["message"] == "kapelle limit: it has too many connections to its model open at once"
    assert (await client.post(f"{url}/v1/messages", json=ASKS, headers={"x-api-key": "token-2"})).status_code == 200
    assert {agent_id for agent_id, _ in meter.too_much} == {"g1"}
    for _, writer in held:
        writer.close()


async def test_who_connects_and_says_nothing_is_in_nobodys_way(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{say: hello}]}]"))
    port = int(url.rpartition(":")[2])
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(UNKNOWN + 5)]
    assert (await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)).status_code == 200
    with suppress(ConnectionResetError):
        assert await silent[0][0].read() == b""
    for _, writer in silent:
        writer.close()


@pytest.mark.parametrize(
    "endless",
    [b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 50_000, b"GET /" + b"x" * 300_000, b"GET / HTTP/1.1\r\nx: " + b"y" * 300_000],
)
async def test_a_head_without_end_ends_its_connection(make_gateway: Make, meter: Any, endless: bytes) -> None:
    url = await make_gateway().start(meter)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    with suppress(ConnectionError):
        writer.write(endless)
        assert await reader.read() == b""
    writer.close()


async def test_a_body_in_small_pieces_is_none_the_worse(make_gateway: Make, meter: Any, rehearsed: MakeTicket) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{say: hello}]}]"))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    body = json.dumps({**PLAIN, "system": "x" * 50_000}).encode()
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    head = b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: token-1\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head + pieces + b"0\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def was_answered(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(0):
            await reader.read(1)
    except TimeoutError:
        return False
    return True


async def test_requests_are_not_held_without_end(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{say: hello}]}]"))
    # All but their last byte.
    held = [await asked_by_hand(url, body=b"x" * LARGEST, length=LARGEST + 1) for _ in range(MOST_AT_ONCE // LARGEST)]
    status = 0
    while status != 503:
        # Not all of the others has been read yet; and one that a slow machine has not read in time is asked once more.
        for number, (reader, writer) in enumerate(held):
            if await was_answered(reader):
                writer.close()
                held[number] = await asked_by_hand(url, body=b"x" * LARGEST, length=LARGEST + 1)
        status = (await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)).status_code
    assert meter.too_much[-1][1] == "it has requests of more than 128 MB to its model open at once"
    for _, writer in held:
        writer.close()


async def test_a_call_that_is_held_waits_and_goes_out_when_it_is_kept(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{say: hello}]}]"))
    meter.held = 2
    response = await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)
    assert response.status_code == 200
    assert (meter.waited, len(meter.guessed), len(meter.kept_ids)) == (2, 3, 1)
    booked = await meter.booked()
    assert booked.call_id == meter.kept_ids[0] == meter.guessed[0].call_id


async def test_a_rehearsal_is_not_asked_for_what_may_not_go_out_after_all(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{say: hello}]}]"))
    meter.after_all = "halted by person:you since noon"
    response = await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)
    assert error_of(response)["message"] == "kapelle halt: halted by person:you since noon"
    assert not meter.calls
    meter.after_all = None
    assert read(await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)).text == "hello"


async def test_what_a_call_will_use_is_guessed_by_its_length_and_then_by_the_last_one(
    make_gateway: Make, meter: Any, client: httpx2.AsyncClient, rehearsed: MakeTicket
) -> None:
    gateway = make_gateway()
    url = await gateway.start(meter)
    gateway.admit(rehearsed("rules: [{turns: [{say: hello}, {say: again}]}]"))
    await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)
    first = await meter.booked()
    await client.post(f"{url}/v1/messages", json=ASKS, headers=KEY)
    before, after = meter.guessed
    assert before.model == ASKS["model"]
    assert (before.usage.output_tokens, before.settled, before.status) == (500, True, 0)
    assert 0 < before.usage.input_tokens < 1000
    assert before.cost_usd > 0
    assert after.usage == first.usage
