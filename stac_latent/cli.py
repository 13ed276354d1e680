"""The verbs from a shell: ``stac-latent demo | encode | search | load | publish | codecs | info | validate``.

Results go to stdout (``--json``: one JSON document), progress and messages to stderr. Exit codes: 0 done, 1 bad input
or a failed check, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from stac_latent.errors import CatalogError, StacLatentError

if TYPE_CHECKING:
    import pystac

__all__ = ["app", "main"]

app = typer.Typer(
    name="stac-latent", help=__doc__.split("\n\n")[0] if __doc__ else None, no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip
_out, _err = Console(soft_wrap=True), Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Bbox = Annotated[str | None, typer.Option(help="west,south,east,north in degrees.")]
When = Annotated[str | None, typer.Option("--datetime", help="Instant or interval, as 2023-06-01/2023-09-01 or ../2024.")]
Ids = Annotated[str | None, typer.Option(help="Item ids, comma separated.")]
Asset = Annotated[str | None, typer.Option(help="Key of the latent asset, where an item has several.")]
MaxItems = Annotated[int | None, typer.Option(help="Stop after so many items.", min=1)]


@contextmanager
def _progress(quiet: bool) -> Iterator[Any]:
    """Progress bars on stderr; yields a callback ``(label, done, total)``."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_err, transient=True, disable=quiet or not _err.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks or bar.tasks[tasks[label]].finished:
                tasks[label] = bar.add_task(label, total=total)
            bar.update(tasks[label], completed=done, total=total)

        yield report


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _numbers(text: str | None, count: int, what: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(float(v) for v in text.split(","))
    except ValueError as exc:
        raise typer.BadParameter(f"{what} is {count} numbers with commas between; got {text!r}") from exc
    if len(values) != count:
        raise typer.BadParameter(f"{what} is {count} numbers with commas between; got {len(values)}")
    return values


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [t.strip() for t in text.split(",") if t.strip()]


def _find(sources: list[str], **query: Any) -> list[pystac.Item]:
    """Items of the sources; at least one, or an error."""
    from stac_latent.catalog.search import search

    items = list(search(sources[0] if len(sources) == 1 else sources, **query))
    if not items:
        asked = ", ".join(f"{k}={v}" for k, v in query.items() if v is not None)
        raise CatalogError(f"no item of {', '.join(sources)} matches ({asked or 'no condition'}); loosen the search")
    return items


@app.command()
def demo(
    dest: Annotated[Path, typer.Argument(help="Folder to write to.")] = Path("stac-latent-demo"),
    codec: Annotated[str, typer.Option(help="Codec for B02, B03, B04, B08.")] = "s2-10m-4b",
    as_json: AsJson = False,
) -> None:
    """Run the whole line on a real Sentinel-2 sample: encode, catalogue, search, load, publish, look."""
    from stac_latent.demo import run_demo

    with _progress(as_json) as report:
        result = run_demo(dest, codec, report)
    if as_json:
        _print_json(result)
        return
    table = Table(title="Sentinel-2 sample, 300 x 300 pixels, 4 bands", show_header=False)
    table.add_row("raw (uint16)", f"{result['raw_bytes']:,} bytes")
    table.add_row("latent", f"{result['latent_bytes']:,} bytes ({result['ratio']:.1f} x smaller)")
    table.add_row("rate", f"{result['bits_per_pixel']:.3f} bits per pixel and band")
    table.add_row("PSNR", f"{result['psnr']:.2f} dB (peak 10000)")
    table.add_row("embeddings", f"{result['embeddings']:,} rows")
    for key in ("catalog", "item", "geoparquet", "preview"):
        table.add_row(key, result[key])
    table.add_row("time", f"{result['seconds']} s")
    _out.print(table)


@app.command()
def encode(
    source: Annotated[str, typer.Argument(help="Item, catalogue, item collection, stac-geoparquet file or STAC API.")],
    dest: Annotated[Path, typer.Argument(help="Folder of the catalogue to write.")],
    codec: Annotated[str, typer.Option(help="Name or bundle folder; see 'codecs'.")] = "s2-10m-4b",
    key: Annotated[str, typer.Option(help="Asset key of the latent.")] = "latent",
    mode: Annotated[str, typer.Option(help="beside: in a copy of the item. derived: in an item of its own.")] = "beside",
    payload: Annotated[str | None, typer.Option(help="coded or plain (zstd).")] = None,
    step: Annotated[float | None, typer.Option(help="Quantiser step, where the codec takes one: larger is smaller.")] = None,
    bands: Annotated[str | None, typer.Option(help="Bands for codecs that take any, or B02=blue pairs to match them.")] = None,
    resolution: Annotated[float | None, typer.Option(help="Where the bands' native grids differ.")] = None,
    bbox: Bbox = None,
    when: When = None,
    ids: Ids = None,
    max_items: MaxItems = None,
    overwrite: Annotated[bool, typer.Option(help="Replace assets of the same key.")] = False,
    as_json: AsJson = False,
) -> None:
    """Encode items; write stores, measure them by a cold decode, and catalogue them."""
    from stac_latent.catalog.encode import encode as run
    from stac_latent.codec import open_codec

    for name, value, allowed in (("mode", mode, ("beside", "derived")), ("payload", payload, (None, "coded", "plain"))):
        if value not in allowed:
            raise typer.BadParameter(f"--{name} is {' or '.join(a for a in allowed if a)}; got {value!r}")
    pairs = dict(b.partition("=")[::2] for b in _names(bands) or [] if "=" in b)
    plain = [b for b in _names(bands) or [] if "=" not in b]
    options = {k: v for k, v in {"step": step, "bands": plain or None}.items() if v is not None}
    chosen = open_codec(codec, **options)
    items = _find([source], bbox=_numbers(bbox, 4, "--bbox"), datetime=when, ids=_names(ids), max_items=max_items)
    done = []
    with _progress(as_json) as report:
        for i, item in enumerate(items):
            done += run(
                item, chosen, dest, key=key, mode=mode, payload=payload, bands=pairs or None,  # type: ignore[arg-type]
                resolution=resolution, overwrite=overwrite, progress=report,
            )  # fmt: skip
            report("items", i + 1, len(items))
    rows = [_row(item, key) for item in done]
    if as_json:
        _print_json({"catalog": str((dest / "catalog.json").absolute()), "items": rows})
        return
    _print_rows(rows)
    _out.print(f"catalogue: {dest / 'catalog.json'}")


def _row(item: pystac.Item, key: str | None) -> dict[str, Any]:
    fields: Mapping[str, Any] = item.properties
    if key is not None and key in item.assets:
        fields = item.assets[key].extra_fields
    wanted = ("latent:bits_per_pixel", "latent:psnr", "latent:max_error", "latent:sam", "file:size")
    row = {"id": item.id, "collection": item.collection_id, "datetime": str(item.properties.get("datetime"))}
    row |= {k.partition(":")[2]: fields[k] for k in wanted if fields.get(k) is not None}
    row["spaces"] = item.properties.get("latent:spaces")
    return row | {"href": item.get_self_href()}


def _print_rows(rows: list[dict[str, Any]]) -> None:
    table = Table("item", "datetime", "bpppb", "PSNR [dB]", "max error", "space")
    for r in rows:
        spaces = ", ".join(s[7:19] for s in r["spaces"] or [])
        numbers = (r.get("bits_per_pixel"), r.get("psnr"), r.get("max_error"))
        shown = ["" if v is None else f"{v:.4g}" for v in numbers]
        table.add_row(r["id"], r["datetime"][:19], *shown, spaces)
    _out.print(table)


@app.command()
def search(
    sources: Annotated[list[str], typer.Argument(help="Catalogues, item collections, stac-geoparquet files or STAC APIs.")],
    bbox: Bbox = None,
    when: When = None,
    collections: Annotated[str | None, typer.Option(help="Collection ids, comma separated.")] = None,
    ids: Ids = None,
    kind: Annotated[str | None, typer.Option(help="codec or embedding.")] = None,
    space: Annotated[str | None, typer.Option(help="Digest of the latent space.")] = None,
    max_bits_per_pixel: Annotated[float | None, typer.Option(help="Largest bpppb.")] = None,
    min_psnr: Annotated[float | None, typer.Option(help="Smallest PSNR [dB].")] = None,
    max_error: Annotated[float | None, typer.Option(help="Largest maximum error, stored unit.")] = None,
    query: Annotated[str | None, typer.Option("--filter", help="CQL2 text.")] = None,
    sortby: Annotated[str | None, typer.Option(help="Fields, comma separated; -field for descending.")] = None,
    max_items: MaxItems = None,
    out: Annotated[Path | None, typer.Option(help="Write the items: .json (item collection) or .parquet.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find items with latents by place, time, kind, space, rate, measured error and free CQL2."""
    from stac_latent.catalog.search import search as run

    found = run(
        sources[0] if len(sources) == 1 else sources, bbox=_numbers(bbox, 4, "--bbox"), datetime=when,
        collections=_names(collections), ids=_names(ids), kind=kind, space=space,
        max_bits_per_pixel=max_bits_per_pixel, min_psnr=min_psnr, max_error=max_error, filter=query,
        sortby=_names(sortby), max_items=max_items,
    )  # fmt: skip
    items = list(found)
    if out is not None:
        _write_items(items, out)
    rows = [_row(i, None) for i in items]
    if as_json:
        _print_json({"matched": len(rows), "items": rows})
        return
    _print_rows(rows)
    _out.print(f"{len(rows)} item(s)" + (f" -> {out}" if out else ""))


def _write_items(items: list[pystac.Item], out: Path) -> None:
    import pystac

    if out.suffix == ".parquet":
        from stac_latent.catalog.table import to_geoparquet

        to_geoparquet(items, out)
    elif out.suffix in (".json", ".geojson"):
        from stac_latent.catalog.tree import write_json

        for item in items:
            item.make_asset_hrefs_absolute()
        write_json(out, pystac.ItemCollection(items, clone_items=False).to_dict(transform_hrefs=False))
    else:
        raise typer.BadParameter(f"--out ends with .json or .parquet; got {out.name!r}")


@app.command()
def load(
    source: Annotated[str, typer.Argument(help="Item, catalogue, item collection, stac-geoparquet file or STAC API.")],
    out: Annotated[Path | None, typer.Argument(help=".zarr or .tif to write; without it the cube is described.")] = None,
    bands: Annotated[str | None, typer.Option(help="Comma separated.")] = None,
    asset: Asset = None,
    bbox: Bbox = None,
    when: When = None,
    ids: Ids = None,
    crs: Annotated[str | None, typer.Option(help="As EPSG:32633.")] = None,
    resolution: Annotated[float | None, typer.Option(help="In units of the CRS.")] = None,
    resampling: Annotated[str, typer.Option(help="nearest, bilinear, cubic, average, ...")] = "nearest",
    upto: Annotated[str, typer.Option(help="field (pixels) or latent.")] = "field",
    groupby: Annotated[str, typer.Option(help="time, solar_day, id, ...")] = "time",
    max_items: MaxItems = None,
    as_json: AsJson = False,
) -> None:
    """Load items as one cube, decoded or as latents, and write it."""
    from stac_latent.cube.load import load as run

    if upto not in ("field", "latent"):
        raise typer.BadParameter(f"--upto is field or latent; got {upto!r}")
    if out is not None and out.suffix not in (".zarr", ".tif"):
        raise typer.BadParameter(f"the output ends with .zarr or .tif; got {out.name!r}")
    box = _numbers(bbox, 4, "--bbox")
    items = _find([source], bbox=box, datetime=when, ids=_names(ids), max_items=max_items)
    cube = run(
        items, _names(bands), asset=asset, bbox=box, crs=crs, resolution=resolution, resampling=resampling,  # type: ignore[arg-type]
        upto=upto, groupby=groupby, chunks={"x": 1024, "y": 1024} if upto == "field" else {},
    )  # fmt: skip
    if out is not None:
        _write_cube(cube, out)
    if as_json:
        _print_json({"sizes": dict(cube.sizes), "variables": {k: str(v.dtype) for k, v in cube.data_vars.items()},
                     "out": None if out is None else str(out)})  # fmt: skip
    else:
        _out.print(repr(cube), markup=False, highlight=False)


def _write_cube(cube: Any, out: Path) -> None:
    import shutil

    part = out.with_name(f".{out.stem}.part{out.suffix}")
    try:
        if out.suffix == ".zarr":
            cube.drop_encoding().to_zarr(part, mode="w", zarr_format=3, consolidated=False)
            shutil.rmtree(out, ignore_errors=True)
        else:
            if cube.sizes.get("time", 1) != 1 or "latent" in cube:
                raise CatalogError("a GeoTIFF holds decoded bands of one date; narrow --datetime, or write a .zarr")
            cube.isel(time=0, drop=True).rio.to_raster(part, compress="deflate", tiled=True)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)


@app.command()
def publish(
    source: Annotated[str, typer.Argument(help="Item, catalogue, item collection, stac-geoparquet file or STAC API.")],
    dest: Annotated[Path, typer.Argument(help="GeoParquet file to write; its STAC Item goes beside it.")],
    asset: Asset = None,
    by: Annotated[str, typer.Option(help="cell, patch or item.")] = "cell",
    patch: Annotated[str, typer.Option(help="Cells of a patch, as 8,8.")] = "8,8",
    pool: Annotated[str, typer.Option(help="How cells of a patch or item are pooled.")] = "mean",
    dtype: Annotated[str, typer.Option(help="float16, float32 or int8.")] = "float16",
    standardise: Annotated[bool, typer.Option(help="Standardise with the space's statistics.")] = False,
    channels: Annotated[int | None, typer.Option(help="First so many channels only.")] = None,
    min_valid: Annotated[float, typer.Option(help="Smallest share of valid pixels of a row.")] = 0.0,
    bbox: Bbox = None,
    when: When = None,
    ids: Ids = None,
    as_json: AsJson = False,
) -> None:
    """Publish latents as GeoParquet embeddings, one row for each cell, patch or item."""
    from stac_latent.catalog.publish import publish as run

    size = _numbers(patch, 2, "--patch") or (8, 8)
    box = _numbers(bbox, 4, "--bbox")
    items = _find([source], bbox=box, datetime=when, ids=_names(ids))
    with _progress(as_json) as report:
        item = run(
            items, dest, asset=asset, by=by, patch=(int(size[0]), int(size[1])), pool=pool, dtype=dtype,  # type: ignore[arg-type]
            standardise=standardise, channels=channels, min_valid=min_valid, bbox=box,  # type: ignore[arg-type]
            progress=lambda done, total: report("publish", done, total),
        )  # fmt: skip
    result = {"geoparquet": str(dest), "item": item.get_self_href(), "rows": item.properties["table:row_count"], "bytes": dest.stat().st_size}
    if as_json:
        _print_json(result)
    else:
        _out.print(f"{result['rows']:,} rows, {result['bytes']:,} bytes -> {dest}")


@app.command()
def codecs(as_json: AsJson = False) -> None:
    """List the installed codecs."""
    from stac_latent.registry import codec_names, describe_codec

    rows = [describe_codec(name) for name in codec_names()]
    if as_json:
        _print_json(rows)
        return
    table = Table("name", "kind", "bands", "stride", "channels", "space")
    for r in rows:
        bands = ", ".join(r["bands"]) if r["bands"] else "any (--bands)"
        table.add_row(r["name"], r["kind"], bands, r["stride"], str(r["dimensions"] or ""), (r["space"] or "")[7:19])
    _out.print(table)


@app.command()
def info(
    href: Annotated[str, typer.Argument(help="STAC Item (JSON) with a latent asset.")],
    asset: Asset = None,
    preview: Annotated[Path | None, typer.Option(help="PNG of the decoded field [default: <item>-<asset>.png here].")] = None,
    no_preview: Annotated[bool, typer.Option("--no-preview", help="Do not decode.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a latent asset is, check that its codec opens, and write a decoded quick-look."""
    from stac_latent.cube.contract import LatentRef, latent_assets
    from stac_latent.inspect import describe_asset, read_item, write_quicklook

    item = read_item(href)
    keys = [asset] if asset else latent_assets(item)
    refs = [LatentRef.from_item(item, k) for k in keys] or [LatentRef.from_item(item)]
    result = [describe_asset(item, ref) for ref in refs]
    for ref, row in zip(refs, result, strict=True):
        if not no_preview and ref.spec.kind == "codec":
            row["preview"] = str(write_quicklook(ref, preview or Path(f"{item.id}-{ref.asset}.png")))
    if as_json:
        _print_json(result)
        return
    for row in result:
        table = Table(title=f"{item.id} / {row['asset']}", show_header=False)
        for name, value in row.items():
            table.add_row(name, json.dumps(value) if isinstance(value, list | dict) else str(value))
        _out.print(table)


@app.command()
def validate(
    paths: Annotated[list[Path], typer.Argument(help="STAC JSON files, or folders of them.")],
    schemas: Annotated[Path | None, typer.Option(help="Folder of extension schemas with an index.json.")] = None,
    as_json: AsJson = False,
) -> None:
    """Validate STAC documents offline against core, the latent extension and the schemas at hand."""
    from stac_latent.inspect import stac_files
    from stac_latent.validation import validate as run

    files = stac_files(paths)
    found = {str(p): [str(problem) for problem in run(p, schemas)] for p in files}
    bad = {p: problems for p, problems in found.items() if problems}
    if as_json:
        _print_json({"files": len(found), "problems": bad})
    else:
        for path, problems in bad.items():
            _out.print(f"[red]{path}[/red]")
            for problem in problems:
                _out.print(f"  {problem}", markup=False)
        _out.print(f"{len(found)} file(s), {len(bad)} with problems")
    if bad:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; errors of the package become one line on stderr and exit code 1."""
    try:
        app()
    except StacLatentError as exc:
        _err.print(f"[bold red]error[/bold red] {type(exc).__name__}: ", end="")
        _err.print(str(exc), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        _err.print("interrupted; what was finished stays, run the same command to go on")
        sys.exit(130)
