"""The guard counts what is there, while whoever it watches goes on making and removing it."""

import os
import shutil
import subprocess
from pathlib import Path

from kapelle.adapters.sandboxes import guard

BYTES = 4_096


def filled(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(os.urandom(BYTES))


def inode(path: Path) -> tuple[int, int]:
    return path.stat().st_dev, path.stat().st_ino


def test_what_vanishes_while_it_is_counted_does_not_count_and_the_rest_does(tmp_path: Path) -> None:
    names = [f"{number}" for number in range(60)]
    filled(tmp_path, names)
    there = {inode(tmp_path / name): tmp_path / name for name in names}
    counting = guard._files(str(tmp_path))
    first, _ = next(counting)
    # Its name was read with the others already.
    rest = [path for file, path in there.items() if file != first]
    gone = rest[::2]
    for path in gone:
        path.unlink()

    counted = {first: BYTES, **dict(counting)}

    assert counted == {file: BYTES for file, path in there.items() if path not in gone}


def test_a_directory_that_vanishes_before_it_is_looked_into_takes_nothing_with_it(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        filled(tmp_path / name, ["file"])
    files = {name: inode(tmp_path / name / "file") for name in ("a", "b", "c")}
    folders = {inode(tmp_path / name): name for name in files}
    counting = guard._files(str(tmp_path))
    seen = [next(counting)[0] for _ in folders]
    shutil.rmtree(tmp_path / folders[seen[1]])

    rest = [file for file, _ in counting]

    assert sorted(rest) == sorted(file for name, file in files.items() if name != folders[seen[1]])


def test_what_is_over_is_seen_although_a_directory_and_a_process_have_vanished(tmp_path: Path) -> None:
    filled(tmp_path / "own", ["before"])
    filled(tmp_path / "gone", ["file"])
    filled(tmp_path / "shared", ["not counted"])
    disk = guard._Disk([str(tmp_path / "own"), str(tmp_path / "gone")], [str(tmp_path / "shared")], 5 * BYTES)
    assert not disk.over([os.getpid()])
    shutil.rmtree(tmp_path / "gone")
    filled(tmp_path / "own", [f"{number}" for number in range(5)])
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    disk._looked_at = disk._used = 0
    assert disk.over([ended.pid])
