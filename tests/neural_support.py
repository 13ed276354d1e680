"""Small networks and ``fast`` chains, without torch."""

from __future__ import annotations

import numpy as np

from stac_latent.codec.shipped import lin
from stac_latent.spec import Band
from stac_latent.stages.neural.network import Network, Scale
from stac_latent.stages.neural.stage import Fast

BANDS = (Band("red", nodata=0, scale=1e-4), Band("nir", nodata=0, scale=1e-4))


def network(bands=2, widths=(4, 6), blocks=(1, 2), size=0.0, seed=0):
    """A network with normal weights of this size; 0: it corrects nothing."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(0, size or 1, shape).astype(np.float32)  # noqa: E731
    scales = []
    for k, (w, b) in enumerate(zip(widths, blocks, strict=True)):
        coarser = widths[k + 1] if k + 1 < len(widths) else 0
        leave, leave_bias = draw(3 * bands, w), draw(3 * bands)
        scales.append(
            Scale(
                draw(w, 4 * bands + (w if coarser else 0)), draw(w), draw(2 * w), draw(2 * w),
                tuple((draw(w, w, 9), draw(w)) for _ in range(b)),
                leave if size else leave * 0, leave_bias if size else leave_bias * 0,
                draw(4 * w, coarser) if coarser else None, draw(4 * w) if coarser else None,
            )
        )  # fmt: skip
    return Network(tuple(scales))


def chains(net=None, bands=BANDS, step=40.0):
    """The ``lin`` chain, and the ``fast`` one on it."""
    from dataclasses import replace

    base = lin(bands, step=step, mean=1500.0)
    stage = Fast.on(base.stages[-1], net or network(len(bands), size=0.2))
    return base, replace(base, name="fast", stages=(*base.stages[:-1], stage))
