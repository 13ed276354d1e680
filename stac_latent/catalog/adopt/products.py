"""Products of embeddings as data: what is to be known of one to describe its files with ``latent:`` fields.

A product is a JSON object, read from the folder ``products`` of this package, from a file, or from a plug-in (entry point group
``stac_latent.products``: a mapping, a path, or a function that gives one). No product has code of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Self

from stac_latent.cube.foreign_layout import CONTAINERS
from stac_latent.errors import CatalogError
from stac_latent.system.digests import digest
from stac_latent.system.documents import read_json
from stac_latent.system.suggest import did_you_mean

__all__ = ["Product", "open_product", "product_names", "space_digest"]

_FOLDER = Path(__file__).parents[2] / "products"
_KEYS = {
    "asset": "fields of the asset, such as latent:quantization, data_type and nodata",
    "container": f"{', '.join(CONTAINERS)}, stac, or empty: by the end of a file's name",
    "grid": "where the grid is: other files by pattern (href), attributes of a Zarr group (code, transform)",
    "groups": "pattern of the groups of a Zarr store that hold the arrays",
    "license": "SPDX name",
    "orders": "orders of the axes of a Zarr array in other editions, taken by their number where the array does not name its axes",
    "overviews": "what pixels of a GeoTIFF's overviews are, where they may stand for its own: mean",
    "links": "addresses: about, model, source",
    "scales": "where the scales are: another file (href: pattern, replacement) or array (array, dim_order)",
    "space": "producer, product and version, whose digest is latent:space",
    "time": "where the time is: href (patterns; years: first and last that there are), attribute, column or footer",
    "title": "in a few words",
    "vector": "column of a table: names, or pattern of numbered columns; scale: column of factors",
}


@dataclass(frozen=True, slots=True)
class Product:
    """A product of embeddings; see the keys of the JSON object in the documentation."""

    name: str
    title: str
    container: str
    space: Mapping[str, Any]
    asset: Mapping[str, Any] = field(default_factory=dict)
    scales: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Any] = field(default_factory=dict)
    time: Mapping[str, Any] = field(default_factory=dict)
    vector: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    groups: str = ""
    license: str | None = None
    overviews: str = ""
    orders: Sequence[Sequence[str]] = ()

    @classmethod
    def from_dict(cls, name: str, text: Mapping[str, Any]) -> Self:
        """Read a product.

        Raises
        ------
        CatalogError
            If a key is unknown or missing, or a pattern is none.
        """
        if unknown := sorted(set(text) - set(_KEYS)):
            known = "; ".join(f"{k} ({v})" for k, v in _KEYS.items())
            raise CatalogError(f"product {name!r} has unknown keys {', '.join(unknown)}; expected {known}")
        if missing := [k for k in ("title", "container", "space") if k not in text]:
            raise CatalogError(f"product {name!r} lacks {', '.join(f'{k} ({_KEYS[k]})' for k in missing)}")
        if text["container"] not in (*CONTAINERS, "stac", ""):
            raise CatalogError(
                f"product {name!r} has container {text['container']!r}; expected {_KEYS['container']}"
            )
        if lacks := [k for k in ("producer", "product", "version") if not text["space"].get(k)]:
            raise CatalogError(
                f"product {name!r} has a space without {', '.join(lacks)}; expected {_KEYS['space']}"
            )
        if wrong := [
            k for k in text.get("asset", {}) if not (k.startswith("latent:") or k in ("data_type", "nodata"))
        ]:
            raise CatalogError(
                f"product {name!r} has asset fields {', '.join(wrong)}; expected latent: fields, data_type or nodata"
            )
        clock = text.get("time", {}).get("href") or []
        for pattern in [
            *([clock] if isinstance(clock, str) else clock),
            text.get("vector", {}).get("pattern"),
        ]:
            try:
                re.compile(pattern or "")
            except re.error as exc:
                raise CatalogError(f"product {name!r} has a pattern {pattern!r} that is none: {exc}") from exc
        return cls(name=name, **text)


def product_names() -> dict[str, str]:
    """Names of the known products, sorted, with their titles; plug-ins are not opened, and have no title here."""
    own = {p.stem: json.loads(p.read_text(encoding="utf-8"))["title"] for p in _FOLDER.glob("*.json")}
    return dict(sorted((own | {p.name: "" for p in entry_points(group="stac_latent.products")}).items()))


def open_product(product: str | Path | Mapping[str, Any] | Product) -> Product:
    """A product by name, from a JSON file, or from a mapping.

    Raises
    ------
    CatalogError
        If there is none of that name, or it is not well formed; the message lists those that are known.

    Examples
    --------
    >>> open_product("alphaearth").asset["latent:quantization"]
    'power'
    """
    if isinstance(product, Product):
        return product
    if isinstance(product, Mapping):
        return Product.from_dict("custom", product)
    name = str(product)
    if points := list(entry_points(group="stac_latent.products", name=name)):
        found = points[0].load()
        found = found() if callable(found) else found
        return Product.from_dict(name, found if isinstance(found, Mapping) else _read(Path(found)))
    path = _FOLDER / f"{name}.json" if re.fullmatch(r"[\w-][\w.-]*", name) else Path(name)
    if not path.is_file() and not (path := Path(name)).is_file():
        raise CatalogError(
            f"no product {name!r}{did_you_mean(name, product_names())}: expected one of {', '.join(product_names())}, or a JSON file that describes one; 'any' takes a "
            "description by options"
        )
    return Product.from_dict(path.stem, _read(path))


def _read(path: Path) -> Mapping[str, Any]:
    try:
        doc = read_json(path)
    except CatalogError as exc:
        raise CatalogError(f"{path} is no description of a product: {exc}; expected a JSON object") from None
    if not isinstance(doc, Mapping):
        raise CatalogError(
            f"{path} is no description of a product: expected a JSON object, got {type(doc).__name__}"
        )
    return doc


def space_digest(facts: Mapping[str, Any]) -> str:
    """Digest of what makes vectors comparable: producer, product and version.

    Raises
    ------
    CatalogError
        If a text holds half of a character (a lone surrogate).

    Examples
    --------
    >>> space_digest({"producer": "a", "product": "b", "version": "1"})[:15]
    'sha256:2c733ef1'
    """
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        return digest(text.encode())
    except UnicodeEncodeError as exc:
        raise CatalogError(
            f"{dict(facts)!r} hold half of a character; correct the description of the product"
        ) from exc
