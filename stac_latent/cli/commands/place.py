"""The commands ``cube`` and ``points``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stac_latent.cli.common import (
    AsJson,
    Asset,
    KeyFile,
    Overwrite,
    Physical,
    Source,
    Upto,
    check_upto,
    names,
    refuse_to_replace,
    show_cube,
)
from stac_latent.cli.console import print_json, print_lines
from stac_latent.cli.interrupts import placing
from stac_latent.cli.progress import progress

__all__ = ["cube", "points"]

Start = Annotated[str | None, typer.Option(help="First date, as 2023-06-01 or 2023-06; included.")]
End = Annotated[str | None, typer.Option(help="Last date; included.")]
Collections = Annotated[str | None, typer.Option(help="Ids of collections, comma separated.")]
Bands = Annotated[str | None, typer.Option(help="Comma separated.")]


def cube(
    source: Source,
    dest: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT",
            help=".tif (one for each date), .nc or .zarr to write; without it the cube is described.",
        ),
    ] = None,
    lat: Annotated[float, typer.Option(help="Latitude of the place, in degrees.")] = ...,  # type: ignore[assignment]
    lon: Annotated[float, typer.Option(help="Longitude of the place, in degrees.")] = ...,  # type: ignore[assignment]
    edge_size: Annotated[float, typer.Option(help="Length of an edge, in --units.")] = 128,
    units: Annotated[str, typer.Option(help="Of --edge-size: px, m or km.")] = "px",
    resolution: Annotated[float, typer.Option(help="Pixel size in units of the CRS.")] = 10,
    crs: Annotated[
        str | None, typer.Option(help="As EPSG:32633.", show_default="UTM zone of the place")
    ] = None,
    start_date: Start = None,
    end_date: End = None,
    bands: Bands = None,
    collections: Collections = None,
    asset: Asset = None,
    upto: Upto = "field",
    resampling: Annotated[
        str | None,
        typer.Option(help="nearest, bilinear, ...", show_default="nearest; embeddings: their own cells"),
    ] = None,
    physical: Physical = False,
    groupby: Annotated[str, typer.Option(help="time, solar_day, id, ...")] = "time",
    key: KeyFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Load the pixels round a place through time, a square in its UTM zone, and write them."""
    from stac_latent.catalog.place.minicube import minicube as run
    from stac_latent.cube.save.save import format_of, save

    check_upto(upto)
    if dest is not None:
        format_of(dest)
    refuse_to_replace(dest, overwrite)
    options: dict[str, Any] = {"physical": True} if physical else {}
    options |= {} if resampling is None else {"resampling": resampling}
    options |= {} if key is None else {"key": key}
    side = 1024 if upto == "field" else 256
    loaded = run(
        source, lat, lon, start_date=start_date, end_date=end_date, bands=names(bands), edge_size=edge_size, units=units,
        resolution=resolution, crs=crs, collections=names(collections), asset=asset, upto=upto, groupby=groupby,  # type: ignore[arg-type]
        chunks={"x": side, "y": side}, **options,
    )  # fmt: skip
    written: list[Path] = []
    with placing(dest):
        if dest is not None:
            with progress(as_json) as report:
                written = save(loaded, dest, overwrite=overwrite, progress=report)
    show_cube(loaded, written, as_json=as_json, attributes=loaded.attrs)


def points(
    source: Source,
    table: Annotated[
        Path,
        typer.Argument(metavar="TABLE", help="Points: .csv with lon and lat, .geojson, .gpkg, .parquet."),
    ],
    dest: Annotated[Path, typer.Argument(metavar="OUT", help=".csv or .parquet to write.")],
    bands: Bands = None,
    lon: Annotated[
        str | None, typer.Option(help="Column of longitudes, or of x.", show_default="lon or longitude")
    ] = None,
    lat: Annotated[
        str | None, typer.Option(help="Column of latitudes, or of y.", show_default="lat or latitude")
    ] = None,
    crs: Annotated[
        str | None, typer.Option(help="Of these columns, as EPSG:32633.", show_default="degrees")
    ] = None,
    point: Annotated[
        str | None, typer.Option(help="Column that names the points.", show_default="number of the row")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Column with a time for each point.", show_default="all dates")
    ] = None,
    tolerance: Annotated[
        str | None, typer.Option(help="How far an item may be from that time, as 5D or 12h.")
    ] = None,
    match: Annotated[
        str, typer.Option(help="nearest (one item for each point) or all (within the tolerance).")
    ] = "nearest",
    start_date: Start = None,
    end_date: End = None,
    collections: Collections = None,
    asset: Asset = None,
    upto: Upto = "field",
    physical: Physical = False,
    errors: Annotated[
        str, typer.Option(help="raise, warn or ignore: what becomes of items that cannot be read.")
    ] = "raise",
    key: KeyFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write the values of many points through time as a table, a row for each point and item."""
    from stac_latent.catalog.place.points import points as run
    from stac_latent.catalog.place.table_files import check_output, read_table, write_table

    check_upto(upto)
    check_output(dest, vectors=upto == "latent")
    refuse_to_replace(dest, overwrite)
    with progress(as_json) as report:
        values = run(
            source, read_table(table), names(bands), lon=lon, lat=lat, crs=crs, point=point, time=time, tolerance=tolerance,
            match=match, start_date=start_date, end_date=end_date, collections=names(collections), asset=asset,  # type: ignore[arg-type]
            upto=upto, physical=physical, errors=errors, key=key, progress=report,  # type: ignore[arg-type]
        )  # fmt: skip
    with placing(dest):
        write_table(values, dest)
    counts = {str(k): int(n) for k, n in values["status"].value_counts().items()}
    result = {
        "rows": len(values),
        "points": int(values["point"].nunique()),
        "items": int(values["item"].nunique()),
        "status": counts,
        "out": str(dest),
    }
    if as_json:
        print_json(result)
        return
    listed = ", ".join(f"{n:,} {name}" for name, n in counts.items())
    print_lines(
        f"{result['rows']:,} rows ({listed}) of {result['points']:,} points and {result['items']:,} items -> {dest}"
    )
