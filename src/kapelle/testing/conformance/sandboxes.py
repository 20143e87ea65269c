"""The suite of the sandbox's port: ``core.ports.Sandbox``, with a host of this machine to start what is wrapped."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest

from kapelle.core.errors import HostFailed
from kapelle.core.frozen import replace
from kapelle.core.isolation import Isolation, Mount, MountKind, Network, NetworkKind, Place, Way
from kapelle.core.ports import Ended
from kapelle.testing.conformance.boxes import place_in
from kapelle.testing.conformance.limiting import LimitsSuite
from kapelle.testing.conformance.processes import Stage, closed_to_others, read_to_end, read_until

SECRETS = {
    "ANTHROPIC_API_KEY": "sk-planted-1",
    "ANTHROPIC_AUTH_TOKEN": "sk-planted-2",
    "CLAUDE_CODE_OAUTH_TOKEN": "sk-planted-3",
    "AWS_SECRET_ACCESS_KEY": "sk-planted-4",
    "GITHUB_TOKEN": "sk-planted-5",
    "SSH_AUTH_SOCK": "/run/sk-planted-6",
    "DATABASE_URL": "postgres://sk-planted-7",
    "GIT_DIR": "/sk-planted-8",
    "PYTHONPATH": "/sk-planted-9",
    "LD_PRELOAD_OF_MINE": "sk-planted-10",
}


class SandboxSuite(LimitsSuite):
    """Everything that a sandbox owes. Give it in ``sandbox``, and the host that starts processes for it in ``host``."""

    async def test_it_has_a_name(self) -> None:
        """By which it is configured."""
        assert self.sandbox().name

    async def test_no_secret_of_the_operators_environment_gets_in(
        self, stage: Stage, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever it is called."""
        for name, value in SECRETS.items():
            monkeypatch.setenv(name, value)
        said = await self._said(stage, place, stage.launch("env", env=()))
        assert "planted" not in said

    async def test_a_program_has_what_it_was_given(self, stage: Stage, place: Place) -> None:
        """To the letter; and what it was given counts for more than what the sandbox would give."""
        env = (("GIVEN", "ja = ü"), ("LANG", "C"))
        said = await self._said(stage, place, stage.launch('echo "$GIVEN"; echo "$LANG"', env=env))
        assert said == "ja = ü\nC\n"

    async def test_a_program_finds_programs(self, stage: Stage, place: Place) -> None:
        """It has a PATH, although it was given none."""
        assert (
            await self._said(stage, place, stage.launch("cat /dev/null && git --version >/dev/null; echo $?", env=())) == "0\n"
        )

    async def test_home_and_temporary_files_are_the_agents_own(self, stage: Stage, place: Place) -> None:
        """They are there, may be written, and are nobody else's."""
        said = await self._said(stage, place, stage.launch('echo "$HOME"; echo x > "$HOME/a" && echo x > "$TMPDIR/b" && pwd'))
        home, work = said.splitlines()
        assert Path(home).name == Path(place.home).name
        assert Path(work).name == Path(place.workspace).name
        assert (Path(place.home) / "a").exists()
        assert closed_to_others(place.home)

    async def test_a_program_may_write_its_workspace(self, stage: Stage, place: Place) -> None:
        """That is what it is for."""
        await self._said(stage, place, stage.launch("echo made > made"))
        assert (Path(place.workspace) / "made").read_text() == "made\n"

    async def test_exit_codes_and_input_come_through(self, stage: Stage, place: Place) -> None:
        """The sandbox is not in the way of a conversation."""
        found = await self._start(stage, place, stage.launch("cat; exit 42", stdin=True))
        assert await stage.host.write(found.process, b"hello\n")
        await read_until(stage.host, found, b"hello\n")
        await stage.host.close_input(found.process)
        assert await read_to_end(stage.host, found) == (b"hello\n", Ended(exit_code=42))

    async def test_everything_inside_ends_with_it(self, stage: Stage, place: Place) -> None:
        """By force too."""
        lifeline = stage.lifeline()
        script = 'trap "" TERM; exec 9>"$1"; echo up >&9; echo up; sleep 1000 & sleep 1000'
        found = await self._start(stage, place, stage.launch(script, lifeline.path))
        await read_until(stage.host, found, b"up\n")
        await stage.host.end(found.process, found.folder, grace=timedelta(seconds=0.1))
        assert await lifeline.cut() == "up\n"

    async def test_wrapping_changes_nothing_that_the_host_needs(self, stage: Stage, place: Place) -> None:
        """Neither limit nor files nor whether there is an input."""
        launch = stage.launch("true", stdin=True, limit=timedelta(seconds=7), files=(("name", "content"),))
        wrapped = await self.sandbox().wrap(launch, place)
        assert (wrapped.stdin, wrapped.limit, wrapped.files) == (launch.stdin, launch.limit, launch.files)

    async def test_wrapping_again_gives_the_same(self, stage: Stage, place: Place) -> None:
        """After a crash it is done once more."""
        launch = stage.launch("true")
        assert await self.sandbox().wrap(launch, place) == await self.sandbox().wrap(launch, place)

    async def test_paths_may_be_written_in_any_script(self, stage: Stage, tmp_path: Path) -> None:
        """With spaces and quotes in them as well."""
        folder = tmp_path / "Ünï '$x' \"y\" 日本"
        (folder / "workspace").mkdir(parents=True)
        place = place_in(folder)
        launch = stage.launch('pwd; echo x > "$HOME/a"; echo y > made', cwd=place.workspace)
        assert await self._said(stage, place, launch) == f"{place.workspace}\n"
        assert (folder / "workspace" / "made").exists()

    async def test_much_goes_in_and_out(self, stage: Stage, place: Place) -> None:
        """Unchanged, to the last byte."""
        found = await self._start(stage, place, stage.launch("exec cat", stdin=True))
        data = bytes(range(256)) * 4096
        assert await stage.host.write(found.process, data)
        await stage.host.close_input(found.process)
        assert await read_to_end(stage.host, found) == (data, Ended(exit_code=0))

    # --- What is isolated where that is declared, and is not where it is not: both are tested ---

    async def test_files_outside_cannot_be_written(self, stage: Stage, place: Place, tmp_path: Path) -> None:
        """But for its own directories; nor does anything seem to be written that is lost with the sandbox."""
        (tmp_path / "hidden").mkdir()
        mounts = (Mount(kind=MountKind.HIDE, path=str(tmp_path / "hidden")),)
        outside = tmp_path / "outside"
        elsewhere = [str(path) for path in (outside, tmp_path / "hidden" / "new", Path("/dev/new"), Path("/new"))]
        script = 'for each; do (echo x > "$each") 2>/dev/null && echo "wrote $each"; done; exit 0'
        if not self.sandbox().capabilities.files:
            await self._said(stage, place, stage.launch(script, str(outside)))
            assert outside.exists()
            return
        assert await self._said(stage, replace(place, mounts=mounts), stage.launch(script, *elsewhere)) == ""
        assert not any(map(os.path.exists, elsewhere))

    async def test_what_others_have_is_not_to_be_seen(self, stage: Stage, place: Place, tmp_path: Path) -> None:
        """Neither another workspace, nor the store beside it, nor the agent's own spool."""
        for name in ("other-workspace", "state", "folder"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "secret").write_text("planted")
        script = 'for each; do cat "$each/secret" 2>/dev/null; done; exit 0'
        folders = [str(tmp_path / name) for name in ("other-workspace", "state", "folder")]
        said = await self._said(stage, place, stage.launch(script, *folders))
        assert ("planted" in said) is not self.sandbox().capabilities.files

    async def test_the_operators_home_and_passwords_are_not_to_be_seen(self, stage: Stage, place: Place) -> None:
        """Whoever the operator is."""
        if not self.sandbox().capabilities.files:
            return
        script = (
            'cat /etc/shadow /etc/sudoers 2>/dev/null | wc -c; ls -A "$1" 2>/dev/null | grep -c "^\\.ssh\\|^\\.bash"; exit 0'
        )
        assert (await self._said(stage, place, stage.launch(script, str(Path.home())))).split() == ["0", "0"]

    async def test_the_system_cannot_be_changed(self, stage: Stage, place: Place) -> None:
        """Neither programs, nor settings of the kernel, nor devices."""
        if not self.sandbox().capabilities.files:
            return
        planted = ("/usr/bin/planted", "/etc/planted", "/planted")
        script = """
            for each; do (: >> "$each") 2>/dev/null && echo "wrote $each"; done
            for each in /proc/sys/kernel/core_pattern /proc/sysrq-trigger
            do (: >> $each) 2>/dev/null && echo "may write $each"; done
            for each in /dev/*; do [ -b "$each" ] && echo "sees $each"; done
            mount -t tmpfs none "$HOME" 2>/dev/null && echo mounted
            mknod "$HOME/disk" b 8 0 2>/dev/null && echo made a device
            id -u
        """
        *wrong, user = (await self._said(stage, place, stage.launch(script, *planted))).splitlines()
        assert wrong == []
        assert user != "0"
        assert not any(map(os.path.exists, planted))

    async def test_processes_outside_are_not_to_be_seen(self, stage: Stage, place: Place) -> None:
        """And so cannot be ended, looked into or traced."""
        said = await self._said(stage, place, stage.launch("for each in /proc/[0-9]*; do echo x; done; exit 0"))
        assert (len(said.split()) < 6) is self.sandbox().capabilities.pids  # the sandbox's own, and a shell

    async def test_what_leaves_the_group_ends_too(self, stage: Stage, place: Place) -> None:
        """A process group is no boundary: with pids isolated, nothing gets away."""
        if not self.sandbox().capabilities.pids:
            return
        lifeline = stage.lifeline()
        away = 'setsid sleep 1000 & echo > "$HOME/away"; sleep 1000'
        script = f'exec 9>"$1"; echo up >&9; setsid sh -c \'{away}\' & until [ -e "$HOME/away" ]; do :; done; exit 0'
        found = await self._start(stage, place, stage.launch(script, lifeline.path))
        assert (await read_to_end(stage.host, found))[1] == Ended(exit_code=0)
        assert await lifeline.cut() == "up\n"

    async def test_a_directory_that_a_person_named_stays_theirs(self, stage: Stage, place: Place) -> None:
        """It is worked in as it is, or not at all."""
        mine = os.lstat(place.workspace).st_uid
        try:
            await self._said(stage, replace(place, owned=False), stage.launch("true"))
        except HostFailed as error:
            assert error.advice  # noqa: PT017  # both are right
        assert os.lstat(place.workspace).st_uid == mine

    async def test_what_is_mounted_is_there_and_may_be_read(self, stage: Stage, place: Place, tmp_path: Path) -> None:
        """Under another path, too; what is hidden is empty, and the later is on top of the earlier."""
        if not self.sandbox().capabilities.files:
            return
        for name in ("tools/deep", "elsewhere", "cache"):
            (tmp_path / name).mkdir(parents=True)
        (tmp_path / "tools" / "a").write_text("tool")
        (tmp_path / "tools" / "deep" / "b").write_text("hidden")
        (tmp_path / "elsewhere" / "c").write_text("seen")
        mounts = (
            Mount(kind=MountKind.READ, path=str(tmp_path / "tools")),
            Mount(kind=MountKind.HIDE, path=str(tmp_path / "tools" / "deep")),
            Mount(kind=MountKind.READ, path="/opt/shown", source=str(tmp_path / "elsewhere")),
            Mount(kind=MountKind.WRITE, path=str(tmp_path / "cache")),
        )
        script = """
            cd "$1"; cat tools/a /opt/shown/c; ls tools/deep | wc -l
            echo x > cache/d; (echo x > tools/e) 2>/dev/null; ls tools
        """
        said = await self._said(stage, replace(place, mounts=mounts), stage.launch(script, str(tmp_path)))
        assert said == "toolseen0\na\ndeep\n"
        assert (tmp_path / "cache" / "d").exists()

    # --- The network ---

    async def _reached(self, stage: Stage, place: Place, address: str) -> str:
        """Return what a program inside hears from *address*, or what goes wrong; ``$NAME`` is a variable with the address."""
        script = """
            import os, socket, sys
            host, _, port = os.path.expandvars(sys.argv[1]).removeprefix("http://").rpartition(":")
            try:
                with socket.create_connection((host, int(port)), 10) as stream:
                    stream.sendall(b"hello from inside\\n")
                    print(stream.makefile().readline(), end="")
            except OSError as error:
                print(f"not reached: {error}")
        """
        launch = replace(stage.launch("true"), argv=(sys.executable, "-I", "-c", dedent(script), address))
        return await self._said(stage, replace(place, folder=f"{place.folder}-{len(stage.started)}"), launch)

    @pytest.fixture
    async def outside(self) -> AsyncIterator[int]:
        """Give the port of somebody who listens on this machine."""
        server = await asyncio.start_server(_polite("outside"), "127.0.0.1", 0)
        yield server.sockets[0].getsockname()[1]
        server.close()

    async def test_an_open_network_is_that_of_the_machine(self, stage: Stage, place: Place, outside: int) -> None:
        """Or the next would prove nothing."""
        said = await self._reached(stage, place, f"127.0.0.1:{outside}")
        assert said == "outside heard: hello from inside\n"

    async def test_a_closed_network_leads_nowhere(self, stage: Stage, place: Place, outside: int) -> None:
        """Neither to this machine nor beyond."""
        if not self.sandbox().capabilities.network:
            return
        place = replace(place, isolation=Isolation(network=Network(kind=NetworkKind.NONE)))
        for address in (f"127.0.0.1:{outside}", "169.254.169.254:80", "1.1.1.1:53"):
            assert "not reached" in await self._reached(stage, place, address)

    async def test_a_way_leads_to_the_model_and_to_the_proxy_and_nowhere_else(
        self, stage: Stage, place: Place, outside: int, tmp_path: Path
    ) -> None:
        """The model is where it would be anyway; the proxy is named where programs look."""
        if not self.sandbox().capabilities.network:
            return
        (tmp_path / "ways").mkdir()
        servers = [await asyncio.start_unix_server(_polite(name), tmp_path / "ways" / name) for name in ("proxy", "model")]
        for name in ("proxy", "model"):
            (tmp_path / "ways" / name).chmod(0o666)
        network = Network(kind=NetworkKind.MODEL_ONLY)
        way = Way(folder=str(tmp_path / "ways"), model=outside)
        place = replace(place, isolation=Isolation(network=network), way=way)
        assert await self._reached(stage, place, f"127.0.0.1:{outside}") == "model heard: hello from inside\n"
        for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            assert await self._reached(stage, place, f"${name}") == "proxy heard: hello from inside\n"
        assert "not reached" in await self._reached(stage, place, f"127.0.0.1:{outside + 1}")
        for server in servers:
            server.close()

    async def test_who_leads_next_is_found_by_the_same_way(self, stage: Stage, place: Place, tmp_path: Path) -> None:
        """The program goes on; what it asks meanwhile ends at once."""
        if not self.sandbox().capabilities.network:
            return
        (tmp_path / "ways").mkdir()
        way = Way(folder=str(tmp_path / "ways"))
        place = replace(place, isolation=Isolation(network=Network(kind=NetworkKind.MODEL_ONLY)), way=way)
        script = """
            import os, socket, sys
            host, _, port = os.environ["HTTP_PROXY"].removeprefix("http://").rpartition(":")
            for _ in sys.stdin:
                with socket.create_connection((host, int(port)), 10) as stream:
                    try:
                        print(stream.makefile().readline(), end="", flush=True)
                    except ConnectionResetError:
                        pass
                    print("over", flush=True)
        """
        launch = replace(stage.launch("true", stdin=True), argv=(sys.executable, "-I", "-c", dedent(script)))
        found = await self._start(stage, place, launch)
        said = b""
        for leader in ("first", "", "second"):
            server = await asyncio.start_unix_server(_greeting(leader), tmp_path / "ways" / "proxy") if leader else None
            if server is not None:
                (tmp_path / "ways" / "proxy").chmod(0o666)
            await stage.host.write(found.process, b"go\n")
            said += f"{leader} leads\nover\n".encode() if leader else b"over\n"
            await read_until(stage.host, found, said)
            if server is not None:
                server.close()
                (tmp_path / "ways" / "proxy").unlink()
        await stage.host.close_input(found.process)
        assert await read_to_end(stage.host, found) == (said, Ended(exit_code=0))

    async def test_what_leaves_everything_behind_ends_all_the_same(self, stage: Stage, place: Place) -> None:
        """Its process group, its session and its environment."""
        if not self.sandbox().capabilities.ends_all:
            return
        lifeline = stage.lifeline()
        away = 'exec 9>"$1"; echo up >&9; echo up; exec sleep 1000'
        script = f"setsid env -i PATH=/usr/bin:/bin sh -c '{away}' sh \"$1\" & exec cat"
        found = await self._start(stage, place, stage.launch(script, lifeline.path, stdin=True))
        await read_until(stage.host, found, b"up\n")
        await stage.host.close_input(found.process)
        await read_to_end(stage.host, found)
        await self.sandbox().clear(place)
        assert await lifeline.cut() == "up\n"

    async def test_a_time_limit_ends_all_that_was_started(self, stage: Stage, place: Place) -> None:
        """What left its group, too, where the sandbox says so."""
        lifeline = stage.lifeline()
        away = "setsid " if self.sandbox().capabilities.ends_all else ""
        script = f'exec 9>"$1"; echo up >&9; {away}sh -c "sleep 1000" & sleep 1000'
        # Long enough for the script to begin on a busy machine, where a container is made for it.
        launch = replace(stage.launch(script, lifeline.path), limit=timedelta(seconds=5 if away else 1))
        found = await self._start(stage, place, launch)
        _, ended = await read_to_end(stage.host, found)
        assert ended.timed_out
        await self.sandbox().clear(place)
        assert await lifeline.cut() == "up\n"

    async def test_what_is_of_a_live_process_is_known_wherever_it_is(self, stage: Stage, place: Place) -> None:
        """A new leader takes nothing for left over that is below what was started, or inside as the sandbox has it."""
        if not self.sandbox().capabilities.ends_all:
            return
        lifeline = stage.lifeline()
        env = (("PATH", "/usr/bin:/bin"), ("KAPELLE_STORE", place.store_id))
        away = 'exec 9>"$1"; echo up >&9; echo up; exec sleep 1000'
        script = f"(setsid sh -c '{away}' sh \"$1\" &); exec cat"
        found = await self._start(stage, place, stage.launch(script, lifeline.path, stdin=True, env=env))
        await read_until(stage.host, found, b"up\n")
        inside = await self.sandbox().inside(place.store_id, {place.key, "another"})
        assert list(await self.host().leftovers(place.store_id, living=[found.process, *inside])) == []
        for store_id, keys in ((place.store_id, {"another"}), (f"{place.store_id}-other", {place.key})):
            assert list(await self.sandbox().inside(store_id, keys)) == []
        await stage.host.close_input(found.process)
        await read_to_end(stage.host, found)
        await self.sandbox().clear(place)
        assert await lifeline.cut() == "up\n"
        assert list(await self.sandbox().inside(place.store_id, {place.key})) == []

    @pytest.mark.parametrize("end", [False, True])
    async def test_what_is_frozen_stands_still_until_somebody_lets_it_go(self, stage: Stage, place: Place, end: bool) -> None:
        """All of it, wherever it went; another leader may let it go, and it can be ended while it stands still."""
        lifeline = stage.lifeline()
        counts = "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.01; done"
        # Where what leaves the group goes on for ever, it stays.
        away = "setsid " if self.sandbox().capabilities.ends_all else ""
        script = (
            f"exec 9>\"$1\"; echo up >&9; {away}sh -c '{counts} > grows' & until [ -s grows ]; do sleep 0.01; done; {counts}"
        )
        found = await self._start(stage, place, stage.launch(script, lifeline.path))
        await read_until(stage.host, found, b"3\n")
        await self.sandbox().freeze(place, found.process)
        await self.sandbox().freeze(place, found.process)
        grows = Path(place.workspace) / "grows"
        before = grows.read_bytes()
        # A process of another's goes on meanwhile, long enough for ten more lines.
        await asyncio.to_thread(subprocess.run, ["sleep", "0.1"], check=True)
        assert grows.read_bytes() == before
        if not end:
            for _ in range(2):
                await self.sandbox().thaw(place, found.process)
            await read_until(stage.host, found, f"\n{len(before.split()) + 50}\n".encode())
            assert len(grows.read_bytes()) > len(before)
        await stage.host.end(found.process, found.folder, grace=timedelta(0))
        await self.sandbox().clear(place)
        assert await lifeline.cut() == "up\n"
        await self.sandbox().freeze(place, found.process)
        await self.sandbox().thaw(place, found.process)

    async def test_what_nobody_stands_for_is_swept(self, stage: Stage, place: Place) -> None:
        """Of this store, and but for what is to be kept."""
        others = replace(place, key="other"), replace(place, store_id=f"{place.store_id}-other", key="third")
        for each in (place, *others):
            await self.sandbox().wrap(stage.launch("true"), each)
        left = list(await self.sandbox().leftovers(place.store_id, {"other"}))
        found = await self.sandbox().sweep(place.store_id, {"other"})
        assert left == list(found)
        assert left in ([], [place.key])
        assert list(await self.sandbox().leftovers(place.store_id, {"other"})) == []
        assert list(await self.sandbox().sweep(place.store_id, {"other"})) == []
        for each in others:
            await self.sandbox().clear(each)
            await self.sandbox().sweep(each.store_id, ())


def _polite(name: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{name} heard: ".encode() + await reader.readline())
        writer.close()

    return serve


def _greeting(name: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{name} leads\n".encode())
        writer.close()

    return serve
