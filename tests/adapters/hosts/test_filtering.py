"""What a program with secrets says goes through a filter of ours: real processes, through the real host."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from kapelle.adapters.hosts.local import LocalHost
from kapelle.core.ports import Ended, Launch

VALUE = "correct-horse-battery-staple"


@pytest.fixture
def hide(tmp_path: Path) -> str:
    folder = tmp_path / "known"
    folder.mkdir()
    (folder / "TOKEN").write_text(VALUE)
    return str(folder)


def launch(tmp_path: Path, script: str, hide: str, *, stdin: bool = False, limit: float = 30.0) -> Launch:
    argv = ("/bin/sh", "-c", script)
    path = (("PATH", "/usr/bin:/bin"),)
    return Launch(argv=argv, cwd=str(tmp_path), env=path, stdin=stdin, limit=timedelta(seconds=limit), hide=hide)


async def run(tmp_path: Path, order: Launch) -> tuple[bytes, bytes, Ended]:
    host, folder = LocalHost(), tmp_path / "agent"
    process = await host.start(order, str(folder))
    offset = 0
    while True:
        spool = await host.look(process, str(folder), offset)
        offset += len(spool.data)
        if spool.ended is not None:
            return (folder / "spool").read_bytes(), (folder / "stderr").read_bytes(), spool.ended
        await host.wait(process, str(folder), offset)


async def test_values_are_hidden_on_both_streams_and_the_code_is_the_programs(tmp_path: Path, hide: str) -> None:
    out, err, ended = await run(tmp_path, launch(tmp_path, f"echo a {VALUE} b; echo {VALUE} >&2; exit 7", hide))
    assert (out, err, ended.exit_code) == (b"a [secret TOKEN] b\n", b"[secret TOKEN]\n", 7)


async def test_one_that_comes_in_pieces_is_hidden(tmp_path: Path, hide: str) -> None:
    script = f"printf 'x {VALUE[:9]}'; read go < fifo; printf '{VALUE[9:]} y'"
    (tmp_path / "go").write_text("go\n")
    out, _, _ = await run(tmp_path, launch(tmp_path, script.replace("fifo", "go"), hide))
    assert out == b"x [secret TOKEN] y"


async def test_a_beginning_at_the_end_is_said_after_all(tmp_path: Path, hide: str) -> None:
    out, _, _ = await run(tmp_path, launch(tmp_path, f"printf 'x {VALUE[:9]}'", hide))
    assert out == f"x {VALUE[:9]}".encode()


async def test_a_line_is_passed_on_at_once(tmp_path: Path, hide: str) -> None:
    """The program waits for an answer, which comes only after its line was seen."""
    host, folder = LocalHost(), tmp_path / "agent"
    process = await host.start(launch(tmp_path, f"echo {VALUE}; read line; echo got $line", hide, stdin=True), str(folder))
    async with asyncio.timeout(20):
        await host.wait(process, str(folder), 0)
        first = (await host.look(process, str(folder), 0)).data
        assert first == b"[secret TOKEN]\n"
        assert await host.write(process, b"answer\n")
        await host.close_input(process)
        offset = len(first)
        while (spool := await host.look(process, str(folder), offset)).ended is None:
            offset += len(spool.data)
            await host.wait(process, str(folder), offset)
    assert (folder / "spool").read_bytes() == b"[secret TOKEN]\ngot answer\n"


async def test_a_program_that_is_killed_is_told_as_by_a_shell(tmp_path: Path, hide: str) -> None:
    _, _, ended = await run(tmp_path, launch(tmp_path, "kill -9 $$", hide))
    assert ended.exit_code == 137


async def test_it_ends_with_the_program_whatever_holds_its_output_open(tmp_path: Path, hide: str) -> None:
    out, _, ended = await run(tmp_path, launch(tmp_path, "(sleep 600; echo no) & echo yes", hide))
    assert (out, ended.exit_code) == (b"yes\n", 0)


async def test_a_time_limit_holds_and_what_was_said_by_then_is_there(tmp_path: Path, hide: str) -> None:
    out, _, ended = await run(tmp_path, launch(tmp_path, f"echo {VALUE}; sleep 600", hide, limit=0.5))
    assert (out, ended.timed_out) == (b"[secret TOKEN]\n", True)


async def test_a_program_that_is_asked_to_end_may_say_goodbye(tmp_path: Path, hide: str) -> None:
    host, folder = LocalHost(), tmp_path / "agent"
    script = f"trap 'echo bye {VALUE}; exit 3' TERM; echo here; while :; do sleep 0.05; done"
    process = await host.start(launch(tmp_path, script, hide), str(folder))
    await host.wait(process, str(folder), 0)
    ended = await host.end(process, str(folder), grace=timedelta(seconds=1))
    assert (ended.exit_code, (folder / "spool").read_bytes()) == (3, b"here\nbye [secret TOKEN]\n")


async def test_the_log_of_a_check_is_one_stream_in_order(tmp_path: Path, hide: str) -> None:
    script = f"for i in 1 2 3; do echo out $i; echo err {VALUE} $i >&2; done; exit 2"
    result = await LocalHost().run(launch(tmp_path, script, hide), str(tmp_path / "logs" / "log"))
    expected = "".join(f"out {i}\nerr [secret TOKEN] {i}\n" for i in (1, 2, 3))
    assert (result.tail, result.exit_code) == (expected, 2)
    assert (tmp_path / "logs" / "log").read_text() == expected


async def test_what_looks_like_a_credential_is_cut_out_of_every_log(tmp_path: Path) -> None:
    token = "gh" + "p_" + "a" * 36
    result = await LocalHost().run(launch(tmp_path, f"printf 'x\\r\\n{token}\\377\\n'", ""), str(tmp_path / "log"))
    assert (tmp_path / "log").read_bytes() == b"x\r\n[redacted github-token]\xff\n"
    assert token not in result.tail


async def test_without_secrets_there_is_no_filter(tmp_path: Path) -> None:
    out, _, _ = await run(tmp_path, launch(tmp_path, "cat /proc/$PPID/cmdline | tr '\\0' ' '", ""))
    assert b"filtering" not in out
