"""Look at single documents: what a latent asset is, its quick-look, and which files of a folder are STAC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pystac

from stac_latent.codec.codec import Codec
from stac_latent.cube.read.band_views import view_of
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError
from stac_latent.page.preview import quicklook
from stac_latent.system.documents import read_json
from stac_latent.system.links import absolute, is_local, local_path, shown
from stac_latent.window import Window

__all__ = ["dead_links", "describe_asset", "stac_files", "write_quicklook"]

_LOOK = 1024
"""Largest side of a quick-look in pixels: the middle of a larger scene is shown."""


def describe_asset(item: pystac.Item, ref: LatentRef) -> dict[str, Any]:
    """Facts on a latent asset, from its fields and its codec, which is opened and probed on the way."""
    codec = None if ref.layout is not None else ref.open_codec()
    spec, grid = ref.spec, ref.grid
    fields = item.assets[ref.asset].extra_fields
    measured = {
        k: fields[f"latent:{k}"]
        for k in ("bits_per_pixel", "psnr", "max_error", "sam", "error_bound")
        if f"latent:{k}" in fields
    }
    return {
        "asset": ref.asset,
        "href": shown(ref.href),
        "kind": spec.kind,
        "space": spec.space,
        **_coding(codec, ref),
        "bands": [b.name for b in spec.bands],
        **_native_grids(ref),
        "channels": spec.dimensions,
        "stride": list(spec.stride),
        "halo": None if spec.halo is None else list(spec.halo),
        "quantization": spec.quantization.method,
        "crs": grid.crs,
        "shape": list(grid.shape),
        "cells": list(grid.cells),
        "bytes": fields.get("file:size"),
        **measured,
    }


def _coding(codec: Codec | None, ref: LatentRef) -> dict[str, Any]:
    """How the vectors were made, as far as it is known, and how they are stored."""
    if codec is None:
        container = "" if ref.layout is None else ref.layout.container
        return {"codec": None, "payload": f"{container}, {ref.spec.data_type}"}
    chain = " > ".join(s["stage"] for s in codec.chain())
    return {"codec": codec.name, "chain": chain, "payload": ref.spec.bitstream or "plain"}


def _native_grids(ref: LatentRef) -> dict[str, Any]:
    """Bands by the size of their pixels, where these differ."""
    out: dict[str, list[str]] = {}
    for i, band in enumerate(ref.spec.bands if ref.band_grids else ()):
        out.setdefault(f"{abs(view_of(ref, i).grid.transform[0]):g}", []).append(band.name)
    return {"native_grids": out} if out else {}


def write_quicklook(ref: LatentRef, path: Path) -> Path:
    """Decode the middle of an asset, at most 1024 pixels wide, into a PNG."""
    reader = LatentReader(ref)
    spans = []
    for n in ref.grid.shape:
        start = max(0, (n - _LOOK) // 2)
        spans.append((start, min(n, start + _LOOK)))
    return quicklook(reader.read_field(Window.of(spans)), reader.codec.bands, path)


def stac_files(paths: Sequence[Path]) -> list[Path]:
    """STAC documents among files and folders: JSON with a ``stac_version``; Zarr metadata and others are passed over.

    JSON that cannot be read may be one, and counts.

    Raises
    ------
    CatalogError
        If a path does not exist, or nothing was found.
    """
    out = []
    for path in paths:
        if path.is_file():
            out.append(path)
            continue
        if not path.is_dir():
            raise CatalogError(f"{path} does not exist")
        for file in sorted(path.rglob("*.json")):
            if any(part.endswith(".zarr") for part in file.parts) or file.name.startswith("."):
                continue
            if _may_be_stac(file):
                out.append(file)
    if not out:
        raise CatalogError(f"no STAC document below {', '.join(map(str, paths))}")
    return out


def _may_be_stac(file: Path) -> bool:
    try:
        doc = read_json(file)
    except CatalogError:
        return True
    return isinstance(doc, dict) and "stac_version" in doc


def dead_links(path: Path) -> list[str]:
    """Links of a local document to children and items on the same disk that are not there.

    Raises
    ------
    CatalogError
        If the document cannot be read.
    """
    doc = read_json(path)
    links = doc.get("links") if isinstance(doc, dict) else None
    out = []
    for i, link in enumerate(links if isinstance(links, list) else ()):
        if isinstance(link, dict) and link.get("rel") in ("child", "item"):
            href = absolute(str(link.get("href", "")), str(path.absolute()))
            if is_local(href) and not local_path(href).exists():
                out.append(f"links/{i}: {link['rel']} {link.get('href')!r} leads to no file")
    return out
