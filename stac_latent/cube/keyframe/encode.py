"""Code the chunks of a date against a key frame, where that takes fewer bytes; see :mod:`stac_latent.cube.keyframe.decode`."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from stac_latent.aliases import Array
from stac_latent.codec.codec import Codec
from stac_latent.cube.keyframe.decode import KeyFrame, lin_stage
from stac_latent.cube.keyframe.gains import LEVELS, LOST, best_gains, predict
from stac_latent.stages.lin.lifting import synthesise
from stac_latent.stages.lin.pyramid import CELL_LEVELS
from stac_latent.stages.lin.rate_control import Objective
from stac_latent.stages.lin.stage import Lin
from stac_latent.stages.lin.subbands import unpack_cells
from stac_latent.system.links import is_local, local_path

__all__ = ["ReferenceCoder", "relative_href", "whole_cells"]

_WORTH = 0.98
"""Estimated share of the bits above which a chunk is not tried against the key frame."""
_SIDE = LEVELS + 4
"""Bytes that a reference costs beside the payload of a chunk."""
_METADATA = 2600
"""Bytes of the metadata of two arrays, in their own documents and in that of the group."""


class ReferenceCoder:
    """Chooses for each chunk whether it is coded against the key frame, by the bytes of both, and keeps the gains.

    Parameters
    ----------
    key
        The key frame, of the same grid.
    chunks
        Number of chunks along y and x.
    """

    def __init__(self, key: KeyFrame, chunks: tuple[int, int]) -> None:
        self.key = key
        self.gains = np.zeros((LEVELS, *chunks), np.uint8)
        self.crcs = np.zeros(chunks, np.uint32)
        self.saved = 0.0
        """Bytes that the chunks are shorter, or at a fixed rate would be."""

    @property
    def pays(self) -> bool:
        """Whether more is saved than the two arrays with the gains take by themselves."""
        return self.saved > _METADATA

    def code(self, codec: Codec, latent: Array, place: tuple[int, int], cells: Array) -> tuple[Array, bytes]:
        """Code one chunk.

        Parameters
        ----------
        codec
            What to code with; may aim at a target.
        latent
            float32 ``(channel, y, x)``.
        place
            Number of the chunk along y and x.
        cells
            Cells with data, bool ``(y, x)``: the gains are estimated from them.

        Returns
        -------
        stored, payload
            What is stored, ``(channel, y, x)``: the latent, or what the key frame leaves of it; and its bytes.
        """
        alone = codec.entropy_encode(latent)
        if not cells.any():
            return latent, alone
        reference, crc = self.key.chunk(*place)
        step = lin_stage(codec).step_of(alone)
        gains, share = best_gains(latent, reference, step, cells)
        if share > _WORTH or not gains.any():
            return latent, alone
        said = predict(reference, gains)
        rest = latent - said
        payload = _above(codec, said).entropy_encode(rest)
        smaller = _fixed_rate(codec) or len(payload) + _SIDE < len(alone)
        if smaller and _in_bounds(codec, latent, payload, said):
            self.gains[:, *place], self.crcs[place] = gains, crc
            self.saved += (
                len(alone) * (1 - share) if _fixed_rate(codec) else len(alone) - len(payload) - _SIDE
            )
            return rest, payload
        return latent, alone

    def write(self, path: Path) -> None:
        """Store the gains in the group at ``path``."""
        group = zarr.open_group(str(path), mode="r+", zarr_format=3)
        for name, data, names, packed in (
            ("reference_gain", self.gains, ("level", "tile_y", "tile_x"), [ZstdCodec(level=9)]),
            ("reference_crc", self.crcs, ("tile_y", "tile_x"), []),
        ):
            array = group.create_array(
                name,
                shape=data.shape,
                dtype=data.dtype,
                chunks=data.shape,
                fill_value=LOST if name == "reference_gain" else 0,
                compressors=[*packed, Crc32cCodec()],
                dimension_names=names,
            )
            array[...] = data


def whole_cells(valid: Array, stride: tuple[int, int]) -> Array:
    """Cells all of whose pixels are valid, bool ``(y, x)``, from those pixels ``(1 or band, y, x)``."""
    _, h, w = valid.shape
    sy, sx = stride
    return np.asarray(valid.all(axis=0).reshape(h // sy, sy, w // sx, sx).all(axis=(1, 3)))


def relative_href(href: str, path: Path) -> str:
    """Address of a store as seen from another: relative where both are local."""
    return Path(os.path.relpath(local_path(href), path)).as_posix() if is_local(href) else href


def _fixed_rate(codec: Codec) -> bool:
    return codec.target.max_bits_per_pixel is not None


@dataclass(frozen=True)
class _Above(Objective):
    """A target of a latent of which a part is known, for what is left of it."""

    known: Array | None = None
    """Pixels ``(band, y, x)`` in normalised units that are added to what is decoded."""

    def stored(self, pixels: Array) -> Array:
        """As :meth:`Objective.stored`, of the whole."""
        return super().stored(pixels + self.known)

    def bounds(self, truth: Sequence[Array]) -> Array:
        """As :meth:`Objective.bounds`, of the whole."""
        return super().bounds([t + self.known for t in truth])


def _above(codec: Codec, said: Array) -> Codec:
    """The codec, whose target is met by what it codes and what a reference said of the latent."""
    tail = codec.tail
    if not isinstance(tail, Lin) or tail.objective is None:
        return codec
    objective = tail.objective
    known = unpack_cells(said, CELL_LEVELS)
    synthesise(known, CELL_LEVELS)
    own = copy.copy(tail)
    own.objective = _Above(**{f.name: getattr(objective, f.name) for f in fields(objective)}, known=known)
    return replace(codec, stages=(*codec.stages[:-1], own))


def _in_bounds(codec: Codec, latent: Array, payload: bytes, said: Array) -> bool:
    """Whether a bound of the error holds for what a reader decodes, bit for bit."""
    tail = codec.tail
    if not isinstance(tail, Lin) or tail.objective is None or tail.target.max_error is None:
        return True
    valid = tail.objective.valid
    truth, decoded = codec.decode(latent), codec.decode(codec.entropy_decode(payload) + said)
    error = np.abs(np.subtract(truth, decoded, dtype=np.float64))
    return bool((error if valid is None else error * valid).max() <= tail.target.max_error)
