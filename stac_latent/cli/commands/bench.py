"""The commands ``bench rd``, ``bench speed`` and ``bench load``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from stac_latent.cli.command import Command
from stac_latent.cli.common import AsJson, numbers
from stac_latent.cli.console import err, out, print_json
from stac_latent.cli.progress import progress

__all__ = ["app"]

app = typer.Typer(
    help="Race every codec and every installed peer on the same tiles.",
    no_args_is_help=True,
    add_completion=False,
)

Data = Annotated[Path, typer.Option(help="Folder of GeoTIFFs, or of the benchmark data.")]
Name = Annotated[str | None, typer.Option("--dataset", help="Data set of the folder, as s2 or s1.")]
CodecNames = Annotated[
    list[str] | None,
    typer.Option("--codec", help="Codec or bundle folder; repeat.", show_default="all installed"),
]
PeerNames = Annotated[
    list[str] | None,
    typer.Option("--peer", help="Peers whose name contains this; repeat.", show_default="all"),
]
Out = Annotated[Path, typer.Option("--out", help="Folder of results and plots.")]


@app.command(cls=Command)
def rd(
    data: Data,
    dataset: Name = None,
    codec: CodecNames = None,
    peer: PeerNames = None,
    interval: Annotated[str, typer.Option(help="PSNR [dB] to compare rates over.")] = "36,46",
    per_place: Annotated[int, typer.Option(help="Tiles of one place at most.", min=1)] = 4,
    max_tiles: Annotated[int | None, typer.Option(help="Tiles in all at most.", min=1)] = None,
    jobs: Annotated[int, typer.Option(help="Coders that run at a time.", min=1)] = 1,
    dest: Out = Path("bench-results"),
    as_json: AsJson = False,
) -> None:
    """Rate and distortion on places that nothing was fitted on, beside every installed peer."""
    from stac_latent.bench.runs import Run
    from stac_latent.bench.runs import rd as run

    low, high = numbers(interval, 2, "--interval") or (36.0, 46.0)
    with progress(as_json) as report:
        result = run(
            Run(data, dataset, codec, peer, dest, report),
            interval=(low, high),
            per_place=per_place,
            max_tiles=max_tiles,
            jobs=jobs,
        )
    if as_json:
        print_json(result)
        return
    _print_rd(result)


@app.command(cls=Command)
def speed(
    data: Data,
    dataset: Name = None,
    codec: CodecNames = None,
    peer: PeerNames = None,
    size: Annotated[int, typer.Option(help="Pixels of a side of the scene.", min=64)] = 2048,
    psnr: Annotated[float, typer.Option(help="Quality to compare at, in dB.")] = 42.0,
    threads: Annotated[str, typer.Option(help="Numbers of threads, comma separated.")] = "2,1",
    dest: Out = Path("bench-results"),
    as_json: AsJson = False,
) -> None:
    """Time to encode and decode a large scene, and to read one window of it, beside every installed peer."""
    from stac_latent.bench.runs import Run
    from stac_latent.bench.runs import speed as run

    counts = numbers(threads, threads.count(",") + 1, "--threads") or (1.0,)
    if min(counts) < 1 or any(c != int(c) for c in counts):
        raise typer.BadParameter(f"--threads is whole numbers from 1 on; got {threads!r}")
    with progress(as_json) as report:
        result = run(
            Run(data, dataset, codec, peer, dest, report),
            size=size,
            psnr=psnr,
            threads=[int(c) for c in counts],
        )
    if as_json:
        print_json(result)
        return
    _print_speed(result)


@app.command(cls=Command)
def load(
    data: Data,
    dataset: Name = None,
    codec: Annotated[
        str | None,
        typer.Option(help="Codec or bundle folder.", show_default="the shipped one of these bands, else lin"),
    ] = None,
    peer: PeerNames = None,
    size: Annotated[int, typer.Option(help="Pixels of a side of the scene.", min=64)] = 1830,
    psnr: Annotated[float, typer.Option(help="Quality of the latents, in dB.")] = 42.0,
    dest: Out = Path("bench-results"),
    as_json: AsJson = False,
) -> None:
    """Time to load a scene, windows, bands and series of it, beside GeoTIFF and JPEG 2000 through odc-stac."""
    from stac_latent.bench.runs import Run
    from stac_latent.bench.runs import load as run

    with progress(as_json) as report:
        result = run(
            Run(data, dataset, None if codec is None else [codec], peer, dest, report), size=size, psnr=psnr
        )
    if as_json:
        print_json(result)
        return
    _print_load(result)


def _number(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)


def _print_rd(result: dict[str, Any]) -> None:
    low, high = result["interval"]
    title = (
        f"{result['dataset']['title']}: {len(result['tiles'])} tiles, PSNR peak {result['dataset']['peak']}"
    )
    levels = [f"{p:g}" for p in (36, 38, 40, 42, 44, 46, 48) if low <= p <= high]
    table = Table(
        "coder", *[f"{p} dB" for p in levels], "BD-rate %", "pooled %", "worst tile %", "tile", title=title
    )
    order = sorted(
        result["summary"].items(), key=lambda item: (item[1]["bd_rate"] is None, item[1]["bd_rate"] or 0)
    )
    for name, row in order:
        rates = [_number(row["bits_per_pixel_at_psnr"].get(p), ".3f") for p in levels]
        share = f"{_number(row['bd_rate'], '+.1f')} ({row['tiles']})"
        table.add_row(
            name, *rates, share, _number(row["bd_rate_pooled"], "+.1f"), _number(row["worst_bd_rate"], "+.1f"),
            row["worst_tile"] or "",
        )  # fmt: skip
    out.print(table)
    out.print(
        f"rates: mean bits per pixel and band at equal PSNR over {len(result['covered'])} tiles that {result['anchor']} has there; BD-rate: against {result['anchor']}, {low:g} to {high:g} dB, "
        "mean over (tiles)"
    )
    known = {t for each in result["bd_rate"].values() for t in each}
    if unknown := [t for t in result["tiles"] if t not in known]:
        out.print(
            f"not compared, since no coder has half of the interval there: {', '.join(unknown)}",
        )
    if result["lossless"]:
        table = Table("lossless", "bits per pixel and band", "encode Mpx/s", "decode Mpx/s")
        for name, row in sorted(result["lossless"].items(), key=lambda item: item[1]["bits_per_pixel"]):
            speeds = (_number(row[k], ".3g") for k in ("encode_mpixel_s", "decode_mpixel_s"))
            table.add_row(name, _number(row["bits_per_pixel"], ".3f"), *speeds)
        out.print(table)
    if result["failed"]:
        err.print(f"{result['failed']} settings failed; see 'error' in the rows")
    _print_end(result)


def _print_end(result: dict[str, Any]) -> None:
    for name, reason in result["skipped"].items():
        err.print(f"skipped {name}: {reason}")
    for path in result["files"]:
        err.print(f"wrote {path}")


def _print_speed(result: dict[str, Any]) -> None:
    title = f"{result['scene']['title']}, about {result['psnr']:g} dB, Mpixel/s of all bands"
    table = Table("coder", "threads", "encode", "decode", "bpppb", "PSNR", title=title)
    for row in sorted(result["rows"], key=lambda r: (-r["threads"], -r["decode_mpixel_s"])):
        shown = (
            _number(row[k], ".3g") for k in ("encode_mpixel_s", "decode_mpixel_s", "bits_per_pixel", "psnr")
        )
        table.add_row(row["coder"], str(row["threads"]), *shown)
    out.print(table)
    for row in result["rows"]:
        if "budget" in row:
            parts = ", ".join(f"{k} {v:.3f}" for k, v in row["budget"].items())
            out.print(f"{row['coder']}, {row['threads']} thread(s), seconds of the decoder: {parts}")
    stored = [(r["coder"], r["windows"]) for r in result["rows"] if "windows" in r]
    if stored:
        table = Table(
            "store",
            "cold ms",
            "opened ms",
            "aligned ms",
            "warm ms",
            "bpppb",
            title="One window of 512 pixels, medians",
        )
        for name, w in stored:
            if "error" in w:
                err.print(f"no store of {name}: {w['error']}")
                continue
            times = (_number(w[k]["median_ms"], ".1f") for k in ("cold", "opened", "aligned", "warm"))
            table.add_row(name, *times, _number(w["bits_per_pixel"], ".3f"))
        out.print(table)
    _print_end(result)


def _print_load(result: dict[str, Any]) -> None:
    title = (
        f"{result['scene']['title']}, {result['codec']} at {result['psnr']:g} dB; milliseconds of a processor"
    )
    table = Table("task", "ours", "best peer", "", "limit", "ours / peer", "ours / limit", title=title)
    for row in result["table"]:
        times = [_number(None if row[k] is None else 1e3 * row[k], ".4g") for k in ("ours", "best", "limit")]
        ratios = [_number(row[k], ".3g") for k in ("ratio", "limit_ratio")]
        table.add_row(row["title"], times[0], times[1], row["peer"] or "", times[2], *ratios)
    out.print(table)
    out.print("limit: the bytes read from the files, and the pixels copied")
    table = Table("format", "MB", "PSNR", "MB read for the whole scene", "for a window", "for the series")
    for name, about in result["formats"].items():
        read = {
            r["task"]: r["bytes_read"] for r in result["rows"] if r["format"] == name and "bytes_read" in r
        }
        shown = (
            _number(None if read.get(t) is None else read[t] / 1e6, ".3g")
            for t in ("whole", "window", "series")
        )
        table.add_row(name, f"{about['bytes'] / 1e6:.3g}", f"{about['psnr']:.4g}", *shown)
    out.print(table)
    if result["budget"]:
        parts = ", ".join(f"{k} {1e3 * v:.0f}" for k, v in result["budget"].items())
        out.print(f"ours, whole scene, by part in ms: {parts}")
    _print_end(result)
