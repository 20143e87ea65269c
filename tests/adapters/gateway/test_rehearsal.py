import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kapelle.adapters.gateway.asking import Asked
from kapelle.adapters.gateway.rehearsal import Answer, Caller, Fault, Rehearsing, fault_message
from kapelle.adapters.gateway.rehearsal_file import Rehearsal, Turn, load_rehearsal
from kapelle.core.budget import Usage
from kapelle.testing.evaluating import PlainEvaluator

CALLER = Caller(run="r1", task="api", attempt=1, round=0, cwd="/w/slot-1")


def rehearsing(rehearsal: Rehearsal) -> Rehearsing:
    return Rehearsing(rehearsal=rehearsal, evaluator=PlainEvaluator())


def caller(**changes: Any) -> Caller:
    return Caller(**{"run": "r1", "task": "api", "attempt": 1, "round": 0, "cwd": "/w/slot-1", **changes})


def asked(prompt: str = "Do it.", replies: int = 0, **changes: Any) -> Asked:
    fields = {"model": "m", "streaming": True, "on_the_side": False, "prompts": 1, "characters": 400, "cwd": "", **changes}
    return Asked(prompt=prompt, replies=replies, **fields)


def script(*rules: dict[str, Any], **rest: Any) -> Rehearsal:
    return Rehearsal.model_validate({"rules": list(rules), **rest})


def said(rehearsal: Rehearsal, question: Asked | None = None, who: Caller = CALLER, **consumed: int) -> str:
    found = rehearsing(rehearsal).answer(question or asked(), who, consumed, "msg_1")
    assert isinstance(found, Answer)
    return found.reply.text


def says(text: str, **when: Any) -> dict[str, Any]:
    return {"when": when, "turns": [{"say": text}]}


# --- Which rule ---


def test_the_first_rule_that_fits_answers() -> None:
    assert said(script(says("no", task="web"), says("yes", task="api"), says("late"))) == "yes"


def test_a_rule_without_conditions_fits_everything() -> None:
    assert said(script(says("always")), who=caller(task="", round=7)) == "always"


def test_a_task_may_be_given_as_a_glob() -> None:
    rehearsal = script(says("backend", task="api-*"), says("other"))
    assert said(rehearsal, who=caller(task="api-users")) == "backend"
    assert said(rehearsal, who=caller(task="web")) == "other"


def test_a_name_with_the_letters_of_a_glob_fits_itself() -> None:
    assert said(script(says("yes", task="fix [urgent]")), who=caller(task="fix [urgent]")) == "yes"


def test_case_matters_in_the_name_of_a_task() -> None:
    assert said(script(says("no", task="API"), says("yes"))) == "yes"


def test_a_rule_may_be_for_one_attempt() -> None:
    rehearsal = script(says("first", attempt=1), says("again", attempt=2))
    assert said(rehearsal, who=caller(attempt=2)) == "again"


def test_a_rule_may_be_for_one_round() -> None:
    rehearsal = script(says("first", round=0), says("mended", round=1))
    assert said(rehearsal, who=caller(round=1)) == "mended"


def test_without_a_known_round_it_is_read_from_the_conversation() -> None:
    rehearsal = script(says("first", round=0), says("third", round=2))
    assert said(rehearsal, asked(prompts=3), caller(round=None)) == "third"
    assert said(rehearsal, asked(prompts=0), caller(round=None)) == "first"


def test_a_rule_may_look_for_words_in_the_prompt() -> None:
    rehearsal = script(says("merge", prompt=r"conflict with .* main"), says("other"))
    assert said(rehearsal, asked("It is in conflict with the main branch.")) == "merge"
    assert said(rehearsal, asked("It is in Conflict with the main branch.")) == "other"


def test_every_condition_of_a_rule_must_fit() -> None:
    rehearsal = script(says("both", task="api", attempt=2), says("other"))
    assert said(rehearsal) == "other"


def test_what_no_rule_fits_is_answered_all_the_same() -> None:
    assert said(script(otherwise={"say": "Nothing for {{ task }}."})) == "Nothing for api."
    assert said(Rehearsal()) == "Nothing to do here."


def test_a_question_on_the_side_takes_no_turn_of_the_script() -> None:
    assert said(script(says("script")), asked(on_the_side=True)) == "Rehearsal"


# --- Which turn ---


def turns(*listed: dict[str, Any]) -> Rehearsal:
    return script({"turns": list(listed)})


@pytest.mark.parametrize(("replies", "text"), [(0, "one"), (1, "two"), (2, "three")])
def test_the_turn_is_read_from_the_conversation(replies: int, text: str) -> None:
    rehearsal = turns({"say": "one"}, {"error": 529}, {"say": "two"}, {"stall": "1s"}, {"cut": True}, {"say": "three"})
    keys = {f"r1/api/1/0/{index}": 1 for index in range(6)}
    assert said(rehearsal, asked(replies=replies), **keys) == text


def test_a_rule_whose_turns_are_used_up_says_so() -> None:
    assert said(turns({"say": "one"}), asked(replies=1)) == "(rehearsal: rule 1 has no turn left for reply 2)"


def fault(rehearsal: Rehearsal, replies: int = 0, who: Caller = CALLER, **consumed: int) -> Fault | None:
    found = rehearsing(rehearsal).answer(asked(replies=replies), who, consumed, "msg_1")
    return found if isinstance(found, Fault) else None


def test_a_fault_comes_before_the_reply_that_follows_it() -> None:
    rehearsal = turns({"say": "one"}, {"error": 529}, {"say": "two"})
    assert fault(rehearsal, replies=0) is None
    found = fault(rehearsal, replies=1)
    assert found is not None
    assert (found.turn.error, found.key) == (529, "r1/api/1/0/1")
    assert fault(rehearsal, replies=1, **{found.key: 1}) is None


def test_a_fault_happens_as_often_as_it_says() -> None:
    rehearsal = turns({"error": 529, "times": 3}, {"say": "one"})
    happened = [fault(rehearsal, **{"r1/api/1/0/0": count}) is not None for count in range(5)]
    assert happened == [True, True, True, False, False]


def test_faults_in_a_row_come_one_after_the_other() -> None:
    rehearsal = turns({"error": 529}, {"error": 500}, {"say": "one"})
    first = fault(rehearsal)
    second = fault(rehearsal, **{"r1/api/1/0/0": 1})
    assert first is not None
    assert second is not None
    assert (first.turn.error, second.turn.error) == (529, 500)


@pytest.mark.parametrize("changes", [{"run": "r2"}, {"task": "web"}, {"attempt": 2}])
def test_faults_are_counted_for_each_run_task_and_attempt(changes: dict[str, Any]) -> None:
    rehearsal = turns({"error": 529}, {"say": "one"})
    assert fault(rehearsal, **{"r1/api/1/0/0": 1}) is None
    assert fault(rehearsal, who=caller(**changes), **{"r1/api/1/0/0": 1}) is not None


# --- What a reply holds ---


def replied(turn: dict[str, Any], question: Asked | None = None) -> Answer:
    found = rehearsing(turns(turn)).answer(question or asked(), CALLER, {}, "msg_1")
    assert isinstance(found, Answer)
    return found


def test_templates_know_who_asks() -> None:
    template = "{{ cwd }} {{ task }} {{ attempt }} {{ run }} {{ round }} {{ prompt }}"
    assert replied({"say": template}).reply.text == "/w/slot-1 api 1 r1 0 Do it."


def test_templates_are_filled_everywhere_in_the_arguments_of_a_tool() -> None:
    arguments = {"path": "{{ cwd }}/a", "edits": [{"old": "{{ task }}", "n": 1, "on": True, "none": None}], "{{ task }}": ""}
    (tool,) = replied({"tools": [{"Edit": arguments}]}).reply.tools
    assert tool.name == "Edit"
    filled = {"path": "/w/slot-1/a", "edits": [{"old": "api", "n": 1, "on": True, "none": None}], "{{ task }}": ""}
    assert json.loads(tool.arguments) == filled


def test_the_end_of_a_file_that_is_written_is_kept() -> None:
    (tool,) = replied({"tools": [{"Write": {"content": "# {{ task }}\n\n"}}]}).reply.tools
    assert json.loads(tool.arguments) == {"content": "# api\n\n"}


@pytest.mark.parametrize(
    "template", ["{{ nobody }}", "{{ 1 / 0 }}", "{{ cwd + 1 }}", "{{ ''.__class__.__mro__ }}", "{{ cwd[5:](1) }}"]
)
def test_a_template_that_cannot_be_filled_says_so_and_breaks_nothing(template: str) -> None:
    assert replied({"say": template}).reply.text.startswith("(rehearsal: ")


def test_what_an_agent_said_is_no_template() -> None:
    assert replied({"say": "You said: {{ prompt }}"}, asked("{{ cwd }}")).reply.text == "You said: {{ cwd }}"


def test_usage_is_what_the_turn_says() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "cache_read_tokens": 3, "cache_write_tokens": 4}
    assert replied({"say": "x", "usage": usage}).reply.usage == Usage(**usage)


def test_usage_is_estimated_where_the_turn_is_silent() -> None:
    usage = replied({"say": "word" * 10}, asked(characters=4000)).reply.usage
    assert usage == Usage(input_tokens=1000, output_tokens=11)


def test_a_reply_stops_for_its_tools() -> None:
    assert replied({"say": "x"}).reply.stop_reason == "end_turn"
    assert replied({"tools": [{"Bash": {}}]}).reply.stop_reason == "tool_use"


def test_a_reply_is_by_the_model_that_was_asked() -> None:
    assert replied({"say": "x"}, asked(model="claude-x")).reply.model == "claude-x"
    assert replied({"say": "x"}, asked(model="")).reply.model == "rehearsal"


# --- The words of errors ---

NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


def test_errors_have_the_words_of_the_api() -> None:
    assert fault_message(Turn(error=529), NOW) == "Overloaded"
    assert fault_message(Turn(error=401), NOW) == "invalid x-api-key"
    assert fault_message(Turn(error=500), NOW) == "rehearsed error 500 at 12:30:00"


def test_errors_may_have_words_of_their_own() -> None:
    assert fault_message(Turn(error=400, message="no"), NOW) == "no"


def test_a_usage_limit_tells_when_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "r.yml"
    path.write_text("rules: [{turns: [{error: 429, usage_limit: 2099-01-01T02:30:00+02:00}]}]")
    (turn,) = load_rehearsal(path).rules[0].turns
    assert fault_message(turn, NOW) == "You've hit your usage limit. It resets at 2099-01-01T00:30Z."
