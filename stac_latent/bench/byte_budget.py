"""Where the time of the ``lin`` decoder goes, and that of a load."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from stac_latent.bench.coder import Coder
from stac_latent.bytestring.framing import ONE_GRID, unframe
from stac_latent.codec.codec import Codec
from stac_latent.stages.lin.lifting import levels_of, synthesise
from stac_latent.stages.lin.repeats import is_split
from stac_latent.stages.lin.stage import Lin, split
from stac_latent.stages.lin.tile import MAX_LEVELS
from stac_latent.stages.transform.normalise import Normalise, store

__all__ = ["budget_of", "load_budget"]

R = TypeVar("R")
_RUNS = 3


def budget_of(coder: Coder, data: bytes) -> dict[str, float] | None:
    """Seconds of a processor by part of the decoder, from bytes to pixels of the stored type.

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
        dequantised), ``wavelet``, ``types`` (normalised units to the stored type); ``repeats`` (all of the tiles whose repeated pixels are coded
        once).
    """
    codec = getattr(coder, "codec", None)
    if not isinstance(codec, Codec) or type(codec.tail) is not Lin or data[:4] != ONE_GRID:
        return None
    first = codec.stages[0]
    if not isinstance(first, Normalise) or not codec.tail.nest.single:
        return None
    spent: dict[str, float] = {}
    head, body = _timed(spent, "frame", partial(unframe, data, ONE_GRID, "compress()"))
    payloads, _ = split(body[head["mask"][1] :])
    for payload in payloads:
        _decode(codec.tail, first, codec, payload, spent)
    return spent


def load_budget(path: Path) -> dict[str, float] | None:
    """Seconds of a processor by part of a load of all pixels of an Item of latents, the fastest of several.

    Parameters
    ----------
    path
        Of the Item.

    Returns
    -------
    dict or None
        ``open`` (the Item, its codec and its store's metadata), ``read`` (bytes of chunks, checksums), the parts of the decoder as of :func:`budget_of`, ``rest`` (the
        plan of the load, masks, assembly of the cube) and ``load`` (all). None where the codec is no chain of normalise,
        pyramid and lin, or has several grids.
    """
    import pystac

    from stac_latent.cube.read.chunk_cache import forget
    from stac_latent.cube.read.load import load
    from stac_latent.cube.read.reader import LatentReader

    item = pystac.Item.from_file(str(path))
    reader = LatentReader.open(item)
    lin, first, stored = reader.codec.tail, reader.codec.stages[0], reader.arrays.payloads
    if type(lin) is not Lin or not isinstance(first, Normalise) or not lin.nest.single or stored is None:
        return None

    def whole() -> None:
        forget()
        load(item)

    def opened() -> None:
        new = LatentReader.open(item)
        _ = new.codec, new.arrays

    best: dict[str, float] = {}
    for _ in range(_RUNS):
        spent: dict[str, float] = {}
        _timed(spent, "open", opened)
        for (y, x), _window in reader.chunk_windows():
            for payload in split(bytes(_timed(spent, "read", partial(stored.read, y, x))))[0]:
                _decode(lin, first, reader.codec, payload, spent)
        _timed(spent, "load", whole)
        best = {k: min(v, best.get(k, v)) for k, v in spent.items()}
    total = best.pop("load")
    return {**best, "rest": total - sum(best.values()), "load": total}


def _decode(lin: Lin, first: Normalise, codec: Codec, payload: bytes, spent: dict[str, float]) -> None:
    """Decode a tile part by part; one whose repeated pixels are coded once as a whole."""
    if is_split(payload):
        _timed(spent, "repeats", partial(codec.decode, payload))
        return
    planes = _timed(spent, "entropy", partial(lin.read_planes, payload))
    (tile,) = _timed(spent, "rotation", partial(lin.mixed, planes, borrow=True))
    levels = levels_of(*tile.shape[1:], most=MAX_LEVELS)
    _timed(spent, "wavelet", partial(synthesise, tile, levels))
    _timed(spent, "types", partial(store, tile, first, codec.bands))


def _timed(spent: dict[str, float], part: str, work: Callable[[], R]) -> R:
    start = time.process_time()
    result = work()
    spent[part] = spent.get(part, 0.0) + time.process_time() - start
    return result
