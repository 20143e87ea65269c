"""Turns: what an agent's words and its end mean for its attempt, written down inside a transaction.

Shared by nobody: the execute stage owns it. It is a file of its own because it holds the rules, and the stage the acts.
"""

from collections.abc import Sequence
from datetime import timedelta

from kapelle.core import agent as agents
from kapelle.core.account import shuts
from kapelle.core.agent import Agent, AgentState
from kapelle.core.attempt import Attempt, Outcome, PromptRecord, PromptState, outcome_of, unsaid
from kapelle.core.budget import Budget, Level, Resource, Usage
from kapelle.core.calls import ModelCall
from kapelle.core.conversation import (
    OUTAGE,
    ConversationEvent,
    ConversationStarted,
    ModelRetried,
    PromptTaken,
    Said,
    ToolCalled,
    ToolReturned,
    Trouble,
    TurnEnded,
    Typed,
    Unrecognised,
)
from kapelle.core.events import (
    AgentAnswered,
    AgentBabbled,
    AgentSaid,
    AgentStopped,
    AgentToolFailed,
    AgentUsedTool,
    AgentWasRefused,
    ConversationForked,
    Event,
    ModelCallRetried,
)
from kapelle.core.frozen import replace
from kapelle.core.ids import AgentId, PromptId
from kapelle.core.isolation import Met
from kapelle.core.isolation_events import LimitMet
from kapelle.core.kept import kept, result_unkept
from kapelle.core.ports import Ended
from kapelle.core.retry import RetryPolicy, delay
from kapelle.core.run import Run
from kapelle.core.spent import OnSpent, raised
from kapelle.core.steering_events import PersonTyped
from kapelle.core.store import Tx
from kapelle.core.task import Task, TaskState, Wait, advance
from kapelle.core.trouble import OF_A_SPENT_BUDGET, reset_in, told_by_gateway
from kapelle.core.wording import go_on
from kapelle.engine.accounts import Accounts, Heard, waits
from kapelle.engine.ending import give_up_attempt, moved_event, run_of, wait
from kapelle.engine.handing import give_back
from kapelle.engine.holds import Hold, brakes_of
from kapelle.engine.purses import task_key
from kapelle.engine.spending import Reached, Spending
from kapelle.engine.steering import pause_task, waiting_prompts
from kapelle.engine.world import World

# After an error of the model API the program has tried for minutes itself; then these delays between restarts.
API_RETRY = RetryPolicy(initial=timedelta(seconds=10), factor=2.0, maximum=timedelta(minutes=10))

STOPPED_IN_TURN = frozenset({Trouble.CRASHED, Trouble.INTERRUPTED, Trouble.UNKNOWN})
"""How the turn of a program ends that is ended in the middle of it."""
WAITS = {Outcome.LIMITED: Wait.LIMIT, Outcome.CREDENTIALS: Wait.CREDENTIALS, Outcome.UNREACHABLE: Wait.RETRY}


class Turns:
    """Takes in what was read from one agent at a time."""

    def __init__(self, world: World, accounts: Accounts) -> None:
        self._world = world
        self._accounts = accounts
        self._spending = Spending(world)
        self._last_words: dict[AgentId, str] = {}
        """What each agent said last: for a conversation that takes over."""
        self.leaving = False
        """Set on a planned exit: agents that end from now on were ended, and did not crash."""
        self.adopted: set[AgentId] = set()
        """Agents that an earlier leader started: their input ended with it."""

    def take_in(
        self,
        tx: Tx,
        agent_id: AgentId,
        offset: int,
        said: Sequence[ConversationEvent],
        ended: Ended | None = None,
        limit: Met | None = None,
    ) -> None:
        """Write down what an agent said up to *offset* of its spool and, at last, how it ended and which *limit* it met."""
        agent = tx.agents.get(agent_id)
        if agent is None or agent.term != tx.term or agent.state is AgentState.STOPPED:
            return
        agent = replace(agent, offset=offset)
        tx.agents.put(agent)
        if limit is not None:
            tx.log(
                LimitMet(
                    run_id=agent.run_id,
                    task_id=agent.task_id,
                    agent_id=agent_id,
                    reason=limit.reason,
                    out_of_memory=limit.out_of_memory,
                )
            )
        for event in map(kept, said):
            if ended is not None and ended.timed_out and isinstance(event, TurnEnded) and event.trouble is not None:
                # Its program did not break off: it was ended at its time limit, which _ended judges.
                continue
            if limit is not None and isinstance(event, TurnEnded) and event.trouble is Trouble.CRASHED:
                event = replace(event, message=_with(event.message, limit))  # noqa: PLW2901
            self._one(tx, agent, event, limit)
        if ended is not None:
            self._ended(tx, agent, ended, limit)

    def _one(self, tx: Tx, agent: Agent, event: ConversationEvent, limit: Met | None) -> None:
        fact: Event | None = None
        run_id, task_id = agent.run_id, agent.task_id
        match event:
            case ConversationStarted():
                pass
            case PromptTaken(prompt_id=prompt_id):
                _mark(tx, prompt_id, PromptState.TAKEN)
            case Said(text=text):
                self._last_words[agent.agent_id] = text
                fact = AgentSaid(run_id=run_id, task_id=task_id, text=text)
            case Typed(text=text):
                taken = tx.attempts.get(agent.attempt_id)
                who = taken.held_by if taken is not None else ""
                fact = PersonTyped(run_id=run_id, task_id=task_id, agent_id=agent.agent_id, text=text, principal=who)
            case ToolCalled(tool=tool, about=about):
                attempt = tx.attempts.get(agent.attempt_id)
                if attempt is not None:
                    # The model answered, so whatever had kept it from that is over.
                    calls = attempt.tool_calls + 1
                    tx.attempts.put(replace(attempt, tool_calls=calls, interruptions=0, interrupted_at=None))
                    self._went_through(tx, agent)
                    about = _within_workspace(tx, attempt, about)
                fact = AgentUsedTool(run_id=run_id, task_id=task_id, tool=tool, about=about)
            case ToolReturned(failed=failed, about=about):
                fact = AgentToolFailed(run_id=run_id, task_id=task_id, about=about) if failed else None
            case ModelRetried(attempt=number, status=status):
                fact = ModelCallRetried(run_id=run_id, task_id=task_id, attempt=number, status=status)
            case Unrecognised(kind=kind, raw=raw):
                fact = AgentBabbled(run_id=run_id, task_id=task_id, what=kind, raw=raw)
            case TurnEnded():
                self._turn_ended(tx, agent, event, limit)
        if fact is not None:
            tx.log(fact)

    def _turn_ended(self, tx: Tx, agent: Agent, turn: TurnEnded, limit: Met | None) -> None:
        attempt = tx.attempts.get(agent.attempt_id)
        task = tx.tasks.get(agent.task_id)
        if attempt is None or task is None:
            return
        for prompt in tx.attempts.prompts(attempt.attempt_id):
            if prompt.state is PromptState.TAKEN:
                tx.attempts.put_prompt(replace(prompt, state=PromptState.ANSWERED))
        run_id, task_id = agent.run_id, agent.task_id
        trouble = None if turn.trouble is None else turn.trouble.value
        tx.log(AgentAnswered(run_id=run_id, task_id=task_id, text=turn.text or turn.message, trouble=trouble, turns=turn.turns))
        if problem := result_unkept(turn.result):
            tx.log(AgentBabbled(run_id=run_id, task_id=task_id, what="result", raw=problem))
            turn = replace(turn, result=None)
        attempt = self._book_own_cost(tx, agent, attempt, turn)
        if turn.denied:
            tx.log(AgentWasRefused(run_id=run_id, task_id=task_id, tools=turn.denied))
        if attempt.ended_at is not None or task.attempt_id != attempt.attempt_id or task.state is not TaskState.RUNNING:
            return
        if agent.by_hand or attempt.held_by:
            # It is a person's, who goes on; nothing of it is looked at, and nothing of it is a failure.
            return
        run = run_of(tx, task)
        if turn.trouble is None:
            attempt = replace(attempt, interruptions=0, interrupted_at=None)
            tx.attempts.put(attempt)
            self._went_through(tx, agent)
            self._answered(tx, attempt, task, turn)
        elif _goes_on_anyway(tx, agent, attempt, turn.trouble):
            # It was broken off, and what comes next is written down.
            return
        else:
            self._hear(tx, run, task, turn)
            self._trouble(tx, agent, attempt, task, turn.trouble, turn.message, limit=limit)

    def _went_through(self, tx: Tx, agent: Agent) -> None:
        """Take in that the model answered, where no gateway could see it."""
        run = tx.runs.get(agent.run_id)
        if run is not None and run.spec.upstream.bypass:
            self._accounts.went_through(tx, run)

    def _hear(self, tx: Tx, run: Run, task: Task, turn: TurnEnded) -> None:
        """Take in what the program says of its account, unless it only repeats what the gateway told it."""
        resets_at = turn.resets_at or reset_in(turn.message)
        if turn.trouble is None or not shuts(turn.trouble, resets_at) or told_by_gateway(turn.message):
            return
        heard = Heard(trouble=turn.trouble, message=turn.message, resets_at=resets_at, run_id=run.run_id, task_id=task.task_id)
        self._accounts.hear(tx, heard)

    def _book_own_cost(self, tx: Tx, agent: Agent, attempt: Attempt, turn: TurnEnded) -> Attempt:
        """Book a turn by the program's own count: only where no gateway has counted its calls.

        The program counts up over the whole conversation; what is booked is the difference.
        """
        run = tx.runs.get(agent.run_id)
        if turn.cost_usd is None or run is None or not run.spec.upstream.bypass:
            return attempt
        call = ModelCall(
            call_id=self._world.new_id("m"),
            agent_id=agent.agent_id,
            run_id=agent.run_id,
            task_id=agent.task_id,
            attempt_id=agent.attempt_id,
            model=run.spec.config(attempt.config).model or "",
            usage=turn.usage or Usage(),
            cost_usd=max(0.0, turn.cost_usd - attempt.own_cost_usd),
            status=200,
            seconds=0.0,
        )
        tx.ledger.add([call], tx.now)
        booked = replace(attempt, own_cost_usd=turn.cost_usd)
        tx.attempts.put(booked)
        return booked

    def _answered(self, tx: Tx, attempt: Attempt, task: Task, turn: TurnEnded) -> None:
        """Take in an answer: it is looked at, unless a person has something to say first."""
        if not _has_more_to_hear(tx, attempt):
            self._to_validation(tx, task, turn)
            return
        result = turn.result if turn.result is not None else task.result
        tx.tasks.put(replace(task, summary=turn.text.strip() or task.summary, result=result))

    def _to_validation(self, tx: Tx, task: Task, turn: TurnEnded) -> None:
        moved = replace(
            advance(task, TaskState.VALIDATING, tx.now),
            summary=turn.text.strip() or task.summary,
            result=turn.result if turn.result is not None else task.result,
        )
        tx.tasks.put(moved)
        tx.log(moved_event(moved, task.state))

    def _trouble(
        self,
        tx: Tx,
        agent: Agent,
        attempt: Attempt,
        task: Task,
        trouble: Trouble,
        message: str,
        *,
        unread: bool = False,
        limit: Met | None = None,
    ) -> None:
        """Decide whether the conversation is resumed or the attempt is over; *unread* says that a prompt waits already."""
        if trouble is Trouble.CONVERSATION_LOST and attempt.crashes < self._world.settings.crashes:
            self._begin_anew(tx, agent, attempt, task, message)
            return
        outcome = outcome_of(trouble)
        run = run_of(tx, task)
        driver = self._world.driver(run.spec.config(attempt.config).program)
        stopped = agent.state is AgentState.COMPLETING and trouble in STOPPED_IN_TURN
        ended_by_us = stopped or (self.leaving and trouble is Trouble.CRASHED)
        unread = unread or (stopped and _unread(tx, attempt))
        if (
            trouble is Trouble.CONTEXT_OVERFLOW
            and driver.capabilities.conversation
            and self._fork(tx, agent, attempt, task, message)
        ):
            return
        asks = run.spec.limits.on_spent is OnSpent.ASK
        held = self._hold(tx, run, task, trouble) if driver.capabilities.uses_gateway else None
        resumed = (
            attempt
            if ended_by_us or held is not None
            else self._counted(tx, attempt, outcome, trouble, raised=asks and OF_A_SPENT_BUDGET in message)
        )
        final = held is not None and held.final
        if final or resumed is None or not driver.capabilities.conversation or (limit is not None and not limit.again):
            text = held.detail if held is not None and final else message or f"the agent ended with {trouble.value}"
            if stopped and agent.ends_at is not None:
                chance = self._world.chance.share()
                give_up_attempt(tx, task, attempt, Outcome.STOPPED, "a person stopped its agent", chance=chance)
                return
            freely = held is not None and not final and trouble is Trouble.BUDGET
            self._give_up(tx, task, attempt, Trouble.HALTED if freely else trouble, text)
            return
        tx.attempts.put(resumed)
        if not unread:
            self._prompt(tx, resumed, go_on(limit.reason if limit is not None else ""))
        if held is not None:
            wait(tx, task, held.wait, held.detail, until=held.until)
        elif not ended_by_us:
            paused = outcome in WAITS and trouble is not Trouble.HALTED
            pause = delay(API_RETRY, resumed.interruptions, self._world.chance.share()) if paused else timedelta(0)
            wait(tx, task, WAITS.get(outcome, Wait.RETRY), message, until=tx.now + pause)
        self._end(tx, agent)

    def _hold(self, tx: Tx, run: Run, task: Task, trouble: Trouble) -> Hold | None:
        """Return what keeps the task's agent from its model, if that is why its turn ended."""
        if trouble is Trouble.BUDGET and run.spec.upstream.bypass:
            self._own_budget(tx, run, task)
        braked = trouble is Trouble.HALTED or (trouble is Trouble.BUDGET and run.spec.limits.on_spent is OnSpent.ASK)
        if braked and (hold := brakes_of(tx, tx.now).of(run, task, calls=True)):
            return hold
        account = self._accounts.shut(tx, run) if outcome_of(trouble) in WAITS else None
        if account is None:
            return None
        kind, detail, until = waits(account)
        return Hold(wait=kind, detail=detail, until=until)

    def _own_budget(self, tx: Tx, run: Run, task: Task) -> None:
        """Ask about a budget that the program keeps by itself, since no gateway counts its calls."""
        own = Budget(key=task_key(task.task_id), name=f"task {task.name}", allowance=task.spec.budget)
        limit = raised(own, brakes_of(tx, tx.now).raises).allowance.usd
        if limit is None:
            return
        spent = tx.ledger.by_task(run.run_id).get(task.task_id)
        level = Level(budget=own, resource=Resource.USD, limit=limit, spent=max(limit, spent.cost_usd if spent else 0.0))
        bounds = run.spec.limits
        found = Reached(
            run_id=run.run_id,
            task_id=task.task_id,
            level=level,
            on_spent=bounds.on_spent,
            answer_within=bounds.answer_within,
        )
        self._spending.reached(tx, [found])

    @staticmethod
    def _end(tx: Tx, agent: Agent) -> None:
        # A fresh program for what comes next: whatever state the old one was in is gone with it.
        live = tx.agents.get(agent.agent_id)
        if live is not None and live.state is AgentState.ACTIVE:
            tx.agents.put(agents.move(live, AgentState.COMPLETING, tx.now))

    def _give_up(self, tx: Tx, task: Task, attempt: Attempt, trouble: Trouble, message: str) -> None:
        """End the attempt: after an error that nobody knows it has failed, after an outage the task is given up uncounted."""
        outcome, chance = outcome_of(trouble), self._world.chance.share()
        if trouble is Trouble.HALTED:
            give_up_attempt(tx, task, attempt, outcome, message, chance=chance)
            return
        if trouble in OUTAGE and attempt.interrupted_at is not None:
            hours = self._world.settings.outage.total_seconds() / 3600
            text = f"the model API did not answer for {hours:g} hours: {message}"
            give_up_attempt(tx, task, attempt, Outcome.UNREACHABLE, text, chance=chance, for_good=True)
            return
        final = Outcome.AGENT_FAILED if outcome is Outcome.UNREACHABLE and trouble not in OUTAGE else outcome
        give_up_attempt(tx, task, attempt, final, message, chance=chance)

    def _fork(self, tx: Tx, agent: Agent, attempt: Attempt, task: Task, reason: str) -> bool:
        """Let a fresh conversation go on with the same work; say no when the last one was such a one and got nowhere."""
        at_once = attempt.overflows > 0 and attempt.tool_calls == attempt.overflow_calls
        if at_once or attempt.overflows >= self._world.settings.overflows:
            return False
        fresh = replace(
            attempt,
            conversation_id=self._world.chance.uuid(),
            overflows=attempt.overflows + 1,
            overflow_calls=attempt.tool_calls,
            own_cost_usd=0.0,
        )
        tx.attempts.put(fresh)
        for prompt in tx.attempts.prompts(attempt.attempt_id):
            # They belong to the conversation that is left behind; the next deployment writes a first prompt for the new one.
            # What a person wants to say was not said in any.
            if not unsaid(prompt):
                tx.attempts.put_prompt(replace(prompt, state=PromptState.DROPPED))
        last_words = self._last_words.get(agent.agent_id, task.summary)
        wait(tx, replace(task, summary=last_words), Wait.RETRY, "its conversation became too long; a fresh one goes on")
        run_id, task_id = task.run_id, task.task_id
        tx.log(ConversationForked(run_id=run_id, task_id=task_id, attempt_id=attempt.attempt_id, reason=reason))
        self._end(tx, agent)
        return True

    def _begin_anew(self, tx: Tx, agent: Agent, attempt: Attempt, task: Task, message: str) -> None:
        """Let a new conversation begin in the same workspace, with the task's own prompt: nothing is left of the old one."""
        prompts = tx.attempts.prompts(attempt.attempt_id)
        for prompt in prompts:
            # What a person wants to say comes after the task.
            if not unsaid(prompt):
                tx.attempts.put_prompt(replace(prompt, state=PromptState.DROPPED))
        anew = replace(attempt, conversation_id=self._world.chance.uuid(), own_cost_usd=0.0, crashes=attempt.crashes + 1)
        tx.attempts.put(anew)
        self._prompt(tx, attempt, prompts[0].text)
        wait(tx, task, Wait.RETRY, message, until=tx.now)
        self._end(tx, agent)

    def _counted(self, tx: Tx, attempt: Attempt, outcome: Outcome, trouble: Trouble, *, raised: bool) -> Attempt | None:
        """Return *attempt* with one more interruption or crash, or None when it may not be resumed any more."""
        if trouble is Trouble.HALTED:
            # It was lifted meanwhile.
            return attempt
        if trouble in OUTAGE:
            # Hours without an answer are nobody's failure: what bounds them is time.
            began = attempt.interrupted_at or tx.now
            if tx.now - began >= self._world.settings.outage:
                return None
            return replace(attempt, interruptions=attempt.interruptions + 1, interrupted_at=began)
        # A budget that is not spent any more was raised meanwhile, or whoever led died before it had written that it was.
        if outcome in WAITS or (trouble is Trouble.BUDGET and raised):
            again = attempt.interruptions < self._world.settings.interruptions
            return replace(attempt, interruptions=attempt.interruptions + 1) if again else None
        if trouble is Trouble.CRASHED and attempt.crashes < self._world.settings.crashes:
            return replace(attempt, crashes=attempt.crashes + 1)
        return None

    def _ended(self, tx: Tx, agent: Agent, ended: Ended, limit: Met | None) -> None:
        """Write down that the agent's process is gone, and what that means if it was not done."""
        current = tx.agents.get(agent.agent_id) or agent
        tx.agents.put(agents.move(current, AgentState.STOPPED, tx.now))
        self._last_words.pop(agent.agent_id, None)
        tx.log(AgentStopped(run_id=agent.run_id, task_id=agent.task_id, agent_id=agent.agent_id, exit_code=ended.exit_code))
        attempt = tx.attempts.get(agent.attempt_id)
        task = tx.tasks.get(agent.task_id)
        if attempt is None or task is None or attempt.ended_at is not None or task.attempt_id != attempt.attempt_id:
            return
        if agent.by_hand or attempt.held_by:
            self._take_back(tx, attempt)
            if agent.by_hand:
                give_back(self._world, tx, task, tx.attempts.get(attempt.attempt_id) or attempt)
            return
        if ended.timed_out and task.state in {TaskState.RUNNING, TaskState.ASSIGNED}:
            minutes = task.spec.timeout.total_seconds() / 60
            message = f"it ran longer than its time limit of {minutes:g} minutes"
            give_up_attempt(tx, task, attempt, Outcome.TIMED_OUT, message, chance=self._world.chance.share())
            return
        if self.leaving and current.frozen_by:
            # Whoever froze it did not want it to go on by itself.
            pause_task(tx, task.task_id, current.frozen_by)
        unread = self._take_back(tx, attempt)
        if task.state is not TaskState.RUNNING:
            return
        if current.state is AgentState.COMPLETING:
            self._go_on_later(tx, attempt, unread=unread)
            return
        if unread and agent.agent_id in self.adopted:
            # It had nothing to do, and its input ended with the leader that started it.
            return
        # It was neither told to end nor done. That counts, or a program that ends at once would be started for ever.
        message = f"the agent's program ended (exit code {ended.exit_code}) without an answer"
        message = message if limit is None else _with(message, limit)
        self._trouble(tx, current, attempt, task, Trouble.CRASHED, message, unread=unread, limit=limit)

    def _go_on_later(self, tx: Tx, attempt: Attempt, *, unread: bool) -> None:
        """Write down with which prompt an agent goes on, when it is given back, that was stopped in the middle of its turn."""
        prompts = tx.attempts.prompts(attempt.attempt_id)
        if unread or all(prompt.state is PromptState.DROPPED for prompt in prompts):
            return
        self._prompt(tx, attempt, go_on())

    def _prompt(self, tx: Tx, attempt: Attempt, text: str) -> None:
        prompt_id = PromptId(self._world.chance.uuid())
        record = PromptRecord(prompt_id=prompt_id, attempt_id=attempt.attempt_id, round=attempt.round, text=text)
        tx.attempts.put_prompt(record)

    @staticmethod
    def _take_back(tx: Tx, attempt: Attempt) -> bool:
        """Let prompts that were written and never read go to the next process, under the same id; say if there are any.

        One that was read is over with its process, also when nothing tells how (its spool is gone): nobody waits for it. Where
        there was one, what a person wants to say later is nothing to go on with.
        """
        unread = False
        prompts = tx.attempts.prompts(attempt.attempt_id)
        cut = any(prompt.state is PromptState.TAKEN for prompt in prompts)
        for prompt in prompts:
            if prompt.state is PromptState.SENT:
                tx.attempts.put_prompt(replace(prompt, state=PromptState.PENDING))
            if prompt.state is PromptState.TAKEN:
                tx.attempts.put_prompt(replace(prompt, state=PromptState.ANSWERED))
            later = prompt.state is PromptState.PENDING and prompt.sender and cut
            unread = unread or (prompt.state in {PromptState.SENT, PromptState.PENDING} and not later)
        return unread


def _with(message: str, limit: Met) -> str:
    """Return *message* with the limit in its first line: what follows is what a program said, and the end of it may be cut."""
    first, line, rest = message.partition("\n")
    return f"{first}: {limit.reason}{line}{rest}" if message else limit.reason


def _within_workspace(tx: Tx, attempt: Attempt, about: str) -> str:
    """Return what a tool was called with, paths relative to the workspace: people know the file, not where it lies."""
    workspace = tx.agents.workspace(attempt.workspace_id) if attempt.workspace_id is not None else None
    return about.replace(f"{workspace.path}/", "") if workspace is not None else about


def _unread(tx: Tx, attempt: Attempt) -> bool:
    """Say whether its turn has something to go on with; what a person has to say is no such thing."""
    prompts = tx.attempts.prompts(attempt.attempt_id)
    return any(prompt.state is PromptState.PENDING and not prompt.sender for prompt in prompts)


def _has_more_to_hear(tx: Tx, attempt: Attempt) -> bool:
    """Say whether something was said aside, or by a person, that its agent has not read: it is not done before.

    What it was to be told after an interruption that came too late is dropped.
    """
    more = waiting_prompts(tx, attempt)
    for prompt in tx.attempts.prompts(attempt.attempt_id):
        if prompt.aside:
            more = more or prompt.state in {PromptState.PENDING, PromptState.SENT}
        elif prompt.state is PromptState.PENDING and not prompt.sender:
            tx.attempts.put_prompt(replace(prompt, state=PromptState.DROPPED))
    return more


def _goes_on_anyway(tx: Tx, agent: Agent, attempt: Attempt, trouble: Trouble) -> bool:
    """Say whether its turn was broken off on purpose: what it is to do then waits for it already."""
    current = tx.agents.get(agent.agent_id)
    on_purpose = trouble is Trouble.INTERRUPTED or (current is not None and current.state is AgentState.COMPLETING)
    prompts = [prompt for prompt in tx.attempts.prompts(attempt.attempt_id) if not prompt.aside]
    if not on_purpose or all(prompt.state is not PromptState.PENDING or prompt.sender for prompt in prompts):
        return False
    for prompt in prompts:
        if prompt.state is PromptState.SENT:
            # Its turn is over, whether or not its program has said that it had begun.
            tx.attempts.put_prompt(replace(prompt, state=PromptState.ANSWERED))
    return True


def _mark(tx: Tx, prompt_id: PromptId, state: PromptState) -> None:
    prompt = tx.attempts.prompt(prompt_id)
    if prompt is not None and prompt.state in {PromptState.PENDING, PromptState.SENT}:
        tx.attempts.put_prompt(replace(prompt, state=state))
