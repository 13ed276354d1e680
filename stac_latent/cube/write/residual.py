"""Write what keeps an error bound: residuals of the pixels that the stored latents decode to, chunk by chunk."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stac_latent.aliases import Progress
from stac_latent.codec.codec import Codec
from stac_latent.codec.registry import resolve_space
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.cube.write.verify import Source
from stac_latent.field.error_bound import ErrorBound
from stac_latent.secure import Encrypt
from stac_latent.stages.residual.payload import encode_residual, largest_size
from stac_latent.store.zarr.residual import ResidualWriter

__all__ = ["write_residual"]

_WORKERS = 4


def write_residual(
    source: Source,
    codec: Codec,
    ref: LatentRef,
    path: Path,
    bound: ErrorBound,
    progress: Progress | None = None,
    encryption: Encrypt | None = None,
    only: Collection[tuple[int, int]] | None = None,
) -> None:
    """Add residuals to a store whose latents are complete.

    Parameters
    ----------
    source
        What was encoded; read once more.
    codec, ref, path
        What it was encoded with (one of a codec's parts where it has several), and the store.
    bound
        What every valid pixel shall keep.
    progress
        Called after each shard.
    encryption
        Encrypts them.
    only
        Numbers of the chunks along y and x that get one; None: all.

    Raises
    ------
    FieldError
        If a value of the source does not fit the stored type of its band.
    """
    reader = LatentReader(ref, resolve_space(codec.space))
    windows = dict(reader.chunk_windows())
    chunk = max(math.prod(window.shape) for window in windows.values())
    counts = (1 + max(y for y, _ in windows), 1 + max(x for _, x in windows))
    writer = ResidualWriter(path, counts, largest_size(codec.bands, chunk), encryption)
    h, w = writer.shape

    def one(place: tuple[int, int]) -> bytes:
        if only is not None and place not in only:
            return b""
        window = windows[place]
        truth, valid = source.read(window.shifted(source.grid.lead))
        return encode_residual(truth, reader.decode_base(window), valid, bound, codec.bands)

    shards: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y, x in windows:
        shards.setdefault((y // h, x // w), []).append((y, x))
    with ThreadPoolExecutor(max_workers=min(_WORKERS, os.cpu_count() or 1)) as pool:
        for i, places in enumerate(shards.values()):
            payloads = list(pool.map(one, places))
            writer.write(dict(zip(places, payloads, strict=True)))
            if progress:
                progress("residual", i + 1, len(shards))
