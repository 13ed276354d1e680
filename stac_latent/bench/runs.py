"""The runs behind the commands: choose tiles and coders, race, write results and plots."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stac_latent.aliases import Progress
from stac_latent.bench.coder import Entrant, UnavailableError
from stac_latent.bench.data.base import Dataset, Tile, split, thinned
from stac_latent.bench.data.open import open_dataset
from stac_latent.bench.loads.files import FORMATS
from stac_latent.bench.loads.run import run_load
from stac_latent.bench.own_codecs import chains, fitted_on
from stac_latent.bench.peers import peers
from stac_latent.bench.plots import plot_load, plot_rd, plot_speed
from stac_latent.bench.race import run_rd
from stac_latent.bench.scene import assemble
from stac_latent.bench.speed import run_speed
from stac_latent.codec.registry import codec_names
from stac_latent.cube.open_codec import open_codec
from stac_latent.errors import CatalogError, StacLatentError

__all__ = ["Run", "load", "rd", "speed"]

_LIBRARIES = ("stac-latent", "numpy", "numba", "rasterio", "imagecodecs", "odc-stac", "zarr")


@dataclass(frozen=True)
class Run:
    """What every run has: tiles, coders, and a place for results."""

    data: Path
    """Folder of data sets; see :func:`~stac_latent.bench.data.base.open_dataset`."""
    dataset: str | None = None
    codecs: Sequence[str] | None = None
    """Names or bundle folders; None: every installed codec that fits the bands."""
    only_peers: Sequence[str] | None = None
    """Texts, one of which a peer's name contains; None: every peer."""
    dest: Path | None = None
    """Folder to write ``<run>-<dataset>.json`` and ``.png`` to; None writes nothing."""
    progress: Progress | None = None

    def tiles(
        self, per_place: int | None = 4, most: int | None = None
    ) -> tuple[Dataset, list[Tile], list[Tile]]:
        """Data set, tiles to fit on, tiles to race on: of one place and in all at most so many.

        Raises
        ------
        CatalogError
            If no tile is left to race on.
        """
        found = open_dataset(self.data, self.dataset)
        fit, tiles = split(found, fitted_on(self.codecs), per_place)
        if not tiles:
            raise CatalogError(
                f"every tile of {found.name!r} in {self.data} is of a place that a codec was fitted on; give data of other places"
            )
        return found, fit, thinned(tiles, most)

    def entrants(self, found: Dataset) -> list[Entrant]:
        """Coders, the package's own first."""
        return [*chains(self.codecs, len(found.groups)), *chosen(self.only_peers)]

    def facts(self, found: Dataset, fit: Sequence[Tile]) -> dict[str, Any]:
        """What a result says of the run."""
        return {
            "dataset": {"name": found.name, "title": found.title, "peak": found.peak},
            "fitted_places": sorted({t.place for t in fit}),
            "versions": versions(),
        }


def rd(
    run: Run,
    *,
    interval: tuple[float, float] = (36.0, 46.0),
    per_place: int | None = 4,
    max_tiles: int | None = None,
    jobs: int = 1,
) -> dict[str, Any]:
    """Race on the tiles of a folder; see :func:`~stac_latent.bench.race.run_rd` for most of the result.

    Parameters
    ----------
    run
        Tiles, coders and place for results.
    interval
        PSNR [dB] over which rates are compared.
    per_place, max_tiles
        Tiles to race on at most, of one place and in all.
    jobs
        Coders that run at a time.

    Returns
    -------
    dict
        Also ``dataset``, ``fitted_places``, ``peers``, ``versions`` and ``files``.

    Raises
    ------
    CatalogError
        If no tile is left to race on.
    """
    found, fit, tiles = run.tiles(per_place, max_tiles)
    entrants = run.entrants(found)
    result = {
        **run.facts(found, fit),
        "peers": [p.name for p in chosen(run.only_peers)],
        **run_rd(found, fit, tiles, entrants, interval=interval, jobs=jobs, progress=run.progress),
    }
    return written(result, run.dest, f"rd-{found.name}", plot_rd)


def speed(
    run: Run, *, size: int = 2048, psnr: float = 42.0, threads: Sequence[int] = (2, 1)
) -> dict[str, Any]:
    """Measure speeds on a scene made of tiles; see :func:`~stac_latent.bench.speed.run_speed` for most of the result.

    Parameters
    ----------
    run
        Tiles, coders and place for results.
    size, psnr, threads
        Pixels of a side, quality [dB], numbers of threads.

    Returns
    -------
    dict
        Also ``dataset``, ``fitted_places``, ``peers``, ``versions`` and ``files``.
    """
    found, fit, tiles = run.tiles()
    entrants = run.entrants(found)
    result = {
        **run.facts(found, fit),
        "peers": [p.name for p in chosen(run.only_peers)],
        **run_speed(
            found, fit, tiles, entrants, size=size, psnr=psnr, threads=threads, progress=run.progress
        ),
    }
    return written(result, run.dest, f"speed-{found.name}", plot_speed)


def load(run: Run, *, size: int = 1830, psnr: float = 42.0) -> dict[str, Any]:
    """Measure loads of a scene made of tiles; see :func:`~stac_latent.bench.loads.run.run_load` for most of the result.

    Parameters
    ----------
    run
        Tiles and place for results; the first codec is that of the latents (default: the shipped one of these bands, else ``lin``).
    size, psnr
        Pixels of a side, quality [dB].

    Returns
    -------
    dict
        Also ``dataset``, ``versions`` and ``files``.

    Raises
    ------
    CatalogError
        If no tile is left to make a scene of, the bands have several grids, or no peer has such a name.
    """
    found, fit, tiles = run.tiles()
    codec = run.codecs[0] if run.codecs else shipped_for([b.name for b in found.groups[0]])
    named = {f.name: f for f in FORMATS}
    formats = [named[n] for n in _named(list(named), run.only_peers)]
    result = {
        **run.facts(found, fit),
        "peers": [f.name for f in formats],
        **run_load(found, assemble(tiles, size), codec, psnr=psnr, formats=formats, progress=run.progress),
    }
    return written(result, run.dest, f"load-{found.name}", plot_load)


def shipped_for(bands: Sequence[str]) -> str:
    """Name of a codec of exactly these bands; ``lin``, which takes any, where none is installed."""
    for name in codec_names():
        try:
            if [b.name for b in open_codec(name).bands] == list(bands):
                return name
        except StacLatentError:  # it needs to be told its bands
            continue
    return "lin"


def chosen(texts: Sequence[str] | None) -> list[Entrant]:
    """Peers by parts of their names, any case; None: all."""
    every = {p.name: p for p in peers()}
    return [every[n] for n in _named(list(every), texts)]


def _named(names: Sequence[str], texts: Sequence[str] | None) -> list[str]:
    """Names that contain one of the texts."""
    if texts is None:
        return list(names)
    out = [n for n in names if any(t.lower() in n.lower() for t in texts)]
    if not out and any(t.lower() != "none" for t in texts):
        raise CatalogError(f"no peer is named like {', '.join(texts)}; there are {', '.join(names)}")
    return out


def versions() -> dict[str, str]:
    """Versions of what was measured, and the machine."""
    out = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.processor()}".strip(),
    }
    for name in _LIBRARIES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out


def written(result: dict[str, Any], dest: Path | None, stem: str, plot: Any) -> dict[str, Any]:
    """Write a result and its plot, and name the files in it; without matplotlib, the reason instead of the plot."""
    result["files"] = []
    if dest is None:
        return result
    dest.mkdir(parents=True, exist_ok=True)
    picture, document = dest / f"{stem}.png", dest / f"{stem}.json"
    try:
        plot(result, picture)
        result["files"].append(str(picture))
    except UnavailableError as exc:
        result["skipped"]["plot"] = str(exc)
    result["files"].append(str(document))
    document.write_text(compact(result), encoding="utf-8")
    return result


def compact(result: dict[str, Any]) -> str:
    """JSON with one line for each row, numbers to six digits."""
    rows = ",\n".join("  " + json.dumps(_short(r)) for r in result["rows"])
    rest = json.dumps(_short({k: v for k, v in result.items() if k != "rows"}), indent=1)
    return f'{rest[:-2]},\n "rows": [\n{rows}\n ]\n}}\n'


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_short(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
