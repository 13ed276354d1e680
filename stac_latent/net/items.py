"""STAC Items by address."""

from __future__ import annotations

import os
from typing import Any

import pystac
from pystac.stac_io import DefaultStacIO

from stac_latent.errors import CatalogError, StacLatentError, without_secrets
from stac_latent.net.fetch import Sign
from stac_latent.net.hrefs import read_bytes
from stac_latent.system.documents import parse_json
from stac_latent.system.links import absolute, href_of, is_file_url, is_local, local_path, shown

__all__ = ["item_of", "make_absolute", "read_item", "read_object"]


def read_item(href: str, *, limit: int = 64 << 20, sign: Sign | None = None) -> pystac.Item:
    """STAC Item at a path or URL.

    Parameters
    ----------
    href
        Path or URL.
    limit
        Largest size in bytes that is read.
    sign
        Signs the address before it is asked for.

    Raises
    ------
    CatalogError
        If it cannot be read, or is no Item.
    """
    return item_of(parse_json(read_bytes(href, limit=limit, sign=sign), shown(href)), href)


def item_of(doc: Any, href: str) -> pystac.Item:
    """Item of a document, which lies at ``href`` whatever it says of itself; the document is changed.

    Raises
    ------
    CatalogError
        If it is no Item.
    """
    own = href_of(local_path(href)) if is_local(href) else href
    try:
        make_absolute(doc, own)
        item = pystac.Item.from_dict(
            doc, href=own, migrate=not str(doc.get("stac_version", "0")).startswith("1."), preserve_dict=False
        )
    except StacLatentError:
        raise
    except Exception as exc:
        if doc.get("type") in ("Catalog", "Collection", "FeatureCollection"):
            raise CatalogError(
                f"{shown(href)} is no STAC Item but a {doc['type']}; stac_latent.search finds its Items, and stac_latent.load makes one cube of "
                "them"
            ) from exc
        raise CatalogError(f"{shown(href)} is no STAC Item ({type(exc).__name__}: {exc})") from exc
    item.set_self_href(own)
    return item


def make_absolute(doc: Any, base: str, *, always: bool = False) -> None:
    """Make hrefs of links and assets absolute, in place, where pystac could not: those below a ``file:`` URL, or ``always``."""
    if always or is_file_url(base):
        for part in (*(doc.get("links") or ()), *(doc.get("assets") or {}).values()):
            part["href"] = absolute(part["href"], base)


def read_object(href: str) -> pystac.STACObject:
    """Item, Catalog or Collection at a path or URL; what it links to is read in the same way.

    Raises
    ------
    CatalogError
        If it cannot be read, or is none of them.
    """
    try:
        return pystac.read_file(href_of(local_path(href)) if is_local(href) else href, stac_io=_Documents())
    except StacLatentError:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever pystac raises
        raise CatalogError(
            f"{shown(href)} is no STAC document that can be read ({type(exc).__name__}: {without_secrets(str(exc))})"
        ) from None


class _Documents(DefaultStacIO):
    """Reads documents as the package does: by any address, in any encoding."""

    def read_json(self, source: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ARG002
        """JSON object at an address."""
        href = str(os.fspath(source))
        doc = parse_json(read_bytes(href, limit=1 << 30), shown(href))
        if not isinstance(doc, dict):
            raise CatalogError(f"{shown(href)} holds a JSON {type(doc).__name__}; expected a STAC object")
        make_absolute(doc, href)
        return doc
