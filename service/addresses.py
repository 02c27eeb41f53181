"""Which addresses the control plane may call on a user's word: a URL must not open a way into the private network."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""(host, port) -> its IP addresses, each once. OSError when there are none."""

LOOKUP_SECONDS = 5.0

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_TUNNEL = ipaddress.ip_network("2002::/16")  # 6to4: an IPv4 address in disguise, private ones included
_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")  # some clouds keep their metadata service here

_HOST = re.compile(rb"[A-Za-z0-9._:-]+")
_lookups = ThreadPoolExecutor(32, thread_name_prefix="dns")  # of their own: a slow name server holds up nothing else


class Refused(Exception):
    """The URL is not one that may be called; the message says why."""


async def resolve(host: str, port: int) -> list[str]:
    """Ask the system's resolver."""
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(_lookups, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet: not private, loopback, link-local, multicast or reserved."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if not ip.is_global or ip.is_multicast:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return ip not in _PROTOCOLS
    return ip in _GLOBAL_UNICAST and ip not in _TUNNEL


def parse(url: str) -> httpx.URL:
    """The URL, when it has the form of one that may be called. Refused."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Refused(f"This is not a URL ({error}).") from error
    if parsed.scheme not in ("http", "https"):
        raise Refused("Only http:// and https:// URLs can be called.")
    if not _HOST.fullmatch(parsed.raw_host):
        raise Refused("The URL names no host, or one with signs that no host name has.")
    if parsed.port is not None and not 0 < parsed.port < 65_536:
        raise Refused("The port must be between 1 and 65535.")
    if parsed.userinfo:
        raise Refused("A URL with a user name or password is not stored; put a token into its path instead.")
    if parsed.fragment:
        raise Refused("A fragment (#…) is never sent; leave it out.")
    return parsed


async def checked(url: httpx.URL, allow_private: bool, resolve: Resolve = resolve) -> list[str]:
    """The addresses behind the URL, resolved once: connect to these and to no others. Refused.

    One private address among them refuses all, unless private ones are allowed.
    """
    host = url.raw_host.decode("ascii")
    try:
        async with asyncio.timeout(LOOKUP_SECONDS):
            found = await resolve(host, url.port or (443 if url.scheme == "https" else 80))
    except TimeoutError as error:
        raise Refused(f"The host {host} was not found within {LOOKUP_SECONDS:g} seconds.") from error
    except (OSError, UnicodeError) as error:
        raise Refused(f"The host {host} cannot be found ({error}).") from error
    private = [address for address in found if not is_public(address)]
    if private and not allow_private:
        raise Refused(
            f"{host} is at {private[0]}, which is not a public address; "
            "an operator can allow these with FEWSTEP_WEBHOOK_PRIVATE_ADDRESSES=true."
        )
    return found
