"""Where published vectors are: files of a path, a folder or a STAC Item; what was only adopted is told apart."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pystac

from stac_latent.catalog.adopt.table_rows import is_adopted_table
from stac_latent.errors import MALFORMED, CatalogError
from stac_latent.index.remote import table_copy
from stac_latent.net.items import item_of, read_item
from stac_latent.system.documents import read_json
from stac_latent.system.files import files_below
from stac_latent.system.links import asset_href, check_link, href_of, is_local, local_path

__all__ = ["files_of", "path_of"]

CATALOGUES = ("Catalog", "Collection", "FeatureCollection")
PARQUET = "application/vnd.apache.parquet"


def path_of(source: Any) -> Path:
    """Path of a published file or folder.

    Parameters
    ----------
    source
        The path or address, the STAC Item of either, or the path or address of that Item.

    Raises
    ------
    CatalogError
        If it is an Item without published vectors, or a catalogue; the message names the command that publishes them.
    """
    if isinstance(source, pystac.Item):
        return _of_item(source)
    if not is_local(str(source)):
        return files_of(source)[0]
    path = local_path(str(source))
    return _of_document(path) if path.suffix == ".json" and path.is_file() else path


def files_of(source: Any) -> list[Path]:
    """Files with published vectors; see :func:`path_of` for what is taken.

    Of a folder, those below it, also where links to other folders lead. Hidden names are left out: a publication that is under way,
    or was killed, writes there.

    Raises
    ------
    CatalogError
        As :func:`path_of`, and if a folder holds no table.
    """
    if isinstance(source, str) and not is_local(source):
        if not urlsplit(source).path.endswith(".json"):
            return [table_copy(source)]
        source = read_item(source)
    if isinstance(source, pystac.Item) and not all(map(is_local, hrefs := _tables(source))):
        return [table_copy(href) for href in hrefs]
    path = path_of(source)
    if not path.is_dir():
        return [path]
    found = sorted(p for p in files_below(path) if p.suffix == ".parquet")
    if not found and (path / "catalog.json").is_file():
        raise _unpublished(f"{path} is a catalogue", str(path / "catalog.json"))
    if not found:
        raise CatalogError(f"the folder {path} holds no .parquet file; give the path that was published to")
    return found


def _of_document(path: Path) -> Path:
    try:
        doc = read_json(path)
        kind = doc["type"]
        item = None if kind in CATALOGUES else item_of(doc, href_of(path))
    except (*MALFORMED, OSError, pystac.STACError, pystac.STACTypeError) as exc:
        raise CatalogError(
            f"{path} is neither a published table nor its STAC Item ({type(exc).__name__}: {exc}); give the path of a .parquet file "
            "that publish wrote"
        ) from exc
    if item is None:
        raise _unpublished(f"{path} is a {kind}", str(path))
    return _of_item(item)


def _of_item(item: pystac.Item) -> Path:
    hrefs = _tables(item)
    if len(hrefs) > 1 and all(map(is_local, hrefs)):
        return local_path(str(item.get_self_href())).with_suffix("")
    return local_path(hrefs[0]) if is_local(hrefs[0]) else table_copy(hrefs[0])


def _tables(item: pystac.Item) -> list[str]:
    """Addresses of an Item's files of published vectors, where it may lead there."""
    latent = [a for a in item.assets.values() if "latent" in (a.roles or ())]
    tables = [a for a in latent if a.media_type == PARQUET and not is_adopted_table(a)]
    if not tables and latent:
        what = (
            "vectors as their producer wrote them"
            if any(map(is_adopted_table, latent))
            else "a raster of latents"
        )
        raise _unpublished(f"item {item.id!r} has {what}", item.get_self_href() or "ITEM.json")
    if not tables:
        raise CatalogError(
            f"item {item.id!r} has no table of vectors (a GeoParquet asset with role 'latent'); publish writes one"
        )
    return [check_link(asset_href(a), item.get_self_href()) for a in tables]


def _unpublished(what: str, href: str) -> CatalogError:
    return CatalogError(
        f"{what}, and only published vectors are searched; publish them first: stac-latent publish {shlex.quote(href)} vectors.parquet"
    )
