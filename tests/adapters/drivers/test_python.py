import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.adapters.drivers.python import PythonCodec, PythonDriver
from kapelle.core.agent import AgentConfig
from kapelle.core.conversation import ConversationEvent, Prompt, Said, Trouble, TurnEnded
from kapelle.core.ids import PromptId
from kapelle.core.ports import AgentOrder, Ended

quick = settings(deadline=None)

MakeOrder = Callable[..., AgentOrder]
FUNCTIONS = """
import os, sys

def answers(task):
    print("on it:", task.prompt)
    return {"cwd": str(task.cwd), "n": [1, None]}

def says(task):
    return "done \\u20ac"

def nothing(task):
    print("no newline", end="")

def raises(task):
    raise ValueError("no such user")

def leaves(task):
    sys.exit(3)

def dies(task):
    print("half", end="", flush=True)
    os._exit(9)

def not_json(task):
    return object()

def half_a_pair(task):
    return "a\\ud83d"

def imitates(task):
    print("\\x1ekapelle {")
    print("\\x1ekapelle [1]")
    return 7
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    events: Sequence[ConversationEvent]
    code: int

    @property
    def ended(self) -> TurnEnded:
        last = self.events[-1]
        assert isinstance(last, TurnEnded)
        assert [type(event) for event in self.events].count(TurnEnded) == 1
        return last


@pytest.fixture
def run(tmp_path: Path, make_order: MakeOrder) -> Callable[..., Ran]:
    """Return how to run a function as the driver starts it."""
    work, folder = tmp_path / "work", tmp_path / "agent"
    (work / "shop").mkdir(parents=True)
    folder.mkdir()
    (work / "shop" / "__init__.py").write_text("")
    (work / "shop" / "tasks.py").write_text(FUNCTIONS)

    def start(name: str, prompt: str = "Go.", env: Sequence[tuple[str, str]] = ()) -> Ran:
        driver = PythonDriver()
        first = Prompt(prompt_id=PromptId("p"), text=prompt)
        function = name if ":" in name else f"shop.tasks:{name}"
        order = make_order(function=function, cwd=str(work), folder=str(folder), first_prompt=first, env=tuple(env))
        launch = driver.launch(order)
        for file, content in launch.files:
            (folder / file).write_text(content, encoding="utf-8")
        done = subprocess.run(launch.argv, cwd=launch.cwd, env=dict(launch.env), capture_output=True, check=False, timeout=10)
        codec = driver.codec()
        events = [*codec.feed(done.stdout), *codec.finish(Ended(exit_code=done.returncode))]
        return Ran(events=events, code=done.returncode)

    return start


def test_a_function_is_called_with_its_task_and_its_answer_is_the_result(run: Callable[..., Ran], tmp_path: Path) -> None:
    ran = run("answers", prompt="Grüße, \U0001f600")
    assert ran.events[0] == Said(text="on it: Grüße, \U0001f600")
    assert ran.ended.trouble is None
    assert json.loads(ran.ended.result or "") == {"cwd": str(tmp_path / "work"), "n": [1, None]}
    assert ran.code == 0


def test_a_text_as_answer_is_the_summary_too(run: Callable[..., Ran]) -> None:
    assert run("says").ended == TurnEnded(text="done \u20ac", result='"done \u20ac"')


def test_no_answer_is_success_without_a_result(run: Callable[..., Ran]) -> None:
    assert run("nothing").events == [Said(text="no newline"), TurnEnded()]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("raises", "ValueError: no such user"),
        ("not_json", "not JSON serializable"),
        ("nobody", "AttributeError"),
        ("shop.nowhere:x", "ModuleNotFoundError"),
        ("leaves", "exit code 3 without an answer"),
        ("dies", "exit code 9 without an answer"),
    ],
)
def test_a_function_that_fails_says_why(run: Callable[..., Ran], name: str, part: str) -> None:
    ran = run(name)
    assert ran.ended.trouble is Trouble.CRASHED
    assert part in ran.ended.message
    assert ran.code != 0


def test_what_a_function_said_before_it_died_is_told(run: Callable[..., Ran]) -> None:
    assert run("dies").events[0] == Said(text="half")


def test_the_answer_is_the_same_in_every_locale(run: Callable[..., Ran]) -> None:
    env = [("PYTHONIOENCODING", "ascii"), ("LC_ALL", "C")]
    assert run("says", env=env).ended.text == "done \u20ac"


def test_half_of_a_letter_is_an_answer_that_can_be_kept(run: Callable[..., Ran]) -> None:
    ended = run("half_a_pair").ended
    assert ended.trouble is None
    assert ended.text.encode() == b"a?"
    assert (ended.result or "").encode()


def test_a_function_cannot_answer_in_the_place_of_the_runner(run: Callable[..., Ran]) -> None:
    assert run("imitates").ended == TurnEnded(result="7")


def test_a_run_leaves_no_compiled_files_behind(run: Callable[..., Ran], tmp_path: Path) -> None:
    run("says")
    assert not list((tmp_path / "work").rglob("__pycache__"))


def test_the_task_goes_by_a_file_that_only_the_agent_may_read(make_order: MakeOrder) -> None:
    launch = PythonDriver().launch(make_order(function="a.b:c"))
    assert launch.argv[0] == sys.executable
    assert launch.argv[-1] == "/state/agents/g1/task.json"
    ((name, content),) = launch.files
    assert name == "task.json"
    assert json.loads(content) == {"function": "a.b:c", "prompt": "echo hi", "cwd": "/w/slot-1"}
    assert (launch.cwd, launch.limit, launch.stdin) == ("/w/slot-1", timedelta(minutes=7), False)


def test_the_environment_is_what_was_given_and_nothing_else(make_order: MakeOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    launch = PythonDriver().launch(make_order(function="a:b"))
    assert dict(launch.env) == {"FROM_CONFIG": "c", "FROM_ORDER": "o", "BOTH": "o"}


@pytest.mark.parametrize("function", [None, "", "module", "module:", ":name", "module:a-b", "module:a.b"])
def test_a_config_needs_a_function(function: str | None) -> None:
    (problem,) = PythonDriver().problems(AgentConfig(name="p", function=function))
    assert "package.module:function" in problem


def test_a_config_with_a_function_is_well() -> None:
    assert PythonDriver().problems(AgentConfig(name="p", function="package.module:function")) == ()


@quick
@given(st.lists(st.binary(max_size=20) | st.just(PythonCodec.MARK), max_size=10))
def test_no_output_makes_it_raise_and_the_turn_always_ends_once(pieces: list[bytes]) -> None:
    codec = PythonCodec()
    events = [event for piece in pieces for event in codec.feed(piece)]
    events += codec.finish(Ended(exit_code=1))
    assert [type(event) for event in events].count(TurnEnded) == 1


@pytest.mark.parametrize("answer", [b"{", b"[1]", b"7", b"null", b"\xff", b"", b"[" * 100_000])
def test_an_answer_that_is_none_is_a_crash(answer: bytes) -> None:
    codec = PythonCodec()
    codec.feed(PythonCodec.MARK + answer + b"\n")
    *_, ended = codec.finish(Ended(exit_code=1))
    assert isinstance(ended, TurnEnded)
    assert ended.trouble is Trouble.CRASHED


def test_output_says_the_same_however_it_is_cut() -> None:
    data = b"one\n\ntwo\n\n" + PythonCodec.MARK + b'{"value": {"a": "\xe2\x82\xac"}}\n'
    whole = PythonCodec()
    expected = [*whole.feed(data), *whole.finish(Ended(exit_code=0))]
    assert len(expected) == 3
    for cut in range(len(data)):
        halves = PythonCodec()
        assert [*halves.feed(data[:cut]), *halves.feed(data[cut:]), *halves.finish(Ended(exit_code=0))] == expected


def test_a_function_that_ran_out_of_time_says_so() -> None:
    (ended,) = PythonCodec().finish(Ended(exit_code=None, timed_out=True))
    assert ended == TurnEnded(trouble=Trouble.CRASHED, message="the function's process ran out of time without an answer")


def test_a_function_cannot_be_spoken_to() -> None:
    codec = PythonCodec()
    assert codec.prompt(Prompt(prompt_id=PromptId("p"), text="x")) == codec.interrupt() == codec.goodbye() == b""


@pytest.mark.parametrize("value", [b"[" * 500_000, b"NaN", b"1e999", b"9" * 10_000, b"[" * 990 + b"]" * 990, b"\xff"])
def test_no_answer_makes_the_codec_raise(value: bytes) -> None:
    codec = PythonCodec()
    codec.feed(b"\n" + PythonCodec.MARK + b'{"value": ' + value + b"}\n")
    assert isinstance(codec.finish(Ended(exit_code=0))[-1], TurnEnded)


def test_of_very_much_output_the_beginning_is_told() -> None:
    codec = PythonCodec()
    said = [event for _ in range(100) for event in codec.feed(b"x" * 2000 + b"\n")]
    assert sum(len(event.text) for event in said if isinstance(event, Said)) < 110_000
