"""What agents.yml says of images: by which policy one is chosen, and what that is told; see ``core.containers``."""

from collections.abc import Mapping
from pathlib import Path

from kapelle.apps import compose
from kapelle.core.containers import ImageRefused
from kapelle.core.errors import Mistake, closest
from kapelle.core.frozen import replace
from kapelle.core.isolation import Isolation
from kapelle.core.ports import Sandbox


def image(root: Path, written: str | Mapping[str, str], here: tuple[str, ...] = ()) -> tuple[str, list[Mistake]]:
    """Return *written* as it is kept with a run (see ``Isolation.image``), and what is wrong with it."""
    policies = compose.image_policies()
    ((name, argument),) = ((written, ""),) if isinstance(written, str) else written.items()
    policy = policies.get(name)
    path = (*here, "image")
    if policy is None:
        advice = closest(name, policies) or f"there are {', '.join(sorted(policies))}"
        return "", [Mistake(message=f"there is no image policy {name}", advice=advice, path=path)]
    try:
        settled = policy.settle(argument, str(root))
    except ImageRefused as error:
        advice = "see docs/explain/containers.md for what an image can be"
        return "", [Mistake(message=str(error), advice=advice, path=path)]
    return f"{name}:{settled}" if settled else name, []


def of_its_own(sandbox: Sandbox | None, asked: Isolation, *, given: bool) -> Isolation:
    """Return *asked* without an image that was only asked for by others, when the sandbox takes none."""
    if given or sandbox is None or sandbox.capabilities.images:
        return asked
    return replace(asked, image="")
