"""The verb ``adopt``: embeddings that others published become Items with ``latent:`` fields; nothing is copied."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pystac

from stac_latent.aliases import Progress
from stac_latent.catalog.adopt.description import Description, UserMetadata
from stac_latent.catalog.adopt.emb_import import expand
from stac_latent.catalog.adopt.products import Product, open_product, product_names
from stac_latent.catalog.adopt.raster import describe_array
from stac_latent.catalog.adopt.table import describe_table
from stac_latent.catalog.adopt.zarr_group import zarr_groups
from stac_latent.catalog.encode.fingerprint import check_checksum
from stac_latent.catalog.tree import CatalogTree
from stac_latent.cube.foreign_layout import CONTAINERS, container_of
from stac_latent.errors import CatalogError, StacLatentError
from stac_latent.extension import SCHEMA_URI
from stac_latent.extension.schemas import FILE_URI, PROJ_URI, TABLE_URI
from stac_latent.store.foreign.changes import state_of
from stac_latent.system.files import writing
from stac_latent.system.links import href_of, is_local, local_path
from stac_latent.system.names import plain_name
from stac_latent.system.suggest import known_options

__all__ = ["adopt"]

_TABLES = (".parquet", ".geoparquet", ".gpq")
_SIBLINGS = {"geotiff": "tiff"}
"""What names of products call a container."""


@known_options()
def adopt(
    product: str | Path | Mapping[str, Any] | Product,
    files: str | Path | Iterable[str | Path],
    dest: str | Path,
    *,
    collection: str | None = None,
    when: str | None = None,
    version: str | None = None,
    producer: str | None = None,
    name: str | None = None,
    fields: Mapping[str, Any] | None = None,
    scales: str | Path | None = None,
    like: str | Path | None = None,
    crs: str | None = None,
    transform: Iterable[float] | None = None,
    failed: Callable[[str, StacLatentError], None] | None = None,
    progress: Progress | None = None,
) -> list[pystac.Item]:
    """Catalogue embeddings that others published, where they are, so that :func:`stac_latent.load` reads them.

    The Items say how codes become numbers, what stands for no data, and in which space the vectors lie. Each file is opened and
    held against its description; its vectors are not read. A file that is not as it should be keeps none of the others back:
    these are catalogued, and then it is named.

    Parameters
    ----------
    product
        Name of a product (:func:`stac_latent.catalog.adopt.products.product_names`), a JSON file or a mapping that describes one.
        ``any`` is described by the arguments; ``emb`` takes STAC documents of the embeddings extension.
    files
        Paths or URLs; of a folder, the tables in it and below.
    dest
        Folder of the catalogue: a new one, or one to add to.
    collection
        Id of the Collection; by default the product's name.
    when
        ``2024``, ``2024-06-01``, an instant, or two with ``/`` between; by default what the files say. Of an array with a time
        axis, the steps within it.
    version
        Of the model, where the product leaves it open. Vectors of other versions lie in another space.
    producer, name
        Of the product ``any``.
    fields
        Fields of the asset besides, or instead of, the product's: ``latent:quantization``, ``nodata``, ``latent:columns``...
    scales
        File with the scales of a single file, instead of the product's rule.
    like
        Raster with the grid of a file that carries none.
    crs, transform
        Grid of a file that carries none; of a table: the CRS in which its rows are cells of a regular grid.
    failed
        Called with each file that cannot be adopted, and why, instead of raising an error in the end.
    progress
        Called with a label, the files done, and their number.

    Returns
    -------
    list of pystac.Item
        As they were written, with their own hrefs.

    Raises
    ------
    CatalogError
        If the product is unknown, something is not said by the file, the product or the arguments, or an Item of the id is there
        already for another file.
    CorruptDataError
        If a file is not as the product says: another type, shape or number of channels, missing or unfitting scales.
    GridError
        If there is no grid.

    Examples
    --------
    >>> items = adopt("alphaearth", "aef/2024/10N/tile.tiff", "catalog")  # doctest: +SKIP
    >>> stac_latent.load(items, upto="latent", bbox=(-122.1, 37.2, -122.0, 37.3))  # doctest: +SKIP
    """
    known = open_product(product)
    told = UserMetadata(
        when=when, version=version, producer=producer, name=name, fields=dict(fields or {}),
        scales=None if scales is None else _address(scales), like=None if like is None else _address(like), crs=crs,
        transform=None if transform is None else tuple(float(v) for v in transform),
    )  # fmt: skip
    listed = [files] if isinstance(files, str | Path) else list(files)
    if not listed:
        raise CatalogError("no files were given to adopt")
    failures: list[tuple[str, StacLatentError]] = []
    found = []
    for file in listed:
        try:
            found += list(_expanded(known, file))
        except StacLatentError as exc:
            failures.append((_address(file), exc))
    if told.scales is not None and len(found) > 1:
        raise CatalogError(
            f"scales={told.scales} is one file, and {len(found)} files were given: adopt them one by one"
        )
    made: list[pystac.Item] = []
    for number, (recipe, href, base) in enumerate(found):
        try:
            made += _items(recipe, href, base, told, collection or known.name)
        except StacLatentError as exc:
            failures.append((href, exc))
        if progress is not None:
            progress("adopt", number + 1, len(found))
    _name(made)
    tree = CatalogTree(Path(dest))
    for item in made:
        _check_new(tree, item)
    with writing(tree.root):
        written = [tree.add(item) for item in made]
    _report(failures, len(written), failed)
    return written


def _report(
    failures: list[tuple[str, StacLatentError]],
    written: int,
    failed: Callable[[str, StacLatentError], None] | None,
) -> None:
    """Name the files that were not adopted."""
    if failed is not None:
        for href, exc in failures:
            failed(href, exc)
        return
    if failures and (written or len(failures) > 1):
        raise CatalogError(
            f"{len(failures)} file(s) were not adopted, {written} item(s) of the others were: "
            + "; ".join(str(exc) for _, exc in failures)
        ) from failures[0][1]
    if failures:
        raise failures[0][1]


def _expanded(product: Product, file: str | Path) -> Iterable[tuple[Product, str, pystac.Item | None]]:
    """Each array or table of a file, with how it is described: groups of Zarr stores, assets of ``emb`` Items, tables of a folder."""
    href = _address(file)
    if product.container == "stac":
        yield from expand(product, href)
        return
    if is_local(href) and not local_path(href).exists():
        raise CatalogError(f"{href} does not exist")
    product = _sibling(product, href)
    if product.container == "parquet" and is_local(href) and local_path(href).is_dir():
        tables = sorted(p for end in _TABLES for p in local_path(href).rglob(f"*{end}") if p.is_file())
        if not tables:
            raise CatalogError(f"{href} has no table ({', '.join(_TABLES)}) in it or below")
        yield from ((product, href_of(p), None) for p in tables)
    elif product.container == "zarr" or _is_store(href):
        yield from ((product, h, None) for h in zarr_groups(href, product.groups))
    else:
        yield product, href, None


def _sibling(product: Product, href: str) -> Product:
    """The product of the same name for the container that a file has, where there is one: ``tessera`` and ``tessera-zarr``."""
    kind = "zarr" if _is_store(href) else container_of({"href": href})
    name = f"{product.name}-{_SIBLINGS.get(kind, kind)}"
    return open_product(name) if product.container not in ("", kind) and name in product_names() else product


def _is_store(href: str) -> bool:
    """Whether it is a Zarr group or array, whatever its name."""
    if not is_local(href):
        return container_of({"href": href}) == "zarr"
    return any((local_path(href) / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def _address(file: str | Path) -> str:
    text = str(file)
    return href_of(local_path(text)) if is_local(text) else text


def _items(
    product: Product, href: str, base: pystac.Item | None, told: UserMetadata, collection: str
) -> list[pystac.Item]:
    container = product.container or ("zarr" if _is_store(href) else container_of({"href": href}))
    if container not in CONTAINERS:
        raise CatalogError(
            f"{href}: its name does not say what it is; expected .tif, .npy, .zarr or .parquet, or a product that states its container"
        )
    product = replace(product, container=container)
    if container == "parquet":
        return [_made(product, href, base, describe_table(product, href, told, base), collection)]
    return [
        _made(product, href, base, said, collection) for said in describe_array(product, href, told, base)
    ]


def _made(
    product: Product, href: str, base: pystac.Item | None, said: Description, collection: str
) -> pystac.Item:
    start, end = said.period
    properties = {
        "latent:spaces": [said.fields["latent:space"]],
        "latent:kinds": ["embedding"],
        **said.properties,
    }
    if product.license:
        properties["license"] = product.license
    extensions = [SCHEMA_URI]
    if "proj:shape" in said.fields:
        extensions.append(PROJ_URI)
    if "table:columns" in properties:
        extensions.append(TABLE_URI)
    state = _state(href) | _checksum(href, base, said.fields)
    if state:
        extensions.append(FILE_URI)
    item = pystac.Item(
        "-".join(filter(None, (_stem(href), said.name))) if base is None else base.id,
        said.geometry if base is None or base.geometry is None else base.geometry,
        said.bbox if base is None or base.bbox is None else list(base.bbox),
        start if start == end else None,
        properties,
        start_datetime=None if start == end else start,
        end_datetime=None if start == end else end,
        stac_extensions=extensions,
        collection=collection,
    )
    item.add_asset(
        "embeddings",
        pystac.Asset(href, product.title, media_type=CONTAINERS[product.container], roles=["latent"], extra_fields={**said.fields, **state}),
    )  # fmt: skip
    for key, asset in said.assets.items():
        asset.extra_fields |= _state(asset.href)
        item.add_asset(key, asset)
    for rel, key in (("about", "about"), ("emb:model", "model"), ("emb:source-data", "source")):
        if key in product.links:
            item.add_link(pystac.Link(rel, product.links[key], title=f"{product.title}: {key}"))
    return item


def _state(href: str) -> dict[str, Any]:
    """Size of a local file and when it was written, so that a later one of its name is noticed."""
    state = state_of(href)
    return {} if state is None else {"file:size": state.size, "updated": state.updated}


def _checksum(href: str, base: pystac.Item | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Checksum that an Item or the caller states, held against a local file."""
    said = fields if base is None else base.assets["embeddings"].extra_fields | dict(fields)
    stated = said.get("file:checksum")
    if stated is not None and is_local(href):
        check_checksum(local_path(href), stated)
    return {} if stated is None else {"file:checksum": stated}


def _stem(href: str) -> str:
    """Name of a file without its ending; of a group, that of its store before it."""
    whole = str(local_path(href)) if is_local(href) else unquote(urlsplit(href).path or href)
    parts = [p for p in re.split(r"[/\\]", whole) if p] or [""]
    name = re.sub(r"\.(tiff?|npy|zarr|parquet|gpq|geoparquet|vrt)$", "", parts[-1], flags=re.IGNORECASE)
    if len(parts) > 1 and parts[-2].endswith(".zarr"):
        name = f"{parts[-2].removesuffix('.zarr')}-{name}"
    return plain_name(re.sub(r"[^\w.-]+", "_", name))


def _name(items: list[pystac.Item]) -> None:
    """Give files of one name different ids: by their year, else by their folders."""
    for shorter in range(4):
        counts = Counter(i.id for i in items)
        for item in items:
            if counts[item.id] > 1:
                start = item.datetime or item.common_metadata.start_datetime
                folders = re.split(r"[/\\]", item.assets["embeddings"].href)[:-1][::-1]
                more = (
                    str(start.year)
                    if shorter == 0 and start is not None
                    else (folders[shorter - 1 :] or ["_"])[0]
                )
                item.id = re.sub(r"[^\w.-]+", "_", f"{item.id}-{more}")
    if repeated := [i for i, n in Counter(i.id for i in items).items() if n > 1]:
        raise CatalogError(
            f"the files give several items of one id ({', '.join(repeated[:5])}); adopt them to several collections"
        )


def _check_new(tree: CatalogTree, item: pystac.Item) -> None:
    """Refuse to replace an Item by one of another file."""
    old = tree.find(item.id, item.collection_id)
    if old is None or "embeddings" not in old.assets:
        return
    before, now = old.assets["embeddings"].href, item.assets["embeddings"].href
    if before != now:
        raise CatalogError(
            f"item {item.id!r} of collection {item.collection_id!r} is there already, for {before}; choose another collection= for {now}"
        )
