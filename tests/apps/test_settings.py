"""Each setting comes from the first place that gives it a value."""

from pathlib import Path

import pytest

from kapelle.apps.settings import ALL, Configuration, find_root, load
from kapelle.core.errors import FileInvalid, UsageError


def configured(root: Path, project: str = "", agents: str = "", env_file: str = "") -> Path:
    (root / ".kapelle").mkdir()
    (root / ".kapelle" / "project.yml").write_text(project, encoding="utf-8")
    (root / ".kapelle" / "agents.yml").write_text(agents, encoding="utf-8")
    (root / ".env").write_text(env_file, encoding="utf-8")
    return root


def source(found: Configuration, name: str) -> str:
    return next(origin.source for origin in found.origins if origin.setting.name == name)


def test_defaults_hold_where_nothing_is_given(tmp_path: Path) -> None:
    found = load(tmp_path, environment={})

    assert found.settings.delivery.value == "each"
    assert found.settings.merge_returns == 3
    assert found.settings.gateway is True
    assert source(found, "delivery") == "default"


def test_command_line_before_environment_before_env_file_before_project(tmp_path: Path) -> None:
    root = configured(tmp_path, "delivery: end\nlimits: {slots: 3, agents: 2, budget_usd: 5}\n", "", "KAPELLE_AGENTS=7\n")

    found = load(root, given={"budget_usd": 1.0}, environment={"KAPELLE_SLOTS": "9", "KAPELLE_BUDGET_USD": "2"})

    assert found.settings.budget_usd == 1.0
    assert found.settings.slots == 9
    assert found.settings.agents == 7
    assert found.settings.delivery.value == "end"
    assert source(found, "budget_usd") == "command line"
    assert source(found, "slots") == "environment KAPELLE_SLOTS"
    assert "KAPELLE_AGENTS" in source(found, "agents")
    assert source(found, "delivery") == ".kapelle/project.yml"


def test_the_process_s_environment_goes_before_the_env_file(tmp_path: Path) -> None:
    root = configured(tmp_path, env_file="KAPELLE_SLOTS=2\n")

    assert load(root, environment={"KAPELLE_SLOTS": "5"}).settings.slots == 5


def test_workspace_rules_come_from_the_agents_file(tmp_path: Path) -> None:
    root = configured(tmp_path, "", "workspace: {copy: [.env], setup: [make deps], ports: 5}\n")

    found = load(root, environment={})

    assert found.settings.copy_files == (".env",)
    assert found.settings.setup == ("make deps",)
    assert found.settings.ports == 5
    assert source(found, "ports") == ".kapelle/agents.yml"


@pytest.mark.parametrize(("word", "meant"), [("off", False), ("on", True), ("false", False)])
def test_the_gateway_may_be_switched_in_the_words_of_people(tmp_path: Path, word: str, meant: bool) -> None:
    assert load(configured(tmp_path, f"gateway: {word}\n"), environment={}).settings.gateway is meant


def test_mistakes_in_both_files_are_told_together(tmp_path: Path) -> None:
    root = configured(tmp_path, "nonsense: 1\ndelivery: now\n", "agents: {a: {program: claude, max_turns: 0}}\n")

    with pytest.raises(FileInvalid) as caught:
        load(root, environment={})

    assert len(caught.value.mistakes) == 3
    assert {Path(mistake.file).name for mistake in caught.value.mistakes} == {"project.yml", "agents.yml"}


def test_a_value_that_is_not_possible_names_its_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="from environment KAPELLE_DELIVERY"):
        load(tmp_path, environment={"KAPELLE_DELIVERY": "now"})


def test_the_nearest_configured_directory_is_the_root(tmp_path: Path) -> None:
    root = configured(tmp_path)
    inner = root / "a" / "b"
    inner.mkdir(parents=True)

    assert find_root(inner) == root


def test_every_setting_says_what_it_is_and_can_be_set(tmp_path: Path) -> None:
    found = load(tmp_path, environment={})

    assert [origin.setting.name for origin in found.origins] == [setting.name for setting in ALL]
    assert {setting.name for setting in ALL} == set(type(found.settings).model_fields)
    assert all(setting.about and setting.variable for setting in ALL)
    assert len({setting.variable for setting in ALL}) == len(ALL)
