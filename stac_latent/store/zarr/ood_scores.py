"""Scores of tiles in a latent group: ``ood (measure, tile_y, tile_x)``, float32, one value for each stored chunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from stac_latent.store.georeference import dimension_names

__all__ = ["MEASURES", "write_scores"]

MEASURES = ("score", "rate", "latent", "error")
"""The score, and what it is the largest of; NaN where a tile was not judged. More than 1 is flagged."""


def write_scores(path: Path, scores: npt.NDArray[Any]) -> None:
    """Add the array to the group at ``path``; shape ``(4, tile_y, tile_x)``."""
    group = zarr.open_group(str(path), mode="r+", zarr_format=3)
    with zarr.config.set({"json_indent": None}):
        out = group.create_array(
            "ood",
            shape=scores.shape,
            dtype="float32",
            chunks=scores.shape,
            fill_value=np.nan,
            compressors=[ZstdCodec(level=9), Crc32cCodec()],
            dimension_names=dimension_names(("measure", "tile_y", "tile_x"), group.attrs),
            attributes={"measure": list(MEASURES)},
            overwrite=True,
        )
    out[:] = scores.astype(np.float32)
