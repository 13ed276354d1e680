"""The verb ``write_live_map``: a page that decodes latents in the browser, straight from where the catalogue lies."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pystac
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from stac_latent import __version__
from stac_latent.cube.item_assets import as_items
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, GridError, StacLatentError
from stac_latent.page.facts import check_count, number, shown_asset, text
from stac_latent.spec import Grid
from stac_latent.system.files import replacing_folder
from stac_latent.system.links import is_http, is_local, local_path, relative, shown
from stac_latent.system.suggest import known_options

__all__ = ["MOST_LIVE_ITEMS", "LiveMapInfo", "write_live_map"]

MOST_LIVE_ITEMS = 2_000
"""Items of one page."""
_POINTS = 9
"""Points along each side of a grid whose places the page knows; between them it interpolates."""
_SMALL = 1024
"""Grids up to this many pixels a side have three."""
_CODE = ("lib", "map/map.css", "map/map.js", "map/tiles.js", "map/view.js")
_DATA = "items.json"
_MERCATOR = 85.05112878


@dataclass(frozen=True, slots=True)
class LiveMapInfo:
    """What was written."""

    path: Path
    """The page's folder."""
    items: int
    """Items that the page shows."""
    serve: Path
    """Folder that a web server has to offer: it holds the page and all local Items."""
    notes: tuple[str, ...]
    """What was left out, and why."""


def decoder_folder() -> Path:
    """Folder of the decoder in JavaScript: in the wheel, or in a source tree."""
    here = Path(__file__).parents[1]
    installed = here / "js"
    return installed if installed.is_dir() else here.parent / "extensions" / "latent" / "js"


@known_options()
def write_live_map(
    items: pystac.Item | Iterable[pystac.Item], dest: str | Path, *, asset: str | None = None, title: str = "Latents"
) -> LiveMapInfo:  # fmt: skip
    """Write a page that decodes latents in the browser: pan and zoom, any three bands, and no server but one of files.

    The page is a folder. It reads the stores by range requests: put it beside the catalogue on a web server or an object store. Coarse zooms
    read and decode the coarse levels of the wavelet alone.

    Parameters
    ----------
    items
        At most 2,000 Items that are saved, in files or on a web server. Those without a latent of the ``lin`` family are left out.
    dest
        Folder to write; a page that is there already is replaced.
    asset
        Key of the latent asset to show; needed where Items have several that decode, none of them named ``latent``.
    title
        Heading.

    Returns
    -------
    LiveMapInfo
        Counts, the folder to serve, and what was left out.

    Raises
    ------
    CatalogError
        If there is another thing at ``dest``, there are too many Items, or none can be shown.

    Examples
    --------
    >>> info = write_live_map(search("mine/catalog.json"), "mine/map")  # doctest: +SKIP
    >>> info.items, info.serve  # doctest: +SKIP
    (12, PosixPath('/data/mine'))
    """
    folder = Path(dest).absolute()
    _check(folder)
    found = as_items(items, "show")
    check_count(len(found), MOST_LIVE_ITEMS)
    rows, notes, local = [], [], []
    for item in found:
        try:
            rows.append(_row(item, asset, folder))
        except StacLatentError as exc:
            notes.append(f"item {text(item.id)!r} is left out: {text(exc, 400)}")
            continue
        href = str(item.get_self_href())
        if is_local(href):
            local.append(str(local_path(href).absolute().parent))
    if not rows:
        raise CatalogError(f"none of {len(found)} items can be shown. {notes[0][0].upper()}{notes[0][1:]}")
    data = {"title": text(title), "version": __version__, "items": rows}
    source = decoder_folder()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing_folder(folder) as part:
            _copy(source, part)
            (part / _DATA).write_text(json.dumps(data, allow_nan=False), encoding="utf-8")
    except OSError as exc:
        raise CatalogError(f"could not write {folder} ({exc}); choose another place") from exc
    return LiveMapInfo(folder, len(rows), Path(os.path.commonpath([str(folder), *local])), tuple(notes))


def _check(folder: Path) -> None:
    if not folder.exists():
        return
    if folder.is_dir() and (not any(folder.iterdir()) or _is_page(folder)):
        return
    raise CatalogError(
        f"{folder} is there already, and is no page of this kind; name a folder of its own, such as {folder / 'map'}"
        if folder.is_dir()
        else f"{folder} is a file; a live page is a folder: name one, such as {folder.with_suffix('')}"
    )


def _is_page(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()}
    return names <= {"index.html", _DATA, "lib", "map"} and {"index.html", _DATA, "lib"} <= names


def _copy(source: Path, part: Path) -> None:
    for name in _CODE:
        target = part / name
        target.parent.mkdir(exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(
                source / name, target, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("node.js")
            )
        else:
            shutil.copyfile(source / name, target)
    page = (source / "map" / "index.html").read_text(encoding="utf-8")
    for name in ("map.css", "map.js"):
        page = page.replace(f'"{name}"', f'"map/{name}"')
    (part / "index.html").write_text(page, encoding="utf-8")


def _row(item: pystac.Item, asset: str | None, folder: Path) -> dict[str, Any]:
    """What the page has to know before it reads anything of an Item."""
    key = shown_asset(item, asset)
    if key is None or item.assets[key].extra_fields.get("latent:kind") != "codec":
        raise CatalogError("it has no latent asset that decodes to pixels")
    fields = item.assets[key].extra_fields
    href = item.get_self_href()
    if href is None:
        raise CatalogError(
            "it has no address of its own, at which the page could read it; search the catalogue that it is in, or save it"
        )
    if not is_local(href) and not is_http(href):
        raise CatalogError(
            f"browsers cannot read {shown(href)}; use the address at which a web server offers it"
        )
    bitstream = fields.get("latent:bitstream")
    if bitstream not in (None, "stac-latent-lin-1"):
        raise CatalogError(f"the page does not decode {text(bitstream)}, only stac-latent-lin-1")
    grid = LatentRef.from_item(item, key).grid
    return {
        "id": text(item.id),
        "href": quote(relative(href, folder / "index.html")) if is_local(href) else href,
        "asset": key,
        "when": text(item.properties.get("datetime") or item.properties.get("start_datetime"), 32),
        "psnr": number(fields.get("latent:psnr")),
        "rate": number(fields.get("latent:bits_per_pixel")),
        "note": "shown without its residual: the error bound does not hold here" if fields.get("latent:residual") else "",
        "size": list(grid.shape),
        "points": _places(grid),
    }  # fmt: skip


def _places(grid: Grid) -> list[float]:
    """Web Mercator (0 to 1) of points along rows and columns of a grid: x and y in turn, row by row."""
    height, width = grid.shape
    n = 3 if max(height, width) <= _SMALL else _POINTS
    rows, columns = np.meshgrid(np.linspace(0, height, n), np.linspace(0, width, n), indexing="ij")
    a, b, c, d, e, f = grid.transform
    try:
        transformer = Transformer.from_crs(CRS.from_user_input(grid.crs), "OGC:CRS84", always_xy=True)
        lon, lat = transformer.transform(a * columns + b * rows + c, d * columns + e * rows + f)
    except ProjError as exc:
        raise GridError(f"unknown CRS {grid.crs!r}: its pixels cannot be placed") from exc
    if not np.isfinite([lon, lat]).all():
        raise GridError(
            f"pixels of the grid in {grid.crs} have no longitude and latitude; check proj:transform"
        )
    lon = lon - 360 * np.round((lon - lon[0, 0]) / 360)
    turned = np.radians(np.clip(lat, -_MERCATOR, _MERCATOR))
    x, y = (lon + 180) / 360, 0.5 - np.arcsinh(np.tan(turned)) / (2 * np.pi)
    return _flat([x, y])


def _flat(planes: Sequence[np.ndarray[Any, Any]]) -> list[float]:
    return [round(float(v), 12) for v in np.stack(planes, axis=-1).ravel()]
