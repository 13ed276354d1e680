"""What is told of a file and what is found in it, put together to the fields of an asset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pystac

from stac_latent.catalog.adopt.period import Period
from stac_latent.catalog.adopt.products import Product
from stac_latent.errors import CatalogError, CorruptDataError
from stac_latent.spec import Quantization, Spec
from stac_latent.store.foreign.axes import ArrayHeader

__all__ = ["Description", "UserMetadata", "asset_fields", "check_told"]


@dataclass(frozen=True, slots=True)
class UserMetadata:
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
    name: str = ""
    """What tells it from others of its file, for its id."""


def asset_fields(
    product: Product, told: UserMetadata, found: Mapping[str, Any], header: ArrayHeader, href: str
) -> dict[str, Any]:
    """Fields of an asset: the caller's before the product's, and those found in the file, which must not contradict.

    Raises
    ------
    CorruptDataError
        If the file has another type or number of channels than it is said to have.
    CatalogError
        If the quantisation is not one that can be read, or contradicts scale and offset of the header.
    """
    said = _with_header({**product.asset, **told.fields}, header, href)
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


def _with_header(said: dict[str, Any], header: ArrayHeader, href: str) -> dict[str, Any]:
    """What is said of a file, with the scale and the offset that its header has."""
    if not header.scale:
        return said
    names = {
        "latent:quantization_scale": list(header.scale),
        "latent:quantization_offset": list(header.offset),
    }
    method = said.get("latent:quantization", "none")
    told = {k: said[k] for k in names if said.get(k) is not None}
    if min(header.scale) < 0:
        raise CatalogError(
            f"{href}: its header has negative scales ({header.scale}); turn its numbers over and write it again"
        )
    if method in ("none", "round") or (method == "linear" and not told):
        return {**said, "latent:quantization": "linear", **names}
    if method == "linear" and all(_agree(v, names[k]) for k, v in told.items()):
        return {**said, **names}
    raise CatalogError(
        f"{href}: its header says scale {_few(header.scale)} and offset {_few(header.offset)}, and latent:quantization is {method!r} with "
        f"{told or 'no scale'}: which of them makes numbers of its codes is not clear; correct the header, or state the header's"
    )


def _agree(one: Any, other: list[float]) -> bool:
    a, b = (
        np.broadcast_arrays(np.atleast_1d(one), other)
        if len(one) in (1, len(other)) or len(other) == 1
        else ([0], [1])
    )
    return bool(np.allclose(a, b, rtol=1e-6))


def _few(values: Any) -> str:
    return ", ".join(f"{v:g}" for v in values[:4]) + (", ..." if len(values) > 4 else "")


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
