"""New names for what is new: what a copy of an Item links to lies beside what an older copy links to, never over it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from stac_latent.errors import CatalogError
from stac_latent.system.documents import json_text, parse_json, read_json, unicode_text

__all__ = ["is_same", "renamed", "stores_of", "versioned", "with_self"]


def stores_of(doc: Mapping[str, Any], path: Path, root: Path) -> list[Path]:
    """Files and Zarr stores below ``root`` that the assets of an Item lie in.

    Parameters
    ----------
    doc
        The Item.
    path
        Its file.
    root
        Folder of the catalogue.
    """
    found = (_store(asset.get("href"), path, root) for asset in _assets(doc))
    return sorted({store for store in found if store is not None and store.exists()})


def is_same(doc: Any, other: bytes | None) -> bool:
    """Whether a document at the destination says what the local one does, but for where it lies."""
    try:
        return other is not None and bool(_placeless(parse_json(other, "")) == _placeless(doc))
    except CatalogError:
        return False


def with_self(document: bytes, address: str) -> bytes:
    """A document that says where it lies.

    Parameters
    ----------
    document
        An Item, Collection or Catalog as JSON; anything else stays as it is.
    address
        Of the document itself.
    """
    doc = parse_json(document, address)
    if not isinstance(doc, dict) or "stac_version" not in doc:
        return document
    kinds = {"Feature": "application/geo+json"}
    own = {"rel": "self", "href": address, "type": kinds.get(doc.get("type", ""), "application/json")}
    return unicode_text(
        json_text({**doc, "links": [own, *_placeless(doc).get("links", ())]}, allow_nan=True) + "\n"
    )


def _placeless(doc: Any) -> Any:
    """A document without its link to itself."""
    if not isinstance(doc, dict) or not isinstance(doc.get("links"), list):
        return doc
    return {**doc, "links": [x for x in doc["links"] if not (isinstance(x, dict) and x.get("rel") == "self")]}


def versioned(store: Path, files: Sequence[Path]) -> str:
    """Name of a store with its contents' digest in it.

    Parameters
    ----------
    store
        File, or folder.
    files
        All files of it.
    """
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            total.update(
                f"{file.relative_to(store).as_posix()} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode()
            )
    return f"{store.stem}-{total.hexdigest()[:12]}{store.suffix}"


def renamed(path: Path, root: Path, names: Mapping[Path, str]) -> bytes:
    """An Item as it is written at the destination: its assets and links to stores lead to the new names.

    Parameters
    ----------
    path
        Its file.
    root
        Folder of the catalogue.
    names
        New names of stores.
    """
    doc = read_json(path)
    links = [link for link in doc.get("links") or () if isinstance(link, dict) and link.get("rel") == "store"]
    for part in (*_assets(doc), *links):
        store = _store(part.get("href"), path, root)
        if store is not None and store in names:
            inside = os.path.relpath(_target(part["href"], path), store)
            target = store.with_name(names[store]) / ("" if inside == "." else inside)
            part["href"] = "./" + Path(os.path.relpath(target, path.parent)).as_posix()
    return unicode_text(json_text(doc, allow_nan=True) + "\n")


def _assets(doc: Any) -> Iterator[dict[str, Any]]:
    assets = doc.get("assets") if isinstance(doc, dict) else None
    yield from (a for a in (assets.values() if isinstance(assets, dict) else ()) if isinstance(a, dict))


def _target(href: str, path: Path) -> Path:
    plain = href if (path.parent / href).exists() else unquote(href)
    return Path(os.path.normpath(path.parent / plain))


def _store(href: Any, path: Path, root: Path) -> Path | None:
    """What is renamed: the Zarr store that an address leads to or into, else the file; None outside the catalogue."""
    if not isinstance(href, str) or urlparse(href).scheme or Path(href).is_absolute():
        return None
    target = _target(href, path)
    if not target.is_relative_to(root):
        return None
    inside = next(
        (p for p in reversed((target, *target.parents)) if p.suffix == ".zarr" and p.is_relative_to(root)),
        None,
    )
    return inside or target
