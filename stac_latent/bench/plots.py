"""Pictures of results; matplotlib is imported when one is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stac_latent.bench.coder import need
from stac_latent.bench.curves import Curve

__all__ = ["plot_load", "plot_rd", "plot_speed"]


def _axes(title: str) -> tuple[Any, Any]:
    need("matplotlib", "the plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.grid(visible=True, which="both", alpha=0.3)
    return figure, axes


def _style(name: str, peers: set[str]) -> dict[str, Any]:
    return {"linestyle": "--", "linewidth": 1.2} if name in peers else {"linestyle": "-", "linewidth": 2.4}


def plot_rd(result: dict[str, Any], path: Path) -> None:
    """Mean rate at each PSNR over the tiles on which the anchor reaches the whole interval.

    Parameters
    ----------
    result
        Of :func:`~stac_latent.bench.race.run_rd`, with ``dataset`` and ``peers``.
    path
        PNG to write.
    """
    names = result["covered"]
    figure, axes = _axes(f"{result['dataset']['title']}: {len(names)} tiles of places unseen in the fits")
    low, high = result["interval"]
    levels = np.arange(low - 2, high + 2.01, 0.5)
    for coder in result["summary"]:
        curves = [
            Curve(
                (r["bits_per_pixel"], r["psnr"])
                for r in result["rows"]
                if (r["coder"], r["tile"]) == (coder, t) and r["psnr"] is not None
            )
            for t in names
        ]
        mean = np.array([c.rate(levels) for c in curves]).mean(axis=0) if curves else levels * np.nan
        if np.isfinite(mean).any():
            axes.plot(mean, levels, label=coder, **_style(coder, set(result["peers"])))
    axes.set(
        xscale="log", xlabel="bits per pixel and band", ylabel=f"PSNR [dB], peak {result['dataset']['peak']}"
    )
    axes.axhspan(low, high, color="grey", alpha=0.08)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def plot_speed(result: dict[str, Any], path: Path) -> None:
    """Speed of encoding and decoding of each coder.

    Parameters
    ----------
    result
        Of :func:`~stac_latent.bench.speed.run_speed`.
    path
        PNG to write.
    """
    figure, axes = _axes(f"{result['scene']['title']}, about {result['psnr']:g} dB")
    rows = [r for r in result["rows"] if r["threads"] == max(r["threads"] for r in result["rows"])]
    at = np.arange(len(rows))
    axes.barh(at - 0.2, [r["encode_mpixel_s"] for r in rows], 0.4, label="encode")
    axes.barh(at + 0.2, [r["decode_mpixel_s"] for r in rows], 0.4, label="decode")
    axes.set_yticks(at, [f"{r['coder']} ({r['bits_per_pixel']:.3g} bpppb)" for r in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="Mpixel/s of all bands")
    axes.legend()
    figure.savefig(path, dpi=120)


def plot_load(result: dict[str, Any], path: Path) -> None:
    """Seconds of each load, by format.

    Parameters
    ----------
    result
        Of :func:`~stac_latent.bench.loads.run.run_load`.
    path
        PNG to write.
    """
    figure, axes = _axes(f"{result['scene']['title']}, about {result['psnr']:g} dB")
    rows, tasks = result["rows"], result["table"]
    names = list(dict.fromkeys(r["format"] for r in rows))
    at, width = np.arange(len(tasks)), 0.8 / len(names)
    for i, name in enumerate(names):
        seconds = {r["task"]: r["cpu_s"] for r in rows if r["format"] == name}
        values = [seconds.get(t["task"], np.nan) for t in tasks]
        axes.barh(at + (i - (len(names) - 1) / 2) * width, values, width, label=name)
    axes.set_yticks(at, [t["title"] for t in tasks], fontsize=8)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="seconds of a processor")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
