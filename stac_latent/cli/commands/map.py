"""The command ``map``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stac_latent.cli.common import (
    AsJson,
    Asset,
    Bbox,
    Ids,
    MaxItems,
    Overwrite,
    Source,
    When,
    find,
    names,
    numbers,
    refuse_to_replace,
)
from stac_latent.cli.console import err, out, print_json
from stac_latent.cli.progress import progress

if TYPE_CHECKING:
    import pystac

__all__ = ["write_map"]


def write_map(
    source: Source,
    dest: Annotated[Path, typer.Argument(metavar="OUT", help="HTML file to write; with --live a folder.")],
    asset: Asset = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            help="Vectors of places: a .parquet file of 'publish', the key of an embedding asset, or none.",
            show_default="the items' own",
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Latents",
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="A page that decodes in the browser as you pan and zoom, from the catalogue on a web server.",
        ),
    ] = False,
    pictures: Annotated[int, typer.Option(help="Items that get pictures, at most.")] = 100,
    side: Annotated[int, typer.Option(help="Longest side of a picture in pixels.")] = 384,
    max_mib: Annotated[float, typer.Option(help="Largest size of the page.")] = 24.0,
    bbox: Bbox = None,
    when: When = None,
    ids: Ids = None,
    max_items: MaxItems = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page to look at items on: footprints, raw and decoded pictures, similar places; no network."""
    from stac_latent.page.write import write_map as run

    refuse_to_replace(dest, overwrite)
    items = find(source, bbox=numbers(bbox, 4, "--bbox"), datetime=when, ids=names(ids), max_items=max_items)
    if live:
        _write_live(items, dest, asset, title, as_json)
        return
    with progress(as_json) as report:
        info = run(
            items, dest, asset=asset, embeddings=embeddings, title=title, pictures=pictures, side=side, max_mib=max_mib,
            progress=report,
        )  # fmt: skip
    if as_json:
        result = {
            name: getattr(info, name) for name in ("size", "items", "placed", "pictures", "vectors", "space")
        }
        print_json({"page": str(dest)} | result | {"notes": list(info.notes)})
        return
    out.print(
        f"{info.placed:,} footprints, {info.pictures:,} with pictures, {info.vectors:,} vectors, {info.size:,} bytes -> {dest}"
    )
    for note in info.notes:
        err.print(note)


def _write_live(items: list[pystac.Item], dest: Path, asset: str | None, title: str, as_json: bool) -> None:
    from stac_latent.page.live import write_live_map

    info = write_live_map(items, dest, asset=asset, title=title)
    if as_json:
        print_json(
            {"page": str(dest), "items": info.items, "serve": str(info.serve), "notes": list(info.notes)}
        )
        return
    page = info.path.relative_to(info.serve)
    out.print(
        f"{info.items:,} items -> {dest}; serve {info.serve} with a web server that knows ranges, and open {page}/"
    )
    for note in info.notes:
        err.print(note)
