"""From a reference to a value: a variable, a file, or an entry of the system's keyring."""

import asyncio
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from kapelle.core.errors import SecretMissing
from kapelle.core.secrets import reference_problem, value_problem

LONGEST = 1 << 16
"""Bytes of a value, at most."""
PATIENCE_S = 30.0
"""Seconds that a keyring may take: it may ask somebody for a password, who is not there."""


async def look_up(name: str, reference: str, environment: Mapping[str, str]) -> str:
    """Return the value of the secret *name*.

    Raises:
        SecretMissing: it is not to be had.
    """
    if problem := reference_problem(reference):
        raise SecretMissing(f"the secret {name} {problem}")
    kind, _, rest = reference.partition(":")
    if kind == "env":
        value = environment.get(rest)
        if value is None:
            message = f"the secret {name} ({reference}) is missing: {rest} is not set where Kapelle leads"
            raise SecretMissing(message, remedy=f"Set {rest} in the environment or in .env, and start Kapelle again.")
    elif kind == "file":
        value = _file(name, reference, Path(rest).expanduser())
    else:
        value = await _keyring(name, reference, rest)
    # One newline at the end is how files and variables come about.
    value = value.removesuffix("\n").removesuffix("\r")
    if problem := value_problem(value):
        raise SecretMissing(f"the secret {name} ({reference}) {problem}", remedy=f"Give {reference} another value.")
    return value


def _file(name: str, reference: str, path: Path) -> str:
    said, remedy = f"the secret {name} ({reference})", f"Let {path} be a file with the secret alone in it, which you can read."
    try:
        with path.open("rb") as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise SecretMissing(f"{said} is no file", remedy=remedy)
            if found.st_mode & 0o077:
                message = f"{said} may be read by others (mode {stat.S_IMODE(found.st_mode):04o})"
                raise SecretMissing(message, remedy=f"chmod 600 {path}")
            data = stream.read(LONGEST + 1)
    except OSError as error:
        raise SecretMissing(f"{said} cannot be read: {error.strerror}", remedy=remedy) from error
    if len(data) > LONGEST:
        raise SecretMissing(f"{said} has more than {LONGEST} bytes", remedy=remedy)
    try:
        return data.decode()
    except UnicodeDecodeError:
        # Without the error itself, which shows what it read.
        raise SecretMissing(f"{said} is no UTF-8 text", remedy=remedy) from None


async def _keyring(name: str, reference: str, rest: str) -> str:
    said = f"the secret {name} ({reference})"
    service, _, user = rest.partition("/")
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError as error:
        raise SecretMissing(f"{said} needs the library keyring", remedy="pip install 'kapelle[keyring]'") from error
    try:
        async with asyncio.timeout(PATIENCE_S):
            value = await asyncio.to_thread(keyring.get_password, service, user)
    except TimeoutError as error:
        raise SecretMissing(f"{said} was not to be had in {PATIENCE_S:g} seconds", remedy="Unlock the keyring.") from error
    except KeyringError as error:
        message = f"{said} cannot be read from the keyring: {type(error).__name__}"
        raise SecretMissing(message, remedy="Unlock the keyring, or keep the secret in a variable or a file.") from error
    if value is None:
        raise SecretMissing(f"{said} is not in the keyring", remedy=f"keyring set {service} {user}")
    return value
