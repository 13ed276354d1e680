"""What Zarr stores of others say of themselves: their groups, the ``geoemb:`` convention, and the times of a time axis."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from stac_latent.catalog.adopt.period import Period, period
from stac_latent.catalog.adopt.products import Product
from stac_latent.errors import CatalogError, CorruptDataError, StacLatentError
from stac_latent.store.foreign.zarr_array import read_coordinate
from stac_latent.store.foreign.zarr_group import open_zarr

__all__ = ["steps_of", "with_geoemb", "zarr_groups"]

_ZONES = "utm[0-9][0-9]*"
_SQUARE = re.compile(r"\(x/([\d.]+)\)(?:\*\*2|\^2|\u00b2)[*\u00b7]sign\(x\)")
"""The formula of codes that are signed squares, without blanks."""


def zarr_groups(href: str, pattern: str) -> list[str]:
    """Hrefs of the groups of a store whose names match; the href itself if it is such a group.

    Without a pattern, those of the UTM zones if the store says that it has one for each (``geoemb:spatial_layout``).
    """
    import zarr.errors

    parent, _, name = href.rstrip("/").rpartition("/")
    if fnmatch.fnmatch(name, pattern or _ZONES):
        return [href]
    try:
        root = open_zarr(href)
        if not pattern and root.attrs.get("geoemb:spatial_layout") != "utm_zones":
            return [href]
        found = sorted(k for k in root.group_keys() if fnmatch.fnmatch(k, pattern or _ZONES))
    except StacLatentError:
        raise
    except (OSError, ValueError, KeyError, AttributeError, zarr.errors.BaseZarrError) as exc:
        raise CorruptDataError(f"{href} is no Zarr store that can be read: {exc}") from exc
    if not found:
        raise CatalogError(
            f"{href} has no group that matches {pattern or _ZONES!r}; name the group itself, below {parent}"
        )
    return [f"{href.rstrip('/')}/{k}" for k in found]


def with_geoemb(product: Product, attributes: Mapping[str, Any], href: str) -> Product:
    """A product with what the ``geoemb:`` attributes of a store say; the product's own words come before them.

    Raises
    ------
    CatalogError
        If the store is quantised in a way that has no reader, and the product does not say how.
    """
    if attributes.get("geoemb:model") is None:
        return product
    said: dict[str, Any] = {
        "latent:dimensions": attributes.get("geoemb:dimensions"),
        "data_type": attributes.get("geoemb:data_type"),
        "latent:granularity": "chip" if attributes.get("geoemb:type") == "chip" else "pixel",
    }
    quantization = attributes.get("geoemb:quantization")
    scales: Mapping[str, Any] = product.scales
    if isinstance(quantization, Mapping) and "latent:quantization" not in product.asset:
        said |= _quantised(quantization, href)
        if quantization.get("nodata") is not None:
            said["nodata"] = quantization["nodata"]
        scale = quantization.get("scale")
        if isinstance(scale, Mapping) and scale.get("type") == "array":
            scales = {"array": scale.get("array_name"), "nodata": scale.get("nodata")}
    elif "latent:quantization" not in product.asset:
        said["latent:quantization"] = "none"
    known = {k: v for k, v in said.items() if v is not None}
    return replace(product, asset={**known, **product.asset}, scales=scales)


def _quantised(said: Mapping[str, Any], href: str) -> dict[str, Any]:
    """Fields of a quantisation object."""
    scale = said.get("scale")
    scale = scale if isinstance(scale, Mapping) else {}
    kind = scale.get("type")
    formula = _SQUARE.fullmatch(re.sub(r"\s", "", str(said.get("formula") or "")))
    if formula:
        return {
            "latent:quantization": "power",
            "latent:quantization_scale": [1 / float(formula[1])],
            "latent:quantization_power": 2.0,
        }
    if kind == "array" and scale.get("array_name"):
        return {"latent:quantization": "per_vector"}
    if kind == "scalar" and scale.get("scale") is not None and not said.get("formula"):
        return {
            "latent:quantization": "linear",
            "latent:quantization_scale": [float(scale["scale"])],
            "latent:quantization_offset": [float(scale.get("offset") or 0)],
        }
    raise CatalogError(
        f"{href}: geoemb:quantization {said.get('method')!r} is not one that is read (a scale that is a number or an array, or the formula "
        "(x / n) ** 2 * sign(x)); state latent:quantization and its fields, or --quantization, --scale"
    )


def steps_of(
    product: Product, href: str, axis: str, steps: int, when: str | None, fallback: Any
) -> list[tuple[int, Period]]:
    """Steps of a time axis, and the time of each.

    Parameters
    ----------
    product
        Its ``time`` may say that a step is a year (``every``).
    href
        Of the group.
    axis
        Name of the axis, and of the coordinate with its times.
    steps
        How many there are.
    when
        Those within it alone; None: all.
    fallback
        Called for the time of a single step that no coordinate dates.

    Raises
    ------
    CatalogError
        If several steps have no times, or none is within ``when``.
    """
    found = read_coordinate(href, axis)
    if found is None:
        if steps == 1:
            return [(0, fallback())]
        raise CatalogError(
            f"{href} has {steps} steps of time and no coordinate {axis!r} that dates them; add one with a year for each"
        )
    values = _times(*found, f"{href}/{axis}")
    if len(values) != steps:
        raise CorruptDataError(f"{href}: coordinate {axis!r} has {len(values)} times for {steps} steps")
    annual = product.time.get("every") == "year"
    known = [(i, period(str(p[0].year)) if annual else p) for i, p in enumerate(values)]
    if when is not None:
        first, last = period(when)
        chosen = [(i, p) for i, p in known if first <= p[0] and p[1] <= last]
        if not chosen:
            raise CatalogError(
                f"{href} has no step within {when}; it has {', '.join(str(p[0].date()) for _, p in known[:20])}"
            )
        return chosen
    return known


def _times(values: Any, attributes: Mapping[str, Any], where: str) -> list[Period]:
    """Times of a coordinate: years, texts, times, or numbers that count since a time (CF)."""
    units = str(attributes.get("units") or "")
    try:
        if " since " in units:
            from xarray.coding.times import decode_cf_datetime

            values = decode_cf_datetime(values, units, attributes.get("calendar"), use_cftime=False)
        if values.dtype.kind == "M":
            moments = values.astype("datetime64[us]").tolist()
            return [
                period(m if isinstance(m, datetime) else datetime(m.year, m.month, m.day, tzinfo=UTC))
                for m in moments
            ]
        return [period(v.decode() if isinstance(v, bytes) else v) for v in values.tolist()]
    except (ValueError, TypeError, AttributeError, OverflowError) as exc:
        raise CorruptDataError(f"{where} holds no times that can be read: {exc}") from exc
