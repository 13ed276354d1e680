"""The command ``copy``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stac_latent.cli.common import AsJson
from stac_latent.cli.console import out, print_json
from stac_latent.cli.progress import progress

__all__ = ["copy"]


def copy(
    catalog: Annotated[Path, typer.Argument(help="Folder of a catalogue.")],
    dest: Annotated[
        str, typer.Argument(metavar="OUT", help="Folder in an object store, as s3://bucket/catalogue.")
    ],
    as_json: AsJson = False,
) -> None:
    """Copy a finished catalogue to an object store, the root catalogue last."""
    from stac_latent.catalog.push.object_store import copy as run

    with progress(as_json) as report:
        done = run(catalog, dest, progress=report)
    size = sum(n for _, n in done)
    if as_json:
        print_json({"files": len(done), "bytes": size, "catalog": f"{dest.rstrip('/')}/catalog.json"})
    else:
        out.print(f"{len(done)} files, {size:,} bytes -> {dest.rstrip('/')}/catalog.json")
