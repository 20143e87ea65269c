"""The suite of the port of repositories: ``core.ports.Repositories``."""

from kapelle.testing.conformance.delivering import DeliverSuite, RefSuite
from kapelle.testing.conformance.merging import InspectSuite, LookSuite, MergeSuite


class RepositoriesSuite(InspectSuite, LookSuite, MergeSuite, RefSuite, DeliverSuite):
    """Everything that repositories owe. Give the adapter in ``repositories``."""
