"""Where the time of the ``lin`` decoder goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from stac_latent.bench.coder import Coder
from stac_latent.bytestring.framing import ONE_GRID, unframe
from stac_latent.codec.codec import Codec
from stac_latent.stages.lin.lifting import levels_of, synthesise
from stac_latent.stages.lin.stage import Lin, split
from stac_latent.stages.lin.tile import MAX_LEVELS
from stac_latent.stages.transform.normalise import Normalise, store

__all__ = ["budget_of"]


def budget_of(coder: Coder, data: bytes) -> dict[str, float] | None:
    """Seconds of one thread by part of the decoder, from bytes to pixels of the stored type.

    Parameters
    ----------
    coder
        A coder of the race; of any but a chain of normalise, pyramid and lin there is no budget.
    data
        What it encoded.

    Returns
    -------
    dict or None
        ``frame`` (checksum, header), ``entropy`` (side information, rANS, contexts), ``rotation`` (components to bands,
        dequantised), ``wavelet``, ``types`` (normalised units to the stored type).
    """
    codec = getattr(coder, "codec", None)
    if not isinstance(codec, Codec) or type(codec.tail) is not Lin or data[:4] != ONE_GRID:
        return None
    first = codec.stages[0]
    if not isinstance(first, Normalise) or not codec.tail.nest.single:
        return None
    spent = dict.fromkeys(("frame", "entropy", "rotation", "wavelet", "types"), 0.0)

    def timed(part: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        spent[part] += time.perf_counter() - start
        return result

    head, body = timed("frame", partial(unframe, data, ONE_GRID, "compress()"))
    payloads, _ = split(body[head["mask"][1] :])
    lin = codec.tail
    for payload in payloads:
        planes = timed("entropy", partial(lin.read_planes, payload))
        (tile,) = timed("rotation", partial(lin.mixed, planes, borrow=True))
        levels = levels_of(*tile.shape[1:], most=MAX_LEVELS)
        timed("wavelet", partial(synthesise, tile, levels))
        timed("types", partial(store, tile, first, codec.bands))
    return spent
