"""The suite of the port at which agents' programs ask: ``core.warden.Warden``."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kapelle.core.ids import AgentId
from kapelle.core.rules import Call, Ruling, Verdict
from kapelle.core.warden import SOCKET, Warden, WardenAccess

PATIENCE = 20
"""Seconds after which an answer that should have come is given up."""
NOBODY = (FileNotFoundError, ConnectionRefusedError)
"""How it is to connect where nobody listens."""
ONE, OTHER, THIRD = AgentId("g-1"), AgentId("g-2"), AgentId("g-3")
MANY = 50
"""More than anybody asks for at once."""
NONSENSE = (b"", b"nonsense", b"{}", b"[1]", b'{"answer": "allow"}', b"\xff\xfe", b"x" * (1 << 23))
NO = Ruling(verdict=Verdict.DENY, reason="since I say so")


class Asked:
    """A judge that notes what it is asked, and answers when it may."""

    def __init__(self, ruling: Ruling = NO) -> None:
        self.ruling = ruling
        self.calls: list[tuple[AgentId, Call]] = []
        self.refusals: list[tuple[AgentId, str]] = []
        self.heard = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def judge(self, agent_id: AgentId, call: Call) -> Ruling:
        """See ``core.warden.Judge``."""
        self.calls.append((agent_id, call))
        self.heard.set()
        await self.may_answer.wait()
        return self.ruling

    def refused(self, agent_id: AgentId, reason: str) -> None:
        """See ``core.warden.Judge``."""
        self.refusals.append((agent_id, reason))


class Failing(Asked):
    """A judge that cannot judge what one agent asks, nor be told of it."""

    def __init__(self, *, deaf: bool = False) -> None:
        super().__init__()
        self.deaf = deaf

    async def judge(self, agent_id: AgentId, call: Call) -> Ruling:
        """See ``core.warden.Judge``."""
        if agent_id == ONE:
            raise RecursionError("too deep")
        return await super().judge(agent_id, call)

    def refused(self, agent_id: AgentId, reason: str) -> None:
        """See ``core.warden.Judge``."""
        super().refused(agent_id, reason)
        if self.deaf:
            raise ValueError("not to be told")


class WardenSuite:
    """Everything that a warden owes. Give it in ``warden``: each call stands for one more process that leads."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def warden(self) -> Warden:
        """Return the warden of one process."""
        raise NotImplementedError

    def access(self, agent_id: AgentId = ONE) -> WardenAccess:
        """Return how an agent reaches its warden; the folder's path is longer than a socket's may be."""
        folder = self.folder / ("deep" * 20) / ("deeper" * 20) / agent_id
        return WardenAccess(folder=str(folder), token=f"token of {agent_id}", patience=timedelta(minutes=1))

    @asynccontextmanager
    async def leading(self, judge: Asked, *agents: AgentId) -> AsyncGenerator[Warden]:
        """Lead for a while, with wardens for *agents*."""
        warden = self.warden()
        await warden.start(judge)
        try:
            for agent_id in agents or (ONE,):
                warden.admit(agent_id, self.access(agent_id))
            async with asyncio.timeout(PATIENCE):
                yield warden
        finally:
            await warden.stop()

    async def say(self, line: bytes, agent_id: AgentId = ONE) -> bytes:
        """Say something at an agent's warden and return what is said back; nothing when it hangs up.

        Raises:
            OSError: nobody listens.
        """
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        handle = os.open(self.access(agent_id).folder, os.O_RDONLY)
        loop = asyncio.get_running_loop()
        with connection:
            try:
                # As short as can be: see the docstring of the port.
                here = os.getcwd()  # noqa: PTH109  # to come back to
                os.fchdir(handle)
                try:
                    connection.connect(SOCKET)
                finally:
                    os.chdir(here)
            finally:
                os.close(handle)
            await loop.sock_sendall(connection, line)
            found = b""
            while not found.endswith(b"\n"):
                part = await loop.sock_recv(connection, 1 << 16)
                if not part:
                    break
                found += part
            return found

    def line(self, agent_id: AgentId = ONE, **changes: Any) -> bytes:
        """Return a line that asks."""
        asked = {"token": self.access(agent_id).token, "call_id": "c-1", "tool": "Bash", "command": "ls", **changes}
        return json.dumps(asked).encode() + b"\n"

    async def test_what_is_asked_is_judged_and_answered(self) -> None:
        """With everything that was said."""
        judge = Asked()
        async with self.leading(judge):
            said = await self.say(self.line(paths=["a", "b"], about="x", cwd="/w", prompted=True, cut=True, more="ignored"))
        assert json.loads(said) == {"verdict": "deny", "reason": "since I say so"}
        call = Call(call_id="c-1", tool="Bash", command="ls", paths=("a", "b"), about="x", cwd="/w", prompted=True, cut=True)
        assert judge.calls == [(ONE, call)]

    async def test_each_agent_has_a_warden_of_its_own(self) -> None:
        """Which takes nobody else's token."""
        judge = Asked()
        async with self.leading(judge, ONE, OTHER):
            await self.say(self.line(OTHER), OTHER)
            said = await self.say(self.line(OTHER), ONE)
        assert [agent_id for agent_id, _ in judge.calls] == [OTHER]
        assert json.loads(said)["verdict"] == "deny"
        assert [agent_id for agent_id, _ in judge.refusals] == [ONE]

    @pytest.mark.parametrize("line", NONSENSE, ids=range(len(NONSENSE)))
    async def test_what_is_no_question_is_refused(self, line: bytes) -> None:
        """Whatever it is; nothing can be answered here, and others are still heard."""
        judge = Asked()
        async with self.leading(judge):
            try:
                said = await self.say(line + b"\n")
            except (BrokenPipeError, ConnectionResetError):
                # It was hung up on before all of it was said.
                said = b""
            assert said == b"" or json.loads(said)["verdict"] == "deny"
            await self.say(self.line())
        assert len(judge.calls) == 1
        assert len(judge.refusals) == 1

    async def test_an_answer_may_take_its_time_and_others_do_not_wait_for_it(self) -> None:
        """For as long as a person does."""
        judge = Asked()
        judge.may_answer.clear()
        async with self.leading(judge), asyncio.TaskGroup() as group:
            first = group.create_task(self.say(self.line()))
            await judge.heard.wait()
            judge.heard.clear()
            second = group.create_task(self.say(self.line(call_id="c-2")))
            await judge.heard.wait()
            assert not first.done()
            judge.may_answer.set()
        assert first.result() == second.result() != b""

    async def test_what_cannot_be_judged_is_denied_and_told(self) -> None:
        """And nobody else hears of it: the others' wardens, and this one, go on."""
        judge = Failing()
        async with self.leading(judge, ONE, OTHER) as warden:
            said = [json.loads(await self.say(self.line())) for _ in range(2)]
            assert await self.say(self.line(OTHER), OTHER) != b""
            warden.admit(THIRD, self.access(THIRD))
            assert await self.say(self.line(THIRD), THIRD) != b""
        assert [answer["verdict"] for answer in said] == ["deny", "deny"]
        assert "could not be decided (RecursionError: too deep)" in said[0]["reason"]
        assert judge.refusals == [(ONE, said[0]["reason"])] * 2
        assert [agent_id for agent_id, _ in judge.calls] == [OTHER, THIRD]

    async def test_a_judge_that_cannot_be_told_either_ends_nobody(self) -> None:
        """What was asked is denied all the same."""
        judge = Failing(deaf=True)
        async with self.leading(judge, ONE, OTHER):
            assert json.loads(await self.say(self.line()))["verdict"] == "deny"
            assert await self.say(self.line(OTHER), OTHER) != b""

    async def test_nothing_can_be_asked_without_end(self) -> None:
        """Who asks for more at once than anybody would is told so; the others are still heard, and so is this one later."""
        judge = Asked()
        judge.may_answer.clear()
        async with self.leading(judge, ONE, OTHER), asyncio.TaskGroup() as group:
            asking = [group.create_task(self.say(self.line(call_id=f"c-{number}"))) for number in range(MANY)]
            done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            over = json.loads(done.pop().result() or b"{}")
            assert (over.get("verdict"), "at once" in over.get("reason", "")) == ("deny", True)
            assert {agent_id for agent_id, _ in judge.refusals} == {ONE}
            for task in waiting:
                task.cancel()
            judge.may_answer.set()
            assert json.loads(await self.say(self.line(OTHER), OTHER))["reason"] == NO.reason
        assert len(judge.calls) < MANY

    async def test_who_hangs_up_is_in_nobodys_way(self) -> None:
        """Before it has asked, and before it was answered."""
        judge = Asked()
        judge.may_answer.clear()
        async with self.leading(judge):
            async with asyncio.TaskGroup() as group:
                gone = group.create_task(self.say(self.line()))
                await judge.heard.wait()
                gone.cancel()
            judge.may_answer.set()
            assert await self.say(self.line(call_id="c-2")) != b""

    async def test_the_next_leader_listens_in_the_same_place(self) -> None:
        """Who waits for an answer hears nothing, and asks again."""
        judge, successor = Asked(), Asked()
        judge.may_answer.clear()
        async with asyncio.TaskGroup() as group, self.leading(judge):
            waiting = group.create_task(self.say(self.line()))
            await judge.heard.wait()
        assert waiting.result() == b""
        with pytest.raises(NOBODY):
            await self.say(self.line())
        async with self.leading(successor):
            assert await self.say(self.line()) != b""
        assert judge.calls == successor.calls

    async def test_a_leader_that_died_is_in_nobodys_way(self) -> None:
        """What it left where it listened is taken over."""
        left = Path(self.access().folder)
        _leave(left / SOCKET)
        async with self.leading(Asked()):
            assert await self.say(self.line()) != b""

    async def test_admitting_again_changes_nothing(self) -> None:
        """As often as an agent is looked after."""
        judge = Asked()
        async with self.leading(judge) as warden:
            warden.admit(ONE, self.access())
            assert await self.say(self.line()) != b""

    async def test_nobody_listens_for_an_agent_that_was_dismissed(self) -> None:
        """And dismissing again changes nothing."""
        async with self.leading(Asked(), ONE, OTHER) as warden:
            warden.dismiss(ONE)
            warden.dismiss(ONE)
            with pytest.raises(NOBODY):
                await self.say(self.line())
            assert await self.say(self.line(OTHER), OTHER) != b""

    async def test_nobody_else_may_enter(self) -> None:
        """The folder and what is in it are the agent's alone."""
        async with self.leading(Asked()):
            assert [_mode(path) & 0o077 for path in (self.access().folder, f"{self.access().folder}/{SOCKET}")] == [0, 0]


def _leave(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("left")


def _mode(path: str) -> int:
    return Path(path).stat().st_mode
