"""Everything that is put into a store comes back as it was, in every field, and can be replaced."""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from kapelle.core.account import Account, AccountState
from kapelle.core.agent import Agent
from kapelle.core.attempt import Attempt, PromptRecord
from kapelle.core.frozen import replace
from kapelle.core.gate import Receipt
from kapelle.core.ids import AccountId, AgentId, AttemptId, ChangeId, PromptId, RunId, TaskId, WorkspaceId
from kapelle.core.merge import Change, Integration
from kapelle.core.run import Run
from kapelle.core.store import Tx, View, WorkspaceRow
from kapelle.core.task import Task
from kapelle.testing.conformance.samples import NOON, a_run, a_task, for_all, new_id, some
from kapelle.testing.conformance.transactions import Led, StoreTests

R = TypeVar("R")


async def comes_back(led: Led, kind: type[R], put: Callable[[Tx, R], None], get: Callable[[Tx, R], R | None]) -> None:
    """Put many values of *kind*, each of which is replaced by nothing but itself."""

    def work(tx: Tx) -> None:
        def check(thing: R) -> None:
            put(tx, thing)
            assert get(tx, thing) == thing

        for_all(kind, check)

    await led.do(work)


class TableSuite(StoreTests):
    """One test for each kind of row, and one for each way of writing it."""

    async def test_a_runcomes_back(self, led: Led) -> None:
        """With its whole specification."""

        def work(tx: Tx) -> None:
            def check(run: Run) -> None:
                fresh = replace(run, run_id=RunId(new_id("r")))
                tx.runs.add(fresh)
                assert tx.runs.get(fresh.run_id) == fresh

            for_all(Run, check)

        await led.do(work)

    async def test_everything_of_a_run_but_its_spec_is_replaced(self, led: Led) -> None:
        """What was submitted never changes."""

        def work(tx: Tx) -> None:
            def check(run: Run) -> None:
                first = a_run()
                tx.runs.add(first)
                tx.runs.put(replace(run, run_id=first.run_id))
                assert tx.runs.get(first.run_id) == replace(run, run_id=first.run_id, spec=first.spec)

            for_all(Run, check)

        await led.do(work)

    async def test_a_taskcomes_back(self, led: Led) -> None:
        """With its whole specification."""

        def work(tx: Tx) -> None:
            def check(task: Task) -> None:
                fresh = replace(task, task_id=TaskId(new_id("t")))
                tx.tasks.add([fresh], [])
                assert tx.tasks.get(fresh.task_id) == fresh

            for_all(Task, check)

        await led.do(work)

    async def test_everything_of_a_task_but_its_spec_is_replaced(self, led: Led) -> None:
        """What was submitted never changes."""
        run = a_run()

        def work(tx: Tx) -> None:
            tx.runs.add(run)

            def check(task: Task) -> None:
                first = a_task(run)
                tx.tasks.add([first], [])
                changed = replace(task, task_id=first.task_id, run_id=run.run_id)
                tx.tasks.put(changed)
                assert tx.tasks.get(first.task_id) == replace(changed, spec=first.spec)

            for_all(Task, check)

        await led.do(work)

    async def test_an_attemptcomes_back(self, led: Led) -> None:
        """Also by another of the same id."""
        await comes_back(
            led,
            Attempt,
            lambda tx, attempt: tx.attempts.put(attempt),
            lambda tx, attempt: tx.attempts.get(attempt.attempt_id),
        )

    async def test_an_attempt_is_replaced(self, led: Led) -> None:
        """Whole, by another with its id."""
        await self._replaced(
            led,
            [replace(attempt, attempt_id=AttemptId("a-1")) for attempt in some(Attempt)],
            lambda tx, attempt: tx.attempts.put(attempt),
            lambda tx, attempt: tx.attempts.get(attempt.attempt_id),
        )

    async def test_a_promptcomes_back(self, led: Led) -> None:
        """Its text to the letter."""
        await comes_back(
            led,
            PromptRecord,
            lambda tx, prompt: tx.attempts.put_prompt(prompt),
            lambda tx, prompt: tx.attempts.prompt(prompt.prompt_id),
        )

    async def test_a_long_promptcomes_back(self, led: Led) -> None:
        """A megabyte of anything."""
        (prompt,) = some(PromptRecord, examples=1)
        prompt = replace(prompt, text="Grüße, 世界, 🎼\r\n\x00\x1b" * 60_000)
        await led.do(lambda tx: tx.attempts.put_prompt(prompt))
        assert await led.read(lambda view: view.attempts.prompt(prompt.prompt_id)) == prompt

    async def test_an_agentcomes_back(self, led: Led) -> None:
        """With its process, its offset and its token."""
        await comes_back(led, Agent, lambda tx, agent: tx.agents.put(agent), lambda tx, agent: tx.agents.get(agent.agent_id))

    async def test_an_accountcomes_back(self, led: Led) -> None:
        """With what is known of it, and when it is asked for those that are not open."""

        def get(tx: Tx, account: Account) -> Account | None:
            listed = account in tx.accounts.not_open()
            assert listed is (account.state is not AccountState.OPEN)
            return tx.accounts.get(account.account_id)

        await comes_back(led, Account, lambda tx, account: tx.accounts.put(account), get)

    async def test_an_account_is_replaced(self, led: Led) -> None:
        """Whole, by another with its id."""
        await self._replaced(
            led,
            [replace(account, account_id=AccountId("key@api")) for account in some(Account)],
            lambda tx, account: tx.accounts.put(account),
            lambda tx, account: tx.accounts.get(account.account_id),
        )

    async def test_a_workspace_comes_back_until_it_is_dropped(self, led: Led) -> None:
        """And then it is forgotten."""

        def get(tx: Tx, row: WorkspaceRow) -> WorkspaceRow | None:
            found = tx.agents.workspace(row.workspace_id)
            assert list(tx.agents.workspaces()) == [row]
            tx.agents.drop_workspace(row.workspace_id)
            assert tx.agents.workspace(row.workspace_id) is None
            return found

        await comes_back(led, WorkspaceRow, lambda tx, row: tx.agents.put_workspace(row), get)

    async def test_a_workspace_is_replaced(self, led: Led) -> None:
        """Whole, by another with its id."""
        await self._replaced(
            led,
            [replace(row, workspace_id=WorkspaceId("w-1")) for row in some(WorkspaceRow)],
            lambda tx, row: tx.agents.put_workspace(row),
            lambda tx, row: tx.agents.workspace(row.workspace_id),
        )

    async def test_a_changecomes_back(self, led: Led) -> None:
        """With where it was merged and why."""
        await comes_back(
            led, Change, lambda tx, change: tx.changes.put(change), lambda tx, change: tx.changes.get(change.change_id)
        )

    async def test_an_integrationcomes_back(self, led: Led) -> None:
        """By repository, target and line together."""
        await comes_back(
            led,
            Integration,
            lambda tx, integration: tx.changes.put_integration(integration),
            lambda tx, integration: tx.changes.integration(integration.repository, integration.target, integration.line),
        )

    async def test_each_target_of_each_repository_has_an_integration_of_its_own(self, led: Led) -> None:
        """And a new one takes the place of the old."""
        places = [("/one", "main", ""), ("/one", "main", "r-1"), ("/one", "other", ""), ("/two", "main", "")]
        rows = [
            Integration(repository=where, target=target, line=line, tip=f"{where}{target}{line}", delivered="x")
            for where, target, line in places
        ]

        def work(tx: Tx) -> None:
            for row in rows:
                tx.changes.put_integration(replace(row, tip="old"))
                tx.changes.put_integration(row)

        await led.do(work)
        assert sorted(await led.read(lambda view: [row.tip for row in view.changes.integrations()])) == [
            "/onemain",
            "/onemainr-1",
            "/oneother",
            "/twomain",
        ]
        assert await led.read(lambda view: [view.changes.integration(*place) for place in places]) == rows
        assert await led.read(lambda view: view.changes.integration("/two", "other")) is None

    async def test_receipts_are_found_by_their_tree(self, led: Led) -> None:
        """All gates that passed on it, the oldest first."""
        later = Receipt(key="1", tree="t" * 40, gate="lint", commit="c", checks=(), made_at=NOON + timedelta(seconds=1))
        receipts = [later, replace(later, key="2", made_at=NOON), replace(later, key="3", tree="u" * 40)]

        def work(tx: Tx) -> None:
            for receipt in receipts:
                tx.changes.put_receipt(receipt)

        await led.do(work)
        assert [entry.key for entry in await led.read(lambda view: view.changes.receipts_of("t" * 40))] == ["2", "1"]
        assert list(await led.read(lambda view: view.changes.receipts_of("v" * 40))) == []

    async def test_a_receiptcomes_back(self, led: Led) -> None:
        """With every check."""
        await comes_back(
            led,
            Receipt,
            lambda tx, receipt: tx.changes.put_receipt(receipt),
            lambda tx, receipt: tx.changes.receipt(receipt.key),
        )

    async def test_what_was_never_put_is_not_there(self, led: Led) -> None:
        """None, and no error, whatever is asked for."""

        def look(view: View) -> list[object]:
            return [
                view.runs.get(RunId("none")),
                view.tasks.get(TaskId("none")),
                view.attempts.get(AttemptId("none")),
                view.attempts.prompt(PromptId("none")),
                view.agents.get(AgentId("none")),
                view.agents.workspace(WorkspaceId("none")),
                view.changes.get(ChangeId("none")),
                view.changes.receipt("none"),
            ]

        assert await led.read(look) == [None] * 8

    async def _replaced(
        self, led: Led, things: list[R], put: Callable[[Tx, R], None], get: Callable[[Tx, R], R | None]
    ) -> None:
        def work(tx: Tx) -> None:
            for thing in things:
                put(tx, thing)
                assert get(tx, thing) == thing

        await led.do(work)
