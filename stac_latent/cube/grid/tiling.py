"""The zone-anchored lattice: how pixels of a scene fall into cells that neighbouring scenes share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stac_latent.errors import GridError
from stac_latent.spec import Grid
from stac_latent.window import Span, Window

__all__ = ["lattice_grid", "padded_shape", "tiles", "with_margin"]


def lattice_grid(
    crs: str, transform: Sequence[float], shape: tuple[int, int], stride: tuple[int, int]
) -> Grid:
    """Grid of a scene whose cells start at multiples of the stride from the origin of the CRS.

    Two scenes in one CRS, of one resolution and whole-pixel offset, then have cells on one lattice, so that their
    latents can be combined without resampling. Rotated grids start at their own corner.

    Parameters
    ----------
    crs
        As ``proj:code``.
    transform
        Affine of the pixels: six numbers, as ``proj:transform``.
    shape
        Pixels (y, x).
    stride
        Pixels per cell (y, x).

    Examples
    --------
    >>> g = lattice_grid("EPSG:32633", (10, 0, 499980, 0, -10, 5200020), (10980, 10980), (8, 8))
    >>> g.padding, g.cells, g.cell_transform[2] % 80
    ((6, 6, 6, 6), (1374, 1374), 0.0)
    """
    a, b, c, d, e, f = (float(v) for v in transform[:6])
    if not a or not e or min(shape) < 1:
        raise GridError(
            f"no grid: transform {tuple(transform)}, shape {shape}; pixels need a size, and there must be some"
        )
    top = left = 0
    if not b and not d:
        left, top = round(c / a) % stride[1], round(f / e) % stride[0]
    bottom, right = -(shape[0] + top) % stride[0], -(shape[1] + left) % stride[1]
    return Grid(crs, (a, b, c, d, e, f), shape, stride, (top, bottom, left, right))


def padded_shape(grid: Grid) -> tuple[int, int]:
    """Pixels of whole cells (y, x)."""
    return grid.cells[0] * grid.stride[0], grid.cells[1] * grid.stride[1]


def tiles(shape: tuple[int, int], size: tuple[int, int]) -> Iterator[Window]:
    """Windows of ``size`` that cover ``shape``, row by row; the last ones are smaller."""
    for y in range(0, shape[0], size[0]):
        for x in range(0, shape[1], size[1]):
            yield Window(Span(y, min(y + size[0], shape[0])), Span(x, min(x + size[1], shape[1])))


def with_margin(window: Window, margin: tuple[int, int], shape: tuple[int, int]) -> Window:
    """``window`` grown by ``margin`` (y, x) on each side, within ``shape``."""
    return Window.of(
        (max(0, lo - m), min(n, hi + m)) for (lo, hi), m, n in zip(window, margin, shape, strict=True)
    )
