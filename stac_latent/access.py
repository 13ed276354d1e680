"""What a document may make a reader open: links of remote documents lead to public remote places, and nowhere else.

A catalogue from the network is not trusted with the reader's own files and network: a link of a remote document to a local
path or ``file:`` URL is refused, and so is one to a private, loopback or link-local address, on another host than the
document's own. What the user names, and local documents, may lead anywhere. ``$STAC_LATENT_ALLOW_PRIVATE`` lifts the second
rule: ``1`` for all hosts, or host names with commas between.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from contextlib import suppress
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from stac_latent.errors import CatalogError

__all__ = ["check_link", "is_remote", "is_uri", "shown", "without_secrets"]

_SCHEMES = frozenset(("http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss", "adl"))
_NUMBERS = re.compile(r"\[[0-9A-Fa-f:.]*\]")
"""An IPv6 address; elsewhere two colons chain file systems."""
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):")
_SECRET = re.compile(r"(?<=://)[^/?#\s'\"@]*@|(?<=[?&;])([^=&;\s'\"<>#]+)=[^&;\s'\"<>)#]+")
"""What may be secret in an address: user and password, and values after the question mark."""


def shown(href: str) -> str:
    """An address as it may be printed: without user and password, and without the values of its query.

    Examples
    --------
    >>> shown("https://x.org/a.zarr?sv=2024&sig=abc%3D")
    'https://x.org/a.zarr?sv=...&sig=...'
    """
    return without_secrets(href) if is_remote(href) else href


def without_secrets(text: str) -> str:
    """A message that may quote addresses, with what :func:`shown` leaves out of each left out."""
    return _SECRET.sub(lambda m: f"{m[1]}=..." if m[1] else "...@", text)


def is_uri(href: str) -> bool:
    """Whether an address has a scheme; a Windows drive is none."""
    return _SCHEME.match(href) is not None


def is_remote(href: str | None) -> bool:
    """Whether an address is on the network: it has a scheme other than ``file``."""
    found = None if href is None else _SCHEME.match(href)
    return found is not None and found[1].lower() != "file"


def check_link(href: str, origin: str | None) -> str:
    """Address of a link, if the document at ``origin`` may lead there.

    Parameters
    ----------
    href
        Absolute address.
    origin
        Where the document lies; None for one in memory, which counts as local.

    Raises
    ------
    CatalogError
        If a remote document leads to this machine, to a private address, or to a scheme that is none of plain storage.

    Examples
    --------
    >>> check_link("https://8.8.8.8/a.zarr", "https://8.8.4.4/item.json")
    'https://8.8.8.8/a.zarr'
    >>> check_link("/etc/passwd", "https://8.8.4.4/item.json")
    Traceback (most recent call last):
    stac_latent.errors.CatalogError: https://8.8.4.4/item.json leads to '/etc/passwd', on this machine; ...
    """
    if not is_remote(origin):
        return href
    if not is_remote(href):
        raise CatalogError(
            f"{shown(origin or '')} leads to {shown(href)!r}, on this machine; remote documents may not name local files. Download it and read "
            "the copy if you trust it"
        )
    target, own = urlsplit(href), urlsplit(origin or "")
    if target.scheme.lower() not in _SCHEMES or "::" in _NUMBERS.sub("", href):
        raise CatalogError(
            f"{shown(origin or '')} leads to {shown(href)!r}; remote documents may lead to {', '.join(sorted(_SCHEMES))} addresses only"
        )
    if target.scheme.lower() not in ("http", "https") or _place(target) == _place(own):
        return href
    host = _host(target, href)
    if not _allowed(host) and _is_private(host):
        raise CatalogError(
            f"{shown(origin or '')} leads to {shown(href)!r}, an address of a private network; set STAC_LATENT_ALLOW_PRIVATE={host} if "
            "it may"
        )
    return href


def _place(url: SplitResult) -> tuple[str | None, int | None]:
    """Host and port of a split address."""
    with suppress(ValueError):
        return url.hostname, url.port or {"http": 80, "https": 443}.get(url.scheme.lower())
    return None, None


def _host(url: SplitResult, href: str) -> str:
    host = _place(url)[0]
    if not host:
        raise CatalogError(f"{shown(href)!r} names no host")
    return host


def _allowed(host: str) -> bool:
    given = os.environ.get("STAC_LATENT_ALLOW_PRIVATE", "")
    return given == "1" or host in (h.strip() for h in given.split(","))


@lru_cache(maxsize=1024)
def _is_private(host: str) -> bool:
    """Whether a name stands for any address that is not public; one that cannot be resolved leads nowhere."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return False
    return not all(_is_public(str(address)) for address in found)


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            ip = inner
        elif ip in ipaddress.ip_network("64:ff9b::/96"):
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_global and not ip.is_multicast
