"""The command ``encode``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stac_latent.cli.common import (
    AsJson,
    Bbox,
    Ids,
    MaxItems,
    Resampling,
    Source,
    When,
    find,
    item_row,
    names,
    numbers,
    print_rows,
    shard_of,
)
from stac_latent.cli.console import err, out, print_json
from stac_latent.cli.guard_messages import Heard, KeepGoing, heeding, report_failures, saying
from stac_latent.cli.progress import progress
from stac_latent.cli.run_report import failed_of, reporting
from stac_latent.system.links import is_local

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import pystac

    from stac_latent.catalog.encode.messages import ItemOutcome

__all__ = ["encode"]


def encode(
    source: Source,
    dest: Annotated[
        str,
        typer.Argument(
            metavar="OUT", help="Folder of the catalogue to write or add to, or s3://bucket/catalogue."
        ),
    ],
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

    _check_words(mode=mode, payload=payload, guard=guard, trust=trust)
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
        saying(outcomes, total, dest),
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
    written = (
        str(Path(dest).absolute() / "catalog.json") if is_local(dest) else f"{dest.rstrip('/')}/catalog.json"
    )
    if as_json:
        print_json({"catalog": written, "items": rows} | heard.to_dict())
    else:
        print_rows(rows)
        out.print(f"catalogue: {Path(dest) / 'catalog.json' if is_local(dest) else written}")
    report_failures(heard, len(items))


_WORDS: dict[str, tuple[str | None, ...]] = {
    "mode": ("beside", "derived"),
    "payload": (None, "coded", "plain"),
    "guard": (None, "warn", "fallback", "refuse", "off"),
    "trust": (None, "file", "item"),
}
"""Values of options that take a word."""


def _check_words(**given: str | None) -> None:
    for name, value in given.items():
        if value not in _WORDS[name]:
            raise typer.BadParameter(
                f"--{name} is {' or '.join(a for a in _WORDS[name] if a)}; got {value!r}"
            )


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
    items: list[pystac.Item], dest: str, asset: str, mode: str, outcomes: list[ItemOutcome]
) -> list[pystac.Item]:
    """The Items that lack the asset; the others are noted as skipped."""
    from stac_latent.catalog.encode.messages import ItemOutcome

    if not is_local(dest):
        raise typer.BadParameter(
            "--resume looks into folders; in an object store what is finished is passed over anyway"
        )
    left = []
    for item in items:
        if _is_done(item, Path(dest), asset, mode):
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
