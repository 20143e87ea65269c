"""The warden's judge: what the rules decide at once is answered at once, everything else waits for the inbox stage.

A call that no rule speaks of costs no transaction. What is denied, and what is asked, is in the store before it is answered.
"""

from asyncio import Future, get_running_loop
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from kapelle.core.agent import Agent
from kapelle.core.attempt import Attempt, home_of
from kapelle.core.event import Event
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import AgentId, AttemptId, RunId, TaskId
from kapelle.core.judging import about, judge
from kapelle.core.rule_events import CommandAllowed, CommandDenied, WardenRefused
from kapelle.core.rules import Call, Rules, Ruling, Scope, Verdict
from kapelle.core.run import Run
from kapelle.core.store import WorkspaceRow
from kapelle.core.warden import WardenAccess
from kapelle.engine.repeats import Repeats
from kapelle.engine.world import World

FOLDER = "warden"
"""The folder of an agent's warden, in the agent's own."""
EVERYBODYS = ("/tmp", "/var/tmp")  # noqa: S108  # only compared with
PATIENCE = timedelta(seconds=15)
"""How much longer than a question may wait its program waits: whoever leads is to be the one who says that time is up."""
UNREADABLE = "unreadable"
"""In the place of a rule: what no rule can be applied to is denied."""
TOO_MANY = "questions"
"""So, too: a person is asked so many things by one agent at a time, and not more."""
MOST_OPEN = 20
"""Questions of one agent that are open at once."""
LONGEST = 1000
"""Characters of why something was refused."""
NOBODY = Ruling(verdict=Verdict.DENY, reason="this agent has been stopped")


@frozen
class Watched:
    """An agent whose program asks."""

    agent_id: AgentId
    run_id: RunId
    task_id: TaskId
    attempt_id: AttemptId
    rules: Rules
    scope: Scope
    access: WardenAccess


def watched(world: World, agent: Agent, run: Run, attempt: Attempt, workspace: WorkspaceRow) -> Watched:
    """Return what *agent* is judged by, and where it asks."""
    config, spec = run.spec.config(attempt.config), run.spec
    home = world.folders.home(home_of(attempt))
    temporary = f"{agent.folder}/tmp"  # noqa: S108  # its own
    sandbox = world.sandboxes.get(config.sandbox)
    # In a sandbox of its own the machine's places for temporary files are its own, too.
    inside = sandbox is not None and sandbox.capabilities.files
    own_login = spec.upstream.bypass or spec.upstream.own_login
    merged = workspace.repository is not None and spec.target is not None
    return Watched(
        agent_id=agent.agent_id,
        run_id=agent.run_id,
        task_id=agent.task_id,
        attempt_id=attempt.attempt_id,
        rules=config.rules,
        scope=Scope(
            workspace=workspace.path,
            own=(home, temporary, *(EVERYBODYS if inside else ())),
            # With a login of its own its home is the operator's, and nobody is to remove anything there.
            variables={"TMPDIR": temporary, **({} if own_login else {"HOME": home})},
            protect=spec.merge.protect if merged else (),
        ),
        access=WardenAccess(
            folder=f"{agent.folder}/{FOLDER}",
            token=agent.token,
            patience=config.rules.deadline + PATIENCE,
        ),
    )


class Waiting:
    """Something that an agent's program waits for, on this leader."""

    def __init__(self, agent: Watched, call: Call, ruling: Ruling, answer: "Future[Ruling] | None") -> None:
        self.agent = agent
        self.call = call
        self.ruling = ruling
        self._answer = answer

    def settle(self, ruling: Ruling) -> None:
        """Let the program go on."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(ruling)


class EngineWarden:
    """See ``core.warden.Judge``; all in the leader's event loop."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._agents: dict[AgentId, Watched] = {}
        self._repeats: dict[AgentId, Repeats] = {}
        self._asking: Counter[AgentId] = Counter()
        """How many of its questions each agent waits for."""
        self._waiting: list[Waiting] = []
        self._facts: list[Event] = []

    def open(self, agent: Watched) -> None:
        """Judge what *agent* asks from now on."""
        self._agents[agent.agent_id] = agent
        self._repeats.setdefault(agent.agent_id, Repeats())

    def known(self, agent: Agent, attempt: Attempt) -> Watched | None:
        """Return what *agent* is judged by in *attempt*, if that was said already: finding it out asks the machine."""
        found = self._agents.get(agent.agent_id)
        if found is None or found.attempt_id != attempt.attempt_id:
            return None
        same = (found.access.token, found.access.folder) == (agent.token, f"{agent.folder}/{FOLDER}")
        return found if same else None

    def close(self, agent_id: AgentId) -> None:
        """Forget an agent; what was only counted of it is told."""
        self._agents.pop(agent_id, None)
        repeats = self._repeats.pop(agent_id, None)
        if repeats is not None and (rest := list(repeats.rest())):
            self._facts += rest
            self._wake()

    async def judge(self, agent_id: AgentId, call: Call) -> Ruling:
        """See ``core.warden.Judge``."""
        agent = self._agents.get(agent_id)
        if agent is None:
            return NOBODY
        ruling = self._bounded(agent_id, _judged(agent, call))
        if ruling.verdict is Verdict.PASS:
            return ruling
        if ruling.verdict is not Verdict.ASK and not self._tells(agent, call, ruling):
            # It has been told often enough: nobody makes the store write by asking the same again.
            return replace(ruling, reason=words(ruling)) if ruling.verdict is Verdict.DENY else Ruling(verdict=Verdict.PASS)
        if ruling.verdict is Verdict.ALLOW:
            # The program's own permissions still hold; the event is written with whatever comes next.
            self._waiting.append(Waiting(agent, call, ruling, None))
            self._wake()
            return Ruling(verdict=Verdict.PASS)
        answer: Future[Ruling] = get_running_loop().create_future()
        if ruling.verdict is Verdict.ASK:
            self._asking[agent_id] += 1
            answer.add_done_callback(lambda _: self._asked(agent_id))
        self._waiting.append(Waiting(agent, call, ruling, answer))
        self._wake()
        return await answer

    def refused(self, agent_id: AgentId, reason: str) -> None:
        """See ``core.warden.Judge``."""
        agent = self._agents.get(agent_id)
        if agent is None:
            return
        event = WardenRefused(run_id=agent.run_id, task_id=agent.task_id, agent_id=agent_id, reason=reason[:LONGEST])
        if self._repeats[agent_id].tells(event, replace(event, reason="more of the kind")):
            self._facts.append(event)
            self._wake()

    def take(self) -> tuple[list[Waiting], list[Event]]:
        """Return what was asked, and what is to be told, since the last call."""
        waiting, self._waiting = self._waiting, []
        facts, self._facts = self._facts, []
        return waiting, facts

    def give_back(self, taken: tuple[list[Waiting], list[Event]]) -> None:
        """Put back what could not be written."""
        self._waiting[:0] = taken[0]
        self._facts[:0] = taken[1]

    def _bounded(self, agent_id: AgentId, ruling: Ruling) -> Ruling:
        """Return *ruling*, or that no more is asked for this agent just now."""
        if ruling.verdict is not Verdict.ASK or self._asking[agent_id] < MOST_OPEN:
            return ruling
        reason = f"{MOST_OPEN} questions of this agent wait for an answer already, and it cannot ask more"
        return Ruling(verdict=Verdict.DENY, rule=TOO_MANY, reason=reason)

    def _asked(self, agent_id: AgentId) -> None:
        self._asking[agent_id] -= 1
        if not self._asking[agent_id]:
            del self._asking[agent_id]

    def _tells(self, agent: Watched, call: Call, ruling: Ruling) -> bool:
        kind = CommandDenied if ruling.verdict is Verdict.DENY else CommandAllowed
        event = fact(kind, agent, call, ruling, ruling.reason)
        return self._repeats[agent.agent_id].tells(event, replace(event, tool="", what="and more", reason=""))


def fact(
    kind: type[CommandDenied] | type[CommandAllowed], agent: Watched, call: Call, ruling: Ruling, reason: str
) -> CommandDenied | CommandAllowed:
    """Return the event that tells of *ruling*."""
    return kind(
        run_id=agent.run_id,
        task_id=agent.task_id,
        agent_id=agent.agent_id,
        tool=call.tool,
        what=about(call, agent.scope),
        rule=ruling.rule,
        reason=reason,
    )


def _judged(agent: Watched, call: Call) -> Ruling:
    try:
        return judge(agent.rules, call, agent.scope)
    except Exception as error:  # noqa: BLE001  # the agent chose the words: none of them ends whoever leads all others
        reason = f"it could not be judged ({type(error).__name__}: {error})"
        return Ruling(verdict=Verdict.DENY, rule=UNREADABLE, reason=reason)


def words(ruling: Ruling) -> str:
    """Return what the agent is told of a rule that denies."""
    return f"Kapelle's rule {ruling.rule}: {ruling.reason}. Go on without it, or say in your answer why it is needed."
