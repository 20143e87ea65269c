"""What agents.yml says of command rules, as the core knows them."""

from kapelle.apps import models
from kapelle.core.rules import EVERY, Rules


def rules_of(given: models.Rules) -> Rules:
    """Return the rules that *given* means."""
    builtin = ((EVERY, "off"),) if isinstance(given.builtin, str) else tuple(given.builtin.items())
    return Rules(
        deny=tuple(given.deny),
        ask=tuple(given.ask),
        builtin=builtin,
        deadline=given.deadline,
        default=given.default,
    )
