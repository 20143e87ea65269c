"""Events in words: the lines of `run` in a pipe and of `logs`."""

from collections.abc import Callable, Iterator, Mapping

from kapelle.apps.cli.steered import steered
from kapelle.core.account_events import AccountLimited, AccountRefused, AccountRestored
from kapelle.core.batch_events import BatchBroke, BatchTried, CheckFlaked
from kapelle.core.brake_events import BudgetAsked, BudgetRaised, BudgetStopped, BudgetWithdrawn, HaltBegun, HaltLifted
from kapelle.core.budget import Resource, amount_told, amounts_told
from kapelle.core.conversation import Trouble
from kapelle.core.events import (
    AgentAnswered,
    AgentSaid,
    AgentToolFailed,
    AgentUsedTool,
    AgentWasRefused,
    AttemptEnded,
    BudgetReached,
    BudgetWarned,
    ChangeApproved,
    ChangeConflicted,
    ChangeMerged,
    ChangeReturned,
    CheckEnded,
    ConversationForked,
    Event,
    GateFailed,
    GatePassed,
    ModelCallRetried,
    PromptSent,
    RequestRefused,
    RunEnded,
    SnapshotKept,
    TargetDelivered,
    TargetHeldUp,
    TaskFailed,
    TaskMoved,
    TaskWaited,
    WorkspaceStuck,
)
from kapelle.core.gate import CheckState
from kapelle.core.isolation_events import LimitMet, NetworkDenied
from kapelle.core.liveness import IN_WORDS, TOLD_ELSEWHERE, Condition
from kapelle.core.liveness_events import (
    AgentGivenUp,
    AgentInterrupted,
    AgentNoted,
    AgentNudged,
    AgentProbed,
    AgentRecovered,
    AgentRestarted,
    AlertCleared,
    AlertRaised,
)
from kapelle.core.network import what_was_refused
from kapelle.core.plain_text import shown, shown_block, shown_files
from kapelle.core.pool_events import AgentCleared, AgentWorn, PoolScaled, SpareFailed, SpareGiven, SpareReady, TaskAssigned
from kapelle.core.question import ASKS
from kapelle.core.rule_events import (
    CommandDenied,
    QuestionAnswered,
    QuestionAsked,
    QuestionExpired,
    WardenFailed,
    WardenRefused,
)
from kapelle.core.steering_events import PersonTyped
from kapelle.core.task import Wait

LONGEST = 160
"""Characters of what a tool was called with."""

Words = Callable[[Event], str | None]


def line_of(
    event: Event, names: Mapping[str, str], *, whole: bool = False, prompts: bool = False, again: bool = False
) -> Iterator[str]:
    """Yield the lines that tell of *event*; none when it is too small to tell. *whole* adds what agents and checks said.

    *again*: the same prompt was sent before, to a process that ended and had not read it.
    """
    name = names.get(event.task_id, event.task_id) if event.task_id is not None else None
    lead = f"{shown(name)}: " if name else ""
    text = _told(event)
    # What is told in one line stays in it, whatever the names and words in it are.
    text = shown(text) if text is not None else (_said(event, prompts=prompts, again=again) if whole else None)
    if whole and text is not None and isinstance(event, CheckEnded) and event.tail:
        text = f"{text}\n{event.tail.strip()}"
    if text is None:
        return
    text = shown_block(text)
    for number, line in enumerate(text.splitlines()):
        yield f"{lead if number == 0 else ' ' * len(lead)}{line}"


def _first(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""


def _told(event: Event) -> str | None:
    match event:
        case TaskFailed(failure=failure):
            return f"failed: {_first(failure.message)}" if failure is not None else "failed"
        case TaskMoved(note=note):
            state = "pending again" if event.kind == "task.returned" else event.kind.removeprefix("task.")
            return f"{state} ({_first(note)})" if note else state
        case TaskWaited(waits_for=Wait.APPROVAL, detail=detail) if detail.startswith(ASKS):
            # The question itself is told.
            return None
        case TaskWaited(waits_for=Wait.APPROVAL, task_id=task_id, detail=detail):
            why = f" ({_first(detail)})" if detail else ""
            return f"waits for approval{why}: kapelle approve {task_id}"
        case TaskWaited(waits_for=waits, detail=detail) if waits is not None:
            return f"waits for {waits.value}" + (f": {_first(detail)}" if detail else "")
        case AttemptEnded(outcome=outcome, message=message) if outcome != "succeeded":
            return f"attempt ended: {outcome}" + (f": {_first(message)}" if message else "")
        case AgentUsedTool(tool=tool, about=about):
            return f"  {tool} {about[:LONGEST]}".rstrip()
        case AgentWasRefused(tools=tools):
            return f"  was refused: {', '.join(tools)}"
        case ModelCallRetried(attempt=attempt, status=status):
            return f"  model call is tried again ({attempt}. time, {status or 'no answer'})"
        case AccountLimited(account=account, resets_at=resets_at, reason=reason):
            until = f" until {resets_at.astimezone():%a %H:%M:%S}" if resets_at is not None else ""
            return f"{account} is at its limit{until}: all that uses it waits ({_first(reason)})"
        case AccountRefused(account=account, remedy=remedy):
            return f"{account} is refused, all that uses it waits: {remedy}"
        case AccountRestored(account=account):
            return f"{account} goes again"
        case ConversationForked():
            return "its conversation became too long; a fresh one goes on"
        case BudgetReached() | BudgetWarned():
            return _of_budget(event)
        case _:
            return _ruled(event)


def _of_budget(event: BudgetReached | BudgetWarned) -> str:
    resource = Resource(event.resource)
    told = amounts_told(resource, event.spent, event.limit)
    share = "" if isinstance(event, BudgetReached) or not event.limit else f"{event.spent / event.limit:.0%} of "
    return f"{share}the budget of {event.budget} is spent ({told})"


def _braked(event: BudgetAsked | BudgetRaised | BudgetStopped | BudgetWithdrawn | HaltBegun | HaltLifted) -> str:
    match event:
        case BudgetAsked(spent_id=spent_id, budget=budget, deadline_at=until):
            otherwise = f"; without an answer until {until.astimezone():%a %H:%M:%S}: stop" if until is not None else ""
            return f"all under the budget of {budget} waits for you: kapelle answer {spent_id} raise AMOUNT, or stop{otherwise}"
        case BudgetRaised(budget=budget, principal=principal, more=more, limit=limit, reason=reason):
            resource = Resource(event.resource)
            by = f"by {amount_told(resource, more)}, to {amount_told(resource, limit)}"
            return f"{principal} raised the budget of {budget} {by}" + (f": {_first(reason)}" if reason else "")
        case BudgetStopped(budget=budget, principal=principal, tasks=tasks, reason=reason):
            who = f"{principal} said stop" if principal else "nobody answered in time"
            why = f": {_first(reason)}" if reason else ""
            return f"the budget of {budget} stays spent, {who}{why}; {tasks} waiting {'task' if tasks == 1 else 'tasks'} failed"
        case BudgetWithdrawn(budget=budget):
            return f"nobody is asked about the budget of {budget} any more: it begins anew, or what spent under it has ended"
        case HaltBegun(principal=principal, reason=reason):
            return f"{principal} halted everything: kapelle unhalt" + (f" ({_first(reason)})" if reason else "")
        case HaltLifted(principal=principal, reason=reason):
            return f"{principal} lets everything go on" + (f" ({_first(reason)})" if reason else "")


def _ruled(event: Event) -> str | None:
    match event:
        case QuestionAsked(question_id=question_id, tool=tool, what=what, reason=reason, default=default, deadline_at=until):
            why = f" ({_first(reason)})" if reason else ""
            answers = f"kapelle answer {question_id} allow|deny|always"
            otherwise = f"without an answer until {until.astimezone():%H:%M:%S}: {default}"
            return f"asks: {tool}: {what[:LONGEST]}{why}: {answers}; {otherwise}"
        case QuestionAnswered(answer=answer, principal=principal, reason=reason):
            return f"{principal} said {answer}" + (f": {_first(reason)}" if reason else "")
        case QuestionExpired(default=default):
            return f"nobody answered in time: {default}"
        case CommandDenied(tool=tool, what=what, rule=rule, reason=reason, times=times):
            by = f" by {rule}" if rule else ""
            return f"  denied{by}{_times(times)}: {tool}: {what[:LONGEST]} ({_first(reason)})"
        case RequestRefused(reason=reason):
            return f"a request was refused: {_first(reason)}"
        case WardenRefused(reason=reason, times=times):
            return f"its warden{_times(times)}: {_first(reason)}"
        case WardenFailed(reason=reason):
            return f"its warden: {_first(reason)}"
        case NetworkDenied():
            return f"  {what_was_refused(event.host, event.port, event.reason, event.times)}"
        case LimitMet(reason=reason):
            return f"met a limit: {_first(reason)}"
        case _:
            return _watched(event)


def _watched(event: Event) -> str | None:
    match event:
        case AgentNoted(condition=condition) if condition in TOLD_ELSEWHERE:
            return None
        case AgentNoted() | AgentProbed() | AgentNudged() | AgentInterrupted() | AgentRestarted() | AgentGivenUp():
            return _of_liveness(event)
        case AgentRecovered(after=after) if after in TOLD_ELSEWHERE:
            return None
        case AgentRecovered(after=after):
            return f"its agent works again (before, it was: {IN_WORDS[Condition(after)]})"
        case AlertRaised(alert=alert, told=told):
            return f"alert {alert}: {told}"
        case AlertCleared(alert=alert):
            return f"alert {alert} is over"
        case BudgetAsked() | BudgetRaised() | BudgetStopped() | BudgetWithdrawn() | HaltBegun() | HaltLifted():
            return _braked(event)
        case _:
            return steered(event) or _proven(event)


DONE: dict[str, str] = {
    "agent.noted": "",
    "agent.probed": "; it was probed",
    "agent.nudged": "; it was told so",
    "agent.interrupted": "; its turn was broken off, and it goes on with what was seen",
    "agent.restarted": "; its program is started anew, and its conversation goes on",
    "agent.given_up": "; its attempt was given up",
}


def _of_liveness(
    event: AgentNoted | AgentProbed | AgentNudged | AgentInterrupted | AgentRestarted | AgentGivenUp,
) -> str:
    why = f" ({'; '.join(_first(reason) for reason in event.evidence)})" if event.evidence else ""
    return f"its agent: {IN_WORDS[Condition(event.condition)]}{why}{DONE[event.kind]}"


def _times(times: int) -> str:
    return f" {times} times more" if times > 1 else ""


def _proven(event: Event) -> str | None:
    match event:
        case CheckEnded(state=state, check=check, where=where, gate=gate, limit=limit) if state is not CheckState.PASSED:
            return f"check {gate}/{check} {state.value} ({where})" + (f": {limit}" if limit else "")
        case GatePassed(gate=gate, reused=reused, where=where) if gate != "none":
            return f"gate {gate} passed ({where}{', receipt reused' if reused else ''})"
        case GateFailed(gate=gate, check=check, where=where):
            return f"gate {gate} failed at {check} ({where})"
        case SnapshotKept(ref=ref):
            return f"unmerged work is kept under {ref}"
        case WorkspaceStuck(path=path, reason=reason):
            return f"its workspace stays at {path}: {_first(reason)}"
        case RunEnded(state=state, completed=completed, failed=failed):
            return f"run {state}: {completed} completed, {failed} failed"
        case _:
            return _merged(event)


def _merged(event: Event) -> str | None:
    match event:
        case ChangeApproved(principal=principal):
            return f"let through by {principal}"
        case BatchTried(changes=changes, again=again, target=target) if again or len(changes) > 1:
            what = "once more by itself" if again else f"{len(changes)} changes together"
            return f"merge queue of {target}: {what}"
        case BatchBroke(changes=changes, target=target, reason=reason) if len(changes) > 1:
            return (
                f"merge queue of {target}: {len(changes)} changes together do not pass ({_first(reason)}); looking for the one"
            )
        case CheckFlaked(before=before):
            return f"flaky: {before}, and passes now on the very same tree"
        case ChangeConflicted(files=files):
            return f"conflict in {shown_files(files)}"
        case ChangeReturned(reason=reason):
            return f"back to its agent: {_first(reason)}"
        case ChangeMerged(commit=commit, target=target):
            return f"merged into {target} as {commit[:10]}"
        case TargetDelivered(target=target, commit=commit):
            return f"{target} is now {commit[:10]}"
        case TargetHeldUp(target=target, reason=reason, remedy=remedy):
            return f"{target} was not moved: {_first(reason)}" + (f" ({remedy})" if remedy else "")
        case _:
            return _pooled(event)


def _pooled(event: Event) -> str | None:
    match event:
        case SpareReady(config=config, agent_id=agent_id):
            return f"{config} {agent_id} waits for a task"
        case SpareGiven(config=config):
            return f"given to one that stood ready ({config})"
        case AgentCleared(config=config):
            return f"its {config} is as new, and goes on to another task"
        case AgentWorn(reason=reason):
            return f"its agent does not go on to another task: {_first(reason)}"
        case SpareFailed(config=config, reason=reason):
            return f"no {config} could be started beforehand: {_first(reason)}"
        case PoolScaled(config=config, wanted=wanted, principal=principal):
            return f"{principal} wants {config} as configured" if wanted is None else f"{principal} wants {wanted} of {config}"
        case TaskAssigned(config=config, forced=forced, principal=principal):
            return f"given to {config} by {principal}" + (", whatever limits say" if forced else "")
        case _:
            return None


def _said(event: Event, *, prompts: bool, again: bool) -> str | None:
    match event:
        case PromptSent(text=text, round=round_, sender=sender):
            whose = f"{sender} says" if sender else "prompt"
            if again:
                return f"{whose} (round {round_}): handed over once more, nobody had read it: {_first(text)}"
            return f"{whose} (round {round_}):\n{text}" if prompts else f"{whose} (round {round_}): {_first(text)}"
        case AgentSaid(text=text):
            return f"  | {text}"
        case AgentToolFailed(about=about):
            return f"  tool failed: {_first(about)}"
        case AgentAnswered(trouble=trouble, text=text) if trouble is not None:
            # What a program says of it inside is for nobody who reads this.
            words = "it was interrupted" if trouble == Trouble.INTERRUPTED else f"{trouble}: {_first(text)}"
            return f"  turn ended: {words}"
        case PersonTyped(principal=principal, text=text):
            whose = f"{principal or 'a person'} at its screen"
            return f"{whose}:\n{text}" if prompts else f"{whose}: {_first(text)}"
        case CheckEnded(tail=tail) if tail:
            return tail
        case _:
            return None
