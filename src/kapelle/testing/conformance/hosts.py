"""The suite of the host's port: ``core.ports.Host``."""

from kapelle.testing.conformance.endings import AdoptionSuite, EndSuite, RunSuite
from kapelle.testing.conformance.measuring import ActivitySuite
from kapelle.testing.conformance.spools import InputSuite, LaunchSuite, OutputSuite


class HostSuite(OutputSuite, LaunchSuite, InputSuite, EndSuite, AdoptionSuite, RunSuite, ActivitySuite):
    """Everything that a host owes. Give a new object for the same machine in ``host``, each time that it is called."""
