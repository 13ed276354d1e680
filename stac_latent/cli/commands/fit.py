"""The commands ``fit``, ``train`` and ``embedder``."""

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
from stac_latent.errors import TrainError

if TYPE_CHECKING:
    from stac_latent.codec.codec import Codec

__all__ = ["embedder", "fit", "train"]


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


def train(
    config: Annotated[Path, typer.Argument(help="Configuration (TOML).")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew where there is a checkpoint.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a correction of what a fitted codec decodes to; write a bundle, measured on places held out."""
    try:
        import torch  # noqa: F401 - asked for before anything is read
    except ImportError as exc:
        raise TrainError(
            "training needs torch, which is not installed; pip install 'stac-latent[torch]'. What was trained decodes without it"
        ) from exc
    from stac_latent.train.loop import Interrupted
    from stac_latent.train.run import train as run

    try:
        with progress(as_json) as report:
            made = run(config, resume=resume, overwrite=overwrite, progress=report)
    except Interrupted as exc:
        err.print(str(exc))
        raise typer.Exit(130) from exc
    result: dict[str, Any] = {"bundle": str(made.path), "name": made.codec.name, **made.summary}
    if as_json:
        print_json(result)
        return
    _print_training(result)


def _print_training(result: dict[str, Any]) -> None:
    against = result["against_base"]
    table = Table("place held out", "bits at equal PSNR", title=f"{against['tiles']} tiles, against the base")
    for place, percent in sorted(against["places"].items(), key=lambda p: p[1]):
        table.add_row(place, f"{percent:+.1f} %")
    out.print(table)
    saved = against["bd_rate_percent"]
    mean = "not measured: the curves do not meet" if saved is None else f"{saved:+.1f} % bits"
    out.print(
        f"{result['iterations']} steps, best at {result['best_iteration']}, {result['seconds']} s; {mean} -> {result['bundle']}",
    )
    if not result["worth_it"]:
        err.print(f"less than {result['margin_percent']:g} % is saved: keep the base")
