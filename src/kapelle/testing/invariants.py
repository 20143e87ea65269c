"""What holds at every moment of a small world, whatever happens in it: the invariants of the design.

``Watch`` reads the log and the store from time to time and says what is broken; ``KeepingWorkspaces`` says when work is removed
that is kept nowhere.
"""

from collections import Counter
from dataclasses import dataclass, field

from kapelle.core.agent import Agent
from kapelle.core.attempt import COUNTS, Attempt, Outcome
from kapelle.core.budget import Spend
from kapelle.core.events import (
    MOVED,
    AttemptStarted,
    ChangeMerged,
    ChangeQueued,
    Entry,
    TaskApproved,
    TaskMoved,
    TaskWaited,
)
from kapelle.core.ids import RunId, TaskId
from kapelle.core.merge import Integration
from kapelle.core.run import Run
from kapelle.core.store import View
from kapelle.core.task import MEETS_A_NEED, TASK_TRANSITIONS, TERMINAL, OnFailure, Task, TaskState
from kapelle.testing.git import MemoryDirectory, MemoryRepository
from kapelle.testing.repositories import MemoryWorkspaces
from kapelle.testing.worlds import SmallWorld

STATES = {kind: state for state, kind in MOVED.items()}
BEGINNINGS = (TaskMoved, TaskWaited, TaskApproved, AttemptStarted, ChangeQueued, ChangeMerged)
"""Events of a task of which none may follow its end. Others may: what was under way when it ended is told, too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What the store held at one moment."""

    entries: list[Entry]
    tasks: dict[TaskId, Task]
    needs: dict[TaskId, list[Task]]
    attempts: dict[TaskId, list[Attempt]]
    agents: list[Agent]
    runs: dict[RunId, Run]
    spend: dict[RunId, Spend]
    integrations: list[Integration]


@dataclass(kw_only=True, slots=True)
class Watch:
    """Checks the invariants of one world; keep it as long as the world lives."""

    here: SmallWorld
    dearest_call: float = 0.0
    """What a single model call costs at most."""
    _seq: int = 0
    _moves: int = 0
    _states: dict[TaskId, TaskState] = field(default_factory=dict[TaskId, TaskState])

    async def check(self) -> list[str]:
        """Return what is broken, in words; empty when nothing is."""
        seen = await self.here.store.read(self._look)
        found = [problem for entry in seen.entries for problem in self._event(entry, seen)]
        found += [
            f"{task.name} is {task.state}, and the log says {self._states.get(task_id)}"
            for task_id, task in seen.tasks.items()
            if self._states.get(task_id, TaskState.PENDING) is not task.state
        ]
        found += [problem for task in seen.tasks.values() for problem in _attempts(task, seen.attempts[task.task_id])]
        found += self._limits(seen)
        found += self._target()
        found += self._prompts()
        return found

    def _look(self, view: View) -> _Seen:
        entries = list(view.events(self._seq, limit=100_000))
        runs = {overview.run.run_id: overview for overview in view.runs.overviews(limit=1000)}
        tasks = {task.task_id: task for run_id in runs for task in view.tasks.of_run(run_id)}
        self._seq = max((entry.seq for entry in entries), default=self._seq)
        return _Seen(
            entries=entries,
            tasks=tasks,
            needs={task_id: list(view.tasks.needs(task_id)) for task_id in tasks},
            attempts={task_id: list(view.attempts.of_task(task_id)) for task_id in tasks},
            agents=list(view.agents.live()),
            runs={run_id: overview.run for run_id, overview in runs.items()},
            spend={run_id: overview.spend for run_id, overview in runs.items()},
            integrations=list(view.changes.integrations()),
        )

    # --- The log ---

    def _event(self, entry: Entry, seen: _Seen) -> list[str]:
        event, task_id = entry.event, entry.event.task_id
        if task_id is None:
            return []
        name, before = seen.tasks[task_id].name, self._states.get(task_id, TaskState.PENDING)
        found: list[str] = []
        if before in TERMINAL and isinstance(event, BEGINNINGS):
            found.append(f"{event.kind} of {name} follows its end ({before})")
        if isinstance(event, AttemptStarted):
            found += self._needs(task_id, name, seen)
        if isinstance(event, TaskMoved):
            after = STATES[type(event)]
            if event.before is not before:
                found.append(f"{event.kind} of {name} says that it was {event.before}, and it was {before}")
            if after not in TASK_TRANSITIONS[event.before]:
                found.append(f"{name} went from {event.before} to {after}, which is not in the table")
            self._states[task_id] = after
        return found

    def _needs(self, task_id: TaskId, name: str, seen: _Seen) -> list[str]:
        found: list[str] = []
        for need in seen.needs[task_id]:
            state = self._states.get(need.task_id, TaskState.PENDING)
            may_fail = state is TaskState.FAILED and need.spec.on_failure is OnFailure.CONTINUE
            if state not in MEETS_A_NEED and not may_fail:
                found.append(f"{name} was begun although {need.name}, which it needs, was {state}")
        return found

    # --- Bounds ---

    def _limits(self, seen: _Seen) -> list[str]:
        slots, found = self.here.ports.settings.slots, list[str]()
        if len(seen.agents) > slots:
            found.append(f"{len(seen.agents)} agents are live in {slots} slots")
        for attempt_id, count in Counter(agent.attempt_id for agent in seen.agents).items():
            if count > 1:
                found.append(f"{count} agents are live for the attempt {attempt_id}")
        for run_id, run in seen.runs.items():
            live = sum(agent.run_id == run_id for agent in seen.agents)
            limit, budget = run.spec.limits.agents, run.spec.limits.budget_usd
            if limit is not None and live > limit:
                found.append(f"{live} agents of {run.spec.name} are live, and {limit} may be")
            if budget is not None and seen.spend[run_id].cost_usd > budget + self.dearest_call * slots:
                found.append(f"{run.spec.name} has spent {seen.spend[run_id].cost_usd} of {budget}")
        return found

    # --- The target ---

    def _target(self) -> list[str]:
        """Look at every move of a branch that was not made by hand: its tree has passed, and it holds all that it held."""
        found: list[str] = []
        repository = self.here.repository
        passed = {ran.tree for ran in self.here.host.ran if ran.passed}
        for ref, old, new in repository.moves[self._moves :]:
            commit = repository.commits[new]
            if not ref.startswith("refs/heads/") or commit.message == "by hand":
                continue
            if commit.tree not in passed:
                found.append(f"{ref} went to {new}, whose tree never passed a gate")
            if old is not None and old not in repository.ancestors(new):
                found.append(f"{ref} went to {new}, which does not hold what it held before")
        self._moves = len(repository.moves)
        return found

    # --- Processes and prompts ---

    async def unknown(self) -> list[str]:
        """Return the processes that no live agent stands for: right after a recovery there may be none."""
        agents = await self.here.store.read(lambda view: list(view.agents.live()))
        known = {agent.process for agent in agents}
        return [f"nobody knows the process of {found.task}" for found in self.here.host.live() if found.ref not in known]

    def _prompts(self) -> list[str]:
        """Look whether a conversation was told twice what it had read already."""
        conversing = [process for process in self.here.host.processes if process.launch.stdin]
        read = Counter(prompt.prompt_id for process in conversing for prompt in process.prompts)
        for process in conversing:
            written = Counter(prompt.prompt_id for prompt in (*process.prompts, *process.unread))
            read.update({prompt_id: 1 for prompt_id, count in written.items() if count > 1})
        return [f"the prompt {prompt_id} was sent again" for prompt_id, count in read.items() if count > 1]


def _attempts(task: Task, attempts: list[Attempt]) -> list[str]:
    found: list[str] = []
    accepted = sum(attempt.outcome is Outcome.SUCCEEDED for attempt in attempts)
    if accepted > 1 or (accepted == 1) is not (task.state is TaskState.COMPLETED):
        found.append(f"{accepted} attempts of {task.name} were accepted, which is {task.state}")
    failed = sum(attempt.outcome in COUNTS for attempt in attempts)
    if max(failed, task.attempts) > task.spec.max_attempts:
        found.append(f"{task.name} has used {max(failed, task.attempts)} of {task.spec.max_attempts} attempts")
    if len({attempt.number for attempt in attempts}) < len(attempts):
        found.append(f"two attempts of {task.name} have one number")
    if sum(attempt.ended_at is None for attempt in attempts) > (0 if task.state in TERMINAL else 1):
        found.append(f"too many attempts of {task.name} are open, which is {task.state}")
    return found


class KeepingWorkspaces(MemoryWorkspaces):
    """Workspaces that refuse to remove work which neither a ref nor the merge queue holds."""

    def __init__(self, here: SmallWorld) -> None:
        super().__init__(here.git, here.points)
        self._here = here
        self.lost: list[str] = []

    async def remove(self, path: str, repository: str | None) -> None:
        """See the port; says in ``lost`` what is not kept."""
        directory = self._here.git.directories.get(path)
        if directory is not None and directory.repository is not None and "/gate-" not in path:
            tips = await self._here.store.read(lambda view: [entry.tip for entry in view.changes.integrations()])
            if not _held(directory, directory.repository, tips):
                self.lost.append(f"{path} is removed, and what was done in it is kept nowhere")
        await super().remove(path, repository)


def _held(directory: MemoryDirectory, repository: MemoryRepository, tips: list[str]) -> bool:
    tree = repository.tree_of(directory.work())
    held: set[str] = set()
    for tip in (*repository.refs.values(), *tips):
        held |= repository.ancestors(tip)
    return any(repository.commits[commit].tree == tree for commit in held)
