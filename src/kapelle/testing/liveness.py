"""Agents that look stuck, scripted in virtual time: what is seen of them, and by when it must be found out.

    async with world(tmp_path, heartbeat=BEAT) as here:
        seen = await play(here, SILENT_BUILD)
        assert seen.worst is Grade.NONE

For those who write drivers and hosts, too: a script says what an agent does, and nothing of how it is found out. Ten minutes of
an agent take milliseconds.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kapelle.core.conversation import Trouble
from kapelle.core.frozen import frozen
from kapelle.core.isolation import Remains
from kapelle.core.liveness import TOLD_ELSEWHERE, Condition, Grade
from kapelle.core.liveness_events import (
    AgentGivenUp,
    AgentInterrupted,
    AgentNoted,
    AgentNudged,
    AgentProbed,
    AgentRecovered,
    AgentRestarted,
)
from kapelle.core.task import TaskSpec
from kapelle.testing.factories import run_spec, task
from kapelle.testing.fakes import Flight
from kapelle.testing.hosts import ScriptedProcess
from kapelle.testing.worlds import Leader, SmallWorld

BEAT = timedelta(seconds=30)
TICK = timedelta(seconds=10)
"""How often a script is asked what its agent does."""
GRADES: dict[type[object], Grade] = {
    AgentNoted: Grade.NOTE,
    AgentProbed: Grade.PROBE,
    AgentNudged: Grade.NUDGE,
    AgentInterrupted: Grade.INTERRUPT,
    AgentRestarted: Grade.RESTART,
    AgentGivenUp: Grade.GIVE_UP,
}


@dataclass(kw_only=True, slots=True)
class Scene:
    """An agent at work, and the world that it works in."""

    here: SmallWorld
    leader: Leader
    began_at: datetime
    flights: list[Flight] = field(default_factory=list[Flight])

    @property
    def process(self) -> ScriptedProcess:
        """The agent's newest process."""
        return self.here.process()

    @property
    def elapsed(self) -> timedelta:
        """How long the script goes already."""
        return self.here.clock.now() - self.began_at

    def ask_model(self) -> None:
        """Begin a model call, which stays on its way."""
        flight = self.here.gateway.begin(self.process.token)
        assert isinstance(flight, Flight), flight
        self.flights.append(flight)

    def hear_model(self) -> None:
        """Let a piece of each answer come."""
        for flight in self.flights:
            self.here.gateway.drip(flight)


Play = Callable[[Scene], None]


def nothing(_scene: Scene) -> None:
    """Do nothing."""


@frozen
class Script:
    """What an agent does, and what is to be found out."""

    name: str
    begin: Play
    goes_on: Play = nothing
    """What it does in each ``TICK`` from then on."""
    lasts: timedelta
    finds: Condition | None = None
    """What it is to be taken for; None when there is nothing wrong with it."""
    within: timedelta = timedelta(0)
    """How soon."""
    up_to: Grade = Grade.NONE
    """How far it is interfered with in this time, at most and at least."""
    spec: TaskSpec = field(default_factory=task)


@frozen
class Seen:
    """What was found out, and done: each with how long the script went on by then."""

    found: tuple[tuple[timedelta, Condition], ...]
    done: tuple[tuple[timedelta, Grade], ...]
    recovered: tuple[timedelta, ...]

    @property
    def worst(self) -> Grade:
        """How far the agent was interfered with."""
        return max((grade for _, grade in self.done), key=lambda grade: grade.height, default=Grade.NONE)

    def after(self, condition: Condition) -> timedelta | None:
        """Return how soon an agent was taken for one in *condition*; None when it never was."""
        return next((elapsed for elapsed, found in self.found if found is condition), None)


async def begin(here: SmallWorld, script: Script) -> Scene:
    """Let an agent begin what *script* says."""
    await here.submit(run_spec(script.spec))
    leader = await here.lead()
    await leader.run()
    scene = Scene(here=here, leader=leader, began_at=here.clock.now())
    script.begin(scene)
    await scene.leader.run()
    return scene


async def go_on(scene: Scene, script: Script, lasts: timedelta | None = None) -> None:
    """Let it go on so long, looking after it as a leader does."""
    for _ in range(round((lasts or script.lasts) / TICK)):
        scene.here.clock.move(TICK)
        script.goes_on(scene)
        await scene.leader.run()


async def seen_of(scene: Scene) -> Seen:
    """Return what was found out and done until now."""
    found: list[tuple[timedelta, Condition]] = []
    done: list[tuple[timedelta, Grade]] = []
    recovered: list[timedelta] = []
    for entry in await scene.here.log():
        elapsed = entry.at - scene.began_at
        if isinstance(entry.event, AgentRecovered):
            recovered.append(elapsed)
        grade = GRADES.get(type(entry.event))
        if grade is None:
            continue
        condition = Condition(getattr(entry.event, "condition"))  # noqa: B009  # each of them has one
        if grade is Grade.NOTE:
            found.append((elapsed, condition))
        if condition not in TOLD_ELSEWHERE:
            done.append((elapsed, grade))
    return Seen(found=tuple(found), done=tuple(done), recovered=tuple(recovered))


async def play(here: SmallWorld, script: Script) -> Seen:
    """Let an agent do what *script* says, and return what was found out."""
    scene = await begin(here, script)
    await go_on(scene, script)
    return await seen_of(scene)


# --- The scripts ---


def _builds(scene: Scene) -> None:
    scene.process.cpu += TICK.total_seconds() / 2


def _drips(scene: Scene) -> None:
    if round(scene.elapsed / TICK) % 3 == 0:
        scene.hear_model()


def _fails(scene: Scene) -> None:
    if scene.elapsed <= 20 * TICK and scene.process.in_turn:
        scene.process.calls("Bash", "make test", "again")
        scene.process.returns(failed=True, about="Error 2", call_id="again")


def _mends(scene: Scene) -> None:
    _fails(scene)
    scene.process.calls("Write", "api.py", "edit")
    scene.process.directory.files["api.py"] = str(scene.elapsed)
    scene.process.returns(call_id="edit")


def _stops(scene: Scene) -> None:
    scene.process.calls("Bash", "make test", "long")
    scene.process.stopped = True


def _limited(scene: Scene) -> None:
    resets_at = scene.here.clock.now() + timedelta(hours=2)
    scene.here.gateway.fail(scene.process.token, Trouble.USAGE_LIMIT, "You have reached your limit", resets_at=resets_at)
    scene.process.trouble(Trouble.USAGE_LIMIT, "You have reached your limit")


def _refused(scene: Scene) -> None:
    scene.here.gateway.fail(scene.process.token, Trouble.LOGIN_EXPIRED, "OAuth token has expired", status=401)
    scene.process.trouble(Trouble.LOGIN_EXPIRED, "OAuth token has expired")


def _eats(scene: Scene) -> None:
    eater = scene.process
    scene.here.sandbox.remains = lambda _: Remains(out_of_memory=not eater.alive)
    eater.exit(137)


def _strays(scene: Scene) -> None:
    scene.process.calls("Write", "elsewhere.py", "edit")
    scene.process.directory.files["elsewhere.py"] = "1"
    scene.process.returns(call_id="edit")


def _works(scene: Scene) -> None:
    scene.process.calls("Read", "api.py", "read")
    scene.process.returns(call_id="read")


MINUTE = timedelta(minutes=1)
SLOW_DRIP = Script(name="slow drip", begin=Scene.ask_model, goes_on=_drips, lasts=15 * MINUTE)
SILENT_BUILD = Script(
    name="ten-minute silent build",
    begin=lambda scene: scene.process.calls("Bash", "make all", "build"),
    goes_on=_builds,
    lasts=11 * MINUTE,
)
HARD_WORK = Script(name="the same check fails, with changes in between", begin=nothing, goes_on=_mends, lasts=5 * MINUTE)
CUT_STREAM = Script(
    name="cut stream",
    begin=Scene.ask_model,
    lasts=8 * MINUTE,
    finds=Condition.STALLED_STREAM,
    within=timedelta(minutes=2, seconds=40),
    up_to=Grade.INTERRUPT,
)
USAGE_LIMIT = Script(name="usage limit", begin=_limited, lasts=2 * MINUTE, finds=Condition.USAGE_LIMIT, within=MINUTE)
LOGIN_ERROR = Script(name="login error", begin=_refused, lasts=2 * MINUTE, finds=Condition.EXPIRED_LOGIN, within=MINUTE)
NO_MEMORY = Script(
    name="out of memory", begin=_eats, goes_on=_works, lasts=2 * MINUTE, finds=Condition.OUT_OF_MEMORY, within=MINUTE
)
SAME_CALL = Script(
    name="same failing call twenty times",
    begin=nothing,
    goes_on=_fails,
    lasts=4 * MINUTE,
    finds=Condition.LOOPING,
    # The fifth time, in this script, is fifty seconds from its beginning.
    within=timedelta(seconds=70),
    up_to=Grade.INTERRUPT,
)
STOPPED = Script(
    name="stopped process",
    begin=_stops,
    lasts=3 * MINUTE,
    finds=Condition.BLOCKED,
    within=timedelta(seconds=70),
    up_to=Grade.PROBE,
)
SILENT_PROGRAM = Script(
    name="a program that does nothing",
    begin=nothing,
    lasts=timedelta(minutes=3, seconds=50),
    finds=Condition.BLOCKED,
    within=timedelta(minutes=3, seconds=40),
    up_to=Grade.PROBE,
)
SILENT_TOOL = Script(
    name="a tool that does nothing",
    begin=lambda scene: scene.process.calls("Bash", "cat", "hangs"),
    lasts=12 * MINUTE,
    finds=Condition.SILENT_TOOL,
    within=timedelta(minutes=10, seconds=40),
    up_to=Grade.PROBE,
)
STRAYING = Script(
    name="changes what its task does not name",
    begin=_strays,
    goes_on=_works,
    lasts=4 * MINUTE,
    finds=Condition.STRAYING,
    within=MINUTE,
    up_to=Grade.NUDGE,
    spec=task(writes=("api.py",)),
)
HEALTHY = (SLOW_DRIP, SILENT_BUILD, HARD_WORK)
"""Agents that look stuck to whoever has only one look: no alarm may be raised about them."""
STUCK = (
    CUT_STREAM,
    USAGE_LIMIT,
    LOGIN_ERROR,
    NO_MEMORY,
    SAME_CALL,
    STOPPED,
    SILENT_PROGRAM,
    SILENT_TOOL,
    STRAYING,
)
"""Agents with which something is wrong."""
