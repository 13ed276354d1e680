"""The command ``coverage``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from stac_latent.cli.common import AsJson, Bbox, When, names, numbers, progress
from stac_latent.cli.console import out, print_json

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
    as_json: AsJson = False,
) -> None:
    """Report which cells of an area lack items in which periods, as a table, a map and a list."""
    from stac_latent.catalog.coverage import coverage as run

    with progress(as_json) as report:
        found = run(
            sources[0] if len(sources) == 1 else sources, bbox=numbers(bbox, 4, "--bbox"), datetime=when, every=every,  # type: ignore[arg-type]
            cells=cells, progress=report, collections=names(collections), kind=kind, space=space, min_psnr=min_psnr,
            filter=query,
        )  # fmt: skip
    rows = found.table()
    if picture is not None:
        from stac_latent.catalog.coverage_map import draw

        draw(found, picture)
    if missing is not None:
        import csv

        with missing.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["start", "row", "column", "west", "south", "east", "north", "share"])
            for cell in found.missing():
                writer.writerow([cell["start"], cell["row"], cell["column"], *cell["bbox"], cell["share"]])
    if as_json:
        print_json({"bbox": found.bbox, "cells": found.cells, "periods": rows})
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
    for path in (picture, missing):
        if path is not None:
            out.print(f"wrote {path}")
