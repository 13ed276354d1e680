"""The commands ``copy``, ``push`` and ``queryables``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stac_latent.cli.common import AsJson, Source
from stac_latent.cli.console import err, out, print_json
from stac_latent.cli.progress import progress

__all__ = ["copy", "push", "queryables"]


def copy(
    catalog: Annotated[Path, typer.Argument(help="Folder of a catalogue.")],
    dest: Annotated[
        str, typer.Argument(metavar="OUT", help="Folder in an object store, as s3://bucket/catalogue.")
    ],
    href: Annotated[
        str | None,
        typer.Option(help="Address at which it is published; documents link to themselves there."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy a finished catalogue to an object store, the root catalogue last."""
    from stac_latent.catalog.push.object_store import copy as run

    with progress(as_json) as report:
        done = run(catalog, dest, href=href, progress=report)
    size = sum(n for _, n in done)
    if as_json:
        print_json({"files": len(done), "bytes": size, "catalog": f"{dest.rstrip('/')}/catalog.json"})
    else:
        out.print(f"{len(done)} files, {size:,} bytes -> {dest.rstrip('/')}/catalog.json")


def push(
    source: Source,
    api: Annotated[str, typer.Argument(help="Address of a STAC API that takes transactions.")],
    href: Annotated[
        str | None,
        typer.Option(
            help="Address at which the catalogue's folder is published.", show_default="local files"
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Items compared and sent at a time.", min=1, max=10_000)] = 500,
    header: Annotated[
        list[str] | None, typer.Option(help="Sent with each request, as 'Authorization: Bearer ...'; repeat.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Longest wait for an answer, in seconds.", min=0.1)] = 60.0,
    tries: Annotated[int, typer.Option(help="Times that a request is made again.", min=0)] = 5,
    as_json: AsJson = False,
) -> None:
    """Send collections and items to a STAC API; what it has already is not sent again."""
    from stac_latent.catalog.push.push import push as run

    pairs = [h.partition(":") for h in header or []]
    if wrong := [name for name, colon, _ in pairs if not colon]:
        raise typer.BadParameter(f"--header is 'Name: value'; got {wrong[0]!r}")
    headers = {name.strip(): value.strip() for name, _, value in pairs}
    with progress(as_json) as report:
        done = run(
            source,
            api,
            href=href,
            batch=batch,
            headers=headers,
            timeout=timeout,
            tries=tries,
            progress=report,
        )
    if as_json:
        print_json(done.to_dict())
    else:
        out.print(
            f"{done.new} new, {done.changed} changed, {done.unchanged} unchanged, {len(done.refused)} refused "
            f"item(s); {len(done.collections)} collection(s) sent -> {api}"
        )
    if done.local:
        err.print(
            f"{done.local} assets are files of this machine, which nothing reads through an API; --href gives them the address they are published at"
        )
    for name, why in done.refused.items():
        err.print(f"refused {name}: {why}")
    if done.refused:
        raise typer.Exit(1)


def queryables() -> None:
    """Print the queryables of the latent: properties, for an API that wants them declared (see docs/stac-api.md)."""
    from stac_latent.catalog.push.queryables import queryables as run

    print_json(run())
