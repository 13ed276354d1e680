"""The verb ``write_map``: Items as one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pystac
import shapely

from stac_latent import __version__
from stac_latent.aliases import Progress
from stac_latent.cube.item_assets import as_items
from stac_latent.errors import CatalogError, StacLatentError
from stac_latent.index.remote import table_copy
from stac_latent.page.colours import NO_VALUE, RAMP
from stac_latent.page.document import page
from stac_latent.page.facts import MEASURES, check_count, measured, shown_asset, text, values_of
from stac_latent.page.pictures import PictureSet, look
from stac_latent.page.places import Places, embedding_asset, places_of_items, places_of_table
from stac_latent.page.shapes import UNIT, footprint, pack
from stac_latent.system.files import replacing
from stac_latent.system.links import is_local
from stac_latent.system.suggest import known_options

__all__ = ["MOST_ITEMS", "MapInfo", "write_map"]

MOST_ITEMS = 20_000
"""Footprints on a page."""
_MIB = 1 << 20
_BASE64 = 1.37
"""Characters of the page for each byte of vectors, or for each byte that a picture's own base64 stands for."""


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What was written."""

    path: Path
    size: int
    """Bytes of the page."""
    items: int
    placed: int
    """Items with a footprint."""
    pictures: int
    vectors: int
    space: str | None
    """Of the vectors."""
    notes: tuple[str, ...]
    """What was left out, and why."""


@known_options()
def write_map(
    items: pystac.Item | Iterable[pystac.Item],
    dest: str | Path,
    *,
    asset: str | None = None,
    embeddings: str | Path | None = None,
    title: str = "Latents",
    pictures: int = 100,
    side: int = 384,
    max_mib: float = 24.0,
    progress: Progress | None = None,
) -> MapInfo:
    """Write Items as one HTML page: a map of footprints, pictures of Items, and similar places.

    The page is one file that asks for nothing else: it works from a disk, without a network.

    Parameters
    ----------
    items
        At most 20,000 Items, with or without latents.
    dest
        HTML file to write; an existing one is replaced.
    asset
        Key of the latent asset to show; needed where Items have several that decode, none of them
        named ``latent``.
    embeddings
        Where vectors of places come from: a ``.parquet`` file that :func:`stac_latent.publish` wrote, or the key of a
        latent asset. By default the only embedding that the Items carry; ``"none"`` for no vectors.
    title
        Heading.
    pictures
        Items that get pictures, at most: the first ones.
    side
        Longest side of a picture [pixels], 32 to 2048.
    max_mib
        Largest size of the page [MiB]. Vectors take at most half of what footprints leave, pictures the rest.
    progress
        Called with a label, the steps done and their number.

    Returns
    -------
    MapInfo
        Sizes and counts, and what was left out.

    Raises
    ------
    CatalogError
        If an argument is out of range, there are too many Items for one page, none has a footprint, or the named
        asset or table gives no vectors.

    Examples
    --------
    >>> info = write_map(items, "map.html", embeddings="embedding")  # doctest: +SKIP
    >>> info.size, info.notes  # doctest: +SKIP
    (918432, ())
    """
    path = Path(dest).absolute()
    found = as_items(items, "show")
    _check(path, len(found), pictures, side, max_mib)
    keys = [shown_asset(item, asset) for item in found]
    if asset is not None and not any(keys):
        raise CatalogError(
            f"no item has a latent asset {asset!r} to show; leave asset out, or name one that they have"
        )
    shapes = [footprint(item) for item in found]
    if not any(s is not None for s in shapes):
        raise CatalogError(
            f"none of {len(found)} items has a footprint in longitude and latitude (geometry or bbox): there is nothing to map"
        )
    notes = []
    if lost := sum(s is None for s in shapes):
        notes.append(f"{lost} of {len(found)} items have no footprint in degrees; they are in the list only")
    data = _table(found, keys, shapes) | {"title": text(title)}
    room = max_mib * _MIB - len(page(title, data))
    if room < 0:
        raise CatalogError(
            f"{len(found)} footprints alone take more than max_mib={max_mib:g} MiB; allow more, or show fewer items"
        )
    report = None if progress is None else lambda _, done, total: progress("vectors", done, total)
    places, why = _places(found, embeddings, int(room / 2 / _BASE64), report)
    data["places"] = places.to_dict() if places else None
    data["no_places"] = why
    notes += [*(places.notes if places else ()), *([why] if why else ())]
    room = max_mib * _MIB - len(page(title, data))
    looks, said = _looks(found, keys, pictures, side, room / _BASE64 * 4 / 3, progress)
    data["looks"] = {str(i): each.to_dict() for i, each in looks.items()}
    notes += said
    data["notes"] = notes
    document = page(title, data)
    _write(path, document)
    return MapInfo(
        path, len(document), len(found), len(found) - lost, len(looks), len(places.vectors) if places else 0,
        places.space if places else None, tuple(notes),
    )  # fmt: skip


def _check(path: Path, count: int, pictures: int, side: int, max_mib: float) -> None:
    if path.is_dir() or path.suffix.lower() not in (".html", ".htm"):
        raise CatalogError(f"cannot write the page to {path}: dest is the path of a file, such as 'map.html'")
    check_count(count, MOST_ITEMS)
    for name, value, low, high in (
        ("pictures", pictures, 0, MOST_ITEMS), ("side", side, 32, 2048), ("max_mib", max_mib, 0.25, 512),
    ):  # fmt: skip
        if not low <= value <= high:
            raise CatalogError(f"{name} is between {low:g} and {high:g}; got {value!r}")


def _table(
    items: Sequence[pystac.Item], keys: Sequence[str | None], shapes: Sequence[shapely.Geometry | None]
) -> dict[str, Any]:
    """All but pictures and vectors, column by column."""
    values = [values_of(item, key) for item, key in zip(items, keys, strict=True)]
    assets = [
        item.assets[key].extra_fields if key is not None else {}
        for item, key in zip(items, keys, strict=True)
    ]
    when = [item.properties.get("datetime") or item.properties.get("start_datetime") for item in items]
    return {
        "version": __version__,
        "ramp": [list(colour) for colour in RAMP],
        "no_value": list(NO_VALUE),
        "unit": UNIT,
        "shapes": pack(shapes),
        "id": [text(item.id) for item in items],
        "collection": _coded([text(item.collection_id) for item in items]),
        "when": [text(w, 32) for w in when],
        "asset": _coded([text(key) for key in keys]),
        "space": _coded([text(fields.get("latent:space")) for fields in assets]),
        "kind": _coded([text(fields.get("latent:kind"), 32) for fields in assets]),
        "measures": [
            {"title": MEASURES[i].title, "unit": MEASURES[i].unit, "values": [row[i] for row in values]}
            for i in measured(values)
        ],
        "looks": {},
        "places": None,
        "notes": [],
    }


def _coded(column: Sequence[str]) -> dict[str, Any]:
    """A column of few different texts: these, and the position of each row's."""
    names = list(dict.fromkeys(column))
    at = {name: i for i, name in enumerate(names)}
    return {"names": names, "at": [at[name] for name in column]}


def _places(
    items: Sequence[pystac.Item],
    embeddings: str | Path | None,
    limit: int,
    progress: Progress | None,
) -> tuple[Places | None, str | None]:
    """Vectors, or why there are none. What was asked for by name and cannot be had is an error."""
    if embeddings == "none":
        return None, None
    if embeddings is not None:
        name = str(embeddings)
        table = name.partition("?")[0].lower().endswith((".parquet", ".geoparquet"))
        return (
            places_of_table(name if is_local(name) else str(table_copy(name)), items, limit)
            if table
            else places_of_items(items, name, limit, progress)
        ), None
    key = embedding_asset(items)
    if key is None:
        return None, "No similar places: the items carry no single embedding; name one with embeddings"
    try:
        return places_of_items(items, key, limit, progress), None
    except (StacLatentError, OSError) as exc:
        return None, f"No similar places: {text(exc, 400)}"


def _looks(
    items: Sequence[pystac.Item],
    keys: Sequence[str | None],
    most: int,
    side: int,
    room: float,
    progress: Progress | None,
) -> tuple[dict[int, PictureSet], list[str]]:
    """Pictures by position of the Item, within the room, and what was left out."""
    out: dict[int, PictureSet] = {}
    notes: list[str] = []
    wanted = [(i, key) for i, key in enumerate(keys) if key is not None]
    failed = 0
    for done, (i, key) in enumerate(wanted[:most]):
        try:
            made = look(items[i], key, side)
        except StacLatentError as exc:
            failed += 1
            if failed == 1:
                notes.append(f"no picture of item {text(items[i].id)!r}: {text(exc, 400)}")
            continue
        room -= made.size
        if room < 0:
            notes.append(
                f"pictures of {len(out)} of {len(wanted)} items fit into this page; raise max_mib, or lower side"
            )
            break
        out[i] = made
        if progress is not None:
            progress("pictures", done + 1, min(most, len(wanted)))
    else:
        if len(wanted) > most:
            notes.append(f"the first {most} of {len(wanted)} items with latents have pictures; see pictures")
    if failed > 1:
        notes.append(f"{failed - 1} more pictures could not be made")
    return out, notes


def _write(path: Path, document: bytes) -> None:
    try:
        with replacing(path, parents=True) as part:
            part.write_bytes(document)
    except OSError as exc:
        raise CatalogError(f"could not write {path} ({exc}); choose another place") from exc
