"""The process sandbox: an environment of its own and nothing more. It works everywhere and isolates nothing."""

from dataclasses import replace

from kapelle.adapters.sandboxes.surroundings import environment, make_folders
from kapelle.core.ports import Launch, Place, SandboxCapabilities


class ProcessSandbox:
    """See ``core.ports.Sandbox``."""

    name = "process"
    capabilities = SandboxCapabilities()

    def missing(self) -> str:
        return ""

    async def wrap(self, launch: Launch, place: Place) -> Launch:
        make_folders(place)
        return replace(launch, env=tuple(environment(launch, place).items()))
