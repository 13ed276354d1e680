"""Which bands an Item's raster assets hold, and which of them a codec's bands are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Literal, TypedDict
from urllib.parse import urlparse

import pystac
import rasterio

from stac_latent.cube.band_names import label
from stac_latent.cube.grid.native_grids import asset_geobox
from stac_latent.cube.odc_private import is_raster_data
from stac_latent.errors import CatalogError, StacLatentError
from stac_latent.spec import Band
from stac_latent.system.suggest import did_you_mean

__all__ = ["AssetBand", "asset_rows", "assign", "band_lists", "band_table", "described", "listing"]

_NEVER = frozenset(("latent", "latent:mask", "thumbnail", "overview"))
_MASK_ROLES = frozenset(
    ("cloud", "cloud-shadow", "snow-ice", "saturation", "data-mask", "water-mask", "land-water", "mask", "quality", "qa", "metadata")
)  # fmt: skip
_MASK_WORDS = frozenset(
    ("scl", "cld", "snw", "clm", "cloud", "clouds", "qa", "qc", "quality", "mask", "msk", "fmask", "udm", "udm2", "dq", "flags", "saturation")
)  # fmt: skip
_PICTURE_WORDS = frozenset(("visual", "tci", "rgb", "truecolor"))
_QUICKLOOK_WORDS = frozenset(("thumbnail", "preview", "quicklook", "browse", "overview", "pvi"))
_JPEG2000 = (".jp2", ".j2k", ".jpx")


class AssetBand(TypedDict):
    """One band of a raster asset."""

    asset: str
    index: int
    """Position within the asset, from one."""
    count: int
    """Bands of the asset."""
    names: list[str | None]
    """odc-stac's name (the asset's key, or ``key.2``), and the band's own."""
    common: str | None
    stem: str
    """Name of the file, without its suffix."""
    meta: dict[str, Any]
    """Fields of the band; those of the asset where the band has none."""
    kind: Literal["data", "picture", "mask"]


def band_table(item: pystac.Item) -> list[AssetBand]:
    """Every band of every raster asset but quick-looks and latents, as odc-stac tells raster assets."""
    return [
        row for key, asset in item.assets.items() if _is_raster(key, asset) for row in asset_rows(key, asset)
    ]


def asset_rows(key: str, asset: pystac.Asset, count: int | None = None) -> list[AssetBand]:
    """Every band of one asset; ``count`` is their number where the Item does not list them."""
    fields = asset.extra_fields
    lists, listed = band_lists(asset)
    count = count or listed
    inherited = {
        k: v
        for k, v in fields.items()
        if v is not None and k in ("nodata", "data_type", "unit", "gsd", "raster:scale", "raster:offset")
    }
    out: list[AssetBand] = []
    for i in range(count):
        meta = dict(inherited)
        for entries in lists:
            if i < len(entries):
                meta |= {k: v for k, v in entries[i].items() if v is not None}
        name, common = meta.get("name"), meta.get("eo:common_name", meta.get("common_name"))
        row: AssetBand = {
            "asset": key,
            "index": i + 1,
            "count": count,
            "names": [key if i == 0 else f"{key}.{i + 1}", None if name is None else str(name)],
            "common": None if common is None else str(common),
            "stem": PurePosixPath(urlparse(asset.href).path).stem,
            "meta": meta,
            "kind": "data",
        }
        row["kind"] = _kind(asset, row)
        out.append(row)
    return out


def band_lists(asset: pystac.Asset) -> tuple[list[list[dict[str, Any]]], int]:
    """Band descriptions of an asset, in the three forms that STAC has had, and the number of its bands."""
    lists = [asset.extra_fields.get(k) or [] for k in ("bands", "eo:bands", "raster:bands")]
    return lists, max(1, *(len(x) for x in lists))


def _is_raster(key: str, asset: pystac.Asset) -> bool:
    roles = _roles(asset)
    path = PurePosixPath(urlparse(asset.href).path)
    if roles & _NEVER or (_words(key) & _QUICKLOOK_WORDS and "data" not in roles):
        return False
    alone = pystac.Asset(path.name, media_type=asset.media_type or None, roles=sorted(roles))
    return is_raster_data(alone) or (not asset.media_type and path.suffix.lower() == ".vrt")


def _roles(asset: pystac.Asset) -> set[str]:
    return {str(r).lower() for r in asset.roles or []}


def _words(text: str | None) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", (text or "").lower()))


def _kind(asset: pystac.Asset, row: AssetBand) -> Literal["data", "picture", "mask"]:
    roles, words = _roles(asset), _words(row["asset"]) | _words(row["names"][1])
    if roles & _MASK_ROLES or words & _MASK_WORDS:
        return "mask"
    picture = "visual" in roles or _words(row["asset"]) & _PICTURE_WORDS
    return "picture" if picture or _words(row["stem"]) & {"tci"} else "data"


# -- which of them a codec's bands are -----------------------------------------------------------------------------


def assign(
    item: pystac.Item, bands: Sequence[Band], codec: str, given: Mapping[str, str] | None = None
) -> list[AssetBand]:
    """Which band of the Item each of a codec's bands is.

    A band is looked for as an asset's key, a band's name, a common name, and as part of the name of a file that holds one band. Of
    several assets that fit, those of one band come before those of several, finer pixels before coarser ones, and TIFF before other
    formats. Masks are taken only by their own name; pictures (role ``visual``) only where all bands are theirs.

    Parameters
    ----------
    codec
        Name of the codec, for errors.
    given
        Asset keys (or ``key.2`` for a second band), band names or common names by the codec's bands.

    Raises
    ------
    CatalogError
        If a band is missing, several assets fit a band equally well, or one is wanted twice. The message lists what the Item has.
    """
    given = dict(given or {})
    if strangers := [n for n in given if n not in {b.name for b in bands}]:
        names = [b.name for b in bands]
        raise CatalogError(
            f"bands= names {strangers[0]!r}{did_you_mean(strangers[0], names)}, which is no band of codec {codec!r}; "
            f"it has {', '.join(names)}"
        )
    table = band_table(item)
    data = [row for row in table if row["kind"] != "picture"]
    found = _all(item, bands, given, data, table)
    if all(row is None for b, row in zip(bands, found, strict=True) if b.name not in given) and None in found:
        found = _all(item, bands, given, table, table)
    missing = [given.get(b.name, b.name) for b, row in zip(bands, found, strict=True) if row is None]
    if missing:
        raise CatalogError(_lacks(item, bands, missing, codec, table))
    chosen = [row for row in found if row is not None]
    _check_once(item, bands, chosen, table)
    return chosen


def _all(
    item: pystac.Item,
    bands: Sequence[Band],
    given: Mapping[str, str],
    rows: Sequence[AssetBand],
    table: Sequence[AssetBand],
) -> list[AssetBand | None]:
    return [
        _named(item, given[b.name], b, table) if b.name in given else _best(item, b.name, _hits(b, rows))
        for b in bands
    ]


def _named(item: pystac.Item, wanted: str, band: Band, table: Sequence[AssetBand]) -> AssetBand | None:
    """The band that a caller names: by key before all else."""
    if exact := next((e for e in table if wanted in e["names"][:1]), None):
        return exact
    key, _, number = wanted.rpartition(".")
    if key in item.assets and number.isdigit() and band_lists(item.assets[key])[1] == 1:
        rows = [e for e in table if e["asset"] == key] and _undescribed(item, key)
        return next((e for e in rows if e["index"] == int(number)), None)
    hits = [e for e in table if wanted in (e["names"][1], e["common"])]
    return _best(item, band.name, hits)


def _undescribed(item: pystac.Item, key: str) -> list[AssetBand]:
    """Bands of an asset without band metadata: as many as its file has."""
    asset = item.assets[key]
    try:
        with rasterio.open(asset.get_absolute_href() or asset.href) as src:
            return asset_rows(key, asset, src.count)
    except rasterio.errors.RasterioIOError:
        return []


def _hits(band: Band, rows: Sequence[AssetBand]) -> list[AssetBand]:
    """Bands that a codec's band may be, by the strongest of the signs that any of them shows."""
    keys = [e for e in rows if e["names"][0] == band.name]
    if named := keys or [e for e in rows if e["names"][1] == band.name and _may(e, band)]:
        return named
    called = {band.name, band.common_name} - {None}
    common = [e for e in rows if e["common"] in called and _may(e, band)]
    files = [e for e in rows if e["count"] == 1 and _in_stem(e, band) and _may(e, band, by_file=True)]
    both = [e for e in common if e in files]
    return both or [*common, *(e for e in files if e not in common)]


def _may(row: AssetBand, band: Band, *, by_file: bool = False) -> bool:
    """Whether a band may be taken by a sign that is not its key: masks only where a mask is asked for."""
    words = _words(row["stem"]) if by_file else set()
    return bool(_words(band.name) & _MASK_WORDS) or (row["kind"] != "mask" and not words & _MASK_WORDS)


def _in_stem(row: AssetBand, band: Band) -> bool:
    return row["stem"] == band.name or f"_{band.name}_" in f"_{row['stem']}_"


def _best(item: pystac.Item, name: str, hits: Sequence[AssetBand]) -> AssetBand | None:
    """The one that comes first; refuses to guess between equals."""
    if len(hits) < 2:
        return next(iter(hits), None)
    single = [e for e in hits if e["count"] == 1] or list(hits)
    sizes = [_pixel_size(item, e) for e in single] if len(single) > 1 else [None]
    if len(single) > 1 and None not in sizes:
        least = min(s for s in sizes if s is not None)
        single = [e for e, s in zip(single, sizes, strict=True) if s is not None and s <= least * 1.001]
    left = [e for e in single if not _is_jpeg2000(item, e)] or single  # Earth Search lists each band twice
    if len(left) == 1:
        return left[0]
    keys = [str(e["names"][0]) for e in left]
    raise CatalogError(
        f"item {item.id!r} has several assets that band {name!r} may be: {', '.join(map(_label, left))}. "
        f"Name the one that you mean with bands={{{name!r}: {keys[0]!r}}} (--bands {name}={keys[0]})"
    )


def _is_jpeg2000(item: pystac.Item, row: AssetBand) -> bool:
    asset = item.assets[row["asset"]]
    media, path = (asset.media_type or "").lower(), urlparse(asset.href).path.lower()
    return media.startswith(("image/jp2", "image/jpx")) or (not media and path.endswith(_JPEG2000))


def _pixel_size(item: pystac.Item, row: AssetBand) -> float | None:
    """Width of a pixel, as asset or file say; None where neither does."""
    fields = {**item.assets[row["asset"]].extra_fields, **row["meta"]}
    transform = fields.get("proj:transform")
    if isinstance(transform, list) and len(transform) >= 6:
        return float(abs(transform[0]) or abs(transform[1]))
    size = fields.get("raster:spatial_resolution", fields.get("spatial_resolution"))
    if size is not None:
        return float(size)
    try:
        return abs(asset_geobox(item, row["asset"]).affine.a)
    except StacLatentError:
        return None


def _check_once(
    item: pystac.Item, bands: Sequence[Band], chosen: Sequence[AssetBand], table: Sequence[AssetBand]
) -> None:
    taken: dict[tuple[str, int], str] = {}
    for band, row in zip(bands, chosen, strict=True):
        other = taken.setdefault((row["asset"], row["index"]), band.name)
        if other != band.name:
            raise CatalogError(
                f"bands {other!r} and {band.name!r} would both be {_label(row)} of item {item.id!r}; it has {listing(table)}. "
                f"Name another asset for one of them with bands={{{band.name!r}: 'asset key'}}"
            )


def _lacks(
    item: pystac.Item, bands: Sequence[Band], missing: Sequence[str], codec: str, table: Sequence[AssetBand]
) -> str:
    known = [str(n) for e in table for n in (*e["names"], e["common"]) if n]
    named = ", ".join(f"{n}{did_you_mean(n, known)}" for n in missing)
    wanted = next((b.name for b in bands if b.name in missing), bands[0].name)
    text = f"item {item.id!r} lacks band(s) {named} of codec {codec!r}; it has {listing(table) or 'none'}"
    if not table:
        kinds = ", ".join(f"{k} ({a.media_type or 'no media type'})" for k, a in item.assets.items())
        text += f", no asset that is a raster: {kinds or 'no assets at all'}"
    return (
        f"{text}. Name the assets with bands={{{wanted!r}: 'asset key'}}, or choose a codec for these bands"
    )


def _label(row: AssetBand) -> str:
    """``red (B04, a mask)``: odc-stac's name, and what else it is called."""
    kind = None if row["kind"] == "data" else f"a {row['kind']}"
    return label(str(row["names"][0]), row["names"][1], row["common"], kind)


def listing(table: Iterable[AssetBand], most: int = 60) -> str:
    """Bands with what they are called, for errors."""
    labels = sorted(_label(e) for e in table)
    return ", ".join(labels[:most]) + (f" and {len(labels) - most} more" if len(labels) > most else "")


def described(band: Band, row: AssetBand, gsd: float | None = None) -> Band:
    """The band, with the common name, wavelength, unit and sampling distance that the Item states and it lacks."""
    meta = row["meta"]

    def number(*names: str) -> float | None:
        value = next((meta[n] for n in names if n in meta), None)
        return float(value) if isinstance(value, int | float) else None

    return replace(
        band,
        common_name=band.common_name or row["common"],
        unit=band.unit or meta.get("unit"),
        gsd=band.gsd or number("gsd") or gsd,
        center_wavelength=band.center_wavelength or number("eo:center_wavelength", "center_wavelength"),
        full_width_half_max=band.full_width_half_max
        or number("eo:full_width_half_max", "full_width_half_max"),
    )
