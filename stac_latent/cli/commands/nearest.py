"""The commands ``index``, ``label`` and ``nearest``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from stac_latent.cli.common import AsJson, Bbox, Overwrite, When, numbers, refuse_to_replace
from stac_latent.cli.console import err, out, print_json
from stac_latent.cli.guard_messages import Heard, heeding
from stac_latent.cli.progress import progress
from stac_latent.errors import SearchError

if TYPE_CHECKING:
    import geopandas

__all__ = ["index", "label", "nearest"]

Source = Annotated[
    str, typer.Argument(help="GeoParquet file or folder that publish wrote, or the address of a file.")
]
Metric = Annotated[str, typer.Option(help="cosine, l2 or dot.")]
Where = Annotated[str | None, typer.Option(help="CQL2 text over the table's columns.")]
WhitenBy = Annotated[
    str | None, typer.Option("--whiten", help="codec or table: whose means and deviations to whiten with.")
]


def nearest(
    table: Source,
    point: Annotated[str | None, typer.Option(help="Places like lon,lat.")] = None,
    on: Annotated[str | None, typer.Option(help="Time of the point.", show_default="the latest")] = None,
    item: Annotated[str | None, typer.Option(help="Places like a STAC Item with a latent.")] = None,
    area: Annotated[Path | None, typer.Option(help="Places like the mean of an area (GeoJSON).")] = None,
    vector: Annotated[str | None, typer.Option(help="Vector or vectors (.npy).")] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="How many rows.", min=1)] = 10,
    where: Where = None,
    bbox: Bbox = None,
    when: When = None,
    min_valid: Annotated[float, typer.Option(help="Smallest share of valid pixels of a row.")] = 0.0,
    metric: Metric = "cosine",
    whiten: WhitenBy = None,
    use_index: Annotated[
        bool, typer.Option("--index", help="Search approximately; builds the index where there is none.")
    ] = False,
    dest: Annotated[Path | None, typer.Option("--out", help="Write the rows: .geojson or .parquet.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Find the rows of published vectors that are most like a place, an item, an area or a vector."""
    from stac_latent.index.nearest import nearest as run

    if dest is not None and dest.suffix not in (".geojson", ".parquet"):
        raise typer.BadParameter(f"--out ends with .geojson or .parquet; got {dest.name!r}")
    refuse_to_replace(dest, overwrite)
    with heeding(Heard()):
        found = run(
            table, _query(point, on, item, area, vector), k, where=where, bbox=numbers(bbox, 4, "--bbox"), datetime=when,
            min_valid=min_valid, metric=metric, whiten=whitening_of(whiten), index=use_index,
        )  # fmt: skip
    if dest is not None:
        _write(found, dest)
    if as_json:
        print_json({**found.attrs, "rows": [_plain(row) for row in found.iterfeatures()]})
    else:
        _print(found)


def _write(rows: Any, dest: Path) -> None:
    """Write rows as GeoParquet or GeoJSON, complete or not at all."""
    from stac_latent.system.files import replacing, writing

    with writing(dest, RuntimeError), replacing(dest, parents=True) as part:
        rows.to_parquet(part) if dest.suffix == ".parquet" else rows.to_file(part, driver="GeoJSON")


def whitening_of(name: str | None) -> Any:
    """What ``--whiten`` stands for."""
    known: dict[str | None, Any] = {None: False, "codec": True, "table": "table"}
    if name not in known:
        raise typer.BadParameter(f"--whiten is codec or table; got {name!r}")
    return known[name]


def _query(point: str | None, on: str | None, item: str | None, area: Path | None, vector: str | None) -> Any:
    given = {"--point": point, "--item": item, "--area": area, "--vector": vector}
    if len(named := [name for name, value in given.items() if value is not None]) != 1:
        raise typer.BadParameter(f"give one of {', '.join(given)}; got {', '.join(named) or 'none'}")
    if on is not None and point is None:
        raise typer.BadParameter("--on is the time of a --point")
    if point is not None:
        place = numbers(point, 2, "--point") or ()
        return place if on is None else (*place, on)
    path = item or area or vector
    try:
        if item is not None:
            from stac_latent.net.items import read_item

            return read_item(str(path))
        if area is not None:
            import geopandas

            return geopandas.read_file(str(path)).to_crs("OGC:CRS84").geometry.union_all()
        import numpy as np

        from stac_latent.net.remote_file import open_binary

        with open_binary(str(path)) as file:
            return np.load(file, allow_pickle=False)
    except Exception as exc:
        raise SearchError(f"cannot read the query {path}: {exc}") from exc


def _plain(feature: Any) -> dict[str, Any]:
    """Properties of a row as JSON, with the centre of its footprint."""
    import shapely
    import shapely.geometry

    centre = shapely.centroid(shapely.geometry.shape(feature["geometry"]))
    fields = {k: v if isinstance(v, int | float | None) else str(v) for k, v in feature["properties"].items()}
    return fields | {"lon": round(centre.x, 7), "lat": round(centre.y, 7)}


def _print(found: geopandas.GeoDataFrame) -> None:
    batch = "query" in found
    table = Table(*(["query"] if batch else []), "rank", "distance", "row", "date", "lon", "lat")
    for feature in found.iterfeatures():
        r = _plain(feature)
        shown = [
            str(r["rank"]),
            f"{r['distance']:.4g}",
            r["id"],
            (r["datetime"] or "")[:10],
            f"{r['lon']:.5f}",
            f"{r['lat']:.5f}",
        ]
        table.add_row(*([str(r["query"])] if batch else []), *shown)
    out.print(table)


def index(
    table: Source,
    metric: Metric = "cosine",
    whiten: WhitenBy = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Only lay the vectors out, for fast exact searches.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Lay a table of vectors out beside its file for fast searches, and build an index for a metric."""
    from stac_latent.index.ivf import build_index
    from stac_latent.index.memory_map import cache_folder
    from stac_latent.index.metric import Form
    from stac_latent.index.nearest import LEAST, low_recall
    from stac_latent.index.nearest import whitening as stats_of
    from stac_latent.index.table import open_table

    opened = open_table(table)
    form = None if exact else Form.of(metric, opened.dimensions, stats_of(opened, whitening_of(whiten)))
    with progress(as_json) as report:
        made = build_index(opened, form, progress=report)
    result: dict[str, Any] = {"folder": str(cache_folder(opened)), "rows": opened.rows}
    if made is not None:
        result |= {
            "metric": metric,
            "bytes": made.nbytes,
            "lists_probed": made.nprobe,
            "recall_at_10": made.recall,
        }
        if made.recall < LEAST:
            said = low_recall(opened, made.form, made.recall)
            err.print(
                f"warning {said}; nearest looks at every row instead",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    if as_json:
        print_json(result)
        return
    lists = (
        ""
        if made is None
        else f"; {metric}: recall@10 {made.recall:.3f} from {made.nprobe} lists, {made.nbytes:,} bytes"
    )
    out.print(f"{opened.rows:,} rows -> {result['folder']}{lists}")


def label(
    table: Source,
    dest: Annotated[
        Path, typer.Argument(metavar="OUT", help="GeoTIFF to write: label, and agreement in percent.")
    ],
    examples: Annotated[Path, typer.Option(help="Places with a label each (GeoJSON).")],
    column: Annotated[str, typer.Option(help="Property that holds the label.")] = "label",
    k: Annotated[int, typer.Option("--k", "-k", help="Examples that vote.", min=1)] = 3,
    max_distance: Annotated[float | None, typer.Option(help="No label farther than this.")] = None,
    where: Where = None,
    bbox: Bbox = None,
    when: When = None,
    min_valid: Annotated[float, typer.Option(help="Smallest share of valid pixels of a row.")] = 0.0,
    metric: Metric = "cosine",
    whiten: WhitenBy = None,
    crs: Annotated[str | None, typer.Option(help="Of the map.", show_default="UTM")] = None,
    resolution: Annotated[float | None, typer.Option(help="Of the map.", show_default="a footprint")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Map labels from a few examples: each row takes those of the examples that it is most like."""
    from stac_latent.index.label import label as run
    from stac_latent.index.label_raster import write_map

    if dest.suffix.lower() not in (".tif", ".tiff"):
        raise typer.BadParameter(f"OUT ends with .tif; got {dest.name!r}")
    refuse_to_replace(dest, overwrite)
    found = run(
        table, examples, column=column, k=k, max_distance=max_distance, where=where, bbox=numbers(bbox, 4, "--bbox"), datetime=when,
        min_valid=min_valid, metric=metric, whiten=whitening_of(whiten), crs=crs, resolution=resolution,
    )  # fmt: skip
    write_map(found, dest)
    meanings = found["label"].attrs["flag_meanings"].split(" ")
    pixels = {name: int((found["label"] == code).sum()) for code, name in enumerate(meanings, start=1)}
    if as_json:
        print_json({"out": str(dest), "shape": list(found["label"].shape), "pixels": pixels})
    else:
        out.print(
            f"{dest}: {', '.join(f'{name} {count} pixels' for name, count in pixels.items())}",
        )
