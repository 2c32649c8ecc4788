"""Which addresses a job's request may go to.

The address is looked at, never the text of a URL: a name can stand for any address, and an
address can be written in many ways. What translators make of an IPv6 address (a mapped or
translated IPv4 one) is looked at as well.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Whoever reaches these is given the machine's own credentials in many clouds, or is on the
# same cable: no job needs that, and none gets it.
_NEVER = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local, and the metadata service of nearly every cloud
        "fe80::/10",
        "fd00:ec2::/32",  # Amazon
        "fd20:ce::254/128",  # Google
        "fd00:42::42/128",  # Scaleway
        "100.100.100.200/32",  # Alibaba
        "192.0.0.192/32",  # Oracle
        "168.63.129.16/32",  # Azure
    )
)
# Of what translators make (NAT64, SIIT), the last four bytes are an IPv4 address.
_TRANSLATED = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96")))
_COMPATIBLE = ipaddress.ip_network("::/96")  # long out of use, but still understood here and there


def why_refused(text: str, private: bool) -> str:
    """Why no request goes to this address, for people; empty where one may.

    `private`: whether this machine, private networks and whatever else is no part of the
    internet may be reached.
    """
    given = ipaddress.ip_address(text)
    for address in [given, *(_inner(given) if isinstance(given, ipaddress.IPv6Address) else ())]:
        if any(address in network for network in _NEVER):
            return "link-local and metadata addresses are never reached"
        if address.is_multicast:
            return "it is no single machine's"
        is_of_a_site = address.version == 6 and address.is_site_local  # fec0::/10, which counts as global
        if not private and (is_of_a_site or not address.is_global):
            return "this worker reaches no private addresses (http_private)"
    return ""


def _inner(address: ipaddress.IPv6Address) -> list[Address]:
    """Those that it is only another form of."""
    last = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if any(address in network for network in _TRANSLATED):
        return [last]
    if address in _COMPATIBLE and int(address) > 1:  # not :: and ::1
        return [last]
    found = (address.ipv4_mapped, address.sixtofour, *(address.teredo or ()))
    return [each for each in found if each is not None]


def origin(address: str) -> str:
    """What an address is counted as: of IPv6 the /64, of which whoever has one address has all."""
    try:
        found, _ = _host_and_port(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


@lru_cache(1000)  # a gateway says it before each line
def parse_peer(text: str) -> str:
    """Where somebody is, `ADDRESS` or `ADDRESS:PORT`, as it is told of others. Raises ValueError."""
    host, port = _host_and_port(text)
    host = (host.version == 6 and host.ipv4_mapped) or host
    shown = f"[{host}]" if isinstance(host, ipaddress.IPv6Address) else str(host)
    return f"{shown}:{port}" if port else shown


def _host_and_port(text: str) -> tuple[Address, str]:
    """An IPv6 address with a port stands in brackets; the port is empty where there is none."""
    if match := _WITH_PORT.fullmatch(text):
        return ipaddress.ip_address(match[1].strip("[]").partition("%")[0]), match[2]
    return ipaddress.ip_address(text.strip("[]").partition("%")[0]), ""


_WITH_PORT = re.compile(r"(\[.*\]|[^:]*):([0-9]{1,5})", re.ASCII)
