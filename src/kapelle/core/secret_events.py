"""Events of secrets: where the value of one, or what looks like one, was found in an agent's work. None holds a value."""

from typing import ClassVar

from kapelle.core.event import Event
from kapelle.core.frozen import frozen


@frozen
class SecretFound(Event):
    """The value of a secret was in an agent's change, and kept out of the repository."""

    kind: ClassVar[str] = "secret.found"
    secret: str
    file: str


@frozen
class SecretSuspected(Event):
    """A change of an agent that has secrets holds something that looks like a credential; it goes on all the same."""

    kind: ClassVar[str] = "secret.suspected"
    shape: str
    file: str
