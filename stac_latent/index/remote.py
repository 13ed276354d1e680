"""Published vectors at an address: their files are copied to the cache folder once for each state, their Item beside them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from stac_latent.errors import CatalogError
from stac_latent.net.hrefs import read_bytes
from stac_latent.net.remote_file import local_copy
from stac_latent.system.documents import parse_json, unicode_text
from stac_latent.system.files import write_whole
from stac_latent.system.links import absolute, check_link, shown

__all__ = ["table_copy"]


def table_copy(href: str) -> Path:
    """Copy of a table; the STAC Item at ``<href>.json``, where there is one, goes beside it.

    Raises
    ------
    CatalogError, RemoteError
        If there is no such file, it cannot be read, or there is no room for the copy.
    """
    path = local_copy(href)
    beside = Path(f"{path}.json")
    url = urlsplit(href)
    own = url._replace(path=f"{url.path}.json").geturl()
    if not beside.exists():
        with suppress(CatalogError):
            doc = parse_json(read_bytes(own), shown(own))
            if isinstance(doc, dict) and doc.get("type") == "Feature":
                write_whole(beside, unicode_text(_text(doc, own)))
    return path


def _text(doc: dict[str, object], own: str) -> str:
    """The Item with absolute links, of those that it may have: once it is copied it counts as local."""
    links = doc.get("links")
    kept = []
    for link in links if isinstance(links, list) else []:
        with suppress(CatalogError, TypeError, KeyError):
            kept.append({**link, "href": check_link(absolute(str(link["href"]), own), own)})
    return json.dumps({**doc, "links": kept, "assets": {}})
