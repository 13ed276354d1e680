"""Shared by the tests of the ``lin`` chain: both forms of its loops in one process, planes and tiles of every kind."""

from __future__ import annotations

import struct
import zlib
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from stac_latent.stages.context import _numpy, coder
from stac_latent.stages.context.coder import ContextModel
from stac_latent.stages.context.model import BINS, SETS, SIGNS, SYMBOLS
from stac_latent.stages.lin import lifting
from stac_latent.stages.lin.subbands import layout_of
from stac_latent.stages.transform import normalise
from stac_latent.stages.transform.kernels import COMPILED

needs_numba = pytest.mark.skipif(
    not COMPILED, reason="numba is not installed, or switched off: there is one form only"
)
LAW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def plain():
    """Run the numpy form of everything, whether numba is there or not."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (lifting, coder, normalise):
            patch.setattr(module, "COMPILED", False)
        patch.setattr(coder, "_coder", _numpy)
        yield


def same_bits(a, b):
    """Equal values and types, and equal signs of zeros."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@st.composite
def programs(draw, largest=20, most_bands=3):
    """Tables of planes as tiles have them: any size, some components left out; ``(table, size)``."""
    shape = (
        draw(st.integers(1, most_bands)),
        draw(st.integers(1, largest)),
        draw(st.integers(1, largest)),
    )
    layout = layout_of((shape,), draw(st.integers(1, 4)))
    active = [[draw(st.integers(0, shape[0])) for _ in group.shapes] for group in layout.groups]
    return layout.program(active)


KINDS = ("zeros", "constant", "sparse", "dense", "ties", "huge", "mixed")


def samples(kind, size, seed):
    """float32 samples in steps, the margins of the planes included."""
    rng = np.random.default_rng(seed)
    if kind == "zeros":
        u = np.zeros(size)
    elif kind == "constant":
        u = np.full(size, rng.integers(-30, 30))
    elif kind == "sparse":
        u = np.where(rng.random(size) < 0.03, rng.normal(0, 20, size), rng.normal(0, 0.2, size))
    elif kind == "ties":
        u = rng.integers(-9, 9, size) / 2
    elif kind == "huge":
        u = rng.uniform(-1, 1, size) * 2.0 ** rng.integers(0, 23)
        u[::7] = 2.0**22
    elif kind == "mixed":
        u = rng.normal(0, 1, size) * 2.0 ** rng.uniform(-3, 8, size)
    else:
        u = rng.laplace(0, 2.0 ** rng.integers(-2, 11), size)
    return u.astype(np.float32)


def clear_margins(u, table):
    """Zero everything that is no sample of a plane, as the coder is given it."""
    out = np.zeros_like(u)
    for at, h, w in table[:, :3]:
        cut = slice(at, at + (h + 2) * (w + 2))
        out[cut].reshape(h + 2, w + 2)[1:-1, 1:-1] = u[cut].reshape(h + 2, w + 2)[1:-1, 1:-1]
    return out


@st.composite
def models(draw):
    """The default model, and models of any weights and counts."""
    if draw(st.booleans()):
        return ContextModel.default()
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    weights = rng.integers(0, draw(st.sampled_from((2, 30, 1024))), (SETS, 4, 8))
    counts = rng.integers(1, draw(st.sampled_from((2, 500, 65536))), (4, BINS, SYMBOLS))
    runs = rng.integers(1, draw(st.sampled_from((2, 100, 65536))), (4, 2))
    signs = rng.integers(1, draw(st.sampled_from((2, 100, 65536))), (3, 2, SIGNS, 2))
    return ContextModel(weights.astype(np.int16), *(v.astype(np.uint16) for v in (counts, runs, signs)))


def resealed(payload):
    """The payload of one tile with the checksum of what it holds, so that changes reach what lies behind it."""
    return payload[:3] + struct.pack("<I", zlib.crc32(payload[7:])) + payload[7:]
