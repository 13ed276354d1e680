"""Validity of pixels, as it is written beside the latents."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stac_latent.codec.codec import Codec
from stac_latent.errors import VerificationError
from stac_latent.spec import Grid
from stac_latent.store.zarr.group import LatentArrays
from stac_latent.window import Window

__all__ = ["write_mask"]


def write_mask(
    arrays: LatentArrays, codec: Codec, grid: Grid, cells: Window, valid: npt.NDArray[np.bool_]
) -> LatentArrays:
    """Store the validity of a shard; bands get masks of their own from the first shard on where they differ."""
    if valid.all():
        return arrays
    (cy0, cy1), (cx0, cx1) = cells
    sy, sx = codec.stride
    if arrays.valid is not None:
        share = valid.any(axis=0).reshape(cy1 - cy0, sy, cx1 - cx0, sx).mean(axis=(1, 3))
        percent = np.where(share > 0, np.maximum(1, np.floor(share * 100)), 0)
        arrays.valid[cy0:cy1, cx0:cx1] = percent.astype(np.uint8)
        return arrays
    if arrays.mask is None:
        raise VerificationError("the group has no mask array, but pixels without data are to be stored")
    if arrays.mask.shape[0] < len(valid):
        arrays = arrays.widen_mask(len(valid))
    top, left = grid.lead
    y0, x0 = cy0 * sy - top, cx0 * sx - left
    ya, yb = max(0, y0), min(grid.shape[0], cy1 * sy - top)
    xa, xb = max(0, x0), min(grid.shape[1], cx1 * sx - left)
    piece = valid[:, ya - y0 : yb - y0, xa - x0 : xb - x0].astype(np.uint8)
    if arrays.mask is not None and not piece.all():
        arrays.mask[:, ya:yb, xa:xb] = np.broadcast_to(piece, (arrays.mask.shape[0], *piece.shape[1:]))
    return arrays
