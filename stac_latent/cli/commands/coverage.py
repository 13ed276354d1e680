"""The command ``coverage``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from stac_latent.cli.common import AsJson, Bbox, Overwrite, When, names, numbers, refuse_to_replace
from stac_latent.cli.console import out, print_json
from stac_latent.cli.progress import progress

if TYPE_CHECKING:
    from stac_latent.catalog.coverage.vectors import VectorShares

__all__ = ["coverage"]


def coverage(
    sources: Annotated[
        list[str], typer.Argument(help="Catalogues, item collections, stac-geoparquet files or STAC APIs.")
    ],
    bbox: Bbox = None,
    when: When = None,
    every: Annotated[str, typer.Option(help="day, week, month, year, or days as 10d.")] = "month",
    cells: Annotated[int, typer.Option(help="Cells along the longer side.", min=1, max=4096)] = 32,
    collections: Annotated[str | None, typer.Option(help="Collection ids, comma separated.")] = None,
    kind: Annotated[str | None, typer.Option(help="codec or embedding.")] = None,
    space: Annotated[str | None, typer.Option(help="Digest of the latent space.")] = None,
    min_psnr: Annotated[float | None, typer.Option(help="Smallest PSNR [dB].")] = None,
    query: Annotated[str | None, typer.Option("--filter", help="CQL2 text.")] = None,
    picture: Annotated[Path | None, typer.Option("--map", help="PNG to write (extra viz).")] = None,
    missing: Annotated[
        Path | None, typer.Option(help="CSV to write: each cell that a period does not cover whole.")
    ] = None,
    vectors: Annotated[
        bool,
        typer.Option(
            "--vectors", help="Also count cells with vectors, water, and no data yet (Tessera's Zarr)."
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Report which cells of an area lack items in which periods, as a table, a map and a list."""
    from stac_latent.catalog.coverage.coverage import coverage as run

    refuse_to_replace(picture, overwrite)
    refuse_to_replace(missing, overwrite)
    with progress(as_json) as report:
        found = run(
            sources[0] if len(sources) == 1 else sources, bbox=numbers(bbox, 4, "--bbox"), datetime=when, every=every,  # type: ignore[arg-type]
            cells=cells, progress=report, collections=names(collections), kind=kind, space=space, min_psnr=min_psnr,
            filter=query,
        )  # fmt: skip
    rows = found.table()
    if picture is not None:
        from stac_latent.catalog.coverage.picture import draw

        draw(found, picture)
    if missing is not None:
        import csv

        from stac_latent.system.files import replacing, writing

        with writing(missing), replacing(missing, parents=True) as part, part.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["start", "row", "column", "west", "south", "east", "north", "share"])
            for cell in found.missing():
                writer.writerow([cell["start"], cell["row"], cell["column"], *cell["bbox"], cell["share"]])
    shares = _shares(sources, bbox, when, collections) if vectors else None
    if as_json:
        told = {} if shares is None else {"vectors": [asdict(s) for s in shares]}
        print_json({"bbox": found.bbox, "cells": found.cells, "periods": rows, **told})
        return
    table = Table(
        "from",
        "items",
        "area",
        "whole",
        "partial",
        "missing",
        title=f"{found.cells[0]} x {found.cells[1]} cells",
    )
    for row in rows:
        cells_of = (str(row[k]) for k in ("whole_cells", "partial_cells", "missing_cells"))
        table.add_row(row["start"][:10], str(row["items"]), f"{100 * row['area']:.1f} %", *cells_of)
    out.print(table)
    if shares is not None:
        second = Table("item", "cells", "vectors", "water", "no data yet")
        for s in shares:
            second.add_row(s.item, *(str(n) for n in (s.cells, s.vectors, s.water, s.pending)))
        out.print(second)
    for path in (picture, missing):
        if path is not None:
            out.print(f"wrote {path}")


def _shares(
    sources: list[str], bbox: str | None, when: str | None, collections: str | None
) -> list[VectorShares]:
    from stac_latent.catalog.coverage.vectors import vector_shares
    from stac_latent.catalog.search.search import search

    box = numbers(bbox, 4, "--bbox")
    items = search(
        sources[0] if len(sources) == 1 else sources,
        bbox=box,
        datetime=when,
        collections=names(collections),
        kind="embedding",
    )
    return vector_shares(items, None if box is None else (box[0], box[1], box[2], box[3]))
