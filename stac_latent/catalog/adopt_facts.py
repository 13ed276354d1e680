"""What is told of a file and what is found in it, put together to the fields of an asset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pystac

from stac_latent.catalog.adopt_time import Period
from stac_latent.catalog.products import Product
from stac_latent.errors import CatalogError, CorruptDataError
from stac_latent.spec import Quantization, Spec

__all__ = ["Description", "Told", "asset_fields", "check_told"]


@dataclass(frozen=True, slots=True)
class Told:
    """What the caller says; None and empty: nothing."""

    when: str | None = None
    version: str | None = None
    producer: str | None = None
    name: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    scales: str | None = None
    like: str | None = None
    crs: str | None = None
    transform: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """Parts of an Item."""

    fields: dict[str, Any]
    period: Period
    geometry: dict[str, Any]
    bbox: list[float]
    assets: dict[str, pystac.Asset] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)


def asset_fields(product: Product, told: Told, found: Mapping[str, Any], href: str) -> dict[str, Any]:
    """Fields of an asset: the caller's before the product's, and those found in the file, which must not contradict.

    Raises
    ------
    CorruptDataError
        If the file has another type or number of channels than it is said to have.
    CatalogError
        If the quantisation is not one that can be read.
    """
    said = {**product.asset, **told.fields}
    for name in ("data_type", "latent:dimensions"):
        if said.get(name) is not None and said[name] != found[name]:
            raise CorruptDataError(
                f"{href} has {name} {found[name]!r}; product {product.name!r} has {said[name]!r}: it is another product, or was "
                f"converted; describe it as it is with product 'any' or fields={{{name!r}: ...}}"
            )
    nodata = found.get("nodata")
    if nodata is not None and said.get("nodata") is not None and float(nodata) != float(said["nodata"]):
        raise CorruptDataError(f"{href} has nodata {nodata}; product {product.name!r} has {said['nodata']}")
    fields = {
        "latent:kind": "embedding",
        "latent:granularity": "pixel",
        "latent:dtype": "float32",
        **found,
        **said,
    }
    if fields.get("nodata") is None:
        fields.pop("nodata", None)
    check_told(fields, href)
    return fields


def check_told(fields: Mapping[str, Any], href: str) -> None:
    """Check how codes become numbers, as far as fields alone say it."""
    method = fields.get("latent:quantization")
    readable = ("none", "round", "linear", "power", "per_vector")
    if method not in readable:
        raise CatalogError(
            f"{href}: latent:quantization {method!r} is not read from others' files; expected one of {', '.join(readable)}"
        )
    kind = np.dtype(fields["data_type"]).kind
    if method == "none" and kind in "iu":
        raise CatalogError(
            f"{href} holds {fields['data_type']}, and nothing says how these codes become numbers; state latent:quantization linear, power "
            "or per_vector, or 'round' where they are the numbers"
        )
    needs = {"linear": ["_scale"], "power": ["_scale", "_power"]}.get(str(method), [])
    if missing := [f"latent:quantization{n}" for n in needs if fields.get(f"latent:quantization{n}") is None]:
        raise CatalogError(f"{href}: quantisation {method!r} needs {', '.join(missing)}")
    scales: Quantization = Spec.from_fields({**fields, "latent:space": ""}).quantization
    for name, values in (("scale", scales.scale), ("offset", scales.offset)):
        if len(values) not in (1, fields["latent:dimensions"]):
            raise CatalogError(
                f"{href}: latent:quantization_{name} has {len(values)} values; expected one, or one for each of "
                f"{fields['latent:dimensions']} channels"
            )
