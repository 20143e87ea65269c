"""What a command says when it cannot do what was asked: what helps here, and not something near it."""

import pytest

from kapelle.testing.places import Place

AGENTS = """\
agents:
  reuser: {program: claude, reuse: same-run}
  painter: {program: claude-tui}
"""


@pytest.mark.parametrize(
    ("words", "message", "remedy"),
    [
        ("usage --by nope", "--by cannot be 'nope'", "Give one of: task, run, agent, model, day, project, account."),
        ("run -p x --budget-usd -1", "--budget-usd cannot be '-1'", "Give more than 0."),
        ("run -p", "the option -p needs a value", "`kapelle run --help`"),
        ("scale reuser 1 --rehearse", "the option --rehearse needs a value", "`kapelle scale --help`"),
        ("scale reuser -1", "-1 is below zero", "Write a number that is not."),
        ("answer b-1 raise -1", "-1 is below zero", "Write a number that is not."),
        ("takeover one", "needs a terminal", "`kapelle send AGENT TEXT` needs none."),
    ],
)
def test_a_mistake_on_the_command_line_is_told_with_what_mends_it(place: Place, words: str, message: str, remedy: str) -> None:
    said = place.run(*words.split())
    assert (said.code, message in said.err, remedy in said.err) == (2, True, True), said.err


@pytest.mark.parametrize("command", ["scale reuser 2", "deploy reuser"])
def test_who_lacks_a_login_is_told_of_the_option_of_this_command(place: Place, command: str) -> None:
    (place.repository / ".kapelle" / "agents.yml").write_text(AGENTS)
    said = place.run(*command.split())
    assert said.code == 2
    assert f"`kapelle {command} --rehearse FILE`" in said.err
    assert "kapelle run" not in said.err


@pytest.mark.parametrize("command", ["scale painter 2", "deploy painter"])
def test_who_wants_spares_of_what_has_none_is_asked_for_no_login(place: Place, command: str) -> None:
    (place.repository / ".kapelle" / "agents.yml").write_text(AGENTS)
    said = place.run(*command.split())
    assert "claude-tui is told its task when it starts" in said.err, said.err
