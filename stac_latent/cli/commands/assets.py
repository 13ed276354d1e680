"""The commands ``demo``, ``codecs``, ``info``, ``keygen``, ``validate`` and ``verify``."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from stac_latent.cli.common import AsJson, Asset, KeyFile, Overwrite, refuse_to_replace
from stac_latent.cli.console import out, print_json
from stac_latent.cli.progress import progress
from stac_latent.errors import CatalogError

__all__ = ["codecs", "demo", "info", "keygen", "validate", "verify"]

_REASONS = 5
"""Reasons that are printed."""


def demo(
    dest: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to write to; an earlier run in it is replaced.")
    ] = Path("stac-latent-demo"),
    codec: Annotated[str, typer.Option(help="Codec for B02, B03, B04, B08.")] = "s2-10m-4b",
    as_json: AsJson = False,
) -> None:
    """Run the whole line on a real Sentinel-2 sample: encode, catalogue, search, load, publish, look."""
    from stac_latent.cli.demo import run_demo
    from stac_latent.system.files import writing

    with writing(dest), progress(as_json) as report:
        result = run_demo(dest, codec, report)
    if as_json:
        print_json(result)
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
    out.print(table)


def codecs(as_json: AsJson = False) -> None:
    """List the installed codecs."""
    from stac_latent.codec.registry import codec_names, describe_codec

    rows = [describe_codec(name) for name in codec_names()]
    if as_json:
        print_json(rows)
        return
    table = Table("name", "kind", "bands", "stride", "channels", "space")
    for r in rows:
        bands = ", ".join(r["bands"]) if r["bands"] else "any (--bands)"
        space = (r["space"] or "")[7:15]
        table.add_row(r["name"], r["kind"], bands, r["stride"], str(r["dimensions"] or ""), space)
    out.print(table)


def info(
    href: Annotated[str, typer.Argument(help="STAC Item (JSON) with a latent asset.")],
    asset: Asset = None,
    preview: Annotated[
        Path | None, typer.Option(help="PNG to write: a quick-look of the decoded field.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Show what a latent asset is, and check that its codec opens; write a decoded quick-look if asked."""
    from stac_latent.cube.item_assets import latent_assets
    from stac_latent.cube.ref import LatentRef
    from stac_latent.net.items import read_item
    from stac_latent.page.describe import describe_asset, write_quicklook

    refuse_to_replace(preview, overwrite)
    item = read_item(href)
    keys = [asset] if asset else latent_assets(item)
    refs = [LatentRef.from_item(item, k) for k in keys] or [LatentRef.from_item(item)]
    decodable = [ref for ref in refs if ref.spec.kind == "codec"]
    if preview is not None and len(decodable) > 1:
        several = ", ".join(ref.asset for ref in decodable)
        raise typer.BadParameter(f"--preview names one file, the item has {several}; choose with --asset")
    result = [describe_asset(item, ref) for ref in refs]
    for ref, row in zip(refs, result, strict=True):
        if preview is not None and ref in decodable:
            row["preview"] = str(write_quicklook(ref, preview))
    if as_json:
        print_json(result)
        return
    for row in result:
        table = Table(title=f"{item.id} / {row['asset']}", show_header=False)
        for name, value in row.items():
            table.add_row(name, json.dumps(value) if isinstance(value, list | dict) else str(value))
        out.print(table)


def validate(
    paths: Annotated[list[Path], typer.Argument(help="STAC JSON files, or folders of them.")],
    schemas: Annotated[
        Path | None, typer.Option(help="Folder of extension schemas with an index.json.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where a schema is not at hand.")] = False,
    as_json: AsJson = False,
) -> None:
    """Validate STAC documents offline against core, the latent extension and the schemas at hand, and name links to missing files."""
    from stac_latent.page.describe import dead_links, stac_files
    from stac_latent.validation import schema_folder
    from stac_latent.validation import validate as run

    if schemas is not None:
        schema_folder(schemas)
    files = stac_files(paths)
    problems: dict[str, list[str]] = {}
    missing: Counter[str] = Counter()
    for path in files:
        try:
            found, dead = run(path, schemas), dead_links(path)
        except CatalogError as exc:
            problems[str(path)] = [str(exc)]
            continue
        missing.update(p.schema for p in found if p.keyword == "unavailable")
        wrong = [str(p) for p in found if p.keyword != "unavailable"] + dead
        if wrong:
            problems[str(path)] = wrong
    if as_json:
        print_json({"files": len(files), "problems": problems, "unchecked": dict(missing)})
    else:
        _print_problems(len(files), problems, missing)
    if problems or (strict and missing):
        raise typer.Exit(1)


def keygen(
    path: Annotated[Path, typer.Argument(metavar="OUT", help="File to write; one that is there stays.")],
) -> None:
    """Make a key for 'encode --key-file'. Who loses it loses what it encrypts."""
    from stac_latent.secure import keygen as run

    out.print(f"key {run(path).id} -> {path}")


def verify(
    source: Annotated[str, typer.Argument(help="Catalogue, item, item collection or stac-geoparquet file.")],
    asset: Asset = None,
    key: KeyFile = None,
    locked: Annotated[
        bool, typer.Option("--locked", help="Let encrypted latents pass without their key.")
    ] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Compare every pixel with the raw files.", show_default="16 chunks of each asset"
        ),
    ] = False,
    no_raw: Annotated[
        bool, typer.Option("--no-raw", help="Do not look for the raw files: check bytes and decoding alone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check every latent asset again: bundle, probe, stored bytes and decoding, and the pixels against the raw files.

    Exits with 1 if anything is wrong, and if there was something to compare with raw files and nothing could be.
    """
    from stac_latent.catalog.verify import verify as run

    with progress(as_json) as report:
        checked = run(source, asset=asset, key=key, locked=locked, full=full, raw=not no_raw, progress=report)
    failed = [row for row in checked if row.problems]
    compared, silent = sum(row.compared for row in checked), [row for row in checked if row.reason]
    nothing = bool(silent) and not compared and not no_raw
    if as_json:
        counts = {"checked": len(checked), "failed": len(failed), "compared": compared}
        print_json(counts | {"assets": [row.to_dict() for row in checked]})
    else:
        if failed:
            table = Table("item", "asset", "problem")
            for row in failed:
                for problem in row.problems:
                    table.add_row(row.item, row.asset, problem)
            out.print(table)
        if not no_raw:
            _print_reasons(silent)
        closed = f"; {n} encrypted and not opened" if (n := sum(row.locked for row in checked)) else ""
        closed += f"; {n} adopted, read alone" if (n := sum(row.adopted for row in checked)) else ""
        out.print(
            f"{len(checked)} checked, {len(failed)} failed; {compared} compared with their raw files{closed}"
        )
        if nothing:
            out.print(
                "Nothing could be compared. Make the raw files reachable, or pass --no-raw to check without them."
            )
    if failed or nothing:
        raise typer.Exit(1)


def _print_reasons(rows: list[Any]) -> None:
    """Say why assets were not compared, each reason once."""
    for reason, count in Counter(row.reason for row in rows).most_common(_REASONS):
        out.print(f"{count} not compared: {reason}")


def _print_problems(files: int, problems: dict[str, list[str]], missing: Counter[str]) -> None:
    """Print what is wrong, then what could not be checked."""
    for path, found in problems.items():
        out.print(path, style="red")
        for text in found:
            out.print(f"  {text}")
    for uri, count in sorted(missing.items()):
        out.print(f"not checked in {count} file(s), schema not at hand: {uri}")
    summary: list[Any] = [f"{files} file(s), {len(problems)} with problems"]
    if missing:
        summary.append("give the missing schemas with --schemas FOLDER")
    out.print("; ".join(summary))
