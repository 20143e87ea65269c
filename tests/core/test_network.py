from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.core.isolation import Network, NetworkKind
from kapelle.core.network import Destination, address_refusal, host_problem, name_refusal, private_problem, what_was_refused


def allowing(*hosts: str, private: tuple[str, ...] = ()) -> Network:
    return Network(kind=NetworkKind.ALLOW, hosts=hosts, private=private)


def may(network: Network, host: str, port: int = 443) -> bool:
    return not name_refusal(network, Destination(host=host, port=port))


@pytest.mark.parametrize(
    "pattern", ["pypi.org", "*.example.org", "*", "example.org:8443", "10.0.0.5:5432", "[::1]:80", "*:22", "a_b"]
)
def test_what_names_hosts_is_taken(pattern: str) -> None:
    assert host_problem(pattern) == ""


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "https://pypi.org",
        "a b",
        "*.*.org",
        "x.*",
        "host:0",
        "host:70000",
        "host:",
        "-x",
        "a..b",
        "user@host",
        "x" * 300,
        "a/b",
    ],
)
def test_what_names_none_is_a_mistake(pattern: str) -> None:
    assert host_problem(pattern)


@pytest.mark.parametrize("name", ["10.1.0.0/16", "127.0.0.1", "fd00::/8", "registry.corp.example"])
def test_exceptions_are_hosts_and_networks(name: str) -> None:
    assert private_problem(name) == ""


@pytest.mark.parametrize("name", ["", "10.1.0.0/33", "*", "a b", "1.2.3"])
def test_what_is_neither_is_a_mistake(name: str) -> None:
    assert private_problem(name)


def test_only_what_is_listed_may_be_reached() -> None:
    network = allowing("pypi.org", "*.example.org")
    assert may(network, "pypi.org")
    assert may(network, "PyPI.org.", 80)
    assert may(network, "a.b.example.org")
    assert not may(network, "example.org")
    assert not may(network, "evilpypi.org")
    assert not may(network, "pypi.org.evil.example")
    assert not may(network, "evil-example.org")


def test_other_ports_are_named() -> None:
    assert not may(allowing("github.com"), "github.com", 22)
    assert may(allowing("github.com:22"), "github.com", 22)
    assert not may(allowing("github.com:22"), "github.com", 443)
    assert may(allowing("[::1]:80"), "::1", 80)


def test_without_a_list_nothing_may_be_reached() -> None:
    assert "nothing else" in name_refusal(Network(kind=NetworkKind.MODEL_ONLY), Destination(host="pypi.org", port=443))
    assert "nothing" in name_refusal(Network(kind=NetworkKind.NONE), Destination(host="pypi.org", port=443))
    assert may(Network(), "pypi.org", 1)


def leads(network: Network, *addresses: str, host: str = "public.example") -> str:
    return address_refusal(network, Destination(host=host, port=443), addresses)


NOT_PUBLIC = [
    *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "168.63.129.16", "0.0.0.0"),  # noqa: S104
    *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a00:1::"),
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_no_name_leads_to_what_is_not_public(address: str) -> None:
    assert address in leads(allowing("*"), address)
    assert address in leads(allowing("*"), "93.184.215.14", address)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:93.184.215.14", "64:ff9b::5db8:d70e"]
)
def test_what_is_public_may_be_reached(address: str) -> None:
    assert leads(allowing("*"), address) == ""


def test_exceptions_are_let_through() -> None:
    assert leads(allowing("*", private=("10.1.0.0/16",)), "10.1.2.3") == ""
    assert leads(allowing("*", private=("10.1.0.0/16",)), "10.2.2.3")
    assert leads(allowing("*", private=("10.1.0.0/16",)), "10.1.2.3", "127.0.0.1")
    assert leads(allowing("*", private=("registry.corp.",)), "10.2.2.3", host="Registry.corp") == ""


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_the_same_however_it_is_wrapped(address: object) -> None:
    plain = ip_address(str(address))
    direct = bool(leads(allowing("*"), str(plain)))
    number = int(plain)
    for wrapped in (
        f"::ffff:{plain}",
        str(ip_address((0x64FF9B << 96) + number)),
        f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1",
    ):
        assert bool(leads(allowing("*"), wrapped)) is direct


@given(st.text(max_size=300))
def test_no_text_breaks_the_rules(text: str) -> None:
    if not host_problem(text):
        name_refusal(allowing(text), Destination(host=text, port=443))
    private_problem(text)


def test_what_was_refused_is_told_with_what_helps() -> None:
    inner = "it leads to 203.0.113.80, which is not public"
    helps = "; `private:` in network lets it through"
    assert what_was_refused("pypi.org", 443, inner, 3) == f"pypi.org:443 refused 3 times: {inner}{helps}"
    assert what_was_refused("a.example", 80, "it is not among them") == "a.example:80 refused: it is not among them"
    # The machine's credentials are nothing to let anybody through to.
    assert helps not in what_was_refused("a.example", 80, "it leads to 169.254.169.254, which is not public")
    assert what_was_refused("*", 0, "it had 96 connections open") == "network refused: it had 96 connections open"
