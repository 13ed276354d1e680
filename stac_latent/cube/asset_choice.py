"""From STAC Items to what a worker needs to read a latent: a small reference, never a codec."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict, cast

import numpy as np
import pystac

from stac_latent.cube.band_names import check_names, label
from stac_latent.cube.foreign_layout import is_table
from stac_latent.cube.item_assets import decodable_assets, latent_assets, stamp_of
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, GridError
from stac_latent.spec import Band, Grid, Spec
from stac_latent.system.links import shown
from stac_latent.system.suggest import did_you_mean

__all__ = [
    "DriverData",
    "Reading",
    "Upto",
    "band_attrs",
    "band_index",
    "check_bands",
    "check_upto",
    "driver_data",
    "latent_attrs",
    "named_index",
    "pick_refs",
    "reference",
]

Upto = Literal["field", "latent"]
Reading = Literal["field", "latent", "channels"]
"""What a worker reads: pixels, cells as they are, or the channels of an embedding on any grid."""


class DriverData(TypedDict):
    """What odc-loader carries to a worker for one source; a few hundred bytes when pickled."""

    subdataset: str
    """Space and digest of everything below; odc-loader puts this key, and no other, into its dask token."""
    ref: LatentRef
    stamp: str
    upto: Reading
    bands: list[int]
    """Bands of the decoded field (zero based, in the order of ``ref``); empty for latents."""
    grid: Grid
    """Their pixels: those of ``ref``, or larger ones that it holds repeated."""
    physical: bool
    """Whether scale and offset are applied."""


def driver_data(
    item: pystac.Item,
    ref: LatentRef,
    upto: Reading,
    bands: Sequence[int] = (),
    grid: Grid | None = None,
    *,
    physical: bool = False,
) -> DriverData:
    """Pack what the odc-loader driver is to read, with a digest of it for dask."""
    stamp = stamp_of(item, ref.asset)
    digest = hashlib.sha256(
        f"{ref.text}|{stamp}|{upto}|{list(bands)}|{grid!r}|{physical}".encode()
    ).hexdigest()
    return {
        "subdataset": f"{ref.spec.space}/{digest}",
        "ref": ref,
        "stamp": stamp,
        "upto": upto,
        "bands": list(bands),
        "grid": grid or ref.grid,
        "physical": physical,
    }


def reference(item: pystac.Item, asset: str) -> LatentRef:
    """Make the reference to an asset that is one of the Item's latents; errors name the asset and the Item.

    Raises
    ------
    CatalogError
        If its fields are not those of a latent, or its extension version is newer than ours.
    GridError
        If the asset has no CRS, shape or transform.
    """
    try:
        return LatentRef.of_chosen(item, asset)
    except (CatalogError, GridError) as exc:
        where, text = f"asset {asset!r} of item {item.id!r}", str(exc)
        raise type(exc)(text if text.startswith(where) else f"{where}: {text}") from exc


def band_index(spec: Spec, name: str) -> int | None:
    """Position of a band by name, or by a common name that only one band has; None if there is no such band."""
    names = [b.name for b in spec.bands]
    if name in names:
        return names.index(name)
    common = [b.common_name for b in spec.bands]
    return common.index(name) if common.count(name) == 1 else None


def named_index(ref: LatentRef, name: str) -> int | None:
    """As :func:`band_index`; the key of the asset may stand before the name: ``latent.B04``."""
    found = band_index(ref.spec, name)
    return found if found is not None else band_index(ref.spec, name.removeprefix(f"{ref.asset}."))


def pick_refs(items: Sequence[pystac.Item], asset: str | None, upto: Upto) -> list[LatentRef]:
    """Pick the latent asset of each Item, chosen by key or because it is the only one that fits.

    Raises
    ------
    CatalogError
        If Items lack a fitting asset (all are named), or have several and no key was given, or latents are asked for of
        complex values.
    """
    missing: list[str] = []
    keys: list[str] = []
    for item in items:
        fit = decodable_assets(item) if upto == "field" else latent_assets(item)
        if asset is not None and asset in item.assets and asset not in fit:
            raise CatalogError(_unfit(item, asset, fit))
        if asset is None and len(fit) > 1:
            raise CatalogError(
                f"item {item.id!r} has several latent assets: {_listing(item, fit)}; choose one with asset="
            )
        key = next(iter(fit), None) if asset is None else asset
        if key is None or key not in fit:
            missing.append(f"{item.id!r} (assets: {', '.join(item.assets) or 'none'})")
            continue
        keys.append(key)
    if missing:
        what = "latent asset" if asset is None else f"latent asset {asset!r}"
        kind = " of kind 'codec'" if upto == "field" and asset is None else ""
        hint = "; embeddings load with upto='latent'" if upto == "field" else ""
        if any(is_table(a.to_dict()) for i in items for a in i.assets.values()):
            hint += (
                "; tables of vectors load with stac_latent.load_table, or here once they are adopted with the crs= in which their rows are "
                "the cells of a regular grid"
            )
        raise CatalogError(
            f"no {what}{kind} in {_some(missing)}; encode these items first, or leave them out{hint}"
        )
    refs = [reference(item, key) for item, key in zip(items, keys, strict=True)]
    for ref in refs if upto == "latent" else ():
        if any(b.is_complex for b in ref.spec.bands) and ref.spec.kind == "codec":
            raise CatalogError(
                f"asset {ref.asset!r} of item {ref.item_id!r} holds complex values as they are, and latents are real numbers: load it with "
                "upto='field'"
            )
    return refs


def check_upto(upto: str, bands: object, field_only: Mapping[str, object] | None = None) -> None:
    """Check the level, and that nothing was given that only pixels have.

    Raises
    ------
    CatalogError
        If the level is unknown, or bands, resampling and the like are given for latents.
    """
    if upto not in ("field", "latent"):
        raise CatalogError(f"upto={upto!r} cannot be loaded; expected 'field' (pixels) or 'latent' (cells)")
    if upto == "latent" and bands is not None:
        raise CatalogError(
            f"bands={bands!r} with upto='latent': latents have channels, not bands; leave bands out"
        )
    refused = [k for k, v in (field_only or {}).items() if v is not None]
    if upto == "latent" and refused:
        raise CatalogError(
            f"{', '.join(refused)} given with upto='latent': latents are float32, never resampled, on their own lattice; "
            "these arguments need upto='field'"
        )


def check_bands(bands: str | Iterable[str] | None, refs: Sequence[LatentRef]) -> dict[str, Band]:
    """Find the bands that were asked for, by the name that was asked; all of the first asset when none was.

    Raises
    ------
    CatalogError
        If an asset lacks one; the message lists what it has.
    """
    first = refs[0].spec
    if bands is None:
        names = [b.name for b in first.bands]
    else:
        names = list(dict.fromkeys([bands] if isinstance(bands, str) else bands))
    for ref in refs:
        if missing := [n for n in names if named_index(ref, n) is None]:
            existing = [n for b in ref.spec.bands for n in (b.name, b.common_name) if n]
            named = ", ".join(f"{n!r}{did_you_mean(n, existing)}" for n in missing)
            raise CatalogError(
                f"no band {named} in asset {ref.asset!r} of item {ref.item_id!r}; it has "
                f"{', '.join(label(b.name, b.common_name) for b in ref.spec.bands)}"
            )
        check_names(names, f"asset {ref.asset!r} of item {ref.item_id!r}")
    return {n: first.bands[cast("int", named_index(refs[0], n))] for n in names}


def band_attrs(band: Band) -> dict[str, Any]:
    """Attributes of a decoded band, as CF has them for values that are kept as they are stored.

    ``units`` are those of the physical values, which are values times ``scale_factor`` plus ``add_offset``; both are left out where
    they change nothing. ``_FillValue`` is of the band's type. So ``xarray.decode_cf`` of a cube, and of a file that it was written
    to, gives physical values, and GDAL finds all of it. ``nodata`` says the same by the name that odc-stac and odc-geo have for it.
    """
    attrs: dict[str, Any] = {"units": band.unit or "1"}
    if band.scale != 1.0:
        attrs["scale_factor"] = band.scale
    if band.offset != 0.0:
        attrs["add_offset"] = band.offset
    if band.nodata is not None:
        attrs["_FillValue"] = attrs["nodata"] = np.dtype(band.data_type).type(band.nodata)
    eo = {
        "eo:common_name": band.common_name,
        "eo:center_wavelength": band.center_wavelength,
        "eo:full_width_half_max": band.full_width_half_max,
    }
    return attrs | {k: v for k, v in eo.items() if v is not None}


def latent_attrs(ref: LatentRef, *others: LatentRef) -> dict[str, Any]:
    """Attributes of a latent variable: the ``latent:`` fields, the decoder, the size of the whole tile, and decoded bands.

    ``latent:bands`` and ``latent:decoded_bands`` are JSON text, which files of every format can hold: names of the bands, and the
    Band Objects of the asset with those of others in the cube that differ.
    """
    fields = ref.spec.to_fields()
    attrs = {k: v for k, v in fields.items() if k.startswith("latent:") or k == "data_type"}
    attrs["latent:bands"] = json.dumps([b.name for b in ref.spec.bands])
    decoded = (json.dumps([b.to_stac() for b in r.spec.bands]) for r in (ref, *others))
    attrs["latent:decoded_bands"] = f"[{', '.join(dict.fromkeys(decoded))}]"
    attrs["latent:shape"] = [ref.spec.dimensions, *ref.grid.cells]
    if ref.decoder is not None:
        attrs["latent:decoder"] = shown(ref.decoder.href)
        if ref.decoder.checksum is not None:
            attrs["latent:decoder_checksum"] = ref.decoder.checksum
    return attrs


def _listing(item: pystac.Item, keys: Iterable[str]) -> str:
    fields: Mapping[str, Mapping[str, object]] = {k: item.assets[k].extra_fields for k in keys}
    return ", ".join(
        f"{k!r} ({f.get('latent:kind')}, space {f.get('latent:space')})" for k, f in fields.items()
    )


def _unfit(item: pystac.Item, asset: str, fit: Sequence[str]) -> str:
    others = f"; this item has {_listing(item, fit)}" if fit else ""
    where = f"asset {asset!r} of item {item.id!r}"
    if asset in latent_assets(item):
        kind = item.assets[asset].extra_fields.get("latent:kind")
        return f"{where} is of kind {kind!r} and has no decoder: load it with upto='latent'{others}"
    return f"{where} is not a latent: its roles are {item.assets[asset].roles}{others}"


def _some(names: Sequence[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more items" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
