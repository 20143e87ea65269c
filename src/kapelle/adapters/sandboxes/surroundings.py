"""What every sandbox gives a process: directories of its own, and an environment without the operator's secrets."""

import os
from pathlib import Path

from kapelle.core.errors import HostFailed
from kapelle.core.isolation import Place
from kapelle.core.ports import Launch

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS")
"""What is taken from the operator's environment: where programs are, how text is written, whom to trust. No secrets."""


def temporary(place: Place) -> str:
    """Return the directory for temporary files of a process at *place*."""
    return str(Path(place.folder) / "tmp")


def make_folders(place: Place) -> None:
    """Make the directories that a process at *place* has for itself.

    Raises:
        HostFailed: they cannot be made.
    """
    try:
        for folder in (temporary(place), place.home):
            Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise HostFailed(f"{error.filename} cannot be made: {error.strerror}") from error


def environment(launch: Launch, place: Place) -> dict[str, str]:
    """Return the whole environment of *launch* at *place*; what the launch itself says counts for more."""
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if place.isolation.path:
        folders = (*place.isolation.path, passed_on.get("PATH", os.defpath))
        passed_on["PATH"] = os.pathsep.join(folders)
    own = {"HOME": place.home, "TMPDIR": temporary(place), "TERM": "dumb", "LANG": "C.UTF-8"}
    return {**own, **passed_on, **dict(launch.env)}
