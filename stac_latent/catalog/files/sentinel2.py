"""Metadata of Sentinel-2 products and their granules: time, baseline, offsets, clouds, sun, and where the pixels lie."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from affine import Affine

from stac_latent.errors import CatalogError

__all__ = ["GRANULE_FILES", "Sentinel2Metadata", "read_metadata"]

GRANULE_FILES = ("MTD_TL.xml", "granule_metadata.xml")
"""Names of a granule's metadata: in a product, and where copies of single files are kept."""
_PRODUCT_FILES = ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
_LARGEST = 64 << 20
_PHYSICAL = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""Bands in the order of ``band_id``."""
_SHARES = (
    "degraded_msi_data", "nodata_pixel", "saturated_defective_pixel", "dark_features", "cloud_shadow", "vegetation", "not_vegetated", "water",
    "unclassified", "medium_proba_clouds", "high_proba_clouds", "thin_cirrus", "snow_ice",
)  # fmt: skip
"""Of the pixels of a granule, in per cent."""
_SINCE = (4, 0)
"""Processing baseline from which on stored numbers are 1000 higher."""


@dataclass(frozen=True, slots=True)
class Sentinel2Metadata:
    """What metadata say; empty where they are not there."""

    when: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    tile: str | None = None
    crs: str | None = None
    corner: tuple[float, float] | None = None
    """x and y of the upper left corner."""
    extent: float | None = None
    """Width of the tile in metres."""
    quantification: float | None = None
    offsets: Mapping[str, float] | None = None
    """By band, in stored units; None where the product does not say."""

    def transform(self, shape: tuple[int, int]) -> Affine | None:
        """Of pixels that cover the whole tile; None where their number does not divide it."""
        if self.corner is None or self.extent is None or shape[0] != shape[1] or self.extent % shape[1]:
            return None
        size = self.extent / shape[1]
        return Affine(size, 0, self.corner[0], 0, -size, self.corner[1])

    def physical(self, band: str, baseline: str | None) -> dict[str, float]:
        """``raster:scale`` and ``raster:offset`` of a reflectance, as the product or its baseline has them."""
        known = self.offsets
        scale = 1e-4 if self.quantification is None else 1 / self.quantification
        stored = -1000.0 if _number(baseline) >= _SINCE else 0.0
        if known is not None:
            stored = known.get(band, 0.0)
        if known is None and self.quantification is None and baseline is None:
            return {}
        return {"raster:scale": float(f"{scale:.12g}"), "raster:offset": float(f"{stored * scale:.12g}")}


def _number(baseline: str | None) -> tuple[int, int]:
    found = re.fullmatch(r"(\d\d)\.?(\d\d)", baseline or "")
    return (0, 0) if found is None else (int(found[1]), int(found[2]))


def read_metadata(product: Path | None, folder: Path) -> Sentinel2Metadata:
    """Metadata of a product's folder and its granule, or of a granule beside its files.

    Raises
    ------
    CatalogError
        If a file of them is there and cannot be read.
    """
    said: dict[str, Any] = {}
    if product is not None:
        for path in (product / n for n in _PRODUCT_FILES):
            if path.is_file():
                said |= _of_product(_parsed(path), path)
    granules = [folder / n for n in GRANULE_FILES]
    granules += [] if product is None else sorted(product.glob("GRANULE/*/MTD_TL.xml"))
    for path in granules:
        if path.is_file():
            granule = _of_granule(_parsed(path), path)
            properties = {**granule.pop("properties"), **said.pop("properties", {})}
            said = {**granule, **said, "properties": properties, "when": granule["when"] or said.get("when")}
            break
    return Sentinel2Metadata(**said)


def _parsed(path: Path) -> ET.Element:
    try:
        data = path.read_bytes() if path.stat().st_size <= _LARGEST else b""
    except OSError as exc:
        raise CatalogError(f"{path} cannot be read: {exc.strerror}") from exc
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise CatalogError(
            f"{path} has a document type, which metadata of Sentinel-2 have not; it is not read"
        )
    try:
        return ET.fromstring(data)  # noqa: S314 - without document types nothing in it can grow
    except ET.ParseError as exc:
        raise CatalogError(f"{path} is no sound XML ({exc}); fetch it again, or move it away") from exc


def _texts(root: ET.Element, name: str) -> list[ET.Element]:
    return [e for e in root.iter() if e.tag.rpartition("}")[2] == name and e.text and e.text.strip()]


def _text(root: ET.Element, name: str) -> str | None:
    found = _texts(root, name)
    return found[0].text.strip() if found and found[0].text else None


def _float(root: ET.Element, name: str, path: Path) -> float | None:
    text = _text(root, name)
    try:
        return None if text is None else float(text)
    except ValueError as exc:
        raise CatalogError(f"{path}: {name} is {text!r}, which is no number") from exc


def _of_product(root: ET.Element, path: Path) -> dict[str, Any]:
    offsets: dict[str, float] = {}
    for name in ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET"):
        for element in _texts(root, name):
            try:
                offsets[_PHYSICAL[int(element.get("band_id", ""))]] = float(element.text or "")
            except (ValueError, IndexError) as exc:
                raise CatalogError(
                    f"{path}: {name} of band {element.get('band_id')!r} is {element.text!r}"
                ) from exc
    stated = {
        "s2:processing_baseline": _text(root, "PROCESSING_BASELINE"),
        "s2:product_uri": _text(root, "PRODUCT_URI"),
        "s2:product_type": _text(root, "PRODUCT_TYPE"),
        "s2:datatake_type": _text(root, "DATATAKE_TYPE"),
        "eo:cloud_cover": _float(root, "Cloud_Coverage_Assessment", path),
        "platform": (_text(root, "SPACECRAFT_NAME") or "").lower() or None,
    }
    quantification = _float(root, "BOA_QUANTIFICATION_VALUE", path) or _float(
        root, "QUANTIFICATION_VALUE", path
    )
    return {
        "when": _text(root, "PRODUCT_START_TIME"),
        "properties": {k: v for k, v in stated.items() if v is not None},
        "quantification": quantification,
        "offsets": offsets if offsets or quantification else None,
    }


def _of_granule(root: ET.Element, path: Path) -> dict[str, Any]:
    identifier = _text(root, "TILE_ID") or ""
    tile = re.search(r"_T(\d{2}[A-Z]{3})", identifier)
    baseline = re.search(r"_N(\d\d\.\d\d)$", identifier)
    sun = next((e for e in root.iter() if e.tag.rpartition("}")[2] == "Mean_Sun_Angle"), ET.Element("none"))
    zenith = _float(sun, "ZENITH_ANGLE", path)
    stated = {
        "s2:tile_id": identifier or None,
        "s2:datastrip_id": _text(root, "DATASTRIP_ID"),
        "s2:processing_baseline": None if baseline is None else baseline[1],
        "view:sun_azimuth": _float(sun, "AZIMUTH_ANGLE", path),
        "view:sun_elevation": None if zenith is None else 90 - zenith,
        **{f"s2:{name}_percentage": _float(root, f"{name.upper()}_PERCENTAGE", path) for name in _SHARES},
        "eo:cloud_cover": _float(root, "CLOUDY_PIXEL_PERCENTAGE", path),
    }
    rows = [e for e in root.iter() if e.tag.rpartition("}")[2] == "Size" and e.get("resolution") == "10"]
    count = _float(rows[0], "NCOLS", path) if rows else None
    corner = (_float(root, "ULX", path), _float(root, "ULY", path))
    return {
        "when": _text(root, "SENSING_TIME"),
        "properties": {k: v for k, v in stated.items() if v is not None},
        "tile": None if tile is None else tile[1],
        "crs": _text(root, "HORIZONTAL_CS_CODE"),
        "corner": None if None in corner else corner,
        "extent": None if count is None else count * 10,
    }
