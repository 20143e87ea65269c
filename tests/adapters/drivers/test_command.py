import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.adapters.drivers.command import CommandCodec, CommandDriver
from kapelle.adapters.drivers.noop import NoopDriver
from kapelle.core.agent import AgentConfig
from kapelle.core.conversation import Prompt, Said, Trouble, TurnEnded
from kapelle.core.ids import PromptId
from kapelle.core.ports import AgentOrder, Ended

quick = settings(deadline=None)

MakeOrder = Callable[..., AgentOrder]


def test_the_prompt_is_the_command_line(make_order: MakeOrder) -> None:
    order = make_order()
    launch = CommandDriver().launch(order)
    ((name, script),) = launch.files
    assert launch.argv == ("/bin/sh", f"{order.folder}/{name}")
    assert script.endswith("echo hi\n")
    assert (launch.cwd, launch.limit, launch.stdin) == ("/w/slot-1", timedelta(minutes=7), False)


def test_the_environment_is_what_was_given_and_nothing_else(make_order: MakeOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    assert dict(CommandDriver().launch(make_order()).env) == {"FROM_CONFIG": "c", "FROM_ORDER": "o", "BOTH": "o"}


@pytest.mark.parametrize(
    ("command", "output", "code"),
    [("echo 'a  b'; echo c >&2", b"a  b\nc\n", 0), ("printf x\nexit 3", b"x", 3), ("", b"", 0), ("# a comment", b"", 0)],
)
def test_both_streams_and_the_exit_code_are_those_of_the_command(
    make_order: MakeOrder, tmp_path: Path, command: str, output: bytes, code: int
) -> None:
    order = replace(make_order(first_prompt=Prompt(prompt_id=PromptId("p"), text=command)), folder=str(tmp_path))
    launch = CommandDriver().launch(order)
    for name, script in launch.files:
        (tmp_path / name).write_text(script, encoding="utf-8")
    done = subprocess.run(launch.argv, capture_output=True, check=False, timeout=5)
    assert (done.stdout, done.stderr, done.returncode) == (output, b"", code)


def test_what_means_nothing_for_a_command_is_told() -> None:
    driver = CommandDriver()
    assert driver.problems(AgentConfig(name="c")) == []
    found = driver.problems(AgentConfig(name="c", model="opus", max_turns=0))
    assert found == ["model means nothing for program: command", "max_turns means nothing for program: command"]


def test_every_line_is_said_and_the_last_ones_are_the_summary() -> None:
    codec = CommandCodec()
    said = list(codec.feed(b"".join(b"line %d\n" % number for number in range(8)) + b"\n  \nno newline"))
    assert said == [Said(text=f"line {number}") for number in range(8)]
    last, ended = codec.finish(Ended(exit_code=0))
    assert last == Said(text="no newline")
    assert ended == TurnEnded(text="line 4\nline 5\nline 6\nline 7\nno newline")


def test_of_very_much_output_only_the_beginning_is_told_and_the_end_is_the_summary() -> None:
    codec = CommandCodec()
    said = [codec.feed(b"x" * 99 + b"\n") for _ in range(5000)]
    told = [event.text for events in said for event in events if isinstance(event, Said)]
    assert sum(map(len, told)) < 101_000
    assert told[-1] == "(more is not told; all of it is in the spool)"
    codec.feed(b"the end\n")
    (ended,) = codec.finish(Ended(exit_code=0))
    assert isinstance(ended, TurnEnded)
    assert ended.text.endswith("the end")


def test_a_command_that_fails_has_crashed_and_shows_its_end() -> None:
    codec = CommandCodec()
    codec.feed(b"assertion failed\n")
    (ended,) = codec.finish(Ended(exit_code=2))
    assert ended == TurnEnded(trouble=Trouble.CRASHED, message="the command ended with exit code 2\nassertion failed")


def test_a_command_that_ran_out_of_time_says_so() -> None:
    (ended,) = CommandCodec().finish(Ended(exit_code=None, timed_out=True))
    assert ended == TurnEnded(trouble=Trouble.CRASHED, message="the command ran out of time")


def test_a_command_that_was_ended_by_force_has_crashed() -> None:
    (ended,) = CommandCodec().finish(Ended(exit_code=None))
    assert isinstance(ended, TurnEnded)
    assert ended.trouble is Trouble.CRASHED


def test_bytes_that_are_no_text_are_said_all_the_same() -> None:
    assert CommandCodec().feed(b"gr\xfc\xdfe\n") == [Said(text="gr\ufffd\ufffde")]


def test_a_long_line_is_cut_short() -> None:
    (said,) = CommandCodec().feed(b"x" * 5000 + b"\n")
    assert said == Said(text="x" * 2000)


@quick
@given(st.lists(st.binary(max_size=20), max_size=10), st.none() | st.integers(0, 255))
def test_no_output_makes_it_raise_and_the_turn_always_ends_once(pieces: list[bytes], code: int | None) -> None:
    codec = CommandCodec()
    events = [event for piece in pieces for event in codec.feed(piece)]
    events += codec.finish(Ended(exit_code=code))
    assert [type(event) for event in events].count(TurnEnded) == 1
    assert isinstance(events[-1], TurnEnded)


@quick
@given(st.binary(max_size=60), st.integers(0, 60))
def test_output_says_the_same_however_it_is_cut(data: bytes, cut: int) -> None:
    whole, halves = CommandCodec(), CommandCodec()
    ended = Ended(exit_code=0)
    assert [*halves.feed(data[:cut]), *halves.feed(data[cut:]), *halves.finish(ended)] == [
        *whole.feed(data),
        *whole.finish(ended),
    ]


def test_a_command_cannot_be_spoken_to() -> None:
    codec = CommandCodec()
    assert codec.prompt(Prompt(prompt_id=PromptId("p"), text="x")) == codec.interrupt() == codec.goodbye() == b""


def test_a_driver_without_a_process_is_done_at_once(make_order: MakeOrder) -> None:
    driver = NoopDriver()
    assert driver.capabilities.immediate
    assert driver.launch(make_order()).argv == ("true",)
    assert driver.problems(AgentConfig(name="n")) == ()
    assert list(driver.codec().finish(Ended(exit_code=0))) == [TurnEnded()]
