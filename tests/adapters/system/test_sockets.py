import socket
from pathlib import Path

import pytest

from kapelle.adapters.system.sockets import listening


def test_a_socket_may_be_in_a_directory_with_a_path_of_any_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the directory for temporary files lies as deep."""
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(folder))
    for word in (b"first", b"second"):
        # What was left there is replaced.
        with listening(folder, "here", 4) as listener:
            listener.setblocking(True)
            monkeypatch.chdir(folder)
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect("here")
                with listener.accept()[0] as answering:
                    answering.sendall(word)
                assert caller.recv(10) == word


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"):
        listening(tmp_path / "gone", "here", 4)
