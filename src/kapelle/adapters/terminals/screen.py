"""What stands between whoever leads and a program with a screen of its own: it owns the tmux server in which that runs.

It is a program by itself, of the standard library alone, and is started by a host as any agent's program is: standard input
takes lines, standard output (the spool) says lines. So hosts, time limits, control groups and reaping know nothing of
terminals.

The tmux server is a child of it and does not go into the background: it is in the same control group, and below the same shim.
It is outside of the agent's sandbox, for whoever attaches to a server does what that says; only what runs in its pane is
inside.

Lines in:   {"prompt": id, "text": text}   pasted as a person would paste it, then Enter
            {"interrupt": true}            Escape
            {"end": true}                  the session ends
Lines out:  {"screen": "open"}, {"taken": id}, {"typed": text}, {"hook": what a hook was given}, {"said": text},
            {"interrupted": true}, {"ended": code}

What happens is known from the files that hooks leave, and from the file of the conversation: never from the screen.
When the input ends, the session ends as soon as no turn is running. Where a person alone works it ends when that person left.
"""

from __future__ import annotations

import glob
import json
import os
import selectors
import signal
import stat
import subprocess
import sys
import time
from typing import Any, cast

SOCKET = "tmux"
STEP = 0.1
"""Seconds between looks at the files."""
AGAIN = 1.5
"""Seconds after which Enter is pressed again when nobody took a prompt: what was pasted may not have been taken in by then."""
COME, GONE = 120.0, 3.0
"""Seconds in which a person must have come, and that one may be away."""
LOOK = 1.0
"""Seconds between looks at who is there."""
START = 10.0
"""Seconds that a server may take to be there."""
LONGEST = 1 << 22
"""Bytes of a conversation that are read at once."""
HOOK = 1 << 26
"""Bytes of what a hook was told: all that a tool was given, and all that it gave."""
KILLED = 129
"""The exit code that is told of a program which has none of its own."""
ALIVE = 5.0
"""Seconds after which tmux is asked whether a program lives that seems to: another may have its number by now."""
NO_KEYS = {number: "\ufffd" for number in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if chr(number) not in "\t\n\r"}
"""What is no text but would be a key, or the end of what is pasted: then the rest of it would be typed."""
OPTIONS = (
    ("set-option", "-g", "remain-on-exit", "on"),
    ("set-option", "-g", "default-terminal", "screen-256color"),
    ("set-option", "-g", "history-limit", "20000"),
    ("set-option", "-g", "status-right", ""),
    ("set-option", "-g", "window-status-current-format", ""),
    ("set-option", "-s", "set-clipboard", "off"),
    ("set-option", "-s", "escape-time", "20"),
)


class Tmux:
    """A tmux server of our own; its socket is in the directory that this process works in, whose path may be long."""

    def __init__(self, program: str, folder: str) -> None:
        self._command = [program, "-S", SOCKET, "-f", os.devnull]
        self._folder = folder
        self.server = subprocess.Popen(
            [*self._command, "-D"], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def do(self, *arguments: str, given: bytes | None = None) -> tuple[int, str]:
        """Run one command of tmux; return its exit code and what it said."""
        done = subprocess.run(
            [*self._command, *arguments], cwd=self._folder, input=given, capture_output=True, check=False, timeout=60
        )
        return done.returncode, done.stdout.decode(errors="replace").strip()

    def end(self) -> None:
        """End the server, and wait for that: what it leaves behind nobody else looks for."""
        self.do("kill-server")
        try:
            self.server.wait(START)
        except subprocess.TimeoutExpired:
            self.server.kill()
        try:
            os.unlink(os.path.join(self._folder, SOCKET))
        except OSError:
            return

    def wait(self) -> None:
        """Wait until the server answers."""
        deadline = time.monotonic() + START
        while not os.path.exists(os.path.join(self._folder, SOCKET)):
            if self.server.poll() is not None or time.monotonic() > deadline:
                sys.exit("the tmux server does not start")
            time.sleep(0.01)


class Runner:
    """One program on its screen."""

    def __init__(self, asked: dict[str, Any], argv: list[str]) -> None:
        self._asked = asked
        self._name: str = asked["name"]
        self._tmux = Tmux(asked["tmux"], asked["folder"])
        self._argv = argv
        self._begun = self._seen_at = time.monotonic()
        self._came = False
        self._looked_at = 0.0
        self._input = b""
        self._open = True
        """Whether there may be more input."""
        self._ending = False
        self._todo: list[dict[str, Any]] = []
        self._waiting: dict[str, Any] | None = None
        """The prompt that was pasted and is not taken yet."""
        self._entered_at = 0.0
        self._in_turn = False
        self._up = bool(asked["by_hand"])
        """Whether the program has begun its session."""
        self._pid = 0
        """The program in the pane; 0 as long as nobody knows."""
        self._asked_at = 0.0
        self._closed_at = 0.0
        self._offset = 0
        self._inode = 0
        self._rest = b""
        self._asked_to_end = False

    def ask_to_end(self, *_: object) -> None:
        """Take a signal in: the session ends in order, so that whoever looks at it has their terminal back."""
        self._asked_to_end = True

    def run(self) -> int:
        """Show the program until it ends; return its exit code."""
        self._tmux.wait()
        command = ["env", "-u", "TMUX", "-u", "TMUX_PANE", *self._argv]
        # The options first: a program that ends at once would take its server's only session with it.
        size = ["-x", "160", "-y", "45"]
        code, said = self._tmux.do("new-session", "-d", "-s", self._name, *size, "-c", os.getcwd(), "cat")
        for option in OPTIONS:
            self._tmux.do(*option)
        self._tmux.do("set-option", "-g", "status-left", f" {self._asked['label']} ")
        self._tmux.do("set-option", "-g", "status-left-length", "150")
        if code == 0:
            code, said = self._tmux.do("respawn-pane", "-k", "-t", self._name, "-c", os.getcwd(), *command)
        if code != 0:
            sys.exit(f"tmux opens no session: {said}")
        say(screen="open")
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            while True:
                for _ in selector.select(STEP):
                    self._read(selector)
                self._look()
                if (code := self._ended()) is not None:
                    self._look()
                    say(ended=code)
                    self._tmux.end()
                    return code

    def _read(self, selector: selectors.BaseSelector) -> None:
        data = os.read(0, 1 << 16)
        if not data:
            selector.unregister(0)
            self._open = False
            # Half a line is nobody's: whoever wrote it died over it.
            self._input = b""
            return
        *lines, self._input = (self._input + data).split(b"\n")
        self._todo += [json.loads(line) for line in lines if line.strip()]

    def _look(self) -> None:
        """Tell what has happened, and do what is due."""
        self._hooks()
        self._conversation()
        self._do()

    # --- What is asked ---

    def _do(self) -> None:
        if self._asked_to_end:
            self._end()
        for asked in [entry for entry in self._todo if "prompt" not in entry]:
            self._todo.remove(asked)
            if asked.get("interrupt"):
                self._tmux.do("send-keys", "-t", self._name, "Escape")
            if asked.get("end"):
                self._end()
        if self._waiting is not None and time.monotonic() - self._entered_at > AGAIN:
            self._enter()
        if self._todo and self._up and self._waiting is None and not self._in_turn:
            self._waiting = self._todo.pop(0)
            # As bytes: no shell and no list of arguments between.
            self._tmux.do("load-buffer", "-b", "kapelle", "-", given=pasted(self._waiting["text"]))
            self._tmux.do("paste-buffer", "-p", "-r", "-d", "-b", "kapelle", "-t", self._name)
            self._enter()
        if not self._open and not self._asked["by_hand"] and not (self._in_turn or self._todo or self._waiting):
            self._end()
        if self._asked["by_hand"] and time.monotonic() - self._looked_at > LOOK:
            self._look_who_is_there()

    def _enter(self) -> None:
        self._entered_at = time.monotonic()
        self._tmux.do("send-keys", "-t", self._name, "Enter")

    def _look_who_is_there(self) -> None:
        now = self._looked_at = time.monotonic()
        _, clients = self._tmux.do("list-clients", "-F", "x")
        if clients:
            self._came, self._seen_at = True, now
        elif now - self._seen_at > (GONE if self._came else COME):
            self._end()

    def _end(self) -> None:
        """End the program as the end of a terminal does."""
        if self._ending:
            return
        self._ending = True
        _, pid = self._tmux.do("display-message", "-p", "-t", self._name, "#{pane_pid}")
        if pid.isdecimal():
            for number in (signal.SIGHUP, signal.SIGTERM):
                try:
                    os.killpg(int(pid), number)
                except OSError:
                    return

    def _ended(self) -> int | None:
        if self._tmux.server.poll() is not None:
            return 1
        # To ask tmux costs a process each time, and there may be many of these programs.
        now = time.monotonic()
        if now - self._asked_at < ALIVE and there(self._pid):
            return None
        self._asked_at = now
        facts = "#{pane_pid} #{pane_dead} #{pane_dead_status} #{pane_dead_signal}"
        code, said = self._tmux.do("display-message", "-p", "-t", self._name, facts)
        if code != 0:
            return 1
        pid, dead, status, number = (*said.split(" "), "", "", "", "")[:4]
        self._pid = int(pid) if pid.isdecimal() else 0
        if dead != "1":
            return None
        if status.isdecimal():
            return int(status)
        return KILLED if number else self._unburied(now)

    def _unburied(self, now: float) -> int | None:
        """Have tmux look again: it saw the terminal closed, and not yet (on a busy machine never) how the program ended."""
        self._closed_at = self._closed_at or now
        if now - self._closed_at > START:
            return KILLED
        self._asked_at = 0.0
        self._tmux.server.send_signal(signal.SIGCHLD)
        return None

    # --- What happened ---

    def _hooks(self) -> None:
        for path in sorted(glob.glob(os.path.join(glob.escape(self._asked["told"]), "[0-9]*")), key=changed):
            data = whole(path, longest=HOOK)
            try:
                os.unlink(path)
                given = json.loads(data)
            except (OSError, ValueError):
                continue
            if isinstance(given, dict):
                self._hook(cast("dict[str, Any]", given))

    def _hook(self, given: dict[str, Any]) -> None:
        kind = given.get("hook_event_name")
        if kind == "SessionStart":
            self._up = True
        if kind == "UserPromptSubmit":
            self._in_turn = True
            if self._waiting is not None:
                say(taken=self._waiting["prompt"])
                self._waiting = None
            else:
                say(typed=str(given.get("prompt", ""))[:LONGEST])
            # It is known already, or told.
            given = {**given, "prompt": ""}
        if kind in ("Stop", "StopFailure"):
            # What was said in the turn is told before its end.
            self._conversation()
            self._in_turn = False
        # What a tool gave may be long, and is in the conversation.
        say(hook={name: value for name, value in given.items() if name != "tool_response"})

    def _conversation(self) -> None:
        asked = self._asked
        pattern = os.path.join(glob.escape(asked["conversation"]), "*", glob.escape(asked["conversation_file"]))
        for path in glob.glob(pattern)[:1]:
            size = regular(path)
            if size is None:
                continue
            inode = os.lstat(path).st_ino
            if not self._inode:
                # What was said before is known.
                self._offset = size if asked["resumed"] else 0
            elif inode != self._inode or size < self._offset:
                self._offset, self._rest = 0, b""
            self._inode = inode
            while data := whole(path, self._offset):
                self._offset += len(data)
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    self._spoken(line)

    def _spoken(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if not isinstance(entry, dict) or (entry := cast("dict[str, Any]", entry)).get("isSidechain"):
            return
        for text in texts_of(entry.get("message")):
            if entry.get("type") == "assistant":
                say(said=text)
            elif entry.get("type") == "user" and text.startswith("[Request interrupted by user"):
                self._in_turn = False
                say(interrupted=True)


def texts_of(message: Any) -> list[str]:
    """Return the texts of a message in a conversation's file."""
    content = cast("dict[str, Any]", message).get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return [content]
    blocks = cast("list[Any]", content) if isinstance(content, list) else []
    found = [cast("dict[str, Any]", block).get("text") for block in blocks if isinstance(block, dict)]
    return [text for text in found if isinstance(text, str)]


def changed(path: str) -> int:
    """Return when a file was written, as a number."""
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:
        return 0


def regular(path: str) -> int | None:
    """Return the size of a file, or None when it is none: an agent may put anything in its place."""
    try:
        facts = os.lstat(path)
    except OSError:
        return None
    return facts.st_size if stat.S_ISREG(facts.st_mode) else None


def there(pid: int) -> bool:
    """Say whether there is a process with the number *pid*."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return pid > 0


def pasted(text: str) -> bytes:
    """Return *text* as it may be pasted: nothing in it is a key."""
    return text.translate(NO_KEYS).encode(errors="replace")


def whole(path: str, offset: int = 0, longest: int = LONGEST) -> bytes:
    """Return what is in a file from *offset* on; nothing when it is no file of its own."""
    if regular(path) is None:
        return b""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.pread(handle, longest, offset)
    finally:
        os.close(handle)


def say(**line: Any) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as stream:
        runner = Runner(json.load(stream), sys.argv[2:])
    signal.signal(signal.SIGTERM, runner.ask_to_end)
    sys.exit(runner.run())
