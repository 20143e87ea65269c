"""The gateway in front of a real API: credentials, streaming, what is booked and recorded."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from kapelle.adapters.gateway.prices import PRICES, cost_of
from kapelle.adapters.gateway.rehearsal_file import load_rehearsal
from kapelle.adapters.gateway.replies import Reply, ToolUse, error_body, streamed, whole
from kapelle.adapters.gateway.server import ModelGateway
from kapelle.core.budget import Usage
from kapelle.core.conversation import Trouble
from kapelle.core.gateway import Ticket, Upstream

KEY = {"x-api-key": "token-1"}
PLAIN = {"model": "claude-sonnet-5-5", "tools": [{"name": "Bash"}], "messages": [{"role": "user", "content": "Go."}]}
ASKS = {**PLAIN, "stream": True}
USAGE = Usage(input_tokens=1000, output_tokens=200, cache_read_tokens=30, cache_write_tokens=4)
REPLY = Reply(
    message_id="msg_1",
    model="claude-sonnet-5-5-20260101",
    text="I look at {{ it }}. " * 10,
    tools=[ToolUse(name="Bash", arguments='{"command": "ls /w/slot-1"}')],
    usage=USAGE,
)
PIECES = list(streamed(REPLY))

Make = Callable[..., ModelGateway]
MakeTicket = Callable[..., Ticket]


@pytest.fixture
async def url(make_gateway: Make, meter: Any, upstream: Any, make_ticket: MakeTicket) -> tuple[str, Callable[..., None]]:
    """Return the gateway's address and how to let an agent in whose model is the upstream."""
    gateway = make_gateway()
    address = await gateway.start(meter)

    def admit(**changes: Any) -> None:
        given = {"base_url": upstream.url, "credential": "env:KEY", **changes}
        gateway.admit(make_ticket(upstream=Upstream(**given)))

    return address, admit


Url = tuple[str, Callable[..., None]]


async def test_the_real_key_reaches_the_api_and_the_token_of_the_agent_does_not(
    url: Url, upstream: Any, client: httpx2.AsyncClient
) -> None:
    address, admit = url
    admit()
    for headers in (KEY, {"authorization": "Bearer token-1"}, {"x-kapelle-token": "token-1", "x-kapelle-task": "api"}):
        await client.post(f"{address}/v1/messages", json=ASKS, headers=headers)
    for received in upstream.received:
        assert received.headers["x-api-key"] == "sk-real"
        assert "token-1" not in str(received)
        assert not [name for name in received.headers if name.startswith("x-kapelle") or name == "authorization"]


async def test_a_request_is_passed_on_as_it_is(url: Url, upstream: Any, client: httpx2.AsyncClient) -> None:
    address, admit = url
    admit(base_url=f"{upstream.url}/prefix/")
    body = json.dumps(ASKS).encode() + b" \n"
    headers = {**KEY, "anthropic-version": "2023-06-01", "anthropic-beta": "a,b", "content-type": "application/json"}
    await client.post(f"{address}/v1/messages?beta=true&x=%20", content=body, headers=headers)
    (received,) = upstream.received
    assert (received.method, received.target, received.body) == ("POST", "/prefix/v1/messages?beta=true&x=%20", body)
    for name in ("anthropic-version", "anthropic-beta", "content-type"):
        assert received.headers[name] == headers[name]
    assert received.headers["host"] == upstream.url.removeprefix("http://")
    # What is compressed could not be counted.
    assert received.headers["accept-encoding"] == "identity"


async def test_a_path_keeps_its_escapes(url: Url, upstream: Any, client: httpx2.AsyncClient) -> None:
    address, admit = url
    admit()
    await client.get(f"{address}/v1/files/a%2Fb%20c%25", headers=KEY)
    assert upstream.received[0].target == "/v1/files/a%2Fb%20c%25"


async def test_a_login_of_the_agents_own_is_passed_on_untouched(url: Url, upstream: Any, client: httpx2.AsyncClient) -> None:
    address, admit = url
    admit(credential=None)
    headers = {"authorization": "Bearer oauth-login", "x-kapelle-token": "token-1", "anthropic-beta": "oauth-2025"}
    assert (await client.post(f"{address}/v1/messages", json=ASKS, headers=headers)).status_code == 200
    (received,) = upstream.received
    assert received.headers["authorization"] == "Bearer oauth-login"
    assert received.headers["anthropic-beta"] == "oauth-2025"
    assert "x-api-key" not in received.headers
    assert "token-1" not in str(received)


async def test_a_key_that_is_not_there_is_told_and_nothing_is_sent(
    url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any
) -> None:
    address, admit = url
    admit(credential="env:OTHER")
    response = await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)
    assert response.status_code == 401
    assert "env:OTHER is not set where Kapelle leads" in response.json()["error"]["message"]
    assert not upstream.received
    # What was kept back for it is free again.
    assert [(call.call_id, call.status, call.usage.total) for call in meter.calls] == [(meter.kept_ids[0], 401, 0)]


async def test_a_reply_passes_while_it_is_still_being_written(url: Url, upstream: Any, client: httpx2.AsyncClient) -> None:
    address, admit = url
    admit()
    seen = asyncio.Event()

    async def waits_to_be_seen(sending: Any) -> None:
        await sending.begin()
        await sending.piece(PIECES[0])
        await asyncio.wait_for(seen.wait(), 5)
        for piece in PIECES[1:]:
            await sending.piece(piece)
        await sending.end()

    upstream.answers = waits_to_be_seen
    async with client.stream("POST", f"{address}/v1/messages", json=ASKS, headers=KEY) as response:
        arrived = b""
        async for piece in response.aiter_raw():
            arrived += piece
            # Were the reply held back until its end, this would never be reached and the upstream would wait for ever.
            seen.set()
    assert arrived == b"".join(PIECES)


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_call_is_booked_once_with_its_tokens_and_its_cost(
    url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any, *, streaming: bool
) -> None:
    address, admit = url
    admit()
    upstream.answers = (lambda sending: sending.stream(*PIECES)) if streaming else (lambda sending: sending.whole(whole(REPLY)))
    response = await client.post(f"{address}/v1/messages?beta=true", json=ASKS, headers=KEY)
    assert response.content == (b"".join(PIECES) if streaming else whole(REPLY))
    call = await meter.booked()
    assert meter.calls == [call]
    assert (call.model, call.usage, call.status, call.error) == (REPLY.model, USAGE, 200, "")
    assert call.cost_usd == pytest.approx(cost_of(USAGE, PRICES["claude-sonnet-5-5"]))
    assert (call.call_id, call.agent_id, call.run_id, call.task_id, call.attempt_id) == ("m1", "g1", "r1", "t1", "a1")


async def test_what_is_kept_in_the_cache_for_an_hour_is_booked_at_its_price(
    url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any
) -> None:
    address, admit = url
    admit()
    usage = {"cache_creation_input_tokens": 1_000_000, "cache_creation": {"ephemeral_1h_input_tokens": 1_000_000}}
    body = json.dumps({"type": "message", "model": "claude-sonnet-4", "content": [], "usage": usage}).encode()
    upstream.answers = lambda sending: sending.whole(body)
    await client.post(f"{address}/v1/messages", json=PLAIN, headers=KEY)
    assert (await meter.booked()).cost_usd == pytest.approx(6.0)


async def test_an_error_passes_with_its_headers_and_is_booked(
    url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any
) -> None:
    address, admit = url
    admit()
    body = error_body(529, "Overloaded")
    upstream.answers = lambda sending: sending.whole(body, status=529, retry_after="7", request_id="req_1")
    response = await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)
    assert (response.status_code, response.content) == (529, body)
    assert (response.headers["retry-after"], response.headers["request-id"]) == ("7", "req_1")
    call = await meter.booked()
    assert (call.status, call.error, call.usage) == (529, "overloaded_error", Usage())


async def test_a_limit_of_the_account_is_told_at_once_with_its_end(
    url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any
) -> None:
    async def limited(sending: Any) -> None:
        headers = {"anthropic_ratelimit_unified_status": "rejected", "anthropic_ratelimit_unified_reset": "1767229200"}
        await sending.whole(error_body(429, "You've hit your limit"), status=429, retry_after="3600", **headers)

    address, admit = url
    upstream.answers = limited
    admit()
    response = await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)
    assert (response.status_code, response.headers["x-should-retry"]) == (429, "false")
    assert "retry-after" not in response.headers
    assert response.json()["error"]["message"] == "kapelle limit: You've hit your limit"
    call = await meter.booked()
    assert (call.trouble, call.of_account, call.resets_at) == (
        Trouble.USAGE_LIMIT,
        True,
        datetime(2026, 1, 1, 1, tzinfo=UTC),
    )


async def test_a_refused_key_is_the_whole_accounts(url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any) -> None:
    async def refused(sending: Any) -> None:
        await sending.whole(error_body(401, "invalid x-api-key"), status=401)

    address, admit = url
    upstream.answers = refused
    admit()
    response = await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)
    assert response.json()["error"]["message"] == "kapelle credentials: invalid x-api-key"
    assert (await meter.booked()).of_account


async def test_an_agent_that_is_logged_in_itself_sees_the_api_s_own_401_and_can_renew_its_login(
    url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any
) -> None:
    async def refused(sending: Any) -> None:
        await sending.whole(error_body(401, "OAuth token has expired"), status=401)

    address, admit = url
    upstream.answers = refused
    admit(credential=None)
    response = await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)
    assert (response.status_code, response.json()["error"]["message"]) == (401, "OAuth token has expired")
    assert "x-should-retry" not in response.headers
    call = await meter.booked()
    assert (call.trouble, call.of_account) == (Trouble.LOGIN_EXPIRED, False)


async def test_an_error_in_the_middle_of_a_reply_is_booked_with_what_had_come(
    url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any
) -> None:
    address, admit = url
    admit()
    broken = b"event: error\ndata: " + error_body(529, "Overloaded") + b"\n\n"
    upstream.answers = lambda sending: sending.stream(*PIECES[:3], broken)
    await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)
    call = await meter.booked()
    assert (call.status, call.error, call.usage.input_tokens) == (200, "overloaded_error", 1000)


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:9", "http://[", "ftp://127.0.0.1"])
async def test_an_api_that_cannot_be_reached_is_told_and_booked(
    url: Url, client: httpx2.AsyncClient, meter: Any, base_url: str
) -> None:
    address, admit = url
    admit(base_url=base_url)
    response = await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)
    assert response.status_code == 502
    assert f"the model API at {base_url} cannot be reached" in response.json()["error"]["message"]
    call = await meter.booked()
    assert (call.status, call.error, call.cost_usd) == (502, "unreachable", 0.0)


async def test_a_reply_that_the_api_cuts_is_cut_for_the_agent_and_booked_as_such(
    url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any, caplog: pytest.LogCaptureFixture
) -> None:
    address, admit = url
    admit()

    async def breaks_off(sending: Any) -> None:
        await sending.begin()
        for piece in PIECES[:4]:
            await sending.piece(piece)

    upstream.answers = breaks_off
    with pytest.raises(httpx2.RemoteProtocolError):
        await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)
    call = await meter.booked()
    assert (call.status, call.error, call.model) == (200, "cut", REPLY.model)
    assert call.usage == replace(USAGE, output_tokens=80 // 4)
    assert meter.calls == [call]
    assert not caplog.records


async def test_a_reply_that_ends_politely_before_its_end_is_booked_as_cut(
    url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any
) -> None:
    address, admit = url
    admit()
    upstream.answers = lambda sending: sending.stream(*PIECES[:4])
    await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)
    assert (await meter.booked()).error == "cut"


async def test_a_call_that_the_agent_gives_up_is_given_up_at_the_api_and_booked_with_what_had_come(
    url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any
) -> None:
    address, admit = url
    admit()
    given_up = asyncio.Event()

    async def goes_on_and_on(sending: Any) -> None:
        await sending.begin()
        for piece in PIECES[:3]:
            await sending.piece(piece)
        await sending.wait_for_hanging_up()
        given_up.set()

    upstream.answers = goes_on_and_on
    async with client.stream("POST", f"{address}/v1/messages", json=ASKS, headers=KEY) as response:
        await anext(response.aiter_raw())
    call = await meter.booked()
    await asyncio.wait_for(given_up.wait(), 5)
    assert (call.error, call.usage.input_tokens, call.model) == ("cut", 1000, REPLY.model)
    assert meter.calls == [call]


async def test_a_stop_breaks_off_calls_in_flight_and_books_them(
    make_gateway: Make, meter: Any, upstream: Any, make_ticket: MakeTicket, client: httpx2.AsyncClient
) -> None:
    gateway = make_gateway()
    address = await gateway.start(meter)
    gateway.admit(make_ticket(upstream=Upstream(base_url=upstream.url, credential="env:KEY")))

    async def goes_on_and_on(sending: Any) -> None:
        await sending.begin()
        await sending.piece(PIECES[0])
        await sending.wait_for_hanging_up()

    upstream.answers = goes_on_and_on
    async with client.stream("POST", f"{address}/v1/messages", json=ASKS, headers=KEY) as response:
        pieces = response.aiter_raw()
        assert await anext(pieces) == PIECES[0]
        await gateway.stop()
        with pytest.raises(httpx2.RemoteProtocolError):
            await anext(pieces)
    assert (await meter.booked()).error == "cut"


async def test_other_calls_pass_and_are_not_booked(url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any) -> None:
    address, admit = url
    admit()
    upstream.answers = lambda sending: sending.whole(b'{"input_tokens": 3}')
    response = await client.post(f"{address}/v1/messages/count_tokens", json=PLAIN, headers=KEY)
    assert response.json() == {"input_tokens": 3}
    assert (await client.get(f"{address}/v1/models", headers=KEY)).status_code == 200
    assert [received.method for received in upstream.received] == ["POST", "GET"]
    assert not meter.asked
    assert not meter.calls


async def test_a_call_beyond_the_budget_does_not_reach_the_api(
    url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any
) -> None:
    address, admit = url
    admit()
    meter.refusal = "the budget of task api is spent"
    assert (await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)).status_code == 400
    assert not upstream.received


async def test_a_call_that_may_not_go_out_after_all_does_not_reach_the_api(
    url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any
) -> None:
    address, admit = url
    admit()
    meter.after_all = "halted by person:you since noon"
    response = await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "kapelle halt: halted by person:you since noon"
    assert not upstream.received
    # It was written down before it was asked again, and nothing is booked: the meter has forgotten it.
    assert meter.asked_again == meter.kept_ids != []
    assert not meter.calls


@pytest.mark.parametrize("path", ["/v1/messages/batches", "/v1/messages/batches/", "/v1/complete", "/v1/chat/completions"])
async def test_what_would_cost_and_cannot_be_counted_does_not_pass(
    url: Url, upstream: Any, client: httpx2.AsyncClient, path: str
) -> None:
    address, admit = url
    admit()
    response = await client.post(f"{address}{path}", json=ASKS, headers=KEY)
    assert response.status_code == 400
    assert "cannot be counted" in response.json()["error"]["message"]
    assert not upstream.received


async def test_a_call_is_counted_however_its_path_is_written(
    url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any
) -> None:
    address, admit = url
    admit()
    upstream.answers = lambda sending: sending.stream(*PIECES)
    for path in ("/v1/messages/", "/v1/%6dessages", "/v1//messages"):
        await client.post(f"{address}{path}", json=ASKS, headers=KEY)
        assert (await meter.booked()).usage == USAGE


async def test_many_calls_at_once_are_each_booked_once(url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any) -> None:
    address, admit = url
    admit()
    upstream.answers = lambda sending: sending.stream(*PIECES)
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(client.post(f"{address}/v1/messages", json=ASKS, headers=KEY))
    for _ in range(20):
        await meter.booked()
    assert len({call.call_id for call in meter.calls}) == 20
    assert {call.usage for call in meter.calls} == {USAGE}


# --- Recording ---


async def test_what_the_api_said_is_recorded_and_can_be_rehearsed(
    url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any, tmp_path: Path
) -> None:
    address, admit = url
    record = tmp_path / "recorded.yml"
    admit(record=str(record))
    upstream.answers = lambda sending: sending.whole(error_body(529, "Overloaded"), status=529)
    await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)
    upstream.answers = lambda sending: sending.stream(*PIECES)
    await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)
    admit(rehearsal=str(record), log=str(tmp_path / "log"))
    assert (await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)).status_code == 529
    again = await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)
    assert again.status_code == 200
    calls = [await meter.booked() for _ in range(4)]
    assert [call.status for call in calls] == [529, 200, 529, 200]
    assert calls[1].usage == calls[3].usage
    assert "{{ cwd }}" in record.read_text()
    (rule,) = load_rehearsal(record).rules
    assert (rule.when.task, rule.when.attempt, rule.when.round) == ("api", 1, 0)


async def test_a_question_on_the_side_is_not_recorded(
    url: Url, upstream: Any, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    # A rehearsal answers such a question by itself: a turn for it would shift all that follow.
    address, admit = url
    record = tmp_path / "recorded.yml"
    admit(record=str(record))
    upstream.answers = lambda sending: sending.stream(*PIECES)
    await client.post(f"{address}/v1/messages", json={**ASKS, "tools": []}, headers=KEY)
    assert not record.exists()
    await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)
    assert len(load_rehearsal(record).rules[0].turns) == 1


async def test_a_reply_that_was_cut_is_not_recorded(
    url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any, tmp_path: Path
) -> None:
    address, admit = url
    admit(record=str(tmp_path / "recorded.yml"))
    upstream.answers = lambda sending: sending.stream(*PIECES[:4])
    await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)
    await meter.booked()
    assert not (tmp_path / "recorded.yml").exists()


async def test_a_recording_that_cannot_be_written_is_told_and_does_not_harm_the_reply(
    url: Url, upstream: Any, client: httpx2.AsyncClient, meter: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address, admit = url
    (tmp_path / "file").write_text("")
    admit(record=str(tmp_path / "file" / "recorded.yml"))
    upstream.answers = lambda sending: sending.stream(*PIECES)
    response = await client.post(f"{address}/v1/messages", json=ASKS, headers=KEY)
    assert response.content == b"".join(PIECES)
    assert (await meter.booked()).error == ""
    assert [record.name for record in caplog.records] == ["kapelle"]
    assert "recorded.yml cannot be written" in caplog.text
