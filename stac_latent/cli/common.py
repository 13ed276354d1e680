"""What the commands share: options, parsing and printing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from stac_latent.cli.console import err, out, print_json, print_lines
from stac_latent.errors import CatalogError, SearchError

if TYPE_CHECKING:
    import pystac
    import xarray as xr

__all__ = [
    "AsJson", "Asset", "Bbox", "Ids", "KeyFile", "MaxItems", "Overwrite", "Physical", "Source", "Upto", "When", "check_upto", "find", "item_row",
    "latent_rows", "names", "numbers", "print_rows", "refuse_to_replace", "shard_of", "show_cube",
]  # fmt: skip

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Resampling = Annotated[str, typer.Option(help="nearest, bilinear, cubic, average, ...")]
Source = Annotated[
    str, typer.Argument(help="Item, catalogue, item collection, stac-geoparquet file or STAC API.")
]
Bbox = Annotated[str | None, typer.Option(help="west,south,east,north in degrees.")]
When = Annotated[
    str | None, typer.Option("--datetime", help="Instant or interval, as 2023-06-01/2023-09-01 or ../2024.")
]
Ids = Annotated[str | None, typer.Option(help="Item ids, comma separated.")]
Asset = Annotated[str | None, typer.Option(help="Key of the latent asset, where an item has several.")]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", help="Key file of encrypted latents; see 'keygen'.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Upto = Annotated[str, typer.Option(help="field (pixels) or latent.")]
Physical = Annotated[
    bool, typer.Option("--physical", help="Values times scale plus offset, as float32; NaN without data.")
]
MaxItems = Annotated[int | None, typer.Option(help="Stop after so many items.", min=1)]


def refuse_to_replace(dest: Path | None, overwrite: bool) -> None:
    """Refuse a file or folder that is there, before anything is read or written; None is no file.

    Raises
    ------
    CatalogError
        If it is there, and ``overwrite`` is false.
    """
    if dest is not None and os.path.lexists(dest) and not overwrite:
        raise CatalogError(f"{dest} exists; pass --overwrite to replace it, or choose another name")


def check_upto(upto: str) -> None:
    """Refuse what is no level of a decode."""
    if upto not in ("field", "latent"):
        raise typer.BadParameter(f"--upto is field or latent; got {upto!r}")


def show_cube(cube: xr.Dataset, written: Sequence[Path], *, as_json: bool, **more: Any) -> None:
    """Print what a cube is, and the files that were written of it; ``more`` is for JSON alone."""
    if as_json:
        variables = {k: str(v.dtype) for k, v in cube.data_vars.items()}
        print_json(
            {"sizes": dict(cube.sizes), "variables": variables, **more, "out": [str(p) for p in written]}
        )
        return
    print_lines(repr(cube))
    if len(written) > 1:
        print_lines("\n".join(map(str, written)))


def numbers(text: str | None, count: int, what: str) -> tuple[float, ...] | None:
    """Read ``count`` numbers with commas between; None stays None."""
    if text is None:
        return None
    try:
        values = tuple(float(v) for v in text.split(","))
    except ValueError as exc:
        raise typer.BadParameter(f"{what} is {count} numbers with commas between; got {text!r}") from exc
    if len(values) != count:
        raise typer.BadParameter(f"{what} is {count} numbers with commas between; got {len(values)}")
    return values


def names(text: str | None) -> list[str] | None:
    """Read names with commas between; None stays None."""
    return None if text is None else [t.strip() for t in text.split(",") if t.strip()]


def find(source: str, *, failures: list[tuple[str, str]] | None = None, **query: Any) -> list[pystac.Item]:
    """Items of a source; at least one, or an error. Documents that cannot be read go to ``failures``, where that is a list."""
    from stac_latent.catalog.search.search import search

    items = list(search(source, failures=failures, **query))
    if failures and not items:
        raise SearchError(failures[0][1])
    if not items:
        asked = ", ".join(f"{k}={v}" for k, v in query.items() if v is not None)
        raise CatalogError(
            f"no item of {source} matches ({asked or 'no condition'}){_elsewhere(source, query)}; loosen the search"
        )
    return items


def shard_of(items: Sequence[pystac.Item], shard: str) -> list[pystac.Item]:
    """Items that fall to one of several equal runs, such as ``3/16``: by their ids, whatever their order and whatever else there is."""
    first, _, second = shard.partition("/")
    number, count = (int(t) if t.isascii() and t.isdecimal() else 0 for t in (first, second))
    if not 1 <= number <= count:
        raise typer.BadParameter(
            f"--shard is a run and the number of runs, as 3/16, counted from 1; got {shard!r}"
        )
    mine = []
    for item in items:
        digest = hashlib.sha256(f"{item.collection_id}/{item.id}".encode()).digest()
        if int.from_bytes(digest[:8], "big") % count == number - 1:
            mine.append(item)
    err.print(f"shard {number} of {count}: {len(mine):,} of {len(items):,} items")
    return mine


def _elsewhere(source: str, query: Mapping[str, Any]) -> str:
    """Where items lie that match all but the place."""
    from stac_latent.catalog.search.search import search
    from stac_latent.geo.extents import item_bbox, spanning_text

    if query.get("bbox") is None:
        return ""
    others = list(search(source, **{**query, "bbox": None, "max_items": 100}))
    boxes = [b for b in map(item_bbox, others) if b is not None]
    if not boxes:
        return ""
    return f"; items that match but for bbox lie between ({spanning_text(boxes)}): west, south, east, north in degrees"


def item_row(item: pystac.Item, key: str | None = None) -> dict[str, Any]:
    """Facts on an Item, or on one of its latent assets."""
    fields: Mapping[str, Any] = item.properties
    if key is not None and key in item.assets:
        fields = item.assets[key].extra_fields
    wanted = ("latent:bits_per_pixel", "latent:psnr", "latent:max_error", "latent:sam", "file:size")
    when = item.properties.get("datetime") or item.properties.get("start_datetime")
    row = {"id": item.id, "collection": item.collection_id, "datetime": str(when)}
    row |= {k.partition(":")[2]: fields[k] for k in wanted if fields.get(k) is not None}
    row["spaces"] = item.properties.get("latent:spaces")
    return row | {"href": item.get_self_href()}


def latent_rows(item: pystac.Item) -> list[dict[str, Any]]:
    """Facts on an Item, or, where it has several measured latents, on each of them, with the key as ``asset``."""
    measured = [k for k, a in item.assets.items() if a.extra_fields.get("latent:bits_per_pixel") is not None]
    if len(measured) < 2:
        return [item_row(item)]
    spaces = {k: item.assets[k].extra_fields.get("latent:space") for k in measured}
    return [item_row(item, k) | {"asset": k, "spaces": [spaces[k]] if spaces[k] else []} for k in measured]


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print rows of :func:`item_row` as a table."""
    table = Table()
    table.add_column("item", overflow="fold")
    for name in ("date", "bpppb", "PSNR", "max error", "space"):
        table.add_column(name, no_wrap=True)
    for r in rows:
        spaces = ", ".join(s[7:15] for s in r["spaces"] or [])
        shown = ["" if r.get(k) is None else f"{r[k]:.4g}" for k in ("bits_per_pixel", "psnr", "max_error")]
        if r.get("max_error") == 0:
            shown[1] = "lossless"
        name = f"{r['id']} ({r['asset']})" if "asset" in r else r["id"]
        table.add_row(name, r["datetime"][:10], *shown, spaces)
    out.print(table)
