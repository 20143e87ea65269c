"""From a workflow file and a configuration to a run that can be submitted: everything checked, every mistake told at once."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from kapelle.apps import models
from kapelle.apps.assigning import assigned, misassigned
from kapelle.apps.budgeting import allowance, standing, working_hours
from kapelle.apps.imaging import of_its_own
from kapelle.apps.isolating import because, chosen, isolation, not_given_away, own_login, too_little, unheld, why_open
from kapelle.apps.patience import alerts_of, patience_of
from kapelle.apps.ruling import misnamed, rules_of
from kapelle.apps.settings import AGENTS_FILE, FOLDER, PROJECT_FILE, Configuration
from kapelle.core.agent import AgentConfig, Asks, PoolRules, Reuse
from kapelle.core.budget import Allowance
from kapelle.core.errors import FileInvalid, Mistake, TemplateFailed, UsageError, closest
from kapelle.core.evaluating import Evaluator
from kapelle.core.frozen import frozen, replace
from kapelle.core.gate import Check, Gate
from kapelle.core.gateway import Upstream
from kapelle.core.git import RepositoryFacts
from kapelle.core.isolation import NetworkKind
from kapelle.core.limits import LONGEST_INPUTS, LONGEST_NAME, LONGEST_PROMPT
from kapelle.core.merge import DeliveryMode, MergeRules
from kapelle.core.ports import Driver, Sandbox
from kapelle.core.retry import RetryPolicy
from kapelle.core.run import Limits, RunSpec, WorkspaceRules
from kapelle.core.secrets import GitLogin, McpServer
from kapelle.core.task import TaskSpec, WorkspaceKind
from kapelle.core.workflow import Surroundings, WorkflowTask, expand, mistakes
from kapelle.documents import Document

NO_GATE = "none"


@frozen
class Workshop:
    """What a workflow is made into a run with."""

    configuration: Configuration
    drivers: Mapping[str, Driver]
    sandboxes: Mapping[str, Sandbox]
    repository: RepositoryFacts | None
    """The repository, or None outside of one."""
    evaluator: Evaluator
    """Computes what a ``foreach`` gives."""
    why_open: str = ""
    """Why the work cannot be done in a sandbox that hides files, in words for people."""

    def sandbox(self, named: str | None = None) -> str:
        """Return the name of the sandbox that *named* means here, or that of the settings."""
        return chosen(self.sandboxes, named or self.configuration.settings.sandbox, why_open=self.why_open)

    def because(self, named: str | None = None) -> str:
        """Return why that is not one that isolates, where nobody named it."""
        return because(self.sandboxes, named or self.configuration.settings.sandbox, why_open=self.why_open)


def read_workflow(path: Path) -> tuple[Document, models.Workflow]:
    """Read the workflow file at *path*; what is wrong with it so far is kept with the document.

    Raises:
        FileMissing: it is not there.
        FileInvalid: it fits the model in no way; all mistakes are told.
    """
    document = Document.read(path)
    workflow, wrong = document.fit(models.Workflow)
    if workflow is None:
        raise FileInvalid(wrong)
    return document, workflow


def agent_configs(shop: Workshop, used: Collection[str] | None = None) -> tuple[tuple[AgentConfig, ...], list[Mistake]]:
    """Return the agents of agents.yml, and what is wrong with them.

    What this machine cannot hold is wrong with those alone that are *used*; None: with all.
    """
    found: list[AgentConfig] = []
    wrong: list[Mistake] = []
    path = shop.configuration.root / AGENTS_FILE
    document = Document.read(path) if path.exists() else Document(str(path), None)
    wrong += [_from_its_origin(shop, mistake) for mistake in _sandbox_wrong(shop, document, shop.sandbox(), ())]
    whole, problems = isolation(shop.configuration.root, shop.configuration.agents)
    problems += unheld(shop.sandboxes.get(shop.sandbox()), whole, shop.configuration.agents, because=shop.because())
    wrong += [document.located(problem) for problem in problems]
    wrong += [document.located(problem) for problem in misassigned(shop.configuration.agents)]
    for name, agent in shop.configuration.agents.agents.items():
        here = ("agents", name)
        driver = shop.drivers.get(agent.program)
        if driver is None:
            advice = closest(agent.program, shop.drivers)
            message = f"there is no driver for the program {agent.program}"
            wrong.append(document.located(Mistake(message=message, advice=advice, path=(*here, "program"))))
        holds = used is None or name in used
        if agent.sandbox is not None and holds:
            wrong += _sandbox_wrong(shop, document, shop.sandbox(agent.sandbox), here)
        prompt, problem = _system_prompt(shop.configuration.root, agent.prompt)
        if problem:
            advice = f"make the file below {FOLDER}/, or write the text itself with `prompt: |`"
            wrong.append(document.located(Mistake(message=problem, advice=advice, path=(*here, "prompt"))))
        if driver is not None and driver.capabilities.conversation:
            prompt = _with_project(shop.configuration.project, agent, prompt)
        sandbox = shop.sandbox(agent.sandbox)
        asked, problems = isolation(shop.configuration.root, agent, whole, here)
        asked = of_its_own(shop.sandboxes.get(sandbox), asked, given=agent.image is not None)
        if holds:
            problems += unheld(shop.sandboxes.get(sandbox), asked, agent, here, because=shop.because(agent.sandbox))
        problems += too_little(driver, asked, agent, here) if driver is not None else []
        if asked.network.kind is NetworkKind.NONE and driver is not None and driver.capabilities.uses_gateway:
            advice = "write `network: model-only`"
            message = f"with `network: none` {agent.program} does not reach its model"
            problems.append(Mistake(message=message, advice=advice, path=here))
        wrong += [document.located(problem) for problem in problems]
        rules = rules_of(agent.rules or shop.configuration.agents.rules)
        if driver is not None:
            ruled, place = (agent.rules, here) if agent.rules is not None else (shop.configuration.agents.rules, ())
            wrong += [document.located(problem) for problem in misnamed(ruled, driver.capabilities.tools, place)]
        patience = patience_of(agent.liveness, shop.configuration.project.liveness)
        config = replace(_agent_config(name, agent, prompt, sandbox), isolation=asked, rules=rules, patience=patience)
        if agent.rules is not None and driver is not None and not driver.capabilities.asks:
            message = f"{agent.program} does not ask before it does something: rules mean nothing to it"
            advice = "leave them out, and choose a sandbox that holds it"
            wrong.append(document.located(Mistake(message=message, advice=advice, path=(*here, "rules"))))
        for text in _unfit(driver, config, shop.configuration.settings.gateway) if driver is not None else ():
            advice = "see the reference of agents.yml"
            wrong.append(document.located(Mistake(message=text, advice=advice, path=here)))
        found.append(config)
    return tuple(found), list(dict.fromkeys(wrong))


def _unfit(driver: Driver, config: AgentConfig, gateway: bool) -> list[str]:
    """Return what is wrong with *config* for its program, in words for people."""
    found = list(driver.problems(config, gateway=gateway))
    if config.reuse is Reuse.SAME_RUN and not driver.capabilities.clears:
        found.append(f"{driver.name} takes one task and ends: reuse: same-run means nothing to it")
    return found


def _sandbox_wrong(shop: Workshop, document: Document, name: str, here: tuple[str, ...]) -> list[Mistake]:
    path = (*here, "sandbox")
    sandbox = shop.sandboxes.get(name)
    if sandbox is None:
        advice = closest(name, shop.sandboxes)
        return [document.located(Mistake(message=f"there is no sandbox {name}", advice=advice, path=path))]
    problem = sandbox.missing()
    if not problem:
        return []
    advice = f"{sandbox.remedy()} `kapelle doctor` tells which sandboxes work here."
    return [document.located(Mistake(message=f"the sandbox {name} cannot be used: {problem}", advice=advice, path=path))]


def _from_its_origin(shop: Workshop, mistake: Mistake) -> Mistake:
    """Return *mistake*, which is one of the sandbox of the settings, in the place that gave it its value."""
    origin = shop.configuration.origin("sandbox")
    if origin.source in {AGENTS_FILE, "default"}:
        return mistake
    return replace(mistake, file=origin.source, line=0, column=0)


def _agent_config(name: str, agent: models.Agent, prompt: str, sandbox: str) -> AgentConfig:
    return AgentConfig(
        name=name,
        program=agent.program,
        model=agent.model,
        prompt=prompt,
        technologies=tuple(agent.technologies),
        capabilities=tuple(agent.capabilities),
        allow=tuple(agent.tools.allow),
        deny=tuple(agent.tools.deny),
        permission_mode=agent.permission_mode,
        max_turns=agent.max_turns,
        function=agent.function,
        terminal=agent.terminal or "",
        sandbox=sandbox,
        env=tuple(agent.env.items()),
        limit=agent.limit,
        asks=Asks(memory=agent.asks.memory, cpus=agent.asks.cpus or 0.0),
        reuse=Reuse(agent.reuse),
        pool=PoolRules(warm=agent.pool.warm, least=agent.pool.min, most=agent.pool.max, idle=agent.pool.idle),
        secrets=tuple(agent.secrets.items()),
        git=tuple(GitLogin(host=host, secret=login.secret, user=login.user) for host, login in agent.git.items()),
        mcp=tuple(_mcp_server(called, server) for called, server in agent.mcp.items()),
    )


def _mcp_server(name: str, server: models.McpServer) -> McpServer:
    return McpServer(
        name=name,
        command=server.command or "",
        args=tuple(server.args),
        url=server.url or "",
        env=tuple(server.env.items()),
        headers=tuple(server.headers.items()),
    )


def _with_project(project: models.Project, agent: models.Agent, prompt: str) -> str:
    """Return an agent's system prompt with what the project says of itself."""
    lines = [f"Project: {project.name or 'this repository'}" + (f", {project.description}" if project.description else "")]
    lines += [f"- {name}: {meaning}" for name, meaning in project.directories.items()]
    lines += [f"Technologies: {', '.join(agent.technologies)}"] if agent.technologies else []
    said = project.name or project.description or len(lines) > 1
    return "\n\n".join(part for part in (prompt.strip(), "\n".join(lines) if said else "") if part)


def _system_prompt(root: Path, prompt: str | None) -> tuple[str, str]:
    """Return the text of an agent's system prompt and what is wrong: a name without spaces is a file below .kapelle."""
    if prompt is None:
        return "", ""
    if "\n" in prompt or " " in prompt.strip():
        return prompt, ""
    shown = prompt if len(prompt) <= LONGEST_NAME else f"{prompt[:LONGEST_NAME]}..."
    try:
        path = (root / FOLDER / prompt).resolve()
        if not path.is_relative_to((root / FOLDER).resolve()):
            return "", f"the prompt file {shown} is outside of {FOLDER}"
        with path.open(encoding="utf-8") as stream:
            text = stream.read(LONGEST_PROMPT + 1)
    except (OSError, ValueError, RuntimeError):  # no text, no such file, links in a circle
        return "", f"the prompt file {FOLDER}/{shown} cannot be read"
    if len(text) > LONGEST_PROMPT:
        return "", f"the prompt file {FOLDER}/{shown} has more than {LONGEST_PROMPT} characters"
    return (text, "") if "\0" not in text else ("", f"the prompt file {FOLDER}/{shown} holds the character U+0000")


def gates(configuration: Configuration) -> tuple[Gate, ...]:
    """Return the gates of agents.yml."""
    return tuple(
        Gate(
            name=name,
            rounds=gate.rounds,
            checks=tuple(
                Check(name=check.name, run=check.run, timeout=check.timeout, required=check.required) for check in gate.checks
            ),
        )
        for name, gate in configuration.agents.gates.items()
    )


def to_run(
    document: Document, workflow: models.Workflow, shop: Workshop, *, inputs: Mapping[str, str], upstream: Upstream
) -> RunSpec:
    """Return the run that *workflow* means here.

    Raises:
        FileInvalid: the workflow or agents.yml has mistakes; all of them are told, each with its place.
        UsageError: an input is unknown or missing.
    """
    values = input_values(workflow, inputs) if not document.mistakes else {}
    phases = tuple(workflow.phases if workflow.phases is not None else shop.configuration.project.phases)
    all_gates = gates(shop.configuration)
    tasks: list[WorkflowTask] = []
    further: list[Mistake] = []
    for name, task in workflow.tasks.items():
        made, problems = _task(name, task, workflow, shop, values)
        tasks.append(made)
        further.extend(problems)
    shop = replace(shop, why_open=_why_open(shop, tasks, upstream))
    used = {name for made in tasks for name in made.spec.choices}
    configs, wrong = agent_configs(shop, used)
    in_sandbox = {config.name: shop.sandboxes.get(config.sandbox) for config in configs}
    for made in tasks:
        if made.spec.workspace is WorkspaceKind.PATH:
            for name in made.spec.choices:
                further.extend(not_given_away(made.spec.name, in_sandbox.get(name)))
    around = Surroundings(
        agents=frozenset(config.name for config in configs),
        gates=frozenset(gate.name for gate in all_gates),
        phases=phases,
        inputs=frozenset(workflow.inputs),
        in_repository=shop.repository is not None,
        several=frozenset(name for name, task in workflow.tasks.items() if task.foreach is not None),
    )
    further.extend(mistakes(tasks, around))
    wrong.extend(document.with_further(further))
    if wrong:
        raise FileInvalid(wrong)
    return _spec(workflow, shop, expand(tasks, phases), phases, configs, all_gates, values, upstream)


def _spec(
    workflow: models.Workflow,
    shop: Workshop,
    tasks: tuple[TaskSpec, ...],
    phases: tuple[str, ...],
    configs: tuple[AgentConfig, ...],
    all_gates: tuple[Gate, ...],
    values: Mapping[str, Any],
    upstream: Upstream,
) -> RunSpec:
    settings, repository = shop.configuration.settings, shop.repository
    used = {name for spec in tasks for name in spec.choices}
    return RunSpec(
        name=workflow.name,
        project=shop.configuration.project.name or shop.configuration.root.name,
        repository=repository.root if repository is not None else None,
        target=target_of(workflow, shop) if repository is not None else None,
        base=repository.head if repository is not None else None,
        inputs=json.dumps(dict(values), ensure_ascii=False),
        tasks=tasks,
        phases=phases,
        configs=tuple(config for config in configs if config.name in used),
        gates=all_gates,
        workspace=WorkspaceRules(
            copy=settings.copy_files,
            setup=settings.setup,
            ports=settings.ports,
            sandbox=shop.sandbox(),
            isolation=isolation(shop.configuration.root, shop.configuration.agents)[0],
        ),
        limits=Limits(
            agents=settings.agents,
            project=settings.project_agents,
            account=settings.account_agents,
            models=tuple(shop.configuration.project.limits.models.items()),
            budget=_run_allowance(shop, workflow),
            standing=standing(shop.configuration.project.budgets),
            on_spent=settings.on_spent,
            answer_within=settings.answer_within,
            merge_returns=settings.merge_returns,
        ),
        merge=MergeRules(batch=settings.merge_batch, wait=settings.merge_wait, protect=settings.protect),
        delivery=DeliveryMode(_before(shop, "delivery", workflow.delivery)),
        alerts=alerts_of(shop.configuration.project.alerts),
        upstream=upstream,
        hours=working_hours(shop.configuration.project),
        strategy=shop.configuration.agents.placement,
    )


def _why_open(shop: Workshop, tasks: Sequence[WorkflowTask], upstream: Upstream) -> str:
    """Return why *tasks* cannot be done in a sandbox that hides files, in words for people; empty when they can."""
    agents = shop.configuration.agents.agents
    programs = {agents[name].program for task in tasks for name in task.spec.choices if name in agents}
    drivers = [driver for program in programs if (driver := shop.drivers.get(program)) is not None]
    return why_open({task.spec.workspace for task in tasks}, own_login=own_login(upstream, drivers))


def check_login(shop: Workshop, spec: RunSpec) -> None:
    """See that no agent needs a login that its sandbox keeps from it.

    Raises:
        UsageError: one does.
    """
    held = [
        config.name
        for config in spec.configs
        if shop.sandboxes[config.sandbox].capabilities.files and shop.drivers[config.program].capabilities.uses_gateway
    ]
    if spec.upstream.own_login and held:
        remedy = "Set ANTHROPIC_API_KEY, which stays in the gateway; or `sandbox: process` for these agents."
        message = f"the login of claude is in your own home, which agents in a sandbox do not see: {', '.join(held)}"
        raise UsageError(message, remedy=remedy)


def _before(shop: Workshop, name: str, in_workflow: Any) -> Any:
    """Return a setting that a workflow file may give too: command line and environment go before it, the other files after."""
    origin = shop.configuration.origin(name)
    if in_workflow is None or origin.source not in {PROJECT_FILE, AGENTS_FILE, "default"}:
        return getattr(shop.configuration.settings, name)
    return in_workflow


def _run_allowance(shop: Workshop, workflow: models.Workflow) -> Allowance:
    of_workflow, of_project = workflow.budget, shop.configuration.project.limits.budget
    usd = _before(shop, "budget_usd", workflow.budget_usd or (of_workflow.usd if of_workflow is not None else None))
    return allowance(usd, of_workflow, of_project)


def target_of(workflow: models.Workflow, shop: Workshop) -> str:
    """Return the branch that changes go to.

    Raises:
        UsageError: none is named and the checkout is on none.
    """
    branch = shop.repository.branch if shop.repository is not None else None
    target = _before(shop, "target", workflow.target) or branch
    if target is None:
        raise UsageError(
            "the repository is on no branch (detached HEAD), so there is no target", remedy="Give --target BRANCH."
        )
    return target


def input_values(workflow: models.Workflow, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the value of every input.

    Raises:
        UsageError: one is given that the workflow does not know, or one that it requires is not.
    """
    for name in given:
        if name not in workflow.inputs:
            raise UsageError(
                f"the workflow has no input {name}", remedy=f"Leave it out; of its inputs: {closest(name, workflow.inputs)}."
            )
    values: dict[str, Any] = {}
    for name, entry in workflow.inputs.items():
        declared = entry if isinstance(entry, models.Input) else models.Input(default=entry)
        if name in given:
            values[name] = _as_default(name, given[name], declared.default)
        elif declared.required or declared.default is None:
            raise UsageError(f"the workflow needs the input {name}", remedy=f"Give it: --input {name}=VALUE")
        else:
            values[name] = declared.default
    size = len(json.dumps(values))
    if size > LONGEST_INPUTS:
        raise UsageError(
            f"the inputs have {size} characters as JSON; {LONGEST_INPUTS} are the most",
            remedy="Put what is long into a file of the repository, and name it in the prompt.",
        )
    return values


WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _as_default(name: str, text: str, default: Any) -> Any:
    """Return what was given as text in the type that the input's default has."""
    kind = cast("type[Any]", type(default))
    try:
        if isinstance(default, bool):
            return WORDS[text.strip().lower()]
        if isinstance(default, int | float):
            return kind(text)
        value = json.loads(text) if isinstance(default, list | dict) else text
    except (KeyError, ValueError, RecursionError) as error:
        raise UsageError(
            f"the input {name} cannot be {text[:LONGEST_NAME]!r}: its default is {json.dumps(default)}",
            remedy=f"Give a {NAMES.get(kind.__name__, kind.__name__)}: --input {name}=VALUE",
        ) from error
    if not isinstance(value, kind) and default is not None:
        raise UsageError(
            f"the input {name} cannot be {text[:LONGEST_NAME]!r}", remedy=f"Give it like its default: {json.dumps(default)}"
        )
    return value


NAMES = {"bool": "yes or no", "int": "whole number", "float": "number", "list": "list, as JSON", "dict": "mapping, as JSON"}


def _schema_problem(schema: str) -> str:
    # Most workflows ask for no structured result, and this takes long to load.
    from kapelle.core.result import schema_problem

    return schema_problem(schema)


def _task(
    name: str, task: models.Task, workflow: models.Workflow, shop: Workshop, values: Mapping[str, Any]
) -> tuple[WorkflowTask, list[Mistake]]:
    defaults, here, wrong = workflow.defaults, ("tasks", name), list[Mistake]()
    chosen, unfit = assigned(name, task, workflow.defaults.agent, shop.configuration.agents)
    wrong += unfit
    kind = task.workspace or defaults.workspace
    if kind is None:
        kind = WorkspaceKind.WORKTREE if shop.repository is not None else WorkspaceKind.SCRATCH
    # Work outside of a repository, and reading, have nothing for a default gate to look at.
    gated = kind is WorkspaceKind.WORKTREE and not task.reads_only
    gate = task.gate if task.gate is not None else (defaults.gate if gated else None)
    retry = task.retry or defaults.retry
    schema = None if task.result is None else json.dumps(task.result)
    if schema is not None and (problem := _schema_problem(schema)):
        advice = "see json-schema.org; for example {type: object, properties: {...}}"
        wrong.append(
            Mistake(message=f"the result of {name} is no JSON Schema: {problem}", advice=advice, path=(*here, "result"))
        )
    path = None
    if task.path is not None:
        path, there = _directory(shop.configuration.root, task.path)
        if kind is WorkspaceKind.PATH and not there:
            advice = "make the directory, or mend the path"
            wrong.append(Mistake(message=f"{task.path[:LONGEST_NAME]} is no directory", advice=advice, path=(*here, "path")))
    when = task.when
    spec = TaskSpec(
        name=name,
        prompt=task.prompt,
        needs=tuple(dict.fromkeys(task.needs)),
        agent=chosen[0] if chosen else "",
        agents=chosen if len(chosen) > 1 else (),
        requires=tuple(dict.fromkeys(task.requires)),
        priority=task.priority or defaults.priority,
        gate=None if gate == NO_GATE else gate,
        timeout=task.timeout or defaults.timeout,
        max_attempts=task.max_attempts or defaults.max_attempts,
        retry=RetryPolicy(initial=retry.initial, factor=retry.factor, maximum=retry.maximum, jitter=retry.jitter),
        budget=allowance(
            task.budget_usd if task.budget_usd is not None or (task.budget and task.budget.usd) else defaults.budget_usd,
            task.budget,
            defaults.budget,
        ),
        reads_only=task.reads_only,
        result_schema=schema,
        writes=tuple(task.writes),
        phase=task.phase,
        estimate=task.estimate,
        approval=task.approval,
        when=str(when).lower() if isinstance(when, bool) else when,
        on_failure=task.on_failure,
        workspace=kind,
        path=path,
    )
    return WorkflowTask(spec=spec, foreach=_items(name, task, values, wrong, shop.evaluator)), wrong


def _directory(root: Path, path: str) -> tuple[str, bool]:
    """Return *path* from *root*, and whether it is a directory."""
    try:
        found = (root / path).resolve()
        return str(found), found.is_dir()
    except (OSError, ValueError, RuntimeError):  # too long, links in a circle
        return path, False


def _items(
    name: str, task: models.Task, values: Mapping[str, Any], wrong: list[Mistake], evaluator: Evaluator
) -> tuple[str, ...] | None:
    if task.foreach is None:
        return None
    items: Any = task.foreach
    if isinstance(items, str):
        try:
            items = _given(items, values, evaluator)
        except TemplateFailed as error:
            message = f"foreach of {name}: {error.message}"
            wrong.append(Mistake(message=message, advice=FOREACH, path=("tasks", name, "foreach")))
            return None
        if isinstance(items, str):
            items = [part.strip() for part in items.split(",") if part.strip()]
        if not isinstance(items, list):
            message = f"foreach of {name} is neither a list nor a template that gives one"
            wrong.append(Mistake(message=message, advice=FOREACH, path=("tasks", name, "foreach")))
            return None
    return tuple(json.dumps(item, ensure_ascii=False) for item in cast("list[Any]", items))


FOREACH = "write foreach: [a, b], or foreach: '{{ inputs.NAME }}', or another expression of inputs that gives a list"


def _given(text: str, values: Mapping[str, Any], evaluator: Evaluator) -> Any:
    """Return what the template *text* of a ``foreach`` gives: before anything has run it can see the inputs only.

    Raises:
        TemplateFailed: it gives nothing that can be written down.
    """
    bare = text.strip()
    inner = bare.removeprefix("{{").removesuffix("}}").strip()
    key = inner.removeprefix("inputs.")
    if key in values:
        return values[key]
    if inner == bare:
        return None
    names = {"inputs": dict(values)}
    try:
        given = evaluator.fill(f"{{{{ ({inner}) | tojson }}}}", names)
    except TemplateFailed:
        # By itself it tells better what is not there.
        evaluator.fill(f"{{{{ ({inner}) }}}}", names)
        raise
    try:
        return json.loads(given)
    except ValueError as error:
        raise TemplateFailed(f"it is more than one expression: {bare[:TOLD]}") from error


TOLD = 200
"""Characters of a template that an error tells."""


def single_task(prompt: str, *, agent: str | None, gate: str | None) -> tuple[Document, models.Workflow]:
    """Return a workflow of one task, for a prompt given on the command line."""
    content = {"name": "task", "tasks": {"task": {"prompt": prompt, "agent": agent, "gate": gate}}}
    workflow = models.Workflow.model_validate(content)
    return Document("command line", content), workflow
