"""Whole synthesis chains in one compiled loop, where there is one for the chain; see :mod:`stac_latent.stages.transform.kernels`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from stac_latent.aliases import Array
from stac_latent.chain import Chain
from stac_latent.errors import CorruptDataError
from stac_latent.field.storage_type import lowest_values
from stac_latent.stages.base import FRACTION_BITS
from stac_latent.stages.transform.block_dct import BlockDCT
from stac_latent.stages.transform.kernels import COMPILED, synthesise
from stac_latent.stages.transform.klt import SpectralKLT
from stac_latent.stages.transform.normalise import Normalise
from stac_latent.stages.transform.quantise import Uniform

__all__ = ["synthesis"]


def synthesis(chain: Chain) -> Callable[[Array], Array] | None:
    """Function from symbols ``(channel, y, x)`` to pixels ``(band, y, x)`` in the stored type.

    There is one for chains normalise > klt > dct > uniform over bands of one integer type, with numba installed; its
    result equals the stages', bit for bit. None for any other.
    """
    if not COMPILED or chain.kind != "codec":
        return None
    stages = [s for s in chain.stages if s.level != "bytes"]
    kinds = (Normalise, SpectralKLT, BlockDCT, Uniform)
    types = {b.data_type for b in chain.bands}
    if len(stages) != len(kinds) or len(types) > 1 or np.dtype(chain.bands[0].data_type).kind not in "iu":
        return None
    if not all(isinstance(s, k) for s, k in zip(stages, kinds, strict=True)):
        return None
    return lambda symbols: _run(chain, stages, symbols)


def _run(chain: Chain, stages: Sequence[object], symbols: Array) -> Array:
    normalise, klt, block, uniform = stages
    assert isinstance(normalise, Normalise) and isinstance(klt, SpectralKLT)  # noqa: PT018, S101 - narrows types
    assert isinstance(block, BlockDCT) and isinstance(uniform, Uniform)  # noqa: PT018, S101 - narrows types
    bands = len(chain.bands)
    fits = (
        symbols.ndim == 3 and symbols.shape[0] == block.channels == block.keep.size and symbols.dtype.name in ("int8", "int16")
        and klt.matrix.shape == (block.components, bands) and normalise.unit.size == bands
        and uniform.step.size in (1, block.channels)
    )  # fmt: skip
    if not fits:  # the compiled loops look at no bounds
        raise CorruptDataError(
            f"symbols {symbols.shape} of {symbols.dtype} do not fit the chain: {block.channels} channels, {block.components} "
            f"components, matrix {klt.matrix.shape}, {normalise.unit.size} units, {uniform.step.size} steps, {bands} bands"
        )
    _, cy, cx = symbols.shape
    out = np.empty((len(chain.bands), cy * block.size, cx * block.size), chain.bands[0].data_type)
    synthesise(
        np.ascontiguousarray(symbols),
        np.broadcast_to(uniform.step.astype(np.float64), (block.channels,)).copy(),
        block.keep,
        block.basis,
        klt.matrix.astype(np.float64),
        np.stack([normalise.unit * 2.0**-FRACTION_BITS, normalise.mean]),
        lowest_values(chain.bands, out.dtype).astype(np.float64),
        float(np.iinfo(out.dtype).max),
        out,
    )
    return out
