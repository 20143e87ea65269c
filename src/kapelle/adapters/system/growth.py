"""Files that grow: said by the system where it can (inotify, on Linux), so that nobody has to look again and again.

Python's standard library does not reach inotify; three functions of the C library are all it takes. Where they are missing, or
the system has no more of them to give, ``watched`` gives None, and whoever waits looks from time to time.
"""

import asyncio
import ctypes
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import finalize

IN_MODIFY = 0x2
EVENTS = 1 << 16
"""Bytes of events that are read at once."""


class Growth:
    """Wakes whoever waits for a file to be written to."""

    def __init__(self) -> None:
        self._library: Any = ctypes.CDLL(None, use_errno=True)
        self._handle: int | None = None
        self._waiting: dict[int, list[asyncio.Event]] = {}

    @contextmanager
    def watched(self, path: Path, woken: asyncio.Event) -> Generator[bool]:
        """Set *woken* whenever *path* is written to from now on; say whether the system sees to that."""
        number = self._add(path)
        if number is None:
            yield False
            return
        waiting = self._waiting.setdefault(number, [])
        waiting.append(woken)
        try:
            yield True
        finally:
            waiting.remove(woken)
            if not waiting:
                self._remove(number)

    def _add(self, path: Path) -> int | None:
        if not hasattr(self._library, "inotify_init1"):
            return None
        handle = self._handle
        if handle is None:
            handle = self._library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if handle < 0:
                return None
            self._handle = handle
            # Kept for as long as this object lives: to close it takes the system many milliseconds.
            finalize(self, os.close, handle)
        number = self._library.inotify_add_watch(handle, os.fsencode(path), IN_MODIFY)
        if number < 0:
            return None
        if not self._waiting:
            # By the loop that runs now; tests have many, one after the other.
            asyncio.get_running_loop().add_reader(handle, self._read)
        return number

    def _remove(self, number: int) -> None:
        del self._waiting[number]
        self._library.inotify_rm_watch(self._handle, number)
        if not self._waiting and self._handle is not None:
            asyncio.get_running_loop().remove_reader(self._handle)

    def _read(self) -> None:
        if self._handle is None:
            return
        try:
            data = os.read(self._handle, EVENTS)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            # struct inotify_event: the watch, what happened, a cookie, the length of the name that follows.
            number = int.from_bytes(data[at : at + 4], sys.byteorder, signed=True)
            at += 16 + int.from_bytes(data[at + 12 : at + 16], sys.byteorder)
            # When events were lost, the number is -1: then all may have grown.
            those = self._waiting.values() if number < 0 else [self._waiting.get(number, [])]
            for waiting in those:
                for woken in waiting:
                    woken.set()
