"""The commands ``adopt`` and ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from stac_latent.cli.common import AsJson, Bbox, Ids, MaxItems, When, find, names, numbers
from stac_latent.cli.console import err, out, print_json
from stac_latent.cli.progress import progress

__all__ = ["adopt", "export"]

_Q = "none, round, linear, power or per_vector."


def adopt(
    product: Annotated[
        str | None, typer.Argument(help="Product (see --list), 'any', or a JSON file that describes one.")
    ] = None,
    files: Annotated[
        list[str] | None, typer.Argument(help="Files or URLs; they stay where they are.")
    ] = None,
    dest: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="Folder of the catalogue to write or add to.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List the products that are known.")] = False,
    collection: Annotated[
        str | None, typer.Option(help="Id of the collection.", show_default="the product")
    ] = None,
    when: Annotated[str | None, typer.Option("--datetime", help="2024, 2024-06-01, or start/end.")] = None,
    version: Annotated[
        str | None, typer.Option("--model-version", help="Of the model: another one is another space.")
    ] = None,
    producer: Annotated[str | None, typer.Option(help="Of the product 'any'.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the product 'any'.")] = None,
    scales: Annotated[str | None, typer.Option(help="File with the scales of one file.")] = None,
    like: Annotated[str | None, typer.Option(help="Raster with the grid of a file that has none.")] = None,
    crs: Annotated[
        str | None, typer.Option(help="CRS of --transform; of a table: where its rows are cells.")
    ] = None,
    transform: Annotated[
        str | None, typer.Option(help="Six numbers, comma separated, as proj:transform.")
    ] = None,
    quantization: Annotated[str | None, typer.Option(help=_Q)] = None,
    scale: Annotated[str | None, typer.Option(help="One number, or one for each channel.")] = None,
    offset: Annotated[str | None, typer.Option(help="One number, or one for each channel.")] = None,
    power: Annotated[float | None, typer.Option(help="For --quantization power.")] = None,
    nodata: Annotated[float | None, typer.Option(help="Stored number that stands for no data.")] = None,
    dim_order: Annotated[str | None, typer.Option(help="Axes of the file, as y,x,channel.")] = None,
    array: Annotated[str | None, typer.Option(help="Array in a Zarr group.")] = None,
    columns: Annotated[str | None, typer.Option(help="Columns of the vectors, comma separated.")] = None,
    position: Annotated[str | None, typer.Option(help="Columns of longitude and latitude.")] = None,
    granularity: Annotated[str | None, typer.Option(help="pixel, patch, chip or scene.")] = None,
    as_json: AsJson = False,
) -> None:
    """Catalogue embeddings that others published, where they are, so that they load."""
    if show:
        _list(as_json)
        return
    if product is None or not files or dest is None:
        raise typer.BadParameter("expected PRODUCT FILES... OUT, or --list")
    from stac_latent.catalog.adopt.adopt import adopt as run

    given: dict[str, Any] = {
        "latent:quantization": quantization, "latent:quantization_scale": _floats(scale, "--scale"),
        "latent:quantization_offset": _floats(offset, "--offset"), "latent:quantization_power": power, "nodata": nodata,
        "latent:dim_order": names(dim_order), "latent:array": array, "latent:columns": names(columns),
        "latent:position": names(position), "latent:granularity": granularity,
    }  # fmt: skip
    failures: list[tuple[str, Exception]] = []
    with progress(as_json) as report:
        items = run(
            product, files, dest, failed=lambda file, exc: failures.append((file, exc)), collection=collection, when=when, version=version, producer=producer, name=name,
            fields={k: v for k, v in given.items() if v is not None}, scales=scales, like=like, crs=crs,
            transform=numbers(transform, 6, "--transform"), progress=report,
        )  # fmt: skip
    if failures and not items and len(failures) == 1:
        raise failures[0][1]
    for _, exc in failures:
        err.print(f"{type(exc).__name__}: {exc}")
    rows = [_row(item) for item in items]
    if as_json:
        failed = [{"file": file, "error": str(exc)} for file, exc in failures]
        print_json({"catalog": str(Path(dest).absolute() / "catalog.json"), "items": rows, "failed": failed})
        raise typer.Exit(1 if failures else 0)
    table = Table("item", "date", "vectors", "stored", "quantisation", "space")
    for r in rows:
        table.add_row(
            r["id"],
            r["date"],
            " x ".join(map(str, r["shape"])),
            r["data_type"],
            r["quantization"],
            r["space"][7:15],
        )
    out.print(table)
    err.print(f"{len(rows)} item(s) in {Path(dest) / 'catalog.json'}")
    if failures:
        err.print(f"{len(failures)} file(s) not adopted, others were")
        raise typer.Exit(1)


def export(
    source: Annotated[
        str, typer.Argument(help="Item, catalogue, item collection, stac-geoparquet file or STAC API.")
    ],
    dest: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the catalogue to write or add to.")],
    emb: Annotated[
        bool, typer.Option("--emb", help="Items of the embeddings extension (emb, v0.0.1).")
    ] = False,
    asset: Annotated[
        str | None, typer.Option(help="Key of the asset, where an item has several embeddings.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Address of the model, where the items state none.")
    ] = None,
    source_data: Annotated[
        str | None, typer.Option(help="Address of the source data, where the items state none.")
    ] = None,
    bbox: Bbox = None,
    when: When = None,
    ids: Ids = None,
    max_items: MaxItems = None,
    as_json: AsJson = False,
) -> None:
    """Write the items' embeddings in another vocabulary; the data stay where they are."""
    if not emb:
        raise typer.BadParameter("choose what to write: --emb")
    from stac_latent.catalog.adopt.emb_export import export_emb
    from stac_latent.system.files import writing

    items = find(source, bbox=numbers(bbox, 4, "--bbox"), datetime=when, ids=names(ids), max_items=max_items)
    with writing(dest):
        made = export_emb(items, dest, asset=asset, model=model, source_data=source_data)
    if as_json:
        print_json({"catalog": str(dest.absolute() / "catalog.json"), "items": [i.id for i in made]})
        return
    out.print(f"{len(made)} item(s) -> {dest / 'catalog.json'}")


def _list(as_json: bool) -> None:
    from stac_latent.catalog.adopt.products import open_product, product_names

    known = [open_product(n) for n in product_names()]
    rows = [
        {
            "name": p.name, "title": p.title, "container": p.container or "any",
            "quantization": p.asset.get("latent:quantization"), "dimensions": p.asset.get("latent:dimensions"),
        }
        for p in known
    ]  # fmt: skip
    if as_json:
        print_json(rows)
        return
    table = Table("name", "container", "quantisation", "channels", "product")
    for r in rows:
        table.add_row(
            r["name"], r["container"], r["quantization"] or "", str(r["dimensions"] or ""), r["title"]
        )
    out.print(table)


def _row(item: Any) -> dict[str, Any]:
    fields = item.assets["embeddings"].extra_fields
    start = item.datetime or item.common_metadata.start_datetime
    return {
        "id": item.id, "date": str(start)[:10], "shape": fields["latent:shape"], "data_type": fields["data_type"],
        "quantization": fields["latent:quantization"], "space": fields["latent:space"], "href": item.get_self_href(),
    }  # fmt: skip


def _floats(text: str | None, what: str) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(v) for v in text.split(",")]
    except ValueError as exc:
        raise typer.BadParameter(f"{what} is numbers with commas between; got {text!r}") from exc
