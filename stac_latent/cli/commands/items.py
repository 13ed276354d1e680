"""The command ``items``."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from stac_latent.cli.common import AsJson, Overwrite, names
from stac_latent.cli.console import err, out, print_json, say
from stac_latent.cli.guard_messages import KeepGoing
from stac_latent.cli.progress import progress
from stac_latent.errors import SkippedWarning, SourceWarning

if TYPE_CHECKING:
    import pystac

__all__ = ["items"]

_ALIKE = 3
"""Messages that differ in names alone, of which so many are shown."""
_SHOWN = 20
"""Rows of the table; the catalogue has them all."""


def items(
    files: Annotated[
        list[str] | None, typer.Argument(help="Folders, or raster files; they stay where they are.")
    ] = None,
    dest: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="Folder of the catalogue to write or add to.")
    ] = None,
    sensor: Annotated[
        str, typer.Option(help="See --list; auto: by the names of files; any: what files say themselves.")
    ] = "auto",
    show: Annotated[bool, typer.Option("--list", help="List the sensors that are known.")] = False,
    pattern: Annotated[
        str | None, typer.Option(help="How files are named, as '{site}_{date}_{band}.tif'.")
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(help="Bands of files whose names give none, in their order, comma separated."),
    ] = None,
    when: Annotated[
        str | None, typer.Option("--datetime", help="Of all files: 2024-06-01, or start/end.")
    ] = None,
    datetime_pattern: Annotated[str | None, typer.Option(help="How names state it, as %Y%m%d.")] = None,
    collection: Annotated[
        str | None, typer.Option(help="Id of the collection.", show_default="the sensor's")
    ] = None,
    crs: Annotated[str | None, typer.Option(help="Of files that state none, as EPSG:32633.")] = None,
    scale: Annotated[
        float | None, typer.Option(help="Of stored numbers.", show_default="as metadata, file or sensor say")
    ] = None,
    offset: Annotated[
        float | None,
        typer.Option(help="Added after the scale.", show_default="as metadata, file or sensor say"),
    ] = None,
    nodata: Annotated[
        float | None, typer.Option(help="Stored number without data.", show_default="as file or sensor say")
    ] = None,
    overwrite: Overwrite = False,
    keep_going: KeepGoing = True,
    as_json: AsJson = False,
) -> None:
    """Describe raster files as items, one for each scene: what 'encode' takes."""
    if show:
        _list(as_json)
        return
    if not files or dest is None:
        raise typer.BadParameter("expected FILES... OUT, or --list")
    from stac_latent.catalog.files.items import items_from_files as run

    try:
        with warnings.catch_warnings(record=True) as caught, progress(as_json) as report:
            for kind in (SkippedWarning, SourceWarning):
                warnings.simplefilter("always", kind)
            made = run(
                files, dest, sensor=sensor, pattern=pattern, bands=names(bands), datetime=when, datetime_pattern=datetime_pattern,
                collection=collection, crs=crs, scale=scale, offset=offset, nodata=nodata, overwrite=overwrite,
                on_error="skip" if keep_going else "raise", progress=report, tell=err.print,
            )  # fmt: skip
    except (KeyboardInterrupt, SystemExit) as exc:
        exc.add_note(f"what was described so far is in {dest}; run the same command again to go on")
        raise
    _report(made, caught, dest, as_json)


def _report(
    made: list[pystac.Item], caught: list[warnings.WarningMessage], dest: Path, as_json: bool
) -> None:
    """Print what was made, what its maker should know, and what was left out."""
    failed = [w.message for w in caught if isinstance(w.message, SkippedWarning)]
    for w in caught:
        if not isinstance(w.message, SkippedWarning | SourceWarning):
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    _say_few("yellow", "warning", [str(w.message) for w in caught if isinstance(w.message, SourceWarning)])
    rows = [_row(item) for item in made]
    left = [{"item": f.name, "error": f"{type(f.error).__name__}: {f.error}"} for f in failed]
    if as_json:
        named = {"failed": left} if left else {}
        print_json({"catalog": str((dest / "catalog.json").absolute()), "items": rows} | named)
    else:
        _print(rows)
        if (dest / "catalog.json").is_file():
            out.print(f"{len(rows):,} item(s) written; catalogue: {dest / 'catalog.json'}")
    if failed:
        err.print(f"{len(failed):,} of {len(rows) + len(failed):,} could not be described:")
        _say_few("bold red", "failed", [f"{row['item']}: {row['error']}" for row in left])
        raise typer.Exit(1)


def _say_few(style: str, label: str, texts: list[str]) -> None:
    """Say the first of messages that differ in names alone, and how many more there are."""
    alike: dict[str, list[str]] = {}
    for text in texts:
        alike.setdefault(re.sub(r"'[^']*'|\S*[/\\]\S*|^[^:]*: |\d+", "", text), []).append(text)
    for same in alike.values():
        for text in same[:_ALIKE]:
            say(style, label, text)
        if len(same) > _ALIKE:
            err.print(f"and {len(same) - _ALIKE:,} more for the same reason (--json lists all)")


def _row(item: pystac.Item) -> dict[str, Any]:
    known = item.common_metadata
    times = [
        t for t in ([item.datetime] if item.datetime else [known.start_datetime, known.end_datetime]) if t
    ]
    bands = [b["name"] for a in item.assets.values() for b in a.extra_fields.get("bands", ())]
    return {
        "id": item.id, "collection": item.collection_id, "datetime": "/".join(t.isoformat() for t in times),
        "bands": bands, "crs": item.properties.get("proj:code"), "href": item.get_self_href(),
    }  # fmt: skip


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table("item", "collection", "date", "CRS", "bands")
    for r in rows[:_SHOWN]:
        bands = r["bands"] if len(r["bands"]) <= 13 else [*r["bands"][:12], f"... {len(r['bands'])}"]
        table.add_row(
            r["id"],
            r["collection"] or "",
            "/".join(t[:16] if "/" not in r["datetime"] else t[:10] for t in r["datetime"].split("/")),
            r["crs"] or "(WKT)",
            " ".join(bands),
        )
    if rows:
        out.print(table)
    if len(rows) > _SHOWN:
        err.print(f"and {len(rows) - _SHOWN:,} more")


def _list(as_json: bool) -> None:
    from stac_latent.catalog.files.sensors import open_sensors, sensor_names

    rows: list[dict[str, Any]] = [
        {"name": n, "title": t, "bands": list(open_sensors(n)[0].bands)} for n, t in sensor_names().items()
    ]
    if as_json:
        print_json(rows)
        return
    table = Table("name", "sensor", "bands")
    for r in rows:
        table.add_row(r["name"], r["title"], " ".join(r["bands"]))
    out.print(table)
