"""What an agent may reach: which hosts it was allowed, and which addresses nobody is let through to.

A name that is allowed may still lead to an address that is not: into the operator's own network, or to the service of a cloud
that hands out the machine's credentials. So a rule has two parts, the name and every address that it resolves to.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from kapelle.core.frozen import frozen
from kapelle.core.ids import RunId, TaskId
from kapelle.core.isolation import Network, NetworkKind

WEB = frozenset({80, 443})
"""Ports that may be reached where a rule names none."""
NOT_PUBLIC = "which is not public"
LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
NAME = re.compile(rf"{LABEL}(?:\.{LABEL})*\.?")
PATTERN = re.compile(rf"(?:\*|(?:\*\.)?{LABEL}(?:\.{LABEL})*|\[[0-9A-Fa-f:.]+\])(?::(\d{{1,5}}))?")
HIGHEST_PORT = 65535
LONGEST_NAME = 253
"""Characters of a name of a host: RFC 1035, 2.3.4."""

Address = IPv4Address | IPv6Address

INSTANCE_DATA = frozenset({ip_address("168.63.129.16"), ip_address("fd00:ec2::254"), ip_address("169.254.169.254")})
"""Services of clouds that know the machine's secrets (Azure, AWS, and most others), wherever they count as public."""
WRAPPING = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
"""Addresses of version 6 whose last 32 bits are one of version 4: RFC 6052 and 8215."""


@frozen
class Destination:
    """Where somebody wants to go."""

    host: str
    port: int


@frozen
class Pass:
    """Who may go where: what the proxy knows of one process."""

    key: str
    run_id: RunId
    task_id: TaskId | None
    network: Network
    model: int | None = None
    """The port of the gateway on loopback, for a process that may call its model."""


@frozen
class Decision:
    """What the proxy said to somebody who wanted to go somewhere."""

    holder: Pass
    to: Destination
    refusal: str
    """Why not, in words for people; empty when it was let through."""
    times: int = 1
    """How often since it was last told of."""


def what_was_refused(host: str, port: int, reason: str, times: int = 1) -> str:
    """Return what the proxy refused, in words for people."""
    where = f"{host}:{port} " if port else ""
    often = f" {times} times" if times > 1 else ""
    # What is not public is a rule of ours, and no host that is missing in the list. Nobody is led to open the way to
    # a service that hands out the machine's credentials.
    own = reason.endswith(NOT_PUBLIC) and not any(str(address) in reason for address in INSTANCE_DATA)
    remedy = "; `private:` in network lets it through" if own else ""
    return f"{where}refused{often}: {reason}{remedy}" if where else f"network refused{often}: {reason}"


def host_problem(pattern: str) -> str:
    """Return what is wrong with a pattern of hosts, in words for people; empty when nothing is."""
    found = PATTERN.fullmatch(pattern) if len(pattern) <= LONGEST_NAME else None
    if found is None:
        return f"{pattern[:100]!r} names no host; write pypi.org, *.example.org, * or example.org:8443"
    if found.group(1) is not None and not 0 < int(found.group(1)) <= HIGHEST_PORT:
        return f"{pattern[:100]!r} names no port between 1 and {HIGHEST_PORT}"
    return ""


def private_problem(name: str) -> str:
    """Return what is wrong with an exception, a host or a network, in words for people; empty when nothing is."""
    if _network(name) is not None or (NAME.fullmatch(name) and not name.replace(".", "").isdigit()):
        return ""
    return f"{name[:100]!r} is neither a host nor a network; write registry.corp.example or 10.1.0.0/16"


def name_refusal(network: Network, to: Destination) -> str:
    """Return why *to* may not be reached by its name, in words for people; empty when it may."""
    if network.kind is NetworkKind.OPEN:
        return ""
    if network.kind is not NetworkKind.ALLOW:
        return f"it may reach {'its model and nothing else' if network.kind is NetworkKind.MODEL_ONLY else 'nothing'}"
    if not any(_allows(pattern, to) for pattern in network.hosts):
        return "it is not among the hosts that it may reach"
    return ""


def address_refusal(network: Network, to: Destination, addresses: Sequence[str]) -> str:
    """Return why *to* may not be reached at what its name resolves to; empty when it may. One bad address is enough."""
    if _without_dot(to.host) in {_without_dot(name) for name in network.private}:
        return ""
    exceptions = [found for name in network.private if (found := _network(name)) is not None]
    for text in addresses:
        address = _meant(ip_address(text.partition("%")[0]))
        if any(address.version == each.version and address in each for each in exceptions):
            continue
        if address in INSTANCE_DATA or not _public(address):
            return f"it leads to {text}, {NOT_PUBLIC}"
    return ""


def _public(address: Address) -> bool:
    # Addresses of a site (RFC 3879) count as global still.
    return address.is_global and not address.is_multicast and not (isinstance(address, IPv6Address) and address.is_site_local)


def _meant(address: Address) -> Address:
    """Return the address of version 4 that one of version 6 stands for, or itself."""
    if isinstance(address, IPv4Address):
        return address
    if any(address in each for each in WRAPPING):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo is not None else None) or address


def _allows(pattern: str, to: Destination) -> bool:
    name, port = _split(pattern)
    if to.port not in (WEB if port is None else {port}):
        return False
    host, name = _without_dot(to.host), _without_dot(name)
    if name == "*":
        return True
    if name.startswith("*."):
        return host.endswith(name[1:]) and _address(host) is None
    return host == name


def _split(pattern: str) -> tuple[str, int | None]:
    if pattern.startswith("["):
        name, _, rest = pattern[1:].partition("]")
        return name, int(rest[1:]) if rest else None
    name, _, port = pattern.partition(":")
    return name, int(port) if port else None


def _without_dot(name: str) -> str:
    return name.lower().removesuffix(".")


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None
