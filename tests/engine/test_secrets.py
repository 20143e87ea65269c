"""What the engine does with secrets: who gets them and until when, and what comes of a change that holds one."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from kapelle.core.attempt import Outcome
from kapelle.core.events import WorkspaceStuck
from kapelle.core.isolation import SandboxCapabilities
from kapelle.core.requests import Cancel
from kapelle.core.secret_events import SecretFound
from kapelle.core.secrets import GitLogin, McpServer
from kapelle.core.task import TaskState
from kapelle.testing.factories import CODER, NOBODY, ONCE, run_spec, task
from kapelle.testing.hosts import ScriptedProcess, crashes, hangs, writes
from kapelle.testing.worlds import SmallWorld

VALUE = "correct-horse-battery-staple"
KEEPER = replace(CODER, secrets=(("TOKEN", "env:TOKEN"),))
CONFIGS = (KEEPER, replace(CODER, name="other"), ONCE, NOBODY)
LEAK = writes({"api.py": f"token = {VALUE!r}"})
CLEAN = writes({"api.py": "token = read()"})


@pytest.fixture(autouse=True)
def _planted(here: SmallWorld) -> None:
    here.secrets.values = {"env:TOKEN": VALUE}


async def everything(here: SmallWorld) -> str:
    events = [repr(entry.event) for entry in await here.store.read(lambda view: view.events(limit=10_000))]
    return "\n".join([*events, repr(await here.tasks()), repr(await here.attempts()), repr(await here.prompts())])


# --- Who gets them ---


async def test_an_agent_is_told_where_its_secrets_are_and_no_more(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api"), task("ui", agent="other"), configs=CONFIGS))
    leader = await here.lead()
    await leader.run()
    api, ui = dict(here.process("api").launch.env), dict(here.process("ui").launch.env)
    assert api["TOKEN_FILE"].startswith("/vault/")
    assert here.process("api").launch.hide.startswith("/known/")
    assert "TOKEN_FILE" not in ui
    assert here.process("ui").launch.hide == ""
    assert list(here.secrets.handed.values()) == [{"TOKEN": VALUE}]
    assert VALUE not in repr(here.process("api").launch)
    assert VALUE not in await everything(here)


async def test_in_a_file_system_of_its_own_they_are_at_a_fixed_place(here: SmallWorld) -> None:
    here.sandbox.capabilities = SandboxCapabilities(files=True)
    await here.submit(run_spec(configs=CONFIGS))
    leader = await here.lead()
    await leader.run()
    assert ("TOKEN_FILE", "/run/kapelle/secrets/TOKEN") in here.process().launch.env
    mounts = {mount.path: (mount.kind.value, mount.source) for _, place in here.sandbox.wrapped for mount in place.mounts}
    kind, source = mounts["/run/kapelle/secrets"]
    assert (kind, source.startswith("/vault/")) == ("read", True)
    assert [kind for path, (kind, _) in mounts.items() if path.startswith("/memory/")] == ["write"]


async def test_checks_and_set_up_commands_get_none(here: SmallWorld) -> None:
    here.host.plays("api", CLEAN)
    await here.submit(run_spec(configs=CONFIGS))
    leader = await here.lead()
    await leader.run_out()
    commands = [launch for launch, _ in here.sandbox.wrapped if "make test" in launch.argv]
    assert commands
    assert all("TOKEN_FILE" not in dict(launch.env) for launch in commands)


async def test_one_that_is_not_to_be_had_keeps_the_agent_from_starting(here: SmallWorld) -> None:
    here.secrets.values = {}
    await here.submit(run_spec(task("api", max_attempts=1), configs=CONFIGS))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert failed.failure is not None
    assert failed.failure.kind == Outcome.LAUNCH_FAILED.value
    assert "the secret TOKEN (env:TOKEN) is missing" in failed.failure.message
    assert here.host.processes == []
    assert here.secrets.handed == {}


async def test_git_is_told_of_a_helper_that_reads_the_file(here: SmallWorld) -> None:
    config = replace(KEEPER, git=(GitLogin(host="github.com", secret="TOKEN"),), env=(("GIT_CONFIG_COUNT", "1"),))  # noqa: S106
    await here.submit(run_spec(configs=(config,)))
    leader = await here.lead()
    await leader.run()
    env = dict(here.process().launch.env)
    assert env["GIT_CONFIG_COUNT"] == "3"
    assert (env["GIT_CONFIG_KEY_1"], env["GIT_CONFIG_VALUE_1"]) == ("credential.https://github.com.helper", "")
    assert "x-access-token" in env["GIT_CONFIG_VALUE_2"]
    assert f"cat '{env['TOKEN_FILE']}'" in env["GIT_CONFIG_VALUE_2"]


async def test_servers_are_named_in_a_file_with_their_secrets(here: SmallWorld) -> None:
    servers = (
        McpServer(name="one", command="serve", args=("-x",), env=(("KEY", "is ${secret:TOKEN}"), ("PLAIN", "p"))),
        McpServer(name="two", url="https://mcp.invalid/", headers=(("Authorization", "Bearer ${secret:TOKEN}"),)),
    )
    await here.submit(run_spec(configs=(replace(KEEPER, mcp=servers),)))
    leader = await here.lead()
    await leader.run()
    (held,) = here.secrets.handed.values()
    assert json.loads(held["mcp.json"]) == {
        "mcpServers": {
            "one": {"type": "stdio", "command": "serve", "args": ["-x"], "env": {"KEY": f"is {VALUE}", "PLAIN": "p"}},
            "two": {"type": "http", "url": "https://mcp.invalid/", "headers": {"Authorization": f"Bearer {VALUE}"}},
        }
    }


# --- Until when ---


async def test_they_are_taken_away_when_the_agent_has_ended(here: SmallWorld) -> None:
    here.host.plays("api", CLEAN)
    await here.submit(run_spec(configs=CONFIGS))
    leader = await here.lead()
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    assert (here.secrets.handed, here.secrets.kept) == ({}, {})


async def test_they_are_taken_away_from_an_agent_whose_run_is_cancelled(here: SmallWorld) -> None:
    here.host.plays("api", hangs())
    run_id = await here.submit(run_spec(configs=CONFIGS))
    leader = await here.lead()
    await leader.run()
    assert here.secrets.handed
    await here.ask(Cancel(run_id=run_id))
    await leader.run_out()
    assert here.secrets.handed == {}


async def test_what_a_dead_leader_left_is_swept_by_the_next(here: SmallWorld) -> None:
    here.secrets.hand_over("a-gone", "g-gone", {"TOKEN": VALUE}, {}, boxed=False)  # type: ignore[arg-type]
    here.host.plays("api", hangs())
    await here.submit(run_spec(configs=CONFIGS))
    leader = await here.lead()
    assert here.secrets.handed == {}
    await leader.run()
    assert len(here.secrets.handed) == 1
    await here.lead()
    assert len(here.secrets.handed) == 1


# --- Changes that hold one ---


async def test_a_change_with_a_value_goes_back_and_names_secret_and_file(here: SmallWorld) -> None:
    here.host.plays("api", LEAK, CLEAN)
    await here.submit(run_spec(configs=CONFIGS))
    leader = await here.lead()
    await leader.run_out()
    (process,) = here.host.processes
    assert "the value of TOKEN in api.py" in process.prompts[1].text
    assert (await here.task()).state is TaskState.COMPLETED
    assert [(event.secret, event.file) for event in await here.events(SecretFound)] == [("TOKEN", "api.py")]
    assert VALUE not in await everything(here)
    assert not any(VALUE in content for tree in here.repository.trees.values() for content in tree.values())


@pytest.mark.parametrize("agent", ["coder", "once"])
async def test_one_that_stays_is_given_up_and_kept_with_a_name_in_its_place(here: SmallWorld, agent: str) -> None:
    here.host.plays("api", *([LEAK] * 5))
    configs = (KEEPER, replace(ONCE, secrets=KEEPER.secrets))
    await here.submit(run_spec(task("api", agent=agent, max_attempts=1), configs=configs))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert failed.failure is not None
    assert failed.failure.message == "it holds the value of TOKEN in api.py"
    assert VALUE not in await everything(here)
    kept = [ref for ref in here.repository.refs if "/kept/" in ref]
    assert len(kept) == 1
    assert here.repository.files(kept[0])["api.py"] == "token = '[secret TOKEN]'"


async def test_without_a_way_to_know_a_value_nothing_is_committed_or_kept_until_there_is(here: SmallWorld) -> None:
    """The machine was started anew, so the vault has forgotten; and the variable is not set."""

    def forgets(then: Callable[[ScriptedProcess, str], None]) -> Callable[[ScriptedProcess, str], None]:
        def script(process: ScriptedProcess, text: str) -> None:
            here.secrets.kept, here.secrets.values = {}, {}
            then(process, text)

        return script

    here.host.plays("api", forgets(LEAK))
    await here.submit(run_spec(task("api", max_attempts=1), configs=CONFIGS))
    leader = await here.lead()
    await leader.run()
    failed = await here.task()
    assert failed.failure is not None
    assert "the secret TOKEN (env:TOKEN) is missing" in failed.failure.message
    assert [event.task_id for event in await here.events(WorkspaceStuck)] == [failed.task_id]
    assert len(here.git.directories) == 1
    here.secrets.values = {"env:TOKEN": VALUE}
    await leader.run_out()
    assert here.git.directories == {}
    assert not any(VALUE in content for tree in here.repository.trees.values() for content in tree.values())


async def test_a_crash_keeps_names_too(here: SmallWorld) -> None:
    def half_done(process: ScriptedProcess, _: str) -> None:
        process.write("half.py", VALUE)
        process.exit(1)

    here.host.plays("api", half_done, half_done, half_done, crashes())
    await here.submit(run_spec(task("api", max_attempts=1), configs=CONFIGS))
    leader = await here.lead()
    await leader.run_out()
    (kept,) = [ref for ref in here.repository.refs if "/kept/" in ref]
    assert here.repository.files(kept)["half.py"] == "[secret TOKEN]"
