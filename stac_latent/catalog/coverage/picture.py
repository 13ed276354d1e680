"""A picture of a coverage: where periods are missing, and when."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stac_latent.catalog.coverage.coverage import WHOLE, Coverage
from stac_latent.errors import CatalogError

__all__ = ["draw"]


def draw(found: Coverage, path: str | Path, *, title: str = "") -> Path:
    """Write a PNG: a map of the share of periods in which each cell is covered, above the share of the area over time.

    Parameters
    ----------
    found
        From :func:`stac_latent.catalog.coverage.coverage`.
    path
        File to write; needs the extra ``viz``.
    title
        Above the map.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    CatalogError
        If matplotlib is missing, or the file cannot be written.
    """
    try:
        from matplotlib import colormaps
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise CatalogError("a map needs matplotlib: pip install 'stac-latent[viz]'") from exc
    west, south, east, north = found.bbox
    figure = Figure(figsize=(8, 8), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, height_ratios=[3, 1])
    often = (found.share >= WHOLE).mean(axis=0)
    often[found.share.max(axis=0) <= 0] = np.nan
    colours = colormaps["viridis"].with_extremes(bad="#c0392b")
    image = above.imshow(
        often, extent=(west, east, south, north), vmin=0, vmax=1, cmap=colours, interpolation="none"
    )
    above.set_aspect(1 / max(0.05, float(np.cos(np.radians((south + north) / 2)))))
    above.set(
        xlabel="longitude [deg]",
        ylabel="latitude [deg]",
        title=title or "Periods that cover each cell; red: none at all",
    )
    figure.colorbar(image, ax=above, label=f"share of {len(found.periods)} periods")
    rows = found.table()
    starts = [start for start, _ in found.periods]
    widths = [end - start for start, end in found.periods]
    below.bar(
        starts,
        [row["area"] for row in rows],
        width=widths,
        align="edge",
        color="#31688e",
        edgecolor="white",
        linewidth=0.5,
    )
    below.set(ylim=(0, 1), xlim=(starts[0], found.periods[-1][1]), ylabel="share of the area")
    below.tick_params(axis="x", rotation=30, labelsize="small")
    target = Path(path)
    try:
        figure.savefig(target, format="png", dpi=120, metadata={"Software": None})
    except OSError as exc:
        raise CatalogError(f"cannot write {target}: {exc}") from exc
    return target
