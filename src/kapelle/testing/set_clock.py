"""A clock that can be set under a real process, without the machine's own being touched.

Linux keeps no time of day per process, so what asks the C library for it is answered by a few lines of C that the loader puts
in front. They add what a file says, in seconds, and leave the steady clocks alone, as setting the machine's clock does.
"""

import shutil
import subprocess
from pathlib import Path

from kapelle.core.errors import ProgramMissing

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ahead(void) {
    char text[32];
    const char *path = getenv("SET_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return 0;
    text[length] = 0;
    return atol(text);
}

int clock_gettime(clockid_t which, struct timespec *found) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int said = real(which, found);
    if (said == 0 && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) found->tv_sec += ahead();
    return said;
}

int gettimeofday(struct timeval *restrict found, void *restrict zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
    int said = real(found, zone);
    if (said == 0) found->tv_sec += ahead();
    return said;
}

time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found) *found = now.tv_sec;
    return now.tv_sec;
}
"""


class SetClock:
    """Processes that are started with ``environment`` see the time of day as ``set`` says."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "ahead"
        self._library = folder / "set-clock.so"
        folder.mkdir(parents=True, exist_ok=True)
        self.set(0)
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise ProgramMissing("there is no C compiler", remedy="Install gcc: a clock cannot be set without it.")
        source = folder / "set-clock.c"
        source.write_text(SOURCE, encoding="utf-8")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(source), "-ldl"], check=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process must have in its environment to see this clock."""
        return {"LD_PRELOAD": str(self._library), "SET_CLOCK": str(self._file)}

    def set(self, ahead: int) -> None:
        """Set the clock *ahead* of the machine's, in seconds; behind it when below 0."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(ahead), encoding="utf-8")
        fresh.rename(self._file)
