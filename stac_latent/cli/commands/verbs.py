"""The commands ``search``, ``load`` and ``publish``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from stac_latent.cli.common import (
    AsJson,
    Asset,
    Bbox,
    Ids,
    KeyFile,
    MaxItems,
    Overwrite,
    Physical,
    Source,
    Upto,
    When,
    check_upto,
    find,
    item_row,
    latent_rows,
    names,
    numbers,
    print_rows,
    refuse_to_replace,
    show_cube,
)
from stac_latent.cli.console import out, print_json
from stac_latent.cli.guard_messages import Heard, heeding
from stac_latent.cli.interrupts import placing
from stac_latent.cli.progress import progress

if TYPE_CHECKING:
    import pystac


__all__ = ["load", "publish", "search"]

_PLACE, _STEPS = "Place and grid", "Time steps"
"""Groups of the options of ``load``."""


def search(
    sources: Annotated[
        list[str],
        typer.Argument(help="Catalogues, item collections, stac-geoparquet files or STAC APIs."),
    ],
    bbox: Bbox = None,
    when: When = None,
    collections: Annotated[str | None, typer.Option(help="Collection ids, comma separated.")] = None,
    ids: Ids = None,
    kind: Annotated[str | None, typer.Option(help="codec or embedding.")] = None,
    space: Annotated[str | None, typer.Option(help="Digest of the latent space.")] = None,
    max_bits_per_pixel: Annotated[float | None, typer.Option(help="Largest bpppb.")] = None,
    min_psnr: Annotated[float | None, typer.Option(help="Smallest PSNR [dB].")] = None,
    max_error: Annotated[float | None, typer.Option(help="Largest maximum error, stored unit.")] = None,
    max_sam: Annotated[float | None, typer.Option(help="Largest spectral angle, degrees.")] = None,
    query: Annotated[str | None, typer.Option("--filter", help="CQL2 text.")] = None,
    sortby: Annotated[
        str | None, typer.Option(help="Fields, comma separated; -field for descending.")
    ] = None,
    max_items: MaxItems = None,
    dest: Annotated[
        Path | None, typer.Option("--out", help="Write the items: .json (item collection) or .parquet.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Find items with latents by place, time, kind, space, rate, measured error and free CQL2."""
    from stac_latent.catalog.search.search import search as run

    if dest is not None and dest.suffix not in (".json", ".geojson", ".parquet"):
        raise typer.BadParameter(f"--out ends with .json or .parquet; got {dest.name!r}")
    refuse_to_replace(dest, overwrite)
    found = run(
        sources[0] if len(sources) == 1 else sources, bbox=numbers(bbox, 4, "--bbox"), datetime=when,
        collections=names(collections), ids=names(ids), kind=kind, space=space,
        max_bits_per_pixel=max_bits_per_pixel, min_psnr=min_psnr, max_error=max_error, max_sam=max_sam, filter=query,
        sortby=names(sortby), max_items=max_items,
    )  # fmt: skip
    items = list(found)
    if dest is not None:
        _write_items(items, dest)
    rows = [latent_rows(item) for item in items]
    if as_json:
        several = [{} if len(r) == 1 else {"latents": r} for r in rows]
        listed = [item_row(item) | more for item, more in zip(items, several, strict=True)]
        print_json({"matched": len(items), "items": listed})
        return
    print_rows([row for r in rows for row in r])
    out.print(f"{len(items)} item(s)" + (f" -> {dest}" if dest else ""))


def _write_items(items: list[pystac.Item], dest: Path) -> None:
    import pystac

    if dest.suffix == ".parquet":
        from stac_latent.catalog.search.stac_geoparquet import to_geoparquet

        to_geoparquet(items, dest)
        return
    from stac_latent.catalog.tree import write_json
    from stac_latent.system.files import writing

    for item in items:
        item.make_asset_hrefs_absolute()
    with writing(dest):
        write_json(dest, pystac.ItemCollection(items, clone_items=False).to_dict(transform_hrefs=False))


def load(
    source: Source,
    dest: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT",
            help=".tif (Cloud-Optimized GeoTIFF, one for each date), .nc or .zarr to write; without it the cube is described.",
        ),
    ] = None,
    bands: Annotated[
        str | None, typer.Option(help="Decoded or raw bands, comma separated, as red,scl,latent.B04.")
    ] = None,
    asset: Asset = None,
    when: When = None,
    ids: Ids = None,
    max_items: MaxItems = None,
    bbox: Annotated[
        str | None, typer.Option(help="west,south,east,north in degrees.", rich_help_panel=_PLACE)
    ] = None,
    lon: Annotated[
        str | None, typer.Option(help="Two longitudes, as 13.7,13.8; with --lat.", rich_help_panel=_PLACE)
    ] = None,
    lat: Annotated[str | None, typer.Option(help="Two latitudes.", rich_help_panel=_PLACE)] = None,
    x: Annotated[
        str | None,
        typer.Option("--x", help="Two numbers in units of --crs; with --y.", rich_help_panel=_PLACE),
    ] = None,
    y: Annotated[
        str | None, typer.Option("--y", help="Two numbers in units of --crs.", rich_help_panel=_PLACE)
    ] = None,
    crs: Annotated[str | None, typer.Option(help="As EPSG:32633.", rich_help_panel=_PLACE)] = None,
    resolution: Annotated[
        float | None, typer.Option(help="In units of the CRS.", rich_help_panel=_PLACE)
    ] = None,
    resampling: Annotated[
        str | None,
        typer.Option(
            help="nearest, bilinear, ...",
            show_default="nearest; embeddings: their own cells",
            rich_help_panel=_PLACE,
        ),
    ] = None,
    upto: Upto = "field",
    physical: Physical = False,
    groupby: Annotated[str, typer.Option(help="time, solar_day, id, ...", rich_help_panel=_STEPS)] = "time",
    mosaic: Annotated[
        str | None,
        typer.Option(
            help="Of several items in one time step: first, last, min, max, mean or median.",
            show_default="first",
            rich_help_panel=_STEPS,
        ),
    ] = None,
    with_properties: Annotated[
        str | None,
        typer.Option(
            help="Properties of items along time, comma separated, as eo:cloud_cover.", rich_help_panel=_STEPS
        ),
    ] = None,
    on_error: Annotated[
        str,
        typer.Option(
            help="raise; warn or ignore leave out items that cannot be loaded.", rich_help_panel=_STEPS
        ),
    ] = "raise",
    key: KeyFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Load items as one cube, decoded or as latents, and write it."""
    from stac_latent.cube.bad_items import Errors
    from stac_latent.cube.grid.areas import Area
    from stac_latent.cube.grid.fusing import Method
    from stac_latent.cube.read.load import load as run
    from stac_latent.cube.save.save import format_of, save

    check_upto(upto)
    if dest is not None:
        format_of(dest)
    refuse_to_replace(dest, overwrite)
    if mosaic is not None and mosaic not in get_args(Method):
        raise typer.BadParameter(f"--mosaic is one of {', '.join(get_args(Method))}; got {mosaic!r}")
    if on_error not in get_args(Errors):
        raise typer.BadParameter(f"--on-error is one of {', '.join(get_args(Errors))}; got {on_error!r}")
    box = numbers(bbox, 4, "--bbox")
    area = Area(
        box, crs=crs, resolution=resolution, lon=numbers(lon, 2, "--lon"), lat=numbers(lat, 2, "--lat"), x=numbers(x, 2, "--x"),
        y=numbers(y, 2, "--y"),
    )  # fmt: skip
    area.check()
    items = find(source, bbox=area.bounds, datetime=when, ids=names(ids), max_items=max_items)
    side = 1024 if upto == "field" else 256
    with heeding(Heard()):
        cube = run(
            items, names(bands), asset=asset, bbox=box, lon=area.lon, lat=area.lat, x=area.x, y=area.y, crs=crs, resolution=resolution,  # type: ignore[arg-type]
            resampling=resampling or ("nearest" if upto == "field" else None), upto=upto, groupby=groupby,  # type: ignore[arg-type]
            physical=physical, fuse_func=mosaic, errors=on_error, with_properties=_properties(names(with_properties) or [], items),  # type: ignore[arg-type]
            chunks={"x": side, "y": side}, key=key,
        )  # fmt: skip
    written: list[Path] = []
    with placing(dest):
        if dest is not None:
            with heeding(Heard()), progress(as_json) as report:
                written = save(cube, dest, overwrite=overwrite, progress=report)
        show_cube(cube, written, as_json=as_json)


def _properties(keys: list[str], items: list[pystac.Item]) -> list[str | dict[str, Any]]:
    """Properties to load, as texts where any item has text; each text of a time step once."""
    text: dict[str, Any] = {
        "dtype": "U",
        "nodata": "",
        "fuser": lambda found: ",".join(dict.fromkeys(map(str, found))),
    }
    return [
        {"key": key, **text} if any(isinstance(i.properties.get(key), str) for i in items) else key
        for key in keys
    ]


def publish(
    source: Source,
    dest: Annotated[
        Path, typer.Argument(metavar="OUT", help="GeoParquet file to write; its STAC Item goes beside it.")
    ],
    asset: Asset = None,
    by: Annotated[str, typer.Option(help="cell, patch or item.")] = "cell",
    patch: Annotated[str, typer.Option(help="Cells of a patch, as 8,8.")] = "8,8",
    pool: Annotated[str, typer.Option(help="How cells of a patch or item are pooled.")] = "mean",
    dtype: Annotated[str, typer.Option(help="float16, float32 or int8.")] = "float16",
    standardise: Annotated[
        bool, typer.Option("--standardise", help="Standardise with the space's statistics.")
    ] = False,
    channels: Annotated[int | None, typer.Option(help="First so many channels only.")] = None,
    min_valid: Annotated[float, typer.Option(help="Smallest share of valid pixels of a row.")] = 0.0,
    invalid: Annotated[
        str, typer.Option(help="Unsound rows of adopted tables: raise, drop or keep.")
    ] = "raise",
    partition: Annotated[
        int | None, typer.Option(help="Zoom of WorldCRS84Quad: a folder with one file for each tile.")
    ] = None,
    bbox: Bbox = None,
    when: When = None,
    ids: Ids = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Publish latents as GeoParquet embeddings, one row for each cell, patch or item."""
    from stac_latent.catalog.publish.publish import publish as run

    refuse_to_replace(dest, overwrite)
    size = numbers(patch, 2, "--patch") or (8, 8)
    box = numbers(bbox, 4, "--bbox")
    items = find(source, bbox=box, datetime=when, ids=names(ids))
    with heeding(Heard()), progress(as_json) as report:
        item = run(
            items, dest, asset=asset, by=by, patch=(int(size[0]), int(size[1])), pool=pool, dtype=dtype,  # type: ignore[arg-type]
            standardise=standardise, channels=channels, min_valid=min_valid, partition=partition, bbox=box, invalid=invalid,  # type: ignore[arg-type]
            progress=report,
        )  # fmt: skip
    rows = item.properties["table:row_count"]
    result = {
        "geoparquet": str(dest),
        "item": item.get_self_href(),
        "rows": rows,
        "bytes": sum(asset.extra_fields["file:size"] for asset in item.assets.values()),
    }
    if as_json:
        print_json(result)
    else:
        out.print(f"{rows:,} rows, {result['bytes']:,} bytes -> {dest}")
