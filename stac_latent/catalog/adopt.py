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

from stac_latent.access import href_of, is_local, local_path
from stac_latent.catalog.adopt_array import describe_array, zarr_groups
from stac_latent.catalog.adopt_emb import expand
from stac_latent.catalog.adopt_facts import Description, Told
from stac_latent.catalog.adopt_table import describe_table
from stac_latent.catalog.products import Product, open_product
from stac_latent.catalog.tree import CatalogTree
from stac_latent.cube.layout import CONTAINERS, container_of
from stac_latent.errors import CatalogError
from stac_latent.extension import SCHEMA_URI
from stac_latent.names import plain_name
from stac_latent.suggest import known_options

__all__ = ["adopt"]

_PROJ = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_TABLE = "https://stac-extensions.github.io/table/v1.2.0/schema.json"
_FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"


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
    progress: Callable[[int, int], None] | None = None,
) -> list[pystac.Item]:
    """Catalogue embeddings that others published, where they are, so that :func:`stac_latent.load` reads them.

    The Items say how codes become numbers, what stands for no data, and in which space the vectors lie. Each file is opened and
    held against its description; its vectors are not read.

    Parameters
    ----------
    product
        Name of a product (:func:`stac_latent.catalog.products.product_names`), a JSON file or a mapping that describes one.
        ``any`` is described by the arguments; ``emb`` takes STAC documents of the embeddings extension.
    files
        Paths or URLs.
    dest
        Folder of the catalogue: a new one, or one to add to.
    collection
        Id of the Collection; by default the product's name.
    when
        ``2024``, ``2024-06-01``, an instant, or two with ``/`` between; by default what the files say.
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
    progress
        Called with (files done, files in all).

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
    told = Told(
        when=when, version=version, producer=producer, name=name, fields=dict(fields or {}),
        scales=None if scales is None else _address(scales), like=None if like is None else _address(like), crs=crs,
        transform=None if transform is None else tuple(float(v) for v in transform),
    )  # fmt: skip
    listed = [files] if isinstance(files, str | Path) else list(files)
    if not listed:
        raise CatalogError("no files were given to adopt")
    found = list(_expanded(known, listed))
    if told.scales is not None and len(found) > 1:
        raise CatalogError(
            f"scales={told.scales} is one file, and {len(found)} files were given: adopt them one by one"
        )
    made = []
    for number, (recipe, href, base) in enumerate(found):
        made.append(_item(recipe, href, base, told, collection or known.name))
        if progress is not None:
            progress(number + 1, len(found))
    _name(made)
    tree = CatalogTree(Path(dest))
    for item in made:
        _check_new(tree, item)
    return [tree.add(item) for item in made]


def _expanded(
    product: Product, files: Iterable[str | Path]
) -> Iterable[tuple[Product, str, pystac.Item | None]]:
    """Each array or table, with how it is described: groups of Zarr stores and assets of ``emb`` Items one by one."""
    for file in files:
        href = _address(file)
        if product.container == "stac":
            yield from expand(product, href)
            continue
        if is_local(href) and not local_path(href).exists():
            raise CatalogError(f"{href} does not exist")
        if product.groups:
            yield from ((product, h, None) for h in zarr_groups(href, product.groups))
        else:
            yield product, href, None


def _address(file: str | Path) -> str:
    text = str(file)
    return href_of(local_path(text)) if is_local(text) else text


def _item(product: Product, href: str, base: pystac.Item | None, told: Told, collection: str) -> pystac.Item:
    container = product.container or container_of({"href": href})
    if container not in CONTAINERS:
        raise CatalogError(
            f"{href}: its name does not say what it is; expected .tif, .npy, .zarr or .parquet, or a product that states its container"
        )
    product = replace(product, container=container)
    said = (describe_table if container == "parquet" else describe_array)(product, href, told, base)
    return _made(product, href, base, said, collection)


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
        extensions.append(_PROJ)
    if "table:columns" in properties:
        extensions.append(_TABLE)
    size = (
        {"file:size": local_path(href).stat().st_size}
        if is_local(href) and local_path(href).is_file()
        else {}
    )
    if size:
        extensions.append(_FILE)
    item = pystac.Item(
        _stem(href) if base is None else base.id,
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
        pystac.Asset(href, product.title, media_type=CONTAINERS[product.container], roles=["latent"], extra_fields={**said.fields, **size}),
    )  # fmt: skip
    for key, asset in said.assets.items():
        item.add_asset(key, asset)
    for rel, key in (("about", "about"), ("emb:model", "model"), ("emb:source-data", "source")):
        if key in product.links:
            item.add_link(pystac.Link(rel, product.links[key], title=f"{product.title}: {key}"))
    return item


def _stem(href: str) -> str:
    """Name of a file without its ending; of a group, that of its store before it."""
    whole = str(local_path(href)) if is_local(href) else unquote(urlsplit(href).path or href)
    parts = [p for p in re.split(r"[/\\]", whole) if p]
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
