"""The process sandbox: an environment of its own and nothing more. It works everywhere and isolates nothing."""

import os
from dataclasses import replace
from pathlib import Path

from kapelle.core.errors import HostFailed
from kapelle.core.ports import Launch, Place, SandboxCapabilities

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS")
"""What is taken from the operator's environment: where programs are, how text is written, whom to trust. No secrets."""


class ProcessSandbox:
    """See ``core.ports.Sandbox``."""

    name = "process"
    capabilities = SandboxCapabilities()

    async def wrap(self, launch: Launch, place: Place) -> Launch:
        temporary = Path(place.folder) / "tmp"
        try:
            for folder in (temporary, Path(place.home)):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise HostFailed(f"{error.filename} cannot be made: {error.strerror}") from error
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        own = {"HOME": place.home, "TMPDIR": str(temporary), "TERM": "dumb", "LANG": "C.UTF-8"}
        return replace(launch, env=tuple({**own, **passed_on, **dict(launch.env)}.items()))
