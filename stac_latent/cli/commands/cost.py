"""The command ``cost``."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from stac_latent.cli.common import AsJson, Asset
from stac_latent.cli.console import out, print_json

__all__ = ["cost"]


def cost(
    source: Annotated[
        str | None,
        typer.Argument(help="Catalogue with latents; without one, a gigabyte of pixels by the constants."),
    ] = None,
    downloads: Annotated[float, typer.Option(help="Downloads of the whole.", min=0)] = 1.0,
    measure: Annotated[
        int, typer.Option(help="Decode so many items here, and take time and energy from it.", min=0)
    ] = 0,
    encode_seconds: Annotated[
        float | None, typer.Option(help="CPU seconds that encoding took in all; else constants.", min=0)
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(help="CSV of item, downloads: names the items whose encoding has paid."),
    ] = None,
    constant: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of a constant; may be repeated.")
    ] = None,
    asset: Asset = None,
    as_json: AsJson = False,
) -> None:
    """Estimate energy, money and time of sending latents in place of pixels, and from how many downloads on it pays."""
    from stac_latent.catalog.cost import (
        Cost,
        CostConstants,
        ItemBytes,
        Work,
        encoding,
        read_downloads,
        transfer,
    )
    from stac_latent.catalog.cost import cost as cost_of

    constants = CostConstants().changed(_values(constant or []))
    answer: dict[str, Any] = {"constants": asdict(constants), "downloads": downloads}
    if source is None:
        if log is not None or measure or encode_seconds is not None:
            raise typer.BadParameter("--log, --measure and --encode-seconds need a catalogue: name one")
        gigabyte = ItemBytes("", latent=round(constants.ratio * 1e9), pixels=10**9, files=None)
        found = Cost([gigabyte], encoding(1.0, constants), Work(0.0, 0.0), constants)
    else:
        from stac_latent.catalog.search.search import search

        counts = None if log is None else read_downloads(log)
        found = cost_of(
            search(source, kind="codec"),
            constants,
            asset=asset,
            measure=measure,
            encode_seconds=encode_seconds,
        )
        answer |= {"items": len(found.items), "raw_bytes_are": _basis([i.files is None for i in found.items])}
        if counts is not None:
            answer["worthwhile"] = found.worthwhile(counts)
    sizes = {"pixels": found.raw_gb, "latents": found.latent_gb}
    answer |= {
        "gigabytes": sizes,
        "one_download": {kind: asdict(transfer(size, constants)) for kind, size in sizes.items()},
        "encode": asdict(found.encode),
        "decode": asdict(found.decode),
        "break_even_downloads": found.break_even if math.isfinite(found.break_even) else None,
        "kwh_after_downloads": {kind: work.kwh for kind, work in found.after(downloads).items()},
    }
    if as_json:
        print_json(answer)
        return
    _print(answer)


def _values(given: list[str]) -> dict[str, float]:
    values = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            values[name.strip()] = float(value)
        except ValueError:
            raise typer.BadParameter(f"--set {text}: expected NAME=VALUE, as cpu_watts=15") from None
    return values


def _basis(unknown: list[bool]) -> str:
    if not any(unknown):
        return "files"
    return "pixels, not compressed" if all(unknown) else "files, or pixels where a file tells no size"


def _print(answer: dict[str, Any]) -> None:
    title = (
        "one gigabyte of pixels" if "items" not in answer
        else f"{answer['items']} items; bytes of pixels are those of {answer['raw_bytes_are']}"
    )  # fmt: skip
    table = Table("", "pixels", "latents", title=title)

    def row(name: str, pixels: float | None, latents: float | None) -> None:
        table.add_row(name, *("" if v is None else f"{v:,.4g}" for v in (pixels, latents)))

    sizes, one, kwh = answer["gigabytes"], answer["one_download"], answer["kwh_after_downloads"]
    row("size [GB]", sizes["pixels"], sizes["latents"])
    for name, unit in (("kwh", "sent once [kWh]"), ("usd", "sent once [USD]"), ("seconds", "sent once [s]")):
        row(unit, one["pixels"][name], one["latents"][name])
    for name in ("encode", "decode"):
        work = answer[name]
        row(f"{name} [device s]", None, work["seconds"])
        row(f"{name} [kWh], by {work['basis']}", None, work["kwh"])
    row(f"all, {answer['downloads']:g} downloads [kWh]", kwh["pixels"], kwh["latents"])
    out.print(table)
    least = answer["break_even_downloads"]
    out.print(
        "latents never pay in energy: a decode takes more than its download saves" if least is None
        else f"latents pay in energy from {least:,.3g} downloads of the whole on (estimated)"
    )  # fmt: skip
    if "worthwhile" in answer:
        out.print(
            f"encoding has paid for {len(answer['worthwhile'])} items: {', '.join(answer['worthwhile'])}"
        )
    used = ", ".join(f"{k}={v:g}" for k, v in answer["constants"].items())
    out.print(f"constants (--set NAME=VALUE): {used}")
