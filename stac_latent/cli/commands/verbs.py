"""The commands ``encode``, ``search``, ``load`` and ``publish``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    shard_of,
    show_cube,
)
from stac_latent.cli.console import err, out, print_json
from stac_latent.cli.guard_messages import Heard, KeepGoing, heeding, report_failures, saying
from stac_latent.cli.interrupts import placing
from stac_latent.cli.progress import progress
from stac_latent.cli.run_report import failed_of, reporting

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import pystac

    from stac_latent.catalog.encode.messages import ItemOutcome

__all__ = ["encode", "load", "publish", "search"]

_PLACE, _STEPS = "Place and grid", "Time steps"
"""Groups of the options of ``load``."""
Resampling = Annotated[str, typer.Option(help="nearest, bilinear, cubic, average, ...")]


def encode(
    source: Source,
    dest: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the catalogue to write or add to.")],
    codec: Annotated[str, typer.Option(help="Name or bundle folder; see 'codecs'.")] = "s2-10m-4b",
    asset: Annotated[str, typer.Option(help="Key of the latent asset to write.")] = "latent",
    mode: Annotated[
        str, typer.Option(help="beside: in a copy of the item. derived: in an item of its own.")
    ] = "beside",
    payload: Annotated[str | None, typer.Option(help="coded or plain (zstd).")] = None,
    shards: Annotated[
        bool,
        typer.Option(
            help="Gather chunks in shards; --no-shards with --payload plain is what GDAL 3.12 opens."
        ),
    ] = True,
    psnr: Annotated[float | None, typer.Option(help="At least this PSNR [dB] in each tile.")] = None,
    max_bits_per_pixel: Annotated[
        float | None, typer.Option(help="At most these bits per pixel and band in each tile.")
    ] = None,
    max_error: Annotated[
        float | None, typer.Option(help="At most this absolute error, in the stored unit.")
    ] = None,
    quality: Annotated[
        float | None, typer.Option(help="0 to 100; 50 is the codec's own step, 10 more halve it.")
    ] = None,
    step: Annotated[float | None, typer.Option(help="Quantiser step: larger is smaller.")] = None,
    error_bound: Annotated[
        list[str] | None,
        typer.Option(
            help="Largest error of every pixel, guaranteed: 2 (stored unit), 1% (of the value), or by band as B02=1; may be repeated."
        ),
    ] = None,
    references: Annotated[
        str | None,
        typer.Option(
            help="Code dates against key frames: auto, a number of dates that share one, or an item or catalogue that has some."
        ),
    ] = None,
    guard: Annotated[
        str | None,
        typer.Option(
            help="Items unlike what the codec was calibrated on: warn, fallback, refuse or off.",
            show_default="warn",
        ),
    ] = None,
    fallback_bound: Annotated[
        float, typer.Option(help="Largest error of tiles that --guard fallback flags; 0 is lossless.", min=0)
    ] = 0.0,
    check: Annotated[
        list[str] | None,
        typer.Option(
            help="What decoded pixels shall keep, as 'psnr>=40:refuse' or 'mean_bias<=1:warn'; may be repeated."
        ),
    ] = None,
    bands: Annotated[
        str | None, typer.Option(help="Bands for codecs that take any, or B02=blue pairs to match them.")
    ] = None,
    resolution: Annotated[
        float | None, typer.Option(help="Bring all bands to it first.", show_default="native grids")
    ] = None,
    resampling: Resampling = "nearest",
    trust: Annotated[
        str | None,
        typer.Option(
            help="Whose grid to take where item and file contradict each other: file or item.",
            show_default="refuse",
        ),
    ] = None,
    bbox: Bbox = None,
    when: When = None,
    ids: Ids = None,
    max_items: MaxItems = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Of so many equal runs, which this is, as 3/16: it takes the items whose ids fall to it."
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(help="Encode so many items at the same time, each in a process.", min=1)
    ] = 1,
    thumbnail: Annotated[
        bool, typer.Option(help="Give items that have none a small picture (PNG, some kB).")
    ] = True,
    pack: Annotated[
        int | None,
        typer.Option(
            help="Up to so many items share a store: for 100,000s of chips, whose metadata would outweigh them.",
            min=1,
        ),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key-file", help="Encrypt the chunks with this key; see 'keygen'.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace assets of this name.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Pass over items that have the asset.")] = False,
    keep_going: KeepGoing = True,
    report_file: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="JSON",
            help="Write what became of each item (done, skipped, failed and why), also when the run ends early.",
        ),
    ] = None,
    retry_failed: Annotated[
        Path | None,
        typer.Option(metavar="JSON", help="Encode only the items that failed in the run of this report."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Encode items; write stores, measure them by a cold decode, and catalogue them."""
    from stac_latent.catalog.encode.encode import encode as run
    from stac_latent.cube.open_codec import open_codec
    from stac_latent.store.zarr.group import StoreLayout

    for name, value, allowed in (
        ("mode", mode, ("beside", "derived")),
        ("payload", payload, (None, "coded", "plain")),
        ("guard", guard, (None, "warn", "fallback", "refuse", "off")),
        ("trust", trust, (None, "file", "item")),
    ):
        if value not in allowed:
            raise typer.BadParameter(f"--{name} is {' or '.join(a for a in allowed if a)}; got {value!r}")
    pairs = dict(b.partition("=")[::2] for b in names(bands) or [] if "=" in b)
    plain = [b for b in names(bands) or [] if "=" not in b]
    options: dict[str, Any] = {"bands": plain} if plain else {}
    target: dict[str, Any] = {
        "psnr": psnr,
        "max_bits_per_pixel": max_bits_per_pixel,
        "max_error": max_error,
        "quality": quality,
    }
    chosen = open_codec(codec, **options)
    if step is not None and chosen.rate_control is not None:
        target["step"] = step
    elif step is not None:
        chosen = open_codec(codec, **options, step=step)
    layout = StoreLayout(sharded=shards)
    heard = Heard()
    items = find(
        source, failures=heard.unread if keep_going else None, bbox=numbers(bbox, 4, "--bbox"), datetime=when, ids=names(ids),
        max_items=max_items,
    )  # fmt: skip
    against = _references(references)
    if shard is not None and against is not None:
        raise typer.BadParameter("--shard would part dates from their key frames: leave out --references")
    items = _chosen(items, shard, retry_failed, heard)
    outcomes: list[ItemOutcome] = []
    total = len(items)
    if resume:
        items = _to_do(items, dest, asset, mode, outcomes)
    done: list[pystac.Item] = []
    with (
        reporting(report_file, total, outcomes, heard),
        progress(as_json) as report,
        saying(outcomes, total, str(dest)),
        _worker_processes(jobs, len(items)) as executor,
    ):
        report("items", 0, len(items))
        if against is None and pack is None and jobs == 1:
            report.over([item.id for item in items])
        if items:
            with heeding(heard):
                done += run(
                    items, chosen, dest, asset=asset, mode=mode, payload=payload, bands=pairs or None,  # type: ignore[arg-type]
                    resolution=resolution, resampling=resampling, overwrite=overwrite, references=against, progress=report,
                    on_error="skip" if keep_going and len(items) + len(heard.unread) > 1 else "raise",
                    key=key, error_bound=_bounds(error_bound), guard=guard, fallback_bound=fallback_bound, checks=check or (), trust=trust, thumbnail=thumbnail, layout=layout, pack=pack, executor=executor, outcomes=outcomes, **target,  # type: ignore[arg-type]
                )  # fmt: skip
    rows = [item_row(item, asset) for item in done]
    if as_json:
        print_json({"catalog": str((dest / "catalog.json").absolute()), "items": rows} | heard.to_dict())
    else:
        print_rows(rows)
        out.print(f"catalogue: {dest / 'catalog.json'}")
    report_failures(heard, len(items))


@contextmanager
def _worker_processes(jobs: int, items: int) -> Iterator[Executor | None]:
    """Processes for so many jobs, no more than there are Items; None for one job, which needs no other."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    if jobs == 1:
        yield None
        return
    pool = ProcessPoolExecutor(max(1, min(jobs, items)), mp_context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _bounds(given: list[str] | None) -> dict[str, str] | None:
    """What ``--error-bound`` stands for: bounds by the name of the band, ``*`` for the others."""
    if not given:
        return None
    pairs = [part.strip().rpartition("=") for text in given for part in text.split(",")]
    return {name or "*": value for name, _, value in pairs}


def _references(given: str | None) -> Any:
    """What ``--references`` stands for: ``auto``, a number, or Items."""
    if given is None or given == "auto":
        return given
    if given.isdecimal():
        return int(given)
    if not given.endswith((".json", ".geojson", ".parquet")):
        raise typer.BadParameter(f"--references is auto, a number, or an item or catalogue; got {given!r}")
    found = find(given)
    return found[0] if len(found) == 1 else found


def _chosen(
    items: list[pystac.Item], shard: str | None, retry_failed: Path | None, heard: Heard
) -> list[pystac.Item]:
    """The Items that failed in an earlier run, where one is named, and fall to this run."""
    if retry_failed is not None:
        items = failed_of(retry_failed, items)
        heard.unread.clear()  # what cannot be read is not among them
    return items if shard is None else shard_of(items, shard)


def _to_do(
    items: list[pystac.Item], dest: Path, asset: str, mode: str, outcomes: list[ItemOutcome]
) -> list[pystac.Item]:
    """The Items that lack the asset; the others are noted as skipped."""
    from stac_latent.catalog.encode.messages import ItemOutcome

    left = []
    for item in items:
        if _is_done(item, dest, asset, mode):
            outcomes.append(ItemOutcome(item.id, item.collection_id, "skipped"))
        else:
            left.append(item)
    err.print(f"{len(items) - len(left):,} of {len(items):,} items have the asset {asset!r} already")
    return left


def _is_done(item: pystac.Item, dest: Path, asset: str, mode: str) -> bool:
    """Whether the catalogue has the Item with this asset already; a link to it that is missing is made."""
    from stac_latent.catalog.tree import CatalogTree

    tree, name = CatalogTree(dest), item.id if mode == "beside" else f"{item.id}-{asset}"
    known = tree.find(name, item.collection_id)
    if known is None or asset not in known.assets:
        return False
    tree.relink(name, item.collection_id)
    return True


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
