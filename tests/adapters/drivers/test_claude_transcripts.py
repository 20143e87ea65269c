"""What the real CLI wrote, read back. The transcripts and how they were made: see transcripts/README.md."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kapelle.adapters.drivers.claude.protocol import ClaudeCodec
from kapelle.core.budget import Usage
from kapelle.core.conversation import (
    ConversationEvent,
    ConversationStarted,
    ModelRetried,
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

FOLDER = Path(__file__).parent / "transcripts"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jsonl"))
WORK = "/tmp/kapelle-transcripts"  # noqa: S108  # a path in the transcripts; nothing is written there
TROUBLES = {
    "background": None,
    "budget": Trouble.BUDGET,
    "cleared": None,
    "cut": Trouble.UNREACHABLE,
    "denied": None,
    "interrupted": Trouble.INTERRUPTED,
    "invalid_key": Trouble.INVALID_KEY,
    "killed": Trouble.CRASHED,
    "max_turns": Trouble.MAX_TURNS,
    "no_credit": Trouble.USAGE_LIMIT,
    "overloaded": Trouble.OVERLOADED,
    "own_budget": Trouble.BUDGET,
    "rate_limited": Trouble.RATE_LIMITED,
    "rehearsed_429": Trouble.RATE_LIMITED,
    "retried": None,
    "server_error": Trouble.API_ERROR,
    "structured": None,
    "subagent": None,
    "too_long": Trouble.CONTEXT_OVERFLOW,
    "unreachable": Trouble.UNREACHABLE,
    "usage_limit": Trouble.USAGE_LIMIT,
    "work": None,
    "wrong_structured": Trouble.MAX_TURNS,
}
KILLED = Ended(exit_code=137)


def raw(name: str) -> bytes:
    return (FOLDER / f"{name}.jsonl").read_bytes()


def read(*pieces: bytes) -> list[ConversationEvent]:
    codec = ClaudeCodec()
    return [*(event for piece in pieces for event in codec.feed(piece)), *codec.finish(KILLED)]


def ends(events: Sequence[ConversationEvent]) -> list[TurnEnded]:
    return [event for event in events if isinstance(event, TurnEnded)]


def of(kind: type[Any], name: str) -> list[Any]:
    return [event for event in read(raw(name)) if isinstance(event, kind)]


def test_there_is_a_verdict_on_every_transcript() -> None:
    assert sorted(TROUBLES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_everything_the_program_writes_is_understood(name: str) -> None:
    events = read(raw(name))
    assert not [event for event in events if isinstance(event, Unrecognised)]
    started = events[0]
    assert isinstance(started, ConversationStarted)
    assert started.version == "2.1.329"
    assert "Bash" in started.tools


@pytest.mark.parametrize(("name", "trouble"), TROUBLES.items())
def test_the_last_turn_ends_with_the_trouble_that_there_was(name: str, trouble: Trouble | None) -> None:
    ended = ends(read(raw(name)))[-1]
    assert ended.trouble is trouble
    assert bool(ended.message) == (trouble is not None)
    assert bool(ended.text) == (trouble is None)


@pytest.mark.parametrize("name", NAMES)
def test_a_transcript_that_comes_byte_by_byte_says_the_same(name: str) -> None:
    data = raw(name)
    assert read(*(data[index : index + 1] for index in range(len(data)))) == read(data)


@pytest.mark.parametrize("name", ["denied", "killed", "retried", "structured"])
def test_a_transcript_cut_at_every_byte_says_the_same(name: str) -> None:
    data = raw(name)
    whole = read(data)
    for cut in range(len(data)):
        assert read(data[:cut], data[cut:]) == whole, cut


@pytest.mark.parametrize("name", ["budget", "work"])
def test_a_program_killed_after_any_line_leaves_no_prompt_without_an_end(name: str) -> None:
    lines = raw(name).splitlines(keepends=True)
    for count in range(len(lines)):
        # Also in the middle of the next line: half of it is told, and not believed.
        events = read(*lines[:count], lines[count][: len(lines[count]) // 2])
        taken = sum(isinstance(event, PromptTaken) for event in events)
        assert len(ends(events)) == taken, count


def test_a_task_and_a_second_prompt() -> None:
    events = [event for event in read(raw("work")) if not isinstance(event, ConversationStarted)]
    events = [replace(event, key="") if isinstance(event, ToolCalled) else event for event in events]
    first, second = [event for event in events if isinstance(event, PromptTaken)]
    calls = [event.call_id for event in events if isinstance(event, ToolCalled)]
    write, bash, look = calls
    expected = [
        first,
        Said(text="I'll write the file first: äöü € \U0001f600"),
        ToolCalled(call_id=write, tool="Write", about=f"{WORK}/work/work/greeting.py"),
        ToolReturned(call_id=write, failed=False, about=f"File created successfully at: {WORK}/work/work/greeting.py"),
        Said(text="Now I'll run it."),
        ToolCalled(call_id=bash, tool="Bash", about="python3 greeting.py"),
        ToolReturned(call_id=bash, failed=False, about="hello"),
        ToolCalled(call_id=look, tool="Read", about=f"{WORK}/work/work/missing.py"),
        ToolReturned(call_id=look, failed=True, about="File does not exist."),
        Said(text="greeting.py prints hello."),
        TurnEnded(text="greeting.py prints hello."),
        second,
        Said(text="Yes, twice."),
        TurnEnded(text="Yes, twice."),
    ]
    assert len(events) == len(expected)
    for event, wanted in zip(events, expected, strict=True):
        if isinstance(wanted, ToolReturned):
            assert isinstance(event, ToolReturned)
            assert (event.call_id, event.failed) == (wanted.call_id, wanted.failed)
            assert event.about.startswith(wanted.about)
        elif isinstance(wanted, TurnEnded):
            assert isinstance(event, TurnEnded)
            assert (event.text, event.trouble, event.result, event.denied) == (wanted.text, None, None, ())
        else:
            assert event == wanted


def test_cost_grows_over_the_conversation_and_usage_is_of_the_turn() -> None:
    first, second = of(TurnEnded, "work")
    assert (first.turns, second.turns) == (4, 1)
    assert first.cost_usd == pytest.approx(0.044, abs=0.001)
    assert second.cost_usd == pytest.approx(0.055, abs=0.001)
    assert second.usage == Usage(input_tokens=second.usage.input_tokens, output_tokens=3)
    assert first.usage.input_tokens > second.usage.input_tokens > 1000


def test_prompts_are_known_by_the_ids_that_were_sent() -> None:
    sent = [
        json.loads(line)["command_uuid"]
        for line in raw("work").splitlines()
        if b'"state": "queued"' in line and b"command_lifecycle" in line
    ]
    assert [event.prompt_id for event in of(PromptTaken, "work")] == sent
    assert len(sent) == 2


def test_retries_of_the_programs_own_client_are_told() -> None:
    assert [(event.attempt, event.status) for event in of(ModelRetried, "retried")] == [(1, 529), (2, 529)]
    assert all(0 < event.delay_s < 5 for event in of(ModelRetried, "retried"))
    assert [event.status for event in of(ModelRetried, "unreachable")] == [None]


def test_a_structured_result_is_given_as_json() -> None:
    (ended,) = of(TurnEnded, "structured")
    assert json.loads(ended.result) == {"answer": 42, "words": ["a", "€"]}


def test_a_refused_tool_is_named() -> None:
    (ended,) = of(TurnEnded, "denied")
    assert ended.denied == ("Write",)
    assert [event.failed for event in of(ToolReturned, "denied")] == [True]


def test_the_words_of_a_budget_that_is_spent_reach_the_user() -> None:
    (ended,) = of(TurnEnded, "budget")
    assert "the budget of task api is spent ($1.00 of $1.00)" in ended.message


def test_a_program_that_was_killed_has_crashed_and_its_end_is_told() -> None:
    (ended,) = of(TurnEnded, "killed")
    assert ended == TurnEnded(trouble=Trouble.CRASHED, message="claude ended with exit code 137 in the middle of its turn")


def test_what_a_subagent_says_is_not_said_by_the_agent() -> None:
    assert [event.text for event in of(Said, "subagent")] == ["It said two."]
    assert [event.tool for event in of(ToolCalled, "subagent")] == ["Agent"]
    assert len(of(PromptTaken, "subagent")) == 1


def test_a_turn_is_not_over_while_a_subagent_is_at_work_in_the_background() -> None:
    (ended,) = of(TurnEnded, "background")
    assert ended.text == "It said two."
    assert len(of(PromptTaken, "background")) == 1


def test_a_cleared_conversation_is_another_and_what_it_cost_counts_from_nothing() -> None:
    codec = ClaudeCodec()
    written = json.loads(codec.clear(PromptId("p-1")))
    assert (written["uuid"], written["message"]["content"][0]["text"]) == ("p-1", "/clear")
    events = read(raw("cleared"))
    known = list(dict.fromkeys(event.conversation_id for event in events if isinstance(event, ConversationStarted)))
    assert len(known) == 2
    first, cleared, second = ends(events)
    assert (first.text, cleared.text, second.text) == ("The first.", "", "The second.")
    assert cleared.cost_usd == 0
    assert (cleared.turns, second.cost_usd) == (0, pytest.approx(first.cost_usd, rel=0.1))
    after = events[events.index(cleared) :]
    assert [event.about for event in after if isinstance(event, ToolCalled)] == ["pwd"]
