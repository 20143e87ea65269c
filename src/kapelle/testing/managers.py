"""A real ``systemd --user`` for tests, and login sessions beside it, on a machine that systemd does not run.

It lives in a mount namespace of its own, in a tree of groups of its own, with a user of its own, and needs root to be made:

    kapelle-manager-PID/user-UID.slice/session-1.scope      as a login session has it: of root
                                      /session-2.scope
                                      /user@UID.service     given to the user; the service manager is in it

What only a system's own service manager can do, to move a process out of a session that belongs to root, this one may do
itself: it has the right to write any file. Whoever is in a session has none but to read any file, since the programs of those
who test may lie in root's own home. Controllers are as the machine has them: none where version 1 holds them.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kapelle.core.errors import HostFailed, ProgramMissing

SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
PROGRAMS = ("unshare", "nsenter", "setpriv")
USER = 64_123
"""Nobody's number: those that programs take begin below, and people's end."""
SESSIONS = ("session-1.scope", "session-2.scope")
RUNTIME = f"/run/user/{USER}"
SCRIPT = r"""
set -eu
systemd=$1 folder=$2 tree=$3 user=$4
# What is mounted below would be seen by who looks for groups.
for each in /sys/fs/cgroup/*; do umount -l "$each" 2>/dev/null || true; done
umount -l /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none /run
mkdir -p /run/systemd/system "/run/user/$user"
chown "$user" "/run/user/$user"
chmod 700 "/run/user/$user"
slice=$tree/user-$user.slice
manager=$slice/user@$user.service
mkdir -p "$manager" "$slice/session-1.scope" "$slice/session-2.scope"
for each in /sys/fs/cgroup "$tree" "$slice"; do
  for controller in memory cpu pids; do echo "+$controller" 2>/dev/null > "$each/cgroup.subtree_control" || true; done
done
chown "$user" "$manager" "$manager/cgroup.procs" "$manager/cgroup.subtree_control" "$manager/cgroup.threads"
sh -c 'echo 0 > "$1/cgroup.procs"; exec env -i XDG_RUNTIME_DIR="/run/user/$2" HOME="$3" PATH="$PATH" \
  SYSTEMD_UNIT_PATH="$3" SYSTEMD_GENERATOR_PATH="$3" SYSTEMD_ENVIRONMENT_GENERATOR_PATH="$3" \
  setpriv --reuid="$2" --regid="$2" --clear-groups \
  --inh-caps=-all,+dac_override --ambient-caps=-all,+dac_override --bounding-set=-all,+dac_override \
  "$4" --user --log-target=console' sh "$manager" "$user" "$folder" "$systemd" </dev/null >"$folder/said.txt" 2>&1 &
tries=0
while [ ! -S "/run/user/$user/systemd/private" ]; do
  tries=$((tries + 1))
  [ "$tries" -lt 500 ] || { cat "$folder/said.txt"; break; }
  sleep 0.02
done
echo ready
read -r end || true
# Nobody is asked: whatever is still in the tree goes with it.
echo 1 > "$tree/cgroup.kill"
tries=0
while grep -q 'populated 1' "$tree/cgroup.events" && [ "$tries" -lt 500 ]; do tries=$((tries + 1)); sleep 0.01; done
find "$tree" -depth -type d -exec rmdir {} \;
"""
INTO = 'echo 0 > "$1/cgroup.procs" && cd "$2" && shift 2 && exec "$@"'


@dataclass(frozen=True)
class UserManager:
    """One that runs."""

    pid: int
    """A process in its mount namespace."""
    user: int
    slice: Path
    """The group of the user, as it is seen in there."""

    @property
    def folder(self) -> Path:
        """The group that the service manager may give parts of away."""
        return self.slice / f"user@{self.user}.service"

    def outside(self, group: str) -> Path:
        """Return where a group that is named as ``/proc`` names it can be looked at from anywhere."""
        return Path(f"/proc/{self.pid}/root/sys/fs/cgroup") / group.lstrip("/")

    def in_session(self, argv: Sequence[str], session: str = SESSIONS[0], *, cwd: str = "/") -> list[str]:
        """Return what runs *argv* in *cwd*, as the user does who has logged in."""
        alone = "-all,+dac_read_search"
        become = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        become += [f"--inh-caps={alone}", f"--ambient-caps={alone}", f"--bounding-set={alone}"]
        enter = ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "sh", "-c", INTO, "sh", str(self.slice / session), cwd]
        return [*enter, *become, *argv]

    @contextmanager
    def home(self) -> Generator[Path]:
        """Give a directory of the user's, which is gone at the end.

        Not below one of root's: the right to read any file is none that ``access`` goes by, and git asks that.
        """
        with tempfile.TemporaryDirectory(prefix="kapelle-home-", dir="/tmp") as name:
            os.chown(name, self.user, self.user)
            yield Path(name)

    def environment(self, **more: str) -> Mapping[str, str]:
        """Return the environment of who has logged in."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {**kept, "XDG_RUNTIME_DIR": RUNTIME, **more}


def missing_programs() -> list[str]:
    """Return which programs are not there that it takes."""
    found = [] if any(Path(each).exists() for each in SYSTEMD) else ["systemd"]
    return [*found, *(name for name in PROGRAMS if shutil.which(name) is None)]


@contextmanager
def user_manager() -> Generator[UserManager]:
    """Start one, and end it with everything that was started beside it.

    Raises:
        ProgramMissing: a program that it needs is not there.
        HostFailed: it does not start here.
    """
    if gone := missing_programs():
        raise ProgramMissing(f"{' and '.join(gone)} cannot be found", remedy="apt-get install systemd util-linux")
    systemd = next(each for each in SYSTEMD if Path(each).exists())
    tree = Path("/sys/fs/cgroup") / f"kapelle.manager-{os.getpid()}"
    folder = Path(tempfile.mkdtemp(prefix="kapelle-manager-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        (folder / "default.target").write_text("[Unit]\nDescription=Nothing\n")
        runs = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh", systemd, folder, tree, str(USER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with runs:
            said = b""
            while line := runs.stdout.readline() if runs.stdout is not None else b"":
                said += line
                if line == b"ready\n":
                    break
            if said != b"ready\n":
                raise HostFailed(f"no service manager of a user starts here: {said.decode(errors='replace').strip()}")
            yield UserManager(pid=runs.pid, user=USER, slice=tree / f"user-{USER}.slice")
    finally:
        shutil.rmtree(folder)
