"""The commands ``fit`` and ``embedder``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from stac_latent.cli.common import (
    AsJson,
    Bbox,
    Ids,
    MaxItems,
    Overwrite,
    Source,
    When,
    find,
    names,
    numbers,
    refuse_to_replace,
)
from stac_latent.cli.console import err, out, print_json
from stac_latent.cli.interrupts import placing
from stac_latent.cli.progress import progress

if TYPE_CHECKING:
    from stac_latent.codec.codec import Codec

__all__ = ["embedder", "fit"]


def fit(
    source: Source,
    dest: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the bundle to write.")],
    bands: Annotated[
        str | None,
        typer.Option(
            help="Bands, assets or common names, comma separated, or B02=blue pairs.", show_default="all"
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the codec.", show_default="the folder's")] = None,
    mpixel: Annotated[float, typer.Option(help="Megapixels to fit on.", min=0.001)] = 2.0,
    psnr: Annotated[
        float, typer.Option(help="Quality of the codec's own step on the fitting tiles [dB].")
    ] = 46.0,
    holdout: Annotated[float, typer.Option(help="Share to measure on, by place; 0: none.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the draw and of the split.")] = 0,
    resolution: Annotated[
        float | None, typer.Option(help="Bring all bands to it first.", show_default="native grids")
    ] = None,
    resampling: Annotated[str, typer.Option(help="nearest, bilinear, cubic, average, ...")] = "nearest",
    guard: Annotated[
        float,
        typer.Option(
            help="Share of tiles like those held out that the guard of 'encode' passes; 0: no guard."
        ),
    ] = 0.99,
    licence: Annotated[
        str | None, typer.Option(help="Of the fitting data.", show_default="as the items state")
    ] = None,
    bbox: Bbox = None,
    when: When = None,
    collections: Annotated[str | None, typer.Option(help="Collection ids, comma separated.")] = None,
    ids: Ids = None,
    max_items: MaxItems = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Fit a codec to the items' imagery; write a bundle, measured on places held out."""
    from stac_latent.fitting.items import fit as run

    box = numbers(bbox, 4, "--bbox")
    items = find(
        source, bbox=box, datetime=when, collections=names(collections), ids=names(ids), max_items=max_items
    )
    wanted = names(bands)
    pairs = dict(b.partition("=")[::2] for b in wanted or [] if "=" in b)
    plain = None if wanted is None else [b.partition("=")[0] for b in wanted]
    with placing(dest), progress(as_json) as report:
        made = run(
            items, dest, plain, name=name, keys=pairs or None, pixels=round(mpixel * 1e6), holdout=holdout, seed=seed,
            resolution=resolution, resampling=resampling, about={} if licence is None else {"license": licence},
            overwrite=overwrite, progress=report, psnr=psnr, guard=guard or None,
        )  # fmt: skip
    about = made.codec.about
    result: dict[str, Any] = {
        "bundle": str(made.path), "item": str(made.path / "item.json"), "name": made.codec.name, "space": made.codec.space,
        "bands": [b.name for b in made.codec.bands], "items": made.items, "skipped": made.skipped,
        "bytes": sum(p.stat().st_size for p in made.path.iterdir()), "sample": about["sample"],
        "held_out": about.get("held_out"), "rate_distortion": about.get("rate_distortion", []),
        "guard": _guard_row(made.codec),
        "seconds": dict(made.seconds),
    }  # fmt: skip
    if as_json:
        print_json(result)
        return
    _print(result)


def _guard_row(codec: Codec) -> dict[str, Any] | None:
    """Share that the guard passes and the tiles that it was calibrated on; None without one."""
    from stac_latent.quality.ood_calibration import guards_of

    guards = guards_of(codec)
    return None if guards is None else {"share": guards[0].share, "tiles": list(guards[0].tiles)}


def _print(result: dict[str, Any]) -> None:
    held = result["held_out"]
    if held:
        table = Table(
            "quality", "bpppb", "PSNR", "max error", title=f"{held['tiles']} tiles of places held out"
        )
        for point in result["rate_distortion"]:
            table.add_row(
                *[
                    f"{point[k]:.4g}" if k in point else ""
                    for k in ("quality", "bits_per_pixel", "psnr", "max_error")
                ]
            )
        out.print(table)
    sample, seconds = result["sample"], sum(result["seconds"].values())
    out.print(
        f"{len(result['bands'])} bands, {sample['pixels']:,} pixels of {result['items']} item(s), {seconds:.1f} s -> {result['bundle']}"
    )
    if (guard := result["guard"]) is not None:
        out.print(
            f"guard: passes {100 * guard['share']:g} % of tiles like the {guard['tiles'][1]} (or quarters) held out"
        )
    if result["skipped"]:
        err.print(f"{result['skipped']} item(s) lack a band and were passed over")


def embedder(
    model: Annotated[Path, typer.Argument(help="ONNX graph: one file with its weights inside.")],
    dest: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the bundle to write.")],
    bands: Annotated[str, typer.Option(help="Bands in the order of its channels, comma separated.")],
    mean: Annotated[str | None, typer.Option(help="Mean of each band, in its stored unit.")] = None,
    std: Annotated[str | None, typer.Option(help="Deviation of each band.")] = None,
    stride: Annotated[int | None, typer.Option(help="Pixels of a cell.", min=1)] = None,
    window: Annotated[int | None, typer.Option(help="Pixels along an image, if it takes any.", min=1)] = None,
    halo: Annotated[
        int | None, typer.Option(help="Pixels beyond a cell that its vector depends on.", min=0)
    ] = None,
    output: Annotated[str | None, typer.Option(help="Name of the output, if it has several.")] = None,
    sample: Annotated[
        str | None, typer.Option(help="Catalogue whose Items int8 is fitted to; without one, float32.")
    ] = None,
    power: Annotated[
        float, typer.Option(help="Exponent of int8: 1 linear, 2 finer near zero.", min=1.0)
    ] = 1.0,
    licence: Annotated[str | None, typer.Option(help="Of the model.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the embedder.", show_default="the folder's")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make an embedder of your model, a bundle that 'encode --codec' takes."""
    from stac_latent.catalog.search.search import search
    from stac_latent.codec.bundle import save_bundle
    from stac_latent.fitting.embedder import embedder as run
    from stac_latent.system.files import replacing_folder, writing

    refuse_to_replace(dest, overwrite)
    chosen = names(bands) or []
    scales = {k: numbers(v, len(chosen), f"--{k}") for k, v in {"mean": mean, "std": std}.items()}
    codec = run(
        model, chosen, mean=scales["mean"], std=scales["std"], stride=stride, window=window, halo=halo, output=output, power=power,
        sample=None if sample is None else search(sample, max_items=64), name=name or dest.resolve().name,
        about={} if licence is None else {"license": licence},
    )  # fmt: skip
    with writing(dest), replacing_folder(dest) as part:
        save_bundle(codec, part)
    spec = codec.spec
    told = {
        "path": str(dest), "name": codec.name, "space": codec.space, "dimensions": spec.dimensions, "stride": list(spec.stride),
        "overlap": list(codec.overlap), "data_type": spec.data_type,
    }  # fmt: skip
    if as_json:
        print_json(told)
        return
    out.print(
        f"{codec.name}: {spec.dimensions} channels of {spec.data_type} for each {spec.stride[0]} x {spec.stride[1]} pixels, from {codec.overlap[0]} more on "
        f"each side; encode with --codec {dest} --asset {codec.name}"
    )
