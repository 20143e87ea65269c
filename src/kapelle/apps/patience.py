"""How long agents may look still, and bounds that raise alerts: from the files to what a run is submitted with."""

from dataclasses import fields
from typing import Any

from kapelle.apps import models
from kapelle.core.patience import Patience
from kapelle.core.standings import AlertLimits


def patience_of(*said: models.Liveness) -> Patience:
    """Return the patience with agents: of each bound what the first of *said* says that speaks of it."""
    found: dict[str, Any] = {}
    for each in fields(Patience):
        given = [value for one in said if (value := getattr(one, each.name)) is not None]
        if given:
            found[each.name] = given[0]
    return Patience(**found)


def alerts_of(said: models.Alerts) -> AlertLimits:
    """Return the bounds of a project."""
    return AlertLimits(
        failures=said.failures,
        queue_age=said.queue_age,
        disk_free=said.disk_free,
        memory_free=said.memory_free,
        spend_per_hour=said.spend_per_hour,
    )
