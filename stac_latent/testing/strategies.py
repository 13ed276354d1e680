"""Hypothesis strategies of fields, symbols and windows, and damaged copies of payloads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from hypothesis import strategies as st

from stac_latent.aliases import Array
from stac_latent.spec import Band
from stac_latent.window import Window

__all__ = ["damaged", "fields", "make_field", "symbols", "windows"]


def make_field(
    bands: Sequence[Band],
    shape: tuple[int, int],
    seed: int = 0,
    kind: str = "scene",
    reach: tuple[float, float] = (-1e4, 1e4),
) -> Array:
    """A field ``(band, y, x)`` in the bands' type, without any symmetry between axes, bands or directions.

    Parameters
    ----------
    bands
        Give the number of bands, their type and nodata.
    shape
        Pixels (y, x).
    seed
        Of the random part.
    kind
        ``scene``: smooth with noise and a hole of nodata; ``noise``: the whole range of the type; ``constant``;
        ``extremes``: its smallest and largest value; ``sparse``: a few spikes; ``empty``: nodata throughout.
    reach
        Smallest and largest value of floats.

    Examples
    --------
    >>> make_field([Band("a", nodata=0)], (4, 5)).shape
    (1, 4, 5)
    """
    dtype = np.dtype(bands[0].data_type)
    low, high = reach if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    rng = np.random.default_rng(seed)
    n, (h, w) = len(bands), shape
    z, y, x = np.mgrid[:n, :h, :w]
    size = (n, h, w)
    middle = max(low, 0) + min(high, 4000) / 3
    if kind == "scene":
        field = middle * (1 + 0.3 * np.sin(x / 5 + 2 * y / 7 + z + seed) + x / (9 * w)) + rng.normal(
            0, middle / 50, size
        )
    elif kind == "noise":
        field = rng.uniform(low, high, size)
    elif kind == "extremes":
        field = rng.choice([low, high], size)
    else:
        field = np.full(size, middle) + (rng.random(size) < 0.02) * (middle if kind == "sparse" else 0)
    field = field if dtype.kind == "f" else np.clip(np.rint(field), low, high)
    out: Array = field.astype(dtype)
    hole = (2 * y + x < (h + w) // 3) if kind == "scene" else np.full(size, kind == "empty")
    for i, band in enumerate(bands):
        if band.nodata is not None:
            out[i][hole[i]] = band.nodata
    return out


_KINDS = ("scene", "noise", "constant", "extremes", "sparse", "empty")


@st.composite
def fields(
    draw: st.DrawFn,
    bands: Sequence[Band],
    stride: tuple[int, int] = (1, 1),
    largest: int = 4,
    reach: tuple[float, float] = (-1e4, 1e4),
) -> Array:
    """Strategy of fields ``(band, y, x)`` of whole cells, 1 to ``largest`` of them a side.

    With stride (1, 1), ``largest`` counts pixels: any height and width.
    """
    cells = [draw(st.integers(1, largest)) for _ in stride]
    shape = (cells[0] * stride[0], cells[1] * stride[1])
    return make_field(bands, shape, draw(st.integers(0, 2**16)), draw(st.sampled_from(_KINDS)), reach)


@st.composite
def symbols(draw: st.DrawFn, channels: int, dtype: str = "int16", largest: int = 12) -> Array:
    """Strategy of symbols ``(channel, y, x)``: laplacian of any scale, constant, sparse, and the extremes of the type."""
    shape = (channels, draw(st.integers(1, largest)), draw(st.integers(1, largest)))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    top = int(np.iinfo(dtype).max)
    kind = draw(st.sampled_from(("laplace", "constant", "sparse", "extremes", "uniform")))
    if kind == "laplace":
        values = rng.laplace(0, 2.0 ** draw(st.integers(-4, 12)), shape)
    elif kind == "uniform":
        values = rng.integers(-top, top, shape, endpoint=True).astype(np.float64)
    elif kind == "extremes":
        values = rng.choice([-top, 0, top], shape).astype(np.float64)
    else:
        values = np.full(shape, draw(st.integers(-top, top)) if kind == "constant" else 0, np.float64)
        values[rng.random(shape) < 0.03] *= kind == "constant"
        if kind == "sparse":
            values[rng.random(shape) < 0.03] = draw(st.integers(-top, top))
    return np.asarray(np.clip(np.rint(values), -top, top), dtype)


@st.composite
def windows(draw: st.DrawFn, shape: tuple[int, int]) -> Window:
    """Strategy of windows that are not empty, within ``shape``."""
    out = []
    for n in shape:
        lo = draw(st.integers(0, n - 1))
        out.append((lo, draw(st.integers(lo + 1, n))))
    return Window.of(out)


def damaged(data: bytes, seed: int = 0, count: int = 24) -> Iterator[bytes]:
    """Copies of ``data`` cut short, with one bit flipped, one byte changed, and with bytes appended."""
    rng = np.random.default_rng(seed)
    for cut in {0, 1, len(data) // 2, len(data) - 1, *rng.integers(0, len(data), count // 4).tolist()}:
        yield data[:cut]
    ends = [*range(min(28, len(data))), *rng.integers(0, len(data), count).tolist()]
    for at in ends:
        out = bytearray(data)
        out[at] ^= 1 << int(rng.integers(8))
        yield bytes(out)
        out[at] = int(rng.integers(256))
        if bytes(out) != data:
            yield bytes(out)
    yield data + b"\0"
