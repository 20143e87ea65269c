"""The inbox: everything that waits for a person, whatever it is, and what an answer to it asks of the leader."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from kapelle.apps.budgeting import amount_of
from kapelle.apps.delivering import held_up
from kapelle.apps.reviewing import review_of_task
from kapelle.core.account import AccountState, account_of, remedy
from kapelle.core.budget import amount_told
from kapelle.core.builtin_rules import BUILTIN
from kapelle.core.errors import Ambiguous, NotFound, NotPossibleNow, UsageError
from kapelle.core.frozen import frozen
from kapelle.core.halt import told as halt_told
from kapelle.core.ids import RunId, TaskId
from kapelle.core.plain_text import shown_files
from kapelle.core.question import AnswerKind, Question, QuestionState
from kapelle.core.requests import Answer, AnswerSpent, Approve, Body, Reject, Resume
from kapelle.core.rules import Fallback
from kapelle.core.run import Run
from kapelle.core.spent import SpentAnswer, SpentBudget, SpentState, example
from kapelle.core.standings import Alert
from kapelle.core.store import View
from kapelle.core.task import TERMINAL, Task, TaskState, Wait

PREFIX = "i-"
"""How the ids of questions begin."""
OF_BUDGET = "b-"
"""How those of spent budgets do; both are as long."""
NAMED = 5
"""Tasks that wait which are told by name."""
Said = AnswerKind | SpentAnswer
YES_OR_NO = (AnswerKind.ALLOW, AnswerKind.DENY)
BUILT_IN = frozenset(builtin.name for builtin in BUILTIN)
LISTS = "`kapelle inbox` lists what waits."
TRY_AGAIN = (AnswerKind.ALLOW,)
"""For what a person sees to elsewhere: then it is tried again."""


@frozen
class Item:
    """Something that waits for a person."""

    item_id: str
    """What is answered: a question, a spent budget, a task or a run."""
    kind: str
    """``question``, ``budget``, ``approval``, ``change``, ``account``, ``target``, ``halt`` or ``alert``."""
    run_id: RunId
    task_id: TaskId | None = None
    name: str
    """Of the task, the account or the target."""
    what: str
    why: str = ""
    rule: str = ""
    """The rule that asks: its text, or the name of a built-in one."""
    answers: tuple[Said, ...] = YES_OR_NO
    otherwise: str = ""
    """The command that sees to it, where nothing can be answered."""
    always: tuple[str, ...] = ()
    """What `always` would let through for the rest of the run."""
    since: datetime | None = None
    deadline_at: datetime | None = None
    default: Fallback | SpentAnswer | None = None
    """What happens at the deadline."""

    @property
    def because(self) -> str:
        """Why, in few words: a person's own rule says it by itself."""
        if not self.rule:
            return self.why
        return f"{self.rule}: {self.why}" if self.rule in BUILT_IN else self.rule


def inbox(view: View) -> list[Item]:
    """Return everything that waits for a person; what an agent waits for at this moment comes first."""
    runs = list(view.runs.open())
    found = [_question(view, question) for question in view.questions.open()]
    found += [_spent(view, row) for row in view.brakes.spent() if row.state is SpentState.OPEN]
    for run in runs:
        waiting = view.tasks.waiting(run.run_id, Wait.APPROVAL)
        found += [item for task in waiting for item in _of_task(view, run, task)]
    return [*_halt(view), *found, *_accounts(view, runs), *_targets(view, runs)]


def alert_item(alert: Alert) -> Item:
    """Return what waits for a person since a bound was passed by: nothing is to be answered."""
    name = f"{alert.name} of {alert.project}" if alert.project else alert.name
    return Item(item_id="", kind="alert", run_id=RunId(""), name=name, what=alert.told, answers=(), since=alert.raised_at)


def _question(view: View, question: Question) -> Item:
    task = view.tasks.get(question.task_id)
    return Item(
        item_id=question.question_id,
        kind="question",
        run_id=question.run_id,
        task_id=question.task_id,
        name=task.name if task is not None else question.task_id,
        what=f"{question.tool}: {question.what}",
        why=question.reason,
        rule=question.rule,
        answers=tuple(AnswerKind),
        always=question.keys,
        since=question.asked_at,
        deadline_at=question.deadline_at,
        default=question.default,
    )


def _spent(view: View, row: SpentBudget) -> Item:
    # It loads the engine, and most who look have no budget that is spent.
    from kapelle.engine.spending import waiting_for

    names = [task.name for _, task in waiting_for(view, row)]
    named = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    waits = "1 task waits" if len(names) == 1 else f"{len(names)} tasks wait"
    return Item(
        item_id=row.spent_id,
        kind="budget",
        run_id=row.run_id,
        name=row.name,
        what=f"{row.amounts} spent; {waits}" + (f": {named}" if named else ""),
        why=f"raise it BY an amount, such as {example(row.resource)}, or stop: what waits fails, its work is kept",
        answers=tuple(SpentAnswer),
        since=row.asked_at,
        deadline_at=row.deadline_at,
        default=SpentAnswer.STOP if row.deadline_at is not None else None,
    )


def _halt(view: View) -> Iterator[Item]:
    halt = view.brakes.halt()
    if halt is not None:
        yield Item(
            item_id=halt.halt_id,
            kind="halt",
            run_id=RunId(""),
            name="everything",
            what="let it go on",
            why=halt_told(halt),
            answers=(),
            otherwise="kapelle unhalt",
            since=halt.began_at,
        )


def _of_task(view: View, run: Run, task: Task) -> Iterator[Item]:
    if task.state not in {TaskState.PENDING, TaskState.MERGING}:
        return
    review = review_of_task(view, task.task_id, task.name)
    yield Item(
        item_id=task.task_id,
        kind="approval" if review is None else "change",
        run_id=run.run_id,
        task_id=task.task_id,
        name=task.name,
        what="start the task" if review is None else f"merge {review.commit[:10]}, which changes {shown_files(review.files)}",
        why="the workflow says: approval" if review is None else f"look at it: git show {review.commit[:10]}",
    )


def _accounts(view: View, runs: list[Run]) -> Iterator[Item]:
    told: set[str] = set()
    for run in runs:
        account = view.accounts.get(account_of(run.spec.upstream).account_id)
        if account is None or account.state is not AccountState.REFUSED or account.account_id in told:
            continue
        told.add(account.account_id)
        yield Item(
            item_id=run.run_id,
            kind="account",
            run_id=run.run_id,
            name=account.name,
            what="try it again",
            why=remedy(account),
            answers=TRY_AGAIN,
            since=account.began_at,
        )


def _targets(view: View, runs: list[Run]) -> Iterator[Item]:
    for held in held_up(view, runs):
        why = f"{held.why}; {held.remedy}" if held.remedy else held.why
        first = held.run_ids[0]
        what = f"move {held.target} to what was merged"
        yield Item(item_id=first, kind="target", run_id=first, name=held.target, what=what, why=why, answers=TRY_AGAIN)


def answer_to(view: View, word: str, answer: Said, reason: str, amount: str = "") -> tuple[Item, Body]:
    """Return what *word* (an id of the inbox, enough of its beginning, or the name of a task) means, and what to ask for.

    *amount* is by how much a budget is raised.

    Raises:
        NotFound: nothing in the inbox is called so.
        NotPossibleNow: it is a question that does not wait any more.
        Ambiguous: more than one thing is.
        UsageError: this cannot be answered like that.
    """
    item = _called(view, word)
    if answer not in item.answers:
        possible = " or ".join(kind.value for kind in item.answers)
        remedy = f"Answer with {possible}." if possible else f"This does it: {item.otherwise}"
        raise UsageError(f"{item.item_id} cannot be answered with {answer.value}", remedy=remedy)
    if amount and answer is not SpentAnswer.RAISE:
        raise UsageError(f"{answer.value} takes no amount, and there is {amount[:100]!r}", remedy="Leave it out.")
    if item.kind == "budget":
        return item, _of_budget(view, item, answer, reason, amount)
    if item.kind == "question" and isinstance(answer, AnswerKind):
        question = next(entry for entry in view.questions.open() if entry.question_id == item.item_id)
        return item, Answer(run_id=item.run_id, question_id=question.question_id, answer=answer, reason=reason)
    if item.task_id is None:
        return item, Resume(run_id=item.run_id)
    if answer is AnswerKind.ALLOW:
        return item, Approve(run_id=item.run_id, task_id=item.task_id)
    return item, Reject(run_id=item.run_id, task_id=item.task_id, reason=reason)


def _of_budget(view: View, item: Item, answer: Said, reason: str, amount: str) -> AnswerSpent:
    row = next(each for each in view.brakes.spent() if each.spent_id == item.item_id)
    said = SpentAnswer(answer.value)
    if said is SpentAnswer.RAISE and not amount:
        remedy = f"kapelle answer {item.item_id} raise {example(row.resource)}"
        raise UsageError("raise needs an amount: by how much more may be spent", remedy=remedy)
    more = amount_of(row.resource, amount) if said is SpentAnswer.RAISE else 0.0
    return AnswerSpent(run_id=row.run_id, spent_id=row.spent_id, answer=said, more=more, reason=reason)


def _called(view: View, word: str) -> Item:
    items = inbox(view)
    found = [item for item in items if word == item.item_id] or [item for item in items if word == item.name and item.task_id]
    found = found or [item for item in items if item.item_id.startswith(word) or item.item_id[len(PREFIX) :].startswith(word)]
    if len(found) > 1:
        which = ", ".join(f"{item.item_id} ({item.name})" for item in found)
        raise Ambiguous(f"{word} means more than one thing: {which}", remedy="Write more of the id.")
    if found:
        return found[0]
    letters = word.removeprefix(PREFIX)
    letters = letters.removeprefix(OF_BUDGET)
    answered = view.brakes.find_spent(f"{OF_BUDGET}{letters}") if letters else ()
    if len(answered) == 1 and not word.startswith(PREFIX):
        raise _settled_budget(answered[0])
    settled = view.questions.find(f"{PREFIX}{letters}") if letters else ()
    if len(settled) == 1:
        # With more of them nobody knows which was meant.
        raise _settled(view, settled[0])
    raise NotFound(f"nothing in the inbox is called {word}", remedy=LISTS)


def _settled_budget(row: SpentBudget) -> NotPossibleNow:
    """Return what became of the question about a budget that is not open any more."""
    name, by = row.spent_id, row.answered_by.removeprefix("person:")
    match row.state:
        case SpentState.RAISED:
            return NotPossibleNow(
                f"{name} was answered already: raise by {amount_told(row.resource, row.more)} ({by})", remedy=LISTS
            )
        case SpentState.STOPPED if by:
            return NotPossibleNow(f"{name} was answered already: stop ({by})", remedy=LISTS)
        case SpentState.STOPPED:
            return NotPossibleNow(f"nobody answered {name} in time: stop", remedy=LISTS)
        case _:
            return NotPossibleNow(f"{name} was withdrawn: nobody spends under the budget of {row.name} any more", remedy=LISTS)


def _settled(view: View, question: Question) -> NotPossibleNow:
    """Return what became of a question that is not open any more."""
    name = question.question_id
    if question.state is QuestionState.ANSWERED and question.answer is not None:
        by = question.answered_by.removeprefix("person:")
        return NotPossibleNow(f"{name} was answered already: {question.answer.value} ({by})", remedy=LISTS)
    if question.state is QuestionState.EXPIRED:
        return NotPossibleNow(f"nobody answered {name} in time: {question.default.value}", remedy=LISTS)
    task = view.tasks.get(question.task_id)
    if task is None or task.state in TERMINAL:
        how = f": {task.name} is {task.state.value}" if task is not None else ""
        return NotPossibleNow(f"{name} was withdrawn when its agent ended{how}", remedy=LISTS)
    again = [other.question_id for other in view.questions.open() if other.task_id == question.task_id]
    if again:
        return NotPossibleNow(f"{name} was withdrawn; {task.name} asks {', '.join(again)} now", remedy=LISTS)
    return NotPossibleNow(
        f"{name} was withdrawn when its agent was ended; {task.name} asks again when it goes on",
        remedy=f"`kapelle resume {question.run_id}` goes on when nobody leads.",
    )


def item_json(item: Item) -> dict[str, Any]:
    """Return *item* as JSON."""
    return {
        "id": item.item_id or None,
        "kind": item.kind,
        "run": item.run_id or None,
        "task": item.task_id,
        "name": item.name,
        "what": item.what,
        "why": item.why or None,
        "rule": item.rule or None,
        "answers": [answer.value for answer in item.answers],
        "otherwise": item.otherwise or None,
        "always": list(item.always),
        "since": item.since.isoformat() if item.since else None,
        "deadline_at": item.deadline_at.isoformat() if item.deadline_at else None,
        "default": item.default.value if item.default is not None else None,
    }
