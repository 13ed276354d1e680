"""Addresses: which are local, where documents may lead, and how an address is shown.

An address is a path, a ``file:`` URL, the address of a server or an object store, or a name of GDAL's (``/vsi...``,
``zip://...``). pystac cuts or rewrites local paths with ``#``, ``?``, backslashes, tabs and line breaks; those are kept as
``file:`` URLs (:func:`href_of`), and hrefs are made absolute and relative here.

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
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from stac_latent.errors import CatalogError, without_secrets

if TYPE_CHECKING:
    import pystac

__all__ = [
    "absolute", "asset_href", "check_link", "href_of", "is_file_url", "is_http", "is_local", "is_object", "is_remote", "is_served",
    "link_href", "local_path", "relative", "shown",
]  # fmt: skip

_HTTP = frozenset(("http", "https"))
_OBJECTS = frozenset(("s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl"))
_NUMBERS = re.compile(r"\[[0-9A-Fa-f:.]*\]")
"""An IPv6 address; elsewhere two colons chain file systems."""
_REMOTE = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+://", re.IGNORECASE)
_FILE = re.compile(r"file:(//localhost(?=/)|//(?=/))?", re.IGNORECASE)
_MARKS = re.compile(r"[#?\\\t\r\n]")
"""What pystac cuts off, takes out or replaces in a path."""


def is_remote(href: str | None) -> bool:
    """Whether an address is on the network or names an archive: it has a scheme other than ``file``."""
    return href is not None and _REMOTE.match(href) is not None


def is_local(href: str) -> bool:
    """Whether an address is a path or a ``file:`` URL."""
    return not is_remote(href) and not href.startswith("/vsi")


def is_file_url(href: str) -> bool:
    """Whether an address is a ``file:`` URL, in any of its forms: ``file:///x``, ``file:/x``, ``FILE://localhost/x``."""
    return _FILE.match(href) is not None


def is_http(href: str) -> bool:
    """Whether an address is one of a web server."""
    return _scheme(href) in _HTTP


def is_object(href: str) -> bool:
    """Whether an address is one of an object store."""
    return _scheme(href) in _OBJECTS


def is_served(href: str) -> bool:
    """Whether what is at an address can be read over the network, in parts: from a web server or an object store."""
    return is_http(href) or is_object(href)


def _scheme(href: str) -> str:
    """Scheme in lower case, empty for a path; an address that is malformed after it has one too."""
    return href.partition(":")[0].lower() if is_remote(href) else ""


def local_path(href: str) -> Path:
    """Path of a local address.

    A ``file:`` URL is decoded. Where only a file of the encoded name exists, as GDAL would take it, it is that one.

    Raises
    ------
    CatalogError
        If the address is not local.

    Examples
    --------
    >>> local_path("file:///data/run%233/item.json").as_posix()
    '/data/run#3/item.json'
    >>> local_path("/data/a%20b.tif").as_posix()
    '/data/a%20b.tif'
    """
    if not is_local(href):
        raise CatalogError(f"expected a local path, got {shown(href)}")
    found = _FILE.match(href)
    if found is None:
        return Path(href)
    text = href[found.end() :]
    if text.startswith("//"):
        raise CatalogError(f"{href} is a file of another machine; expected file:///path, or a path")
    if os.name == "nt":
        text = re.sub(r"^/([A-Za-z]:)", r"\1", text)
    decoded, literal = Path(unquote(text)), Path(text)
    return literal if literal != decoded and not decoded.exists() and literal.exists() else decoded


def href_of(path: Path) -> str:
    """Address of a local file that pystac keeps whole: its absolute path, or a ``file:`` URL where the path has odd marks.

    Examples
    --------
    >>> href_of(Path("/data/run 3/item.json")), href_of(Path("/data/run#3/item.json"))
    ('/data/run 3/item.json', 'file:///data/run%233/item.json')
    """
    whole = Path(os.path.normpath(path.absolute()))
    return whole.as_uri() if _MARKS.search(whole.as_posix()) else str(whole)


def absolute(href: str, base: str | None) -> str:
    """Absolute address of an href in the document at ``base``; None counts as a document in the working folder.

    Examples
    --------
    >>> absolute("./latent.zarr", "https://x.org/c/item.json")
    'https://x.org/c/latent.zarr'
    >>> absolute("../raw/a#1.tif", "/data/c/item.json")
    'file:///data/raw/a%231.tif'
    """
    if not is_local(href) or is_file_url(href):
        return href
    if base is not None and not is_local(base):
        from pystac.utils import make_absolute_href

        return make_absolute_href(href, base)
    if Path(href).is_absolute():
        return href
    folder = Path.cwd() if base is None else local_path(base).parent
    return href_of(folder / href)


def relative(href: str, path: Path) -> str:
    """Href of a local file from the document at ``path``; one that is not local stays as it is.

    Examples
    --------
    >>> relative("/data/c/latent.zarr", Path("/data/c/item.json"))
    './latent.zarr'
    """
    if not is_local(href):
        return href
    text = Path(os.path.relpath(local_path(href), path.parent)).as_posix()
    return text if text.startswith("../") else f"./{text}"


def asset_href(asset: pystac.Asset) -> str:
    """Absolute address of an asset; of a path in which pystac made backslashes slashes, that of the file that is meant."""
    href = absolute(asset.href, None if asset.owner is None else asset.owner.get_self_href())
    if os.sep == "\\" or not is_local(href) or local_path(href).exists():
        return href
    meant = set(_with_backslashes(local_path(href)))
    return href_of(meant.pop()) if len(meant) == 1 else href


def _with_backslashes(path: Path) -> Iterator[Path]:
    """Paths that exist and are ``path`` if their backslashes are taken for slashes."""
    for i in range(1, len(path.parts)):
        start = Path(*path.parts[:i])
        for j in range(i + 2, len(path.parts) + 1):
            folder = start / "\\".join(path.parts[i:j])
            if folder.exists():
                whole = folder.joinpath(*path.parts[j:])
                yield from [whole] if whole.exists() else _with_backslashes(whole)


def link_href(link: pystac.Link) -> str | None:
    """Absolute address of a link's target; None for an object that has none."""
    import pystac

    if isinstance(link.target, pystac.STACObject):
        return link.target.get_self_href()
    return absolute(str(link.target), None if link.owner is None else link.owner.get_self_href())


def shown(href: str) -> str:
    """An address as it may be printed: without user and password, and without the values of its query.

    Examples
    --------
    >>> shown("https://x.org/a.zarr?sv=2024&sig=abc%3D")
    'https://x.org/a.zarr?sv=...&sig=...'
    """
    return href if is_local(href) else without_secrets(href)


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
    if not is_served(href) or "::" in _NUMBERS.sub("", href):
        raise CatalogError(
            f"{shown(origin or '')} leads to {shown(href)!r}; remote documents may lead to {', '.join(sorted(_HTTP | _OBJECTS))} addresses only"
        )
    if not is_http(href) or _place(target) == _place(own):
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
