"""A host whose processes are scripted: no process is started, and every word of it is a test's."""

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Any

from kapelle.core.agent import ProcessRef
from kapelle.core.conversation import Trouble
from kapelle.core.errors import HostFailed
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import AttemptId, WorkspaceId
from kapelle.core.ports import Activity, CommandResult, Ended, Launch, Measure, Spool
from kapelle.testing.drivers import TOKEN
from kapelle.testing.git import Files, MemoryDirectory, MemoryGit
from kapelle.testing.points import Points

BOOT = "boot"
FORCED = Ended(exit_code=None)
LEFT_BEHIND = "left behind"

Script = Callable[["ScriptedProcess", str], None]
"""What an agent does with a prompt. It need not end its turn: the test may go on with the process later."""
Start = Callable[["ScriptedProcess"], None]
"""What an agent does when its process starts."""
Command = Callable[[Files], str | None]
"""What a command finds wrong with the files it runs in, or None; it raises TimeoutError when it runs too long."""


@frozen
class Read:
    """A prompt that a process has read."""

    prompt_id: str
    text: str


@frozen
class Ran:
    """A command that was run to its end."""

    command: str
    path: str
    tree: str
    """The tree of what git would not ignore in *path*; empty where there is no repository."""
    passed: bool


class ScriptedProcess:
    """A process as its host sees it. What it says goes to its spool; ``done``, ``trouble`` and ``exit`` end its turn."""

    def __init__(self, ref: ProcessRef, launch: Launch, spool: bytearray, directory: MemoryDirectory) -> None:
        self.ref = ref
        self.launch = launch
        self.spool = spool
        self.directory = directory
        self.env = dict(launch.env)
        self.ended: Ended | None = None
        self.input_open = launch.stdin
        self.deaf = False
        """Set it, and nothing is read: prompts stay in the pipe, and the end of the input goes unseen."""
        self.unread: list[Read] = []
        self.stopped = False
        """Set it, and it is as if it had been stopped by a signal: it says nothing until it is let go on."""
        self.waiting = 0
        """How many of its processes wait for a disk."""
        self.cpu = 0.0
        """Seconds of processor time that it has used."""
        self.says_late = False
        """Set it, and it never says that it has read a prompt."""
        self.obeys = True
        """Whether it breaks its turn off when it is told to."""
        self.cleared = 0
        """How often a new conversation was begun."""
        self.interrupted = 0
        """How often it was told to break its turn off."""
        self.prompts: list[Read] = []
        self.in_turn = False
        self.grown = asyncio.Event()

    @property
    def task(self) -> str:
        """The name of the task it works on."""
        return self.env.get("KAPELLE_TASK", "")

    @property
    def token(self) -> str:
        """Its own token at the model gateway."""
        return self.env.get(TOKEN, "")

    @property
    def resumed(self) -> bool:
        """Whether its conversation existed already."""
        return self.launch.argv[1] == "resume"

    @property
    def conversation_id(self) -> str:
        """Its conversation."""
        return self.launch.argv[2] if not self.cleared else f"{self.launch.argv[2]}/{self.cleared}"

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.ended is None

    def emit(self, **message: Any) -> None:
        """Write one line of the protocol."""
        self.babble(json.dumps(message) + "\n")

    def babble(self, text: str) -> None:
        """Write anything at all."""
        if self.ended is None:
            self.spool += text.encode()
            self.grown.set()

    def say(self, text: str) -> None:
        """Write a piece of text."""
        self.emit(said=text)

    def tool(self, name: str = "Read", about: str = "a file") -> None:
        """Call a tool."""
        self.emit(tool=name, about=about)

    def calls(self, name: str, about: str, call_id: str = "call") -> None:
        """Call a tool that takes its time; ``returns`` says how it ended."""
        self.emit(tool=name, about=about, call_id=call_id)

    def returns(self, *, failed: bool = False, about: str = "", call_id: str = "call") -> None:
        """Let a tool that was called return."""
        self.emit(returned=about, failed=failed, call_id=call_id)

    def write(self, name: str, content: str | None) -> None:
        """Write a file of the workspace (None deletes it), with a tool."""
        self.tool("Write", f"{self.launch.cwd}/{name}")
        if content is None:
            self.directory.files.pop(name, None)
        else:
            self.directory.files[name] = content

    def done(
        self, text: str = "done", *, result: str | None = None, cost: float | None = None, denied: Sequence[str] = ()
    ) -> None:
        """End the turn with an answer."""
        self.emit(done=text, result=result, cost=cost, denied=list(denied))
        self._turn_over()

    def trouble(self, trouble: Trouble, message: str = "", *, cost: float | None = None) -> None:
        """End the turn without an answer."""
        self.emit(trouble=trouble.value, message=message, cost=cost)
        self._turn_over()

    def exit(self, code: int | None = 0, *, timed_out: bool = False) -> None:
        """End."""
        if self.ended is None:
            self.ended = Ended(exit_code=code, timed_out=timed_out)
            self.in_turn = self.input_open = False
            self.grown.set()

    def time_out(self) -> None:
        """End, since the time limit has come."""
        self.exit(None, timed_out=True)

    def clear(self, prompt_id: str) -> None:
        """Begin a new conversation, unless it reads nothing."""
        if not self.deaf and not self.stopped:
            self.cleared += 1
            self.emit(started=self.conversation_id)
            self.emit(taken=prompt_id)
            self.emit(done="")

    def break_off(self) -> None:
        """Take in that the turn is to be broken off."""
        self.interrupted += 1
        if self.obeys and self.in_turn and not self.deaf and not self.stopped:
            self.trouble(Trouble.INTERRUPTED, "interrupted")

    def take(self, prompt: Read) -> None:
        """Read a prompt: the turn begins."""
        self.prompts.append(prompt)
        self.in_turn = True
        if not self.says_late:
            self.emit(taken=prompt.prompt_id)

    def close_input(self) -> None:
        """See the end of the input: an idle program ends then, another after its turn, and one that reads nothing never."""
        self.input_open = False
        if not self.in_turn and not self.deaf:
            self.exit(0)

    def _turn_over(self) -> None:
        self.in_turn = False
        if not self.input_open:
            self.exit(0)


class ScriptedHost:
    """See ``core.ports.Host``.

    What an agent does is said with ``plays`` for its task, prompt by prompt; without a script its turn stays open. What a
    command answers is said in ``commands``. The host outlives leaders: ``leader_died`` closes what the dead one had open.
    """

    name = "local"

    def __init__(self, git: MemoryGit, points: Points | None = None) -> None:
        self._git = git
        self._points = points or Points()
        self.processes: list[ScriptedProcess] = []
        self.commands: dict[str, Command] = {"true": lambda _: None, "false": lambda _: "no"}
        self.ran: list[Ran] = []
        self.measured = Measure(memory=1 << 40, memory_free=1 << 40, cpus=64.0)
        """What there is of the machine."""
        self.stopped_clocks: set[str] = set()
        """The folders of what loses no time."""
        self.looks = 0
        """How often all processes of the machine were looked through."""
        self.measures = 0
        """How often agents were measured."""
        self.piece = 1 << 20
        """How much of a spool is read at most in one look."""
        self.otherwise: Script = hangs()
        """What an agent does for which no script is left."""
        self._scripts: defaultdict[str, list[Script]] = defaultdict(list)
        self._starts: defaultdict[str, list[Start]] = defaultdict(list)
        self._spools: dict[str, bytearray] = {}
        self._begun: set[str] = set()
        """The conversations of which something was written down: a program begins none of them a second time."""
        self._waiting: dict[asyncio.Task[object], tuple[ScriptedProcess, int]] = {}

    async def measure(self, path: str = "") -> Measure:  # noqa: ARG002  # as the port has it
        """See the port."""
        return self.measured

    # --- For tests ---

    def plays(self, task: str, *scripts: Script) -> None:
        """Let the agents of *task* do this with the next prompts, one script for each."""
        self._scripts[task] += scripts

    def starts(self, task: str, *starts: Start) -> None:
        """Let the next processes of *task* do this when they start, one for each."""
        self._starts[task] += starts

    def forget(self) -> None:
        """Forget every script that was not played yet."""
        self._scripts.clear()
        self._starts.clear()

    def of_task(self, task: str) -> list[ScriptedProcess]:
        """Return all processes that were ever started for *task*, the first first."""
        return [process for process in self.processes if process.task == task]

    def live(self) -> list[ScriptedProcess]:
        """Return the processes that run."""
        return [process for process in self.processes if process.alive]

    def left_behind(self, by: ScriptedProcess) -> ScriptedProcess:
        """Return a process that *by* has started and that has left its group: it does not end with it."""
        ref = ProcessRef(boot_id=BOOT, pid=1000 + len(self.processes) + 1, started=LEFT_BEHIND)
        process = ScriptedProcess(ref, by.launch, bytearray(), by.directory)
        process.env = dict(by.env)
        self.processes.append(process)
        return process

    def leader_died(self) -> None:
        """Close the inputs that the leader held: nobody else can ever write to these processes."""
        for process in self.live():
            process.close_input()

    @property
    def blocked(self) -> set[asyncio.Task[object]]:
        """The tasks that wait for a process which has nothing to say."""
        return {task for task, (process, offset) in self._waiting.items() if process.alive and len(process.spool) <= offset}

    # --- The port ---

    async def activities(self, processes: Sequence[Sequence[ProcessRef]]) -> Sequence[Activity | None]:
        """See the port."""
        self.measures += 1
        found = [next((entry for ref in roots if (entry := self._find(ref)) is not None), None) for roots in processes]
        return [
            None
            if entry is None or not entry.alive
            else Activity(cpu=entry.cpu, stopped=int(entry.stopped), waiting=entry.waiting)
            for entry in found
        ]

    async def go_on(self, processes: Sequence[ProcessRef]) -> int:
        """See the port; what was written to it meanwhile is read now."""
        async with self._points.passing("go_on"):
            stopped = [entry for ref in processes if (entry := self._find(ref)) is not None and entry.stopped]
            for entry in stopped:
                entry.stopped, unread, entry.unread = False, entry.unread, []
                for prompt in unread:
                    self._prompted(entry, prompt)
            return len(stopped)

    async def start(self, launch: Launch, folder: str) -> ProcessRef:
        """See the port."""
        async with self._points.passing("start"):
            directory = self._git.directories.get(launch.cwd)
            if directory is None:
                raise HostFailed(f"{launch.argv[0]} cannot be started: the directory {launch.cwd} is gone")
            number = len(self.processes) + 1
            ref = ProcessRef(boot_id=BOOT, pid=1000 + number, started=str(number))
            process = ScriptedProcess(ref, launch, self._spools.setdefault(folder, bytearray()), directory)
            self.processes.append(process)
            if process.conversation_id in self._begun and not process.resumed:
                process.exit(1)
                return ref
            process.emit(started=process.conversation_id)
            if self._starts[process.task]:
                self._starts[process.task].pop(0)(process)
            if not launch.stdin and process.alive:
                prompt_id, text = launch.argv[3:]
                self._prompted(process, Read(prompt_id=prompt_id, text=text))
            return ref

    def _prompted(self, process: ScriptedProcess, prompt: Read) -> None:
        if process.deaf or process.stopped:
            process.unread.append(prompt)
            return
        self._begun.add(process.conversation_id)
        process.take(prompt)
        left = self._scripts[process.task]
        (left.pop(0) if left else self.otherwise)(process, prompt.text)

    def _find(self, process: ProcessRef) -> ScriptedProcess | None:
        return next((entry for entry in self.processes if entry.ref == process), None)

    async def look(self, process: ProcessRef, folder: str, offset: int, limit: int = 1 << 20) -> Spool:  # noqa: ARG002  # as the port has it
        """See the port."""
        found = self._find(process)
        if found is None:
            return Spool(data=b"", ended=FORCED)
        data = bytes(found.spool[offset : offset + min(limit, self.piece)])
        whole = offset + len(data) == len(found.spool)
        return Spool(data=data, ended=found.ended if whole else None)

    async def wait(self, process: ProcessRef, folder: str, offset: int) -> None:  # noqa: ARG002  # as the port has it
        """See the port."""
        found, task = self._find(process), asyncio.current_task()
        while found is not None and task is not None and found.alive and len(found.spool) <= offset:
            found.grown.clear()
            self._waiting[task] = (found, offset)
            self._points.changed()
            try:
                await found.grown.wait()
            finally:
                del self._waiting[task]

    async def write(self, process: ProcessRef, data: bytes) -> bool:
        """See the port."""
        async with self._points.passing("write"):
            found = self._find(process)
            if found is None or not found.alive or not found.input_open:
                return False
            for line in data.splitlines():
                given = json.loads(line)
                if "assign" in given:
                    found.env |= given["assign"]
                if "prompt" in given:
                    self._prompted(found, Read(prompt_id=given["prompt"], text=given["text"]))
                elif "clear" in given:
                    found.clear(given["clear"])
                    self._begun.add(found.conversation_id)
                elif "interrupt" in given:
                    found.break_off()
            return True

    async def stop_clock(self, folder: str) -> None:
        """See the port."""
        self.stopped_clocks.add(folder)

    async def start_clock(self, folder: str) -> None:
        """See the port."""
        self.stopped_clocks.discard(folder)

    async def bound(self, process: ProcessRef, folder: str, limit: timedelta) -> None:  # noqa: ARG002  # as the port has it
        """See the port."""
        async with self._points.passing("bound"):
            found = self._find(process)
            if found is not None:
                found.launch = replace(found.launch, limit=limit)

    async def close_input(self, process: ProcessRef) -> None:
        """See the port."""
        found = self._find(process)
        if found is not None and found.input_open:
            found.close_input()

    async def end(self, process: ProcessRef, folder: str, *, grace: timedelta) -> Ended:  # noqa: ARG002  # as the port has it
        """See the port."""
        async with self._points.passing("end"):
            found = self._find(process)
            if found is None:
                return FORCED
            await self.close_input(process)
            found.exit(None)
            return found.ended or FORCED

    async def at_work_for(self, store_id: str, attempt_id: AttemptId) -> int:
        """See the port."""
        asked = {"KAPELLE_STORE": store_id, "KAPELLE_ATTEMPT": attempt_id}
        # What a program is told while it runs holds for what it starts, not for itself.
        left = [entry for entry in self.live() if entry.ref.started == LEFT_BEHIND]
        return sum(asked.items() <= entry.env.items() for entry in left)

    async def run(self, launch: Launch, output_path: str, on_output: Callable[[str], None] | None = None) -> CommandResult:
        """See the port."""
        async with self._points.passing("run"):
            directory = self._git.directories.get(launch.cwd)
            if directory is None:
                raise HostFailed(f"{launch.argv[0]} cannot be started: the directory {launch.cwd} is gone")
            command = launch.argv[-1]
            tree = directory.repository.tree_of(directory.work()) if directory.repository is not None else ""
            timed_out = False
            try:
                problem = self.commands[command](directory.files)
            except TimeoutError:
                problem, timed_out = "it takes for ever", True
            self.ran.append(Ran(command=command, path=launch.cwd, tree=tree, passed=problem is None))
            if on_output is not None:
                on_output(problem or "")
            return CommandResult(
                exit_code=None if timed_out else 0 if problem is None else 1,
                timed_out=timed_out,
                seconds=0.1,
                output_path=output_path,
                output_hash=hashlib.sha256((problem or "").encode()).hexdigest(),
                tail=problem or "",
            )

    async def leftovers(
        self, store_id: str, workspaces: Collection[WorkspaceId] | None = None, *, living: Collection[ProcessRef] = ()
    ) -> Sequence[ProcessRef]:
        """See the port."""
        self.looks += 1
        mine = [process for process in self.live() if process.env.get("KAPELLE_STORE") == store_id]
        mine = [process for process in mine if process.ref not in living]
        return [entry.ref for entry in mine if workspaces is None or entry.env.get("KAPELLE_WORKSPACE_ID") in workspaces]


# --- Scripts that are needed again and again ---


def hangs() -> Script:
    """Return a script that does nothing: the turn stays open until the test ends it."""
    return lambda _process, _text: None


def writes(files: dict[str, str | None], text: str = "done", *, result: str | None = None) -> Script:
    """Return a script that writes *files* (None deletes one) and answers *text*."""

    def script(process: ScriptedProcess, _text: str) -> None:
        for name, content in files.items():
            process.write(name, content)
        process.done(text, result=result)

    return script


def answers(text: str = "done", *, result: str | None = None, tools: int = 1) -> Script:
    """Return a script that calls *tools* tools, changes nothing and answers *text*."""

    def script(process: ScriptedProcess, _text: str) -> None:
        for _ in range(tools):
            process.tool()
        process.done(text, result=result)

    return script


def troubled(trouble: Trouble, message: str = "it did not work") -> Script:
    """Return a script whose turn ends with *trouble*."""
    return lambda process, _text: process.trouble(trouble, message)


def crashes(code: int = 1) -> Script:
    """Return a script in which the program ends in the middle of its turn."""
    return lambda process, _text: process.exit(code)


def times_out() -> Script:
    """Return a script in which the program runs into its time limit."""
    return lambda process, _text: process.time_out()
