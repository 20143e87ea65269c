"""What a machine, or the control group of a container, leaves us."""

from pathlib import Path

import pytest

from kapelle.adapters.hosts.local import LocalHost
from kapelle.adapters.system.measuring import measure

MB = 1_000_000


async def test_the_machine_has_what_it_has() -> None:
    found = await LocalHost().measure()
    assert 0 < found.memory_free <= found.memory
    assert found.cpus > 0


@pytest.mark.parametrize(
    ("files", "memory", "free"),
    [
        ({"memory.max": "100000000", "memory.current": "60000000"}, 100 * MB, 40 * MB),
        (
            {"memory.max": "100000000", "memory.current": "60000000", "memory.stat": "anon 5\ninactive_file 20000000\n"},
            100 * MB,
            60 * MB,
        ),
        ({"memory.max": "100000000", "memory.current": "200000000"}, 100 * MB, 0),
    ],
)
def test_a_control_group_that_limits_memory_is_the_machine(
    tmp_path: Path, files: dict[str, str], memory: int, free: int
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    found = measure(tmp_path)
    assert (found.memory, found.memory_free) == (memory, free)


@pytest.mark.parametrize("files", [{}, {"memory.max": "max", "memory.current": "5", "cpu.max": "max 100000"}])
def test_a_control_group_that_limits_nothing_is_not(tmp_path: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    whole, found = measure(tmp_path / "nothing"), measure(tmp_path)
    assert (found.memory, found.cpus) == (whole.memory, whole.cpus)


def test_a_control_group_that_limits_processors_is_the_machine(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert measure(tmp_path).cpus == 0.5
