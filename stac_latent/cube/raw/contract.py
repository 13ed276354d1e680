"""What a raw asset is held to when it is opened: its file, its Item and the codec, fact by fact, with one rule for each.

============== ========================================================================================================
fact           rule where file, Item and codec disagree
============== ========================================================================================================
type           The file's. Complex values are for chains that store pixels as they are; others refuse them, and so does an
               error bound. Bands that the codec names only are of the file's type; a codec's own type is widened where its
               chain computes with numbers, and refused where it stores pixels as they are.
               Floats that no scale brings to a codec of integers are refused, or kept by the residual of an error bound.
nodata         The Item's; pixels of the file's tag are without data as well, and become the Item's. Where the Item says
               nothing, the file's; where neither does, there is none. Floats have NaN instead, and complex values
               always. A value that the type cannot hold counts as not said. The codec's own stands in only where NaN has to become an integer.
scale, offset  The Item's, else the file's. Sentinel-2's -1000 of processing baseline 04.00 is of reflectances alone.
unit           The Item's, else the file's, else the codec's.
masks          Pixels that a mask beside or in the file, or an alpha band that the Item does not describe as data, leaves
               out are without data; integers without nodata take a value that no valid pixel has.
CRS            The file's; a file without one has the Item's. Others than the file's are refused, unless the corners lie
               less than half a pixel apart. What is no CRS (``EPSG:None``) counts as not said.
transform      The file's; a file without one has the Item's. Refused where corners lie half a pixel apart or more; GDAL's
               order of the six numbers is named. Less is the file's, with a warning from a hundredth of a pixel on.
shape          The file's; another is refused.
bands          A band that the file does not have is refused.
============== ========================================================================================================

``trust="file"`` takes the file's grid where it would be refused, with a warning; ``trust="item"`` places the file's pixels
where the Item says.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pystac
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from stac_latent.cube.raw.asset_bands import AssetBand, band_lists
from stac_latent.cube.raw.assets import FileBand, Header
from stac_latent.errors import CatalogError, GridError
from stac_latent.field.validity import fits
from stac_latent.geo.crs import crs_label, crs_text
from stac_latent.spec import numpy_type

__all__ = ["Facts", "Trust", "agreed_bands", "agreed_grid", "agreed_values", "is_data", "placed_by"]

Trust = Literal["file", "item"]

_ROUNDING = 0.01
"""Part of a pixel that an Item's numbers may be off without a word."""
_HALF = 0.5 - 1e-6
_FILE = "correct the item, or take the file's with trust='file' (--trust file)"
_ITEM = ", or place its pixels where the item says with trust='item' (--trust item)"


@dataclass(frozen=True)
class Facts:
    """Values of one band, agreed on."""

    data_type: str
    nodata: float | None
    """Of pixels without data, once they are read: NaN for floats and complex values; None where every pixel holds data."""
    missing: tuple[float, ...]
    """Stored values that are without data: the file's tag, and the Item's where that is another; NaN always is."""
    scale: float | None
    """None where nothing is stated."""
    offset: float | None
    unit: str | None
    notes: tuple[str, ...]
    """Where Item and file disagreed, in words."""


def agreed_values(item: pystac.Item, name: str, meta: Mapping[str, Any], band: FileBand) -> Facts:
    """Type, nodata, scale, offset and unit of one band.

    Parameters
    ----------
    item
        That has the band.
    name
        Of the band, for errors.
    meta
        What the Item says of it.
    band
        What the file says of it.

    Raises
    ------
    CatalogError
        If the Item gives text where a number belongs.
    """
    notes = []
    where = f"band {name!r} of item {item.id!r}"
    said = meta.get("data_type")
    if said is not None and numpy_type(str(said)) != band.data_type:
        notes.append(
            f"band {name!r} is {said} in the item and {band.data_type} in its file; the file's type is taken"
        )
    dtype = np.dtype(band.data_type)
    stated = _number(meta.get("nodata"), "nodata", where)
    if stated is not None and not fits(stated, dtype):
        notes.append(
            f"band {name!r} has nodata {stated:g} in the item, which no pixel of {dtype} can be; it is left out"
        )
        stated = None
    tag = band.nodata if fits(band.nodata, dtype) else None
    if stated is not None and tag is not None and not _same(stated, tag, dtype):
        notes.append(
            f"band {name!r} has nodata {stated:g} in the item and {tag:g} in its file; both are without data"
        )
    missing_values = [v for v in (tag, stated) if v is not None]
    nodata = None if not missing_values else math.nan if dtype.kind == "f" else missing_values[-1]
    if dtype.kind == "c":
        nodata = math.nan
    missing = tuple(dict.fromkeys(v for v in missing_values if not math.isnan(v)))
    scale = _number(meta.get("raster:scale", meta.get("scale")), "scale", where)
    offset = _number(meta.get("raster:offset", meta.get("offset")), "offset", where)
    for value, word in ((scale, "scale"), (offset, "offset")):
        if value is not None and (not math.isfinite(value) or (value == 0 and word == "scale")):
            raise CatalogError(
                f"{where} has {word} {value:g}, which leads to no physical value; correct the item"
            )
    if scale is None and offset is None and (band.scale, band.offset) != (1.0, 0.0) and band.scale:
        scale, offset = band.scale, band.offset
    unit = meta.get("unit")
    return Facts(band.data_type, nodata, missing, scale, offset, unit or band.unit, tuple(notes))


def agreed_bands(item: pystac.Item, key: str, row: AssetBand, file: Header) -> None:
    """Refuse a band that the file does not have, with :class:`CatalogError`; ``row`` is the Item's band."""
    if row["index"] > len(file.bands):
        raise CatalogError(
            f"asset {key!r} of item {item.id!r} has {row['count']} bands in the item and {len(file.bands)} in its file; correct the "
            "item, or name bands that are there"
        )


def is_data(item: pystac.Item, key: str, file: Header) -> bool:
    """Whether the Item describes as data what its file calls an alpha band: GDAL calls the fourth of four bytes so."""
    entries = next((b for b in band_lists(item.assets[key])[0] if b), [])
    alphas = [i for i, b in enumerate(file.bands) if b.alpha]
    return bool(alphas) and all(
        i < len(entries)
        and not {"alpha", "mask"} & {str(v).lower() for v in entries[i].values() if isinstance(v, str)}
        for i in alphas
    )


def _same(a: float, b: float, dtype: np.dtype[Any]) -> bool:
    return bool(dtype.type(a) == dtype.type(b)) or (math.isnan(a) and math.isnan(b))


def _number(value: Any, what: str, where: str) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError) as exc:
        raise CatalogError(f"{where} has {what} {value!r}, which is no number; correct the item") from exc


def agreed_grid(
    item: pystac.Item, key: str, file: Header, trust: Trust | None = None
) -> tuple[GeoBox, tuple[str, ...]]:
    """Grid of an asset, and where Item and file disagreed, in words.

    Parameters
    ----------
    item, key
        The asset.
    file
        Its file.
    trust
        Which of them to take where they contradict each other; None refuses it.

    Raises
    ------
    GridError
        If they do, or neither says where the pixels lie.
    """
    asset = f"asset {key!r}"
    name = f"{asset} of item {item.id!r}"
    if trust not in (None, "file", "item"):
        raise GridError(
            f"trust={trust!r} names neither side; expected 'file', 'item', or None to refuse what contradicts"
        )
    stated, notes = _StatedGrid.of(item.assets[key].extra_fields, item.properties)
    notes = [f"{asset}: {n}" for n in notes]
    crs = CRS(crs_text(file.crs)) if file.crs else None
    if crs is None and stated.crs is None:
        raise GridError(
            f"{name} has no CRS: neither proj:code in the item nor georeferencing in {file.href} says one; add the projection "
            "extension to the item"
        )
    if file.transform is None and stated.transform is None:
        points = " but ground control points: warp it to a grid first" if file.points else ""
        raise GridError(
            f"{name} has no transform: neither proj:transform in the item nor {file.href} says where its pixels lie{points}"
        )
    placed = stated.transform if file.transform is None else file.transform
    assert placed is not None  # noqa: S101 - refused above
    own = GeoBox(file.shape, placed, crs or stated.crs)
    theirs = GeoBox(file.shape, stated.transform or own.affine, stated.crs or own.crs)
    problem = wrong = stated.shape_problem(file.shape)
    if problem is None and (stated.transform is not None or stated.crs is not None):
        problem, gap = _compare(own, theirs, stated)
        if problem is None and gap > _ROUNDING:
            notes.append(f"{asset} lies {gap:.2g} pixels off in the item; the grid of its file is taken")
    if problem is None:
        same = stated.crs is not None and stated.crs == own.crs
        return (GeoBox(own.shape, own.affine, stated.crs) if same else own), tuple(notes)
    if file.transform is None and wrong is not None and stated.shape != file.shape[::-1]:
        raise GridError(
            f"{name}: {problem}, and {file.href} does not say where they lie: proj:transform of the item is of other pixels; correct the "
            "item, or write the file's transform"
        )
    if trust == "item" and wrong is None:
        return theirs, (*notes, f"{asset}: {problem}; the item's grid is taken, as trust='item' has it")
    if trust == "file":
        return own, (*notes, f"{asset}: {problem}; the file's grid is taken, as trust='file' has it")
    raise GridError(f"{name}: {problem}; {_FILE}{_ITEM if wrong is None else ''}")


def placed_by(box: GeoBox, file: Header) -> Trust:
    """Who says where the pixels of a grid lie: the file, or the Item where the file says nothing or something else."""
    own = file.transform == box.affine and (not file.crs or CRS(crs_text(file.crs)) == box.crs)
    return "file" if own else "item"


@dataclass(frozen=True)
class _StatedGrid:
    """Grid as the projection extension has it."""

    crs: CRS | None
    transform: Affine | None
    shape: tuple[int, int] | None

    @classmethod
    def of(cls, *levels: Mapping[str, Any]) -> tuple[_StatedGrid, list[str]]:
        """From the fields of an asset and of its Item, in this order; what says nothing comes back in words."""
        notes: list[str] = []
        crs = None
        for fields, name in itertools.product(
            levels, ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson")
        ):
            value = fields.get(name)
            if value is None or crs is not None:
                continue
            try:
                text = json.dumps(value) if isinstance(value, Mapping) else value
                crs = CRS(crs_text(f"EPSG:{value}" if name == "proj:epsg" else text))
            except GridError:
                notes.append(f"{name} {str(value)[:60]!r} is no CRS; it is left out")
        fields = {k: v for level in reversed(levels) for k, v in level.items() if v is not None}
        transform = _numbers(fields.get("proj:transform"), (6, 9), float)
        if transform is not None and not (
            _area(Affine(*transform[:6])) or _area(Affine.from_gdal(*transform[:6]))
        ):
            transform = None  # in neither order
        shape = _numbers(fields.get("proj:shape"), (2,), int)
        for name, value in (("proj:transform", transform), ("proj:shape", shape)):
            if fields.get(name) is not None and value is None:
                notes.append(f"{name} {str(fields[name])[:60]} is none; it is left out")
        grid = cls(
            crs,
            None if transform is None else Affine(*transform[:6]),
            None if shape is None else (shape[0], shape[1]),
        )
        return grid, notes

    def shape_problem(self, shape: tuple[int, int]) -> str | None:
        if self.shape is None or self.shape == shape:
            return None
        order = (
            " (proj:shape is (y, x): it has them the other way round)" if self.shape == shape[::-1] else ""
        )
        return f"proj:shape is {list(self.shape)}, the file has {list(shape)} pixels{order}"


def _area(t: Affine) -> float:
    """Of a pixel."""
    return float(t.a * t.e - t.b * t.d)


def _numbers(value: Any, lengths: Sequence[int], kind: type) -> list[Any] | None:
    """A list of so many finite numbers; None for anything else."""
    try:
        out = [kind(v) for v in value]
    except (TypeError, ValueError, OverflowError):
        return None
    return out if len(out) in lengths and all(map(math.isfinite, out)) else None


def _compare(own: GeoBox, theirs: GeoBox, stated: _StatedGrid) -> tuple[str | None, float]:
    """What contradicts the file's grid, and how far (pixels) corners lie from each other."""
    if own.crs != theirs.crs and (gap := _gap(own, GeoBox(own.shape, own.affine, theirs.crs))) >= _HALF:
        return f"its CRS is {crs_label(theirs.crs)} in the item and {crs_label(own.crs)} in the file", gap
    gap = _gap(own, theirs)
    if gap < _HALF:
        return None, gap
    t = stated.transform or own.affine
    turned = GeoBox(own.shape, Affine.from_gdal(*tuple(t)[:6]), theirs.crs)
    if _area(turned.affine) and _gap(own, turned) < _HALF:
        right = [float(f"{v:.12g}") for v in tuple(turned.affine)[:6]]
        return f"proj:transform {_six(t)} is in GDAL's order, STAC's is {right}", gap
    far = f"{gap:.3g} pixels" if math.isfinite(gap) else "far"
    return f"proj:transform {_six(t)} lies up to {far} off {_six(own.affine)} of the file", gap


def _gap(own: GeoBox, other: GeoBox) -> float:
    """Largest distance of corners, in pixels of ``own``; infinite where they cannot be compared."""
    h, w = own.shape
    x, y = np.array([0.0, w, 0.0, w]), np.array([0.0, 0.0, h, h])
    t = other.affine
    px, py = t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f
    if own.crs is not None and other.crs is not None and own.crs != other.crs:
        try:
            px, py = other.crs.transformer_to_crs(own.crs)(px, py)
        except Exception:  # noqa: BLE001 - pyproj raises what it likes where there is no way between two CRSs
            return math.inf
    t = ~own.affine
    qx, qy = t.a * px + t.b * py + t.c, t.d * px + t.e * py + t.f
    gap = np.maximum(np.abs(qx - x), np.abs(qy - y))
    return float(gap.max()) if np.isfinite(gap).all() else math.inf


def _six(t: Affine) -> list[float]:
    return [float(f"{v:.12g}") for v in tuple(t)[:6]]
