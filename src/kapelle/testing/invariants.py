"""What holds at every moment of a small world, whatever happens in it: the eight invariants of the design.

``Watch`` reads the log and the store from time to time and says what is broken; ``KeepingWorkspaces`` says when work is removed
that is kept nowhere. By number:

1. the log against the tables (``_event``);
2. one accepted attempt (``_attempts``), adoption by the new leader (``left_unadopted``); the refusal of a late writer is looked
   at where one writes;
3. needs, approvals, pauses, attempts, slots, limits (``_begun``, ``_limits``);
4. the order of the merge queue, receipts, and what the target went to (``_order``, ``_receipt``, ``_target``);
5. nothing that was accepted disappears (``_gone``); that all of it ends is looked at when a world does (``left_over``);
6. ``KeepingWorkspaces``, and merged work is held by a ref or the store (``_held_up``);
7. processes that nobody knows (``unknown``), and what is left when all has ended (``left_over``);
8. spend (``_spend``).
"""

from collections import Counter
from dataclasses import dataclass, field

from kapelle.core.agent import Agent, AgentState
from kapelle.core.attempt import COUNTS, Attempt, Outcome
from kapelle.core.brake_events import BudgetRaised, HaltBegun, HaltLifted
from kapelle.core.budget import Resource, Spend
from kapelle.core.event import Event
from kapelle.core.events import (
    MOVED,
    AttemptStarted,
    ChangeMerged,
    ChangeQueued,
    Entry,
    PromptSent,
    RunPaused,
    RunResumed,
    TaskApproved,
    TaskMoved,
    TaskWaited,
)
from kapelle.core.frozen import frozen
from kapelle.core.gate import CheckState, Receipt
from kapelle.core.ids import AgentId, ChangeId, RunId, SpentId, TaskId
from kapelle.core.liveness import TWO
from kapelle.core.liveness_events import (
    AgentGivenUp,
    AgentInterrupted,
    AgentNoted,
    AgentNudged,
    AgentProbed,
    AgentRecovered,
    AgentRestarted,
)
from kapelle.core.merge import Change, Integration
from kapelle.core.run import RUN_TERMINAL, Run
from kapelle.core.spent import SpentBudget, SpentState
from kapelle.core.steering_events import PromptCarriedOver, PromptQueued, PromptUnheard, TaskPaused, TaskResumed
from kapelle.core.store import View
from kapelle.core.task import MEETS_A_NEED, TASK_TRANSITIONS, TERMINAL, OnFailure, Task, TaskState
from kapelle.engine.holds import opening_of
from kapelle.engine.spares import NO_TASK
from kapelle.testing.git import MemoryDirectory, MemoryRepository
from kapelle.testing.repositories import MemoryWorkspaces
from kapelle.testing.worlds import SmallWorld

STATES = {kind: state for state, kind in MOVED.items()}
BEGINNINGS = (TaskMoved, TaskWaited, TaskApproved, AttemptStarted, ChangeQueued, ChangeMerged)
"""Events of a task of which none may follow its end. Others may: what was under way when it ended is told, too."""


@frozen
class _Seen:
    """What the store held at one moment."""

    entries: list[Entry]
    tasks: dict[TaskId, Task]
    needs: dict[TaskId, list[Task]]
    attempts: dict[TaskId, list[Attempt]]
    agents: list[Agent]
    runs: dict[RunId, Run]
    spend: dict[RunId, Spend]
    task_spend: dict[TaskId, Spend]
    integrations: list[Integration]
    changes: dict[ChangeId, Change]
    receipts: dict[str, Receipt | None]
    spent: list[SpentBudget]
    """Budgets that are spent, and what was answered, as long as they are not over."""
    raised: dict[SpentId, SpentBudget]
    """Those that were raised since the last look."""


NOTICES = (AgentNoted, AgentRecovered)
"""What begins anew with an agent."""
ANSWERS = (AgentProbed, AgentNudged, AgentInterrupted, AgentRestarted, AgentGivenUp)
AnyAnswer = AgentProbed | AgentNudged | AgentInterrupted | AgentRestarted | AgentGivenUp


@dataclass(kw_only=True, slots=True)
class Watch:
    """Checks the invariants of one world; keep it as long as the world lives."""

    here: SmallWorld
    dearest_call: float = 0.0
    """What a single model call costs at most."""
    _seq: int = 0
    _moves: int = 0
    _states: dict[TaskId, TaskState] = field(default_factory=dict[TaskId, TaskState])
    _paused: set[RunId] = field(default_factory=set[RunId])
    _paused_tasks: set[TaskId] = field(default_factory=set[TaskId])
    _queued: dict[ChangeId, int] = field(default_factory=dict[ChangeId, int])
    """The changes that were ever queued, and the sequence number of that."""
    _halted: bool = False
    _raises: dict[str, float] = field(default_factory=dict[str, float])
    """By how many dollars budgets were raised, by what their spending is added up under."""
    _known: dict[TaskId, str] = field(default_factory=dict[TaskId, str])
    _answered: dict[AgentId, set[str]] = field(default_factory=dict[AgentId, set[str]])
    """What was done about each agent since it was found stuck."""
    _unsaid: dict[TaskId, set[str]] = field(default_factory=dict[TaskId, set[str]])
    """What a person has to say to the agent of a task's open attempt, and nobody has heard yet."""

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
        found += self._gone(seen)
        found += self._limits(seen)
        found += self._stillness(seen)
        found += self._spend(seen)
        found += self._target()
        found += self._held_up(seen)
        found += self._prompts()
        return found

    def _look(self, view: View) -> _Seen:
        entries = list(view.events(self._seq, limit=100_000))
        runs = {overview.run.run_id: overview for overview in view.runs.overviews(limit=1000)}
        tasks = {task.task_id: task for run_id in runs for task in view.tasks.of_run(run_id)}
        self._seq = max((entry.seq for entry in entries), default=self._seq)
        changes = [change for task_id in tasks for change in view.changes.of_task(task_id)]
        merged = [entry.event for entry in entries if isinstance(entry.event, ChangeMerged)]
        return _Seen(
            entries=entries,
            tasks=tasks,
            needs={task_id: list(view.tasks.needs(task_id)) for task_id in tasks},
            attempts={task_id: list(view.attempts.of_task(task_id)) for task_id in tasks},
            agents=list(view.agents.live()),
            runs={run_id: overview.run for run_id, overview in runs.items()},
            spend={run_id: overview.spend for run_id, overview in runs.items()},
            task_spend={task_id: part for run_id in runs for task_id, part in view.ledger.by_task(run_id).items()},
            integrations=list(view.changes.integrations()),
            changes={change.change_id: change for change in changes},
            receipts={event.receipt: view.changes.receipt(event.receipt) for event in merged},
            spent=list(view.brakes.spent()),
            raised={row.spent_id: row for row in _raised(view, entries)},
        )

    # --- The log ---

    def _event(self, entry: Entry, seen: _Seen) -> list[str]:
        event, task_id = entry.event, entry.event.task_id
        if isinstance(event, RunPaused | RunResumed) and event.run_id is not None:
            (self._paused.add if isinstance(event, RunPaused) else self._paused.discard)(event.run_id)
        if isinstance(event, HaltBegun | HaltLifted):
            self._halted = isinstance(event, HaltBegun)
        if isinstance(event, BudgetRaised):
            row = seen.raised[event.spent_id]
            self._raises[row.key] = self._raises.get(row.key, 0.0) + event.more
        if task_id is None:
            return []
        if isinstance(event, TaskPaused | TaskResumed):
            (self._paused_tasks.add if isinstance(event, TaskPaused) else self._paused_tasks.discard)(task_id)
        name, before = seen.tasks[task_id].name, self._states.get(task_id, TaskState.PENDING)
        found: list[str] = []
        if before in TERMINAL and isinstance(event, BEGINNINGS):
            found.append(f"{event.kind} of {name} follows its end ({before})")
        if isinstance(event, NOTICES):
            self._answered[event.agent_id] = set()
        if isinstance(event, ANSWERS):
            found += self._once(event, name)
        if isinstance(event, AttemptStarted):
            found += self._begun(seen.tasks[task_id], seen)
            found += self._rests(seen.tasks[task_id], seen, entry)
        found += self._said(task_id, event, name)
        if isinstance(event, ChangeQueued):
            self._queued[event.change_id] = entry.seq
        if isinstance(event, ChangeMerged):
            found += self._order(seen.changes[event.change_id], seen)
            found += self._receipt(event, name, seen)
        if isinstance(event, TaskMoved):
            after = STATES[type(event)]
            if event.before is not before:
                found.append(f"{event.kind} of {name} says that it was {event.before}, and it was {before}")
            if after not in TASK_TRANSITIONS[event.before]:
                found.append(f"{name} went from {event.before} to {after}, which is not in the table")
            self._states[task_id] = after
        return found

    def _said(self, task_id: TaskId, event: Event, name: str) -> list[str]:
        """Look whether everything that a person had to say was said before a task ended, or told to be unheard."""
        left = self._unsaid.setdefault(task_id, set())
        if isinstance(event, PromptQueued):
            left.add(event.prompt_id)
        if isinstance(event, PromptSent | PromptUnheard):
            left.discard(event.prompt_id)
        if isinstance(event, PromptCarriedOver):
            if event.before not in left:
                return [f"what was said to {name}, or by nobody, was carried over"]
            left.remove(event.before)
            left.add(event.prompt_id)
        lost = isinstance(event, TaskMoved) and STATES[type(event)] in TERMINAL and left
        return [f"what a person had to say to {name} was never said"] if lost else []

    def _once(self, event: AnyAnswer, name: str) -> list[str]:
        """Look whether an agent was interfered with twice in the same way, or on the word of one source."""
        done = self._answered.setdefault(event.agent_id, set())
        found = [f"{event.kind} of {name} twice, and it was not noted again in between"] if event.kind in done else []
        if isinstance(event, AgentInterrupted | AgentRestarted | AgentGivenUp) and len(event.sources) < TWO:
            found.append(f"{event.kind} of {name} on the word of {', '.join(event.sources) or 'nobody'} alone")
        done.add(event.kind)
        return found

    def _begun(self, task: Task, seen: _Seen) -> list[str]:
        """Look whether an attempt was begun that might be."""
        found: list[str] = []
        name = task.name
        if task.spec.approval and not task.approved:
            found.append(f"{name} was begun, and nobody approved it")
        if task.run_id in self._paused:
            found.append(f"{name} was begun, and its run is paused")
        if task.task_id in self._paused_tasks:
            found.append(f"{name} was begun, and it is paused")
        for need in seen.needs[task.task_id]:
            state = self._states.get(need.task_id, TaskState.PENDING)
            may_fail = state is TaskState.FAILED and need.spec.on_failure is OnFailure.CONTINUE
            if state not in MEETS_A_NEED and not may_fail:
                found.append(f"{name} was begun although {need.name}, which it needs, was {state}")
        return found

    def _rests(self, task: Task, seen: _Seen, entry: Entry) -> list[str]:
        """Look whether an attempt was begun when nobody works."""
        found: list[str] = []
        hours = seen.runs[task.run_id].spec.hours
        if self._halted:
            found.append(f"{task.name} was begun, and everything is halted")
        if hours is not None and not opening_of(hours, entry.at).open:
            found.append(f"{task.name} was begun at {entry.at}, outside of the working hours")
        return found

    def _gone(self, seen: _Seen) -> list[str]:
        """Look whether every task that was ever seen is still there."""
        found = [f"{name} was accepted and is gone" for task_id, name in self._known.items() if task_id not in seen.tasks]
        self._known.update({task_id: task.name for task_id, task in seen.tasks.items()})
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
            limit = run.spec.limits.agents
            if limit is not None and live > limit:
                found.append(f"{live} agents of {run.spec.name} are live, and {limit} may be")
            for config in run.spec.configs:
                of_kind = sum(agent.config == config.name for agent in seen.agents)
                if config.limit is not None and of_kind > config.limit:
                    found.append(f"{of_kind} agents of the kind {config.name} are live, and {config.limit} may be")
        return found

    def _stillness(self, seen: _Seen) -> list[str]:
        """What a person has frozen stands still, and loses no time, from when that is written down."""
        found: list[str] = []
        for agent in seen.agents:
            if agent.frozen_by and agent.frozen_at is not None and agent.process is not None:
                alive = any(process.alive and process.ref == agent.process for process in self.here.host.processes)
                if alive and agent.agent_id not in self.here.sandbox.frozen and agent.state is AgentState.ACTIVE:
                    found.append(f"the agent {agent.agent_id} was frozen, and goes on")
                if alive and agent.folder not in self.here.host.stopped_clocks and agent.state is AgentState.ACTIVE:
                    found.append(f"the time of the agent {agent.agent_id}, which was frozen, goes on")
        return found

    def _spend(self, seen: _Seen) -> list[str]:
        """A budget may be passed by the calls that were in flight when it was reached: one for each agent."""
        found: list[str] = []
        slots = self.here.ports.settings.slots
        for run_id, run in seen.runs.items():
            budget, spent = run.spec.limits.budget.usd, seen.spend[run_id].cost_usd
            budget = None if budget is None else budget + self._raises.get(f"run:{run_id}", 0.0)
            if budget is not None and spent >= budget + self.dearest_call * slots:
                found.append(f"{run.spec.name} has spent {spent} of {budget}")
        for task_id, part in seen.task_spend.items():
            task = seen.tasks[task_id]
            usd = task.spec.budget.usd
            usd = None if usd is None else usd + self._raises.get(f"task:{task_id}", 0.0)
            if usd is not None and part.cost_usd >= usd + self.dearest_call:
                found.append(f"{task.name} has spent {part.cost_usd} of {usd}")
        asked = Counter((row.key, row.resource) for row in seen.spent if row.state is SpentState.OPEN)
        found += [f"a person is asked {count} times about {key}" for (key, _), count in asked.items() if count > 1]
        return found

    # --- The merge queue and the target ---

    def _order(self, merged: Change, seen: _Seen) -> list[str]:
        """Look whether somebody who was in the queue before *merged* came, and goes before it, still waits.

        Who comes later with a better rank may find the merge begun; who was there first cannot.
        """
        found: list[str] = []
        since = self._queued.get(merged.change_id)
        if since is None:
            return [f"{seen.tasks[merged.task_id].name} was merged, and the log says nothing of its being in the queue"]
        for change_id, seq in self._queued.items():
            other = seen.changes[change_id]
            waits = self._states.get(other.task_id) is TaskState.MERGING and not self._left_queue(other, merged, seen)
            before = (other.rank, other.change_id) < (merged.rank, merged.change_id) and not other.waits_for_a_person
            if seq < since and before and waits and (other.repository, other.target) == (merged.repository, merged.target):
                names = seen.tasks[merged.task_id].name, seen.tasks[other.task_id].name
                found.append(f"{names[0]} was merged before {names[1]}, which was ahead of it in the queue")
        return found

    def _left_queue(self, other: Change, merged: Change, seen: _Seen) -> bool:
        """Say whether a newer change of the same task is what is in the queue."""
        newer = [seq for change_id, seq in self._queued.items() if seen.changes[change_id].task_id == other.task_id]
        return other.change_id == merged.change_id or self._queued[other.change_id] < max(newer)

    def _receipt(self, event: ChangeMerged, name: str, seen: _Seen) -> list[str]:
        """Look whether what proves a merge is there, and true."""
        receipt = seen.receipts[event.receipt]
        if seen.changes[event.change_id].receipt is None:
            return []
        if receipt is None:
            return [f"{name} was merged, and there is no receipt for it"]
        passed = {ran.tree for ran in self.here.host.ran if ran.passed}
        if receipt.tree not in passed or any(c.required and c.state is not CheckState.PASSED for c in receipt.checks):
            return [f"{name} was merged with a receipt for a tree that never passed"]
        return []

    def _target(self) -> list[str]:
        """Look at every move of a branch that was not made by hand: its tree has passed, and it holds all that it held."""
        found: list[str] = []
        repository = self.here.repository
        passed = {ran.tree for ran in self.here.host.ran if ran.passed}
        for ref, old, new in repository.moves[self._moves :]:
            commit = repository.commits[new]
            if not ref.startswith("refs/heads/") or commit.message == "by hand":
                continue
            while commit.commit != old and commit.message != "by hand":
                if commit.tree not in passed:
                    found.append(f"{ref} went to {new}, by {commit.commit}, whose tree never passed a gate")
                commit = repository.commits[commit.parents[0]]
            if old is not None and old not in repository.ancestors(new):
                found.append(f"{ref} went to {new}, which does not hold what it held before")
        self._moves = len(repository.moves)
        return found

    def _held_up(self, seen: _Seen) -> list[str]:
        """Look whether all merged work is held by a ref, or by the store, whose next leader moves the ref."""
        repository = self.here.repository
        held: set[str] = set()
        for tip in {*repository.refs.values(), *(entry.tip for entry in seen.integrations)}:
            held |= repository.ancestors(tip)
        return [
            f"the work of {task.name} is held by nothing"
            for task in seen.tasks.values()
            if task.commit is not None and task.commit not in held
        ]

    # --- Processes and prompts ---

    async def unknown(self) -> list[str]:
        """Return the processes that no live agent stands for: right after a recovery there may be none."""
        agents = await self.here.store.read(lambda view: [*view.agents.live(), *view.spares.all()])
        known = {agent.process for agent in agents}
        return [f"nobody knows the process of {found.task}" for found in self.here.host.live() if found.ref not in known]

    async def left_unadopted(self, term: int) -> list[str]:
        """Return what still carries the stamp of an earlier leader: nothing, once a leader has gone round."""
        agents = await self.here.store.read(lambda view: list(view.agents.live()))
        return [f"the agent {agent.agent_id} has the stamp of term {agent.term}" for agent in agents if agent.term != term]

    async def left_over(self) -> list[str]:
        """Return what is left when everything should have ended: tasks, runs, processes, directories, rows, tokens."""
        here, seq = self.here, self._seq
        seen = await here.store.read(self._look)
        # ``check`` is still to see what was logged.
        self._seq = seq
        tasks, runs = seen.tasks.values(), seen.runs.values()
        found = [f"{entry.name} is {entry.state} ({entry.waits_for})" for entry in tasks if entry.state not in TERMINAL]
        found += [f"{run.spec.name} is {run.state}" for run in runs if run.state not in RUN_TERMINAL]
        if found:
            # Why it does not end: what nobody has settled.
            found += [f"{entry.target} is held up: {entry.why}" for entry in seen.integrations if entry.held_up]
        found += [f"a process of {process.task} lives" for process in here.host.live()]
        found += [f"{path} is left" for path in here.git.directories]
        found += [str(row) for row in await here.store.read(lambda view: view.agents.workspaces())]
        found += [str(row) for row in seen.agents]
        found += [str(row) for row in await here.store.read(lambda view: view.spares.all())]
        found += [f"the token of {ticket.task} is still let in" for ticket in here.gateway.tickets.values()]
        found += [
            f"the work of {task.name} is held by no ref"
            for task in tasks
            if task.commit is not None and not here.repository.reachable(task.commit)
        ]
        return found

    def _prompts(self) -> list[str]:
        """Look whether a conversation was told twice what it had read already, or one without a task was told anything."""
        conversing = [process for process in self.here.host.processes if process.launch.stdin]
        read = Counter(prompt.prompt_id for process in conversing for prompt in process.prompts)
        for process in conversing:
            written = Counter(prompt.prompt_id for prompt in (*process.prompts, *process.unread))
            read.update({prompt_id: 1 for prompt_id, count in written.items() if count > 1})
        found = [f"the prompt {prompt_id} was sent again" for prompt_id, count in read.items() if count > 1]
        idle = [process for process in conversing if process.task == NO_TASK]
        return found + [
            f"a spare was told {prompt.text!r}" for process in idle for prompt in (*process.prompts, *process.unread)
        ]


def _raised(view: View, entries: list[Entry]) -> list[SpentBudget]:
    ids = [entry.event.spent_id for entry in entries if isinstance(entry.event, BudgetRaised)]
    rows = [view.brakes.get_spent(spent_id) for spent_id in ids]
    return [row for row in rows if row is not None and row.resource is Resource.USD]


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
