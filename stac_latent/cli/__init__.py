"""The verbs from a shell: ``stac-latent --help`` lists them.

Results go to stdout (``--json``: one JSON document), progress and messages to stderr. Exit codes: 0 done, 1 bad input
or a failed check, 2 wrong usage, 130 interrupted, 143 ended by SIGTERM.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from stac_latent import __version__
from stac_latent.cli.command import Command
from stac_latent.cli.commands import adopt, assets, bench, verbs
from stac_latent.cli.commands.cost import cost
from stac_latent.cli.commands.coverage import coverage
from stac_latent.cli.commands.encode import encode
from stac_latent.cli.commands.fit import embedder, fit, train
from stac_latent.cli.commands.items import items
from stac_latent.cli.commands.map import write_map
from stac_latent.cli.commands.nearest import index, label, nearest
from stac_latent.cli.commands.place import cube, points
from stac_latent.cli.commands.push import copy, push, queryables
from stac_latent.cli.console import say, speaking
from stac_latent.cli.interrupts import stoppable
from stac_latent.cli.scarce import told, watched
from stac_latent.cli.surroundings import in_utf8, somewhere
from stac_latent.errors import StacLatentError

__all__ = ["app", "main"]

app = typer.Typer(
    name="stac-latent",
    help="Latents in STAC catalogues: encode, search, load and publish compressed imagery.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Make": (items, encode, embedder, fit, train, adopt.adopt),
    "Find": (verbs.search, coverage, nearest, index, label),
    "Read": (verbs.load, cube, points, assets.info, write_map),
    "Share": (verbs.publish, copy, push, queryables, adopt.export),
    "Trust": (assets.verify, assets.validate, cost, assets.keygen, assets.codecs, assets.demo),
}
for panel, listed in _PANELS.items():
    for command in listed:
        name = "map" if command is write_map else None
        app.command(name, cls=Command, rich_help_panel=panel)(command)
app.add_typer(bench.app, name="bench", rich_help_panel="Trust")


def _show_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"stac-latent {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Latents in STAC catalogues: encode, search, load and publish compressed imagery."""


def main() -> None:
    """Run the command line; errors of the package become one line on stderr and exit code 1."""
    in_utf8()
    with speaking(), somewhere():
        watched()
        try:
            with stoppable(), told():
                app()
        except StacLatentError as exc:
            say("bold red", "error", f"{type(exc).__name__}: {exc}")
            sys.exit(1)
