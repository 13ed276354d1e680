"""The command ``train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from stac_latent.cli.common import AsJson
from stac_latent.cli.console import err, out, print_json
from stac_latent.cli.progress import progress
from stac_latent.errors import TrainError

__all__ = ["train"]


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
    _print(result)


def _print(result: dict[str, Any]) -> None:
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
