from dataclasses import replace

import pytest

from kapelle.core.attempt import Outcome
from kapelle.core.errors import HostFailed, KapelleError, WorkspaceFailed
from kapelle.core.events import AgentDeployed, WorkspacePrepared
from kapelle.core.gateway import Upstream
from kapelle.core.merge import DeliveryMode
from kapelle.core.run import WorkspaceRules
from kapelle.core.task import TaskState, WorkspaceKind
from kapelle.testing.factories import run_spec, task
from kapelle.testing.git import MemoryDirectory
from kapelle.testing.hosts import writes
from kapelle.testing.worlds import SmallWorld


async def test_an_agent_works_in_a_workspace_at_the_tip_of_the_target(here: SmallWorld) -> None:
    tip = here.repository.push({"lib.py": "newer"})
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert here.process().directory.files == {"README.md": "hello", "lib.py": "newer"}
    assert here.process().directory.head == tip
    assert [event.base for event in await here.events(WorkspacePrepared)] == [tip]


async def test_an_agent_begins_from_what_was_merged_and_is_not_delivered_yet(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec(task("api"), task("ui", needs=("api",)), delivery=DeliveryMode.END))
    leader = await here.lead()
    await leader.run()
    assert "api.py" not in here.repository.files("main")
    assert here.process("ui").directory.files["api.py"] == "1"


async def test_an_agent_begins_from_the_target_where_that_holds_what_was_merged(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    tip = here.repository.push({"later.py": "1"})
    await here.submit(run_spec(task("ui")))
    await leader.run()
    assert here.process("ui").directory.head == tip


async def test_set_up_commands_run_once_in_order_before_the_agent_starts(here: SmallWorld) -> None:
    done: list[str] = []
    for command in ("install", "build"):
        here.host.commands[command] = lambda _, command=command: done.append(command)
    here.host.starts("api", lambda _: done.append("agent"))
    here.host.plays("api", lambda process, _: process.exit(1))
    await here.submit(run_spec(workspace=WorkspaceRules(setup=("install", "build"))))
    leader = await here.lead()
    await leader.run_out()
    assert done == ["install", "build", "agent"]
    assert len(here.host.processes) == 2


async def test_a_set_up_command_that_fails_uses_up_an_attempt_and_says_what_failed(here: SmallWorld) -> None:
    here.host.commands["install"] = lambda _: "no network"
    await here.submit(run_spec(task("api", max_attempts=2), workspace=WorkspaceRules(setup=("install",))))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert failed.failure is not None
    assert failed.failure.message == "the set-up command 'install' ended with exit code 1:\nno network"
    assert [attempt.outcome for attempt in await here.attempts()] == [Outcome.SETUP_FAILED] * 2
    assert here.host.processes == []
    assert here.git.directories == {}


async def test_a_set_up_command_that_takes_too_long_is_said_to(here: SmallWorld) -> None:
    def slow(_: dict[str, str]) -> str:
        raise TimeoutError

    here.host.commands["install"] = slow
    await here.submit(run_spec(task("api", max_attempts=1), workspace=WorkspaceRules(setup=("install",))))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert failed.failure is not None
    assert failed.failure.message.startswith("the set-up command 'install' ran out of time")


@pytest.mark.parametrize(
    ("point", "error"), [("start", HostFailed("no more processes")), ("prepare", WorkspaceFailed("the disk is full"))]
)
async def test_an_agent_that_cannot_be_started_is_tried_again(here: SmallWorld, point: str, error: KapelleError) -> None:
    here.points.fail(point, error)
    await here.submit(run_spec())
    leader = await here.lead()
    later = await leader.run()
    assert [attempt.outcome for attempt in await here.attempts()] == [Outcome.LAUNCH_FAILED]
    assert (await here.task()).detail == error.in_full
    assert later is not None
    here.clock.move_to(later)
    await leader.run()
    assert (await here.task()).state is TaskState.RUNNING


async def test_a_target_that_is_gone_is_said_to_be(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api", max_attempts=1), target="gone"))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert failed.failure is not None
    assert failed.failure.message.startswith("the branch gone is gone")


async def test_an_agent_is_told_where_it_belongs_and_no_more(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(workspace=WorkspaceRules(ports=2)))
    leader = await here.lead()
    await leader.run()
    env = dict(here.process().env)
    env.pop("FAKE_TOKEN")
    assert env == {
        "KAPELLE_STORE": here.store.store_id,
        "KAPELLE_RUN": run_id,
        "KAPELLE_WORKSPACE": here.process().launch.cwd,
        "KAPELLE_WORKSPACE_ID": (await here.store.read(lambda view: view.agents.workspaces()))[0].workspace_id,
        "KAPELLE_TASK": "api",
        "PORT": "20000",
        "PORT_1": "20001",
    }


async def test_no_two_workspaces_share_a_port(here: SmallWorld) -> None:
    await here.submit(run_spec(task("a"), task("b"), workspace=WorkspaceRules(ports=3)))
    await here.submit(run_spec(task("c"), workspace=WorkspaceRules(ports=12)))
    leader = await here.lead()
    await leader.run()
    names = ("PORT", *(f"PORT_{index}" for index in range(1, 12)))
    ports = [process.env[name] for process in here.host.processes for name in names if name in process.env]
    assert len(ports) == 3 + 3 + 12
    assert len(set(ports)) == len(ports)


async def test_checks_know_no_credentials(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    here.credentials.known["env:SOME_KEY"] = "secret"
    await here.submit(run_spec(upstream=Upstream(credential="env:SOME_KEY"), workspace=WorkspaceRules(setup=("true",))))
    leader = await here.lead()
    await leader.run()
    commands = [launch for launch, _ in here.sandbox.wrapped if launch.argv[0] == "sh"]
    assert {launch.argv[-1] for launch in commands} == {"true", "make test"}
    assert {name for launch in commands for name, _ in launch.env} == {
        "KAPELLE_STORE",
        "KAPELLE_RUN",
        "KAPELLE_WORKSPACE",
        "KAPELLE_WORKSPACE_ID",
        "KAPELLE_TASK",
        "PYTHONPYCACHEPREFIX",
        "PYTHONDONTWRITEBYTECODE",
    }


async def test_agents_and_checks_run_in_the_sandbox(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    programs = [launch.argv[0] for launch, _ in here.sandbox.wrapped]
    assert programs == ["line", "sh"]
    assert {place.workspace for _, place in here.sandbox.wrapped} == {here.process().launch.cwd}


async def test_files_are_copied_in_and_never_committed(here: SmallWorld) -> None:
    here.repository.loose = {".env": "SECRET=1", "notes.txt": "mine"}
    here.host.plays("api", writes({"api.py": "1", ".env": "SECRET=2"}))
    await here.submit(run_spec(workspace=WorkspaceRules(copy=(".env",))))
    leader = await here.lead()
    await leader.run()
    assert set(here.process().directory.files) == {"README.md", ".env", "api.py"}
    assert set(here.repository.files("main")) == {"README.md", "api.py"}


async def test_a_scratch_task_works_in_an_empty_directory_that_is_removed(here: SmallWorld) -> None:
    here.host.plays("api", writes({"report.md": "all is well"}, "all is well"))
    await here.submit(run_spec(task("api", workspace=WorkspaceKind.SCRATCH, gate=None)))
    leader = await here.lead()
    await leader.run()
    completed = await here.task()
    assert (completed.state, completed.summary) == (TaskState.COMPLETED, "all is well")
    assert here.process().directory.repository is None
    assert here.git.directories == {}


async def test_a_directory_of_the_users_own_is_neither_made_nor_removed(here: SmallWorld) -> None:
    notes = here.git.directories["/home/you/notes"] = MemoryDirectory(files={"old.md": "old"})
    here.host.plays("api", writes({"new.md": "new"}))
    await here.submit(run_spec(task("api", workspace=WorkspaceKind.PATH, path="/home/you/notes", gate=None)))
    leader = await here.lead()
    await leader.run()
    assert (await here.task()).state is TaskState.COMPLETED
    assert notes.files == {"old.md": "old", "new.md": "new"}
    assert "prepare" not in here.points.passed
    assert "/home/you/notes" in here.git.directories


async def test_an_agent_reaches_its_model_by_the_gateway_with_a_token_of_its_own(here: SmallWorld) -> None:
    await here.submit(run_spec(task("a"), task("b"), upstream=Upstream(rehearsal="rehearsal.yml")))
    leader = await here.lead()
    await leader.run()
    tokens = {process.task: process.token for process in here.host.processes}
    assert len(set(tokens.values())) == 2
    assert {ticket.task: ticket.token for ticket in here.gateway.tickets.values()} == tokens


async def test_a_login_of_its_own_goes_through_the_gateway_with_the_token_beside_it(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    (ticket,) = here.gateway.tickets.values()
    assert here.process().token == ticket.token


async def test_an_agent_that_bypasses_the_gateway_has_no_ticket(here: SmallWorld) -> None:
    await here.submit(run_spec(upstream=Upstream(bypass=True)))
    leader = await here.lead()
    await leader.run()
    assert here.gateway.tickets == {}


async def test_the_ticket_knows_the_round(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "broken"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    await leader.step("execute")
    (ticket,) = here.gateway.tickets.values()
    assert (ticket.task, ticket.attempt, ticket.round) == ("api", 1, 1)


async def test_a_stopped_agents_token_is_refused(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert here.gateway.call(here.process().token, usd=1.0) == "unknown token"


async def test_a_deployment_is_told_with_its_process(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    (event,) = await here.events(AgentDeployed)
    assert (event.config, event.pid) == ("coder", here.process().ref.pid)


async def test_the_time_limit_is_the_hosts_to_keep(here: SmallWorld) -> None:
    spec = task("api")
    await here.submit(run_spec(replace(spec, timeout=spec.timeout * 2)))
    leader = await here.lead()
    await leader.run()
    assert here.process().launch.limit == spec.timeout * 2
