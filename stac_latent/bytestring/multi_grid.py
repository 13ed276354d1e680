"""Fields of several grids to one byte string, and back.

Layout, little endian: ``SLN1``, uint32 CRC-32 of all that follows, uint32 header length, JSON header, masks, uint32 size of
each tile's payload, payloads by family and tile.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from stac_latent.aliases import Array
from stac_latent.bytestring.framing import SEVERAL_GRIDS, frame, pack_mask, unframe, unpack_mask
from stac_latent.bytestring.grid_families import (
    DEEPEST,
    Family,
    GridPart,
    check_fields,
    families,
    families_of,
    misfit,
    normalised,
    parts_of,
)
from stac_latent.bytestring.options import CompressOptions
from stac_latent.chain import Chain
from stac_latent.errors import CorruptDataError
from stac_latent.field.psnr import decibels
from stac_latent.field.rate_target import Target
from stac_latent.field.validity import apply_nodata, valid_mask
from stac_latent.stages.lin.lifting import analyse, levels_of, synthesise
from stac_latent.stages.lin.pyramid import field_tiles
from stac_latent.stages.lin.rate_control import Reached, search
from stac_latent.stages.lin.stage import stages_of
from stac_latent.stages.lin.tile import MAX_LEVELS, Prepared, TileCoder
from stac_latent.stages.transform.normalise import store
from stac_latent.system.limits import check_bytes
from stac_latent.system.threads import each
from stac_latent.window import Window

__all__ = ["decode", "encode"]


def encode(chain: Chain, fields: Sequence[Array], options: CompressOptions) -> bytes:
    """Encode fields of several grids as one.

    Parameters
    ----------
    chain
        A chain that ends with ``lin``; its bands are those of all fields in order, each with its ``gsd``.
    fields
        ``(band, y, x)`` of each grid, finest first, in the bands' stored unit. A grid that joins the finest's pyramid and
        whose pixels are twice as large has half the rows and columns, rounded up.
    options
        Targets are over native samples.

    Raises
    ------
    FieldError
        If the shapes do not fit each other or the bands.
    CodecError
        If the codec has no native grids (see :func:`families`), or no step reaches the target.
    OptionError
        If an option is for fields on one grid.
    """
    options.refuse("several grids", "band_weights", "roi", "mask")
    target = options.target if options.target.given else chain.target
    found = families(chain)
    parts = parts_of(chain, found)
    check_fields(found, parts, fields)
    masks = [valid_mask(x, part.bands) for x, part in zip(fields, parts, strict=True)]
    normal = [normalised(x, m, part) for x, m, part in zip(fields, masks, parts, strict=True)]
    work = [_Work(chain, f, [normal[g] for g in f.grids]) for f in found]
    bits = [pack_mask(m) for m in masks]
    head = {
        "space": chain.space,
        "shapes": [list(x.shape) for x in fields],
        "masks": [[0 if m is None else len(m), len(b)] for m, b in zip(masks, bits, strict=True)],
        "joint": list(found[0].grids),
    }

    def pack(step: float) -> bytes:
        payloads = [p for w in work for p in w.code(step)]
        sizes = np.array([len(p) for p in payloads], "<u4").tobytes()
        return frame(SEVERAL_GRIDS, head, b"".join([*bits, sizes, *payloads]))

    first, tail = stages_of(chain)
    if not target.given:
        return pack(tail.step)
    meter = _Meter(parts, fields, masks)

    def trial(step: float) -> Reached:
        data = pack(step)
        psnr, worst = meter.read(decode(chain, data), target.max_error or 0.0)
        return Reached(data, len(data) * 8 / sum(x.size for x in fields), psnr, worst)

    if target.step is not None:
        target = Target(step=target.step / float(np.median(first.unit)))
    return search(trial, target, tail.step).payload


def decode(chain: Chain, data: bytes) -> list[Array]:
    """Inverse of :func:`encode`: the field of each grid in its stored type.

    The bytes tell the grids; the codec's bands need no ``gsd``.

    Raises
    ------
    CorruptDataError
        If the bytes are truncated or changed, or of another space than the codec's.
    """
    head, body = unframe(data, SEVERAL_GRIDS, "compress() of several grids")
    if head.get("space") != chain.space:
        raise CorruptDataError(
            f"the bytes are of space {head.get('space')}, codec {chain.name!r} is {chain.space}; open the codec of that space"
        )
    found, shapes = _read_head(chain, head)
    masks, at = [], 0
    for (rows, size), (_, h, w) in zip(head["masks"], shapes, strict=True):
        masks.append(unpack_mask(body[at : at + size], rows, (h, w)))
        at += size
    windows = [list(field_tiles(*shapes[f.grids[0]][1:])) for f in found]
    payloads = iter(_cut(body[at:], sum(map(len, windows))))
    grids = [np.empty(shape, np.float32) for shape in shapes]
    for family, tiles in zip(found, windows, strict=True):
        decode = partial(_decode, _coder(chain, family), [grids[g] for g in family.grids])
        each(decode, list(zip(tiles, payloads, strict=False)))
    return [
        apply_nodata(store(x, part.normalise, part.bands), mask, part.bands)
        for x, part, mask in zip(grids, parts_of(chain, found), masks, strict=True)
    ]


# -- tiles -----------------------------------------------------------------------------------------------------


class _Work:
    """Tiles of one family, analysed once and coded at any step."""

    def __init__(self, chain: Chain, family: Family, grids: Sequence[Array]) -> None:
        self.coder, self.grids = _coder(chain, family), grids
        self.prepared = each(self._prepare, list(field_tiles(*grids[0].shape[1:])))

    def _prepare(self, window: Window) -> Prepared:
        tile = [x[_place(window, depth, x)].copy() for depth, x in enumerate(self.grids)]
        levels = levels_of(*tile[0].shape[1:], most=MAX_LEVELS)
        for depth, part in enumerate(tile):
            analyse(part, levels - depth)
        return self.coder.prepare(tile)

    def code(self, step: float) -> list[bytes]:
        return each(lambda p: self.coder.code(p, step), self.prepared)


def _decode(coder: TileCoder, grids: Sequence[Array], job: tuple[Window, bytes]) -> None:
    """One tile into its place in each grid."""
    window, payload = job
    tile = coder.decode_tile(payload, [len(x) for x in grids])
    levels = levels_of(*tile[0].shape[1:], most=MAX_LEVELS)
    for depth, (part, x) in enumerate(zip(tile, grids, strict=True)):
        place = x[_place(window, depth, x)]
        if place.shape != part.shape:
            raise CorruptDataError(f"a tile decodes to {part.shape}; its place has {place.shape}")
        synthesise(part, levels - depth)
        place[...] = part


def _coder(chain: Chain, family: Family) -> TileCoder:
    """Tile coder of the bands of a family; the codec's bases where these are all of its bands, else none to start from."""
    _, tail = stages_of(chain)
    n = sum(map(len, family.bands))
    if tail.lattices is not None:
        index = next(i for i, f in enumerate(families(chain)) if f.grids == family.grids)
        tail = stages_of(chain.grid_chains[index])[1]
    none = np.broadcast_to(np.eye(n, dtype=np.float32), (MAX_LEVELS + 1, n, n))
    return TileCoder(tail.basis if n == tail.bands else np.ascontiguousarray(none), tail.model, tail.lam)


def _place(window: Window, depth: int, x: Array) -> tuple[slice, slice, slice]:
    (y0, y1), (x0, x1) = ((lo >> depth, -(-hi >> depth)) for lo, hi in window)
    return slice(None), slice(y0, min(y1, x.shape[1])), slice(x0, min(x1, x.shape[2]))


# -- bytes -----------------------------------------------------------------------------------------------------


def _read_head(chain: Chain, head: dict[str, Any]) -> tuple[tuple[Family, ...], list[tuple[int, ...]]]:
    """Families and shapes that a header declares."""
    try:
        shapes, masks, joint = (
            [tuple(s) for s in head["shapes"]],
            [tuple(m) for m in head["masks"]],
            head["joint"],
        )
        numbers = [*itertools.chain(*shapes, *masks), *joint]
        sound = all(type(n) is int and n >= 0 for n in numbers) and len(masks) == len(shapes)
        sound = (
            sound
            and all(len(s) == 3 and min(s) > 0 for s in shapes)
            and sum(s[0] for s in shapes) == len(chain.bands)
        )
        sound = sound and all(
            len(m) == 2 and m[0] in {0, 1, s[0]} for m, s in zip(masks, shapes, strict=False)
        )
        sound = sound and joint == sorted(set(joint)) and joint[:1] == [0] and joint[-1] < len(shapes)
    except (KeyError, TypeError) as exc:
        raise CorruptDataError(f"the header is not readable: {exc}") from exc
    if not sound or len(joint) > DEEPEST + 1:
        raise CorruptDataError(
            f"the header declares shapes {shapes}, masks {masks}, joint {joint}, which cannot be"
        )
    found = families_of([s[0] for s in shapes], joint)
    if wrong := misfit(found, shapes):
        raise CorruptDataError(f"the header cannot be: {wrong}")
    for shape in shapes:
        check_bytes(shape, 4, "the header")
    return found, shapes


def _cut(data: bytes, count: int) -> list[bytes]:
    """Payloads behind their sizes."""
    if len(data) < 4 * count:
        raise CorruptDataError(
            f"{len(data)} bytes do not hold the sizes of {count} tiles; they were truncated or changed"
        )
    ends = np.cumsum(np.frombuffer(data, "<u4", count), dtype=np.int64) + 4 * count
    if ends[-1] != len(data):
        raise CorruptDataError(
            f"the tiles end at byte {ends[-1]} of {len(data)}; they were truncated or changed"
        )
    return [data[a:b] for a, b in itertools.pairwise([4 * count, *ends.tolist()])]


class _Meter:
    """Distortion of decoded fields over the valid samples of all grids."""

    def __init__(
        self, parts: Sequence[GridPart], fields: Sequence[Array], masks: Sequence[Array | None]
    ) -> None:
        every = zip(parts, fields, masks, strict=True)
        self.rows = [
            (b, x[i], None if m is None else m[min(i, len(m) - 1)])
            for p, x, m in every
            for i, b in enumerate(p.bands)
        ]
        spread = [float(np.ptp(_valid(x, m))) if m is None or m.any() else 0.0 for _, x, m in self.rows]
        widest = max(*spread, 1e-30)
        floor = [1.0 if b.data_type[0] in "iu" else widest for b, _, _ in self.rows]
        self.peaks = [b.peak(s or f) for (b, *_), s, f in zip(self.rows, spread, floor, strict=True)]

    def read(self, decoded: Sequence[Array], bound: float) -> tuple[float, float]:
        """PSNR [dB], and the largest error over its bound."""
        total, count, worst = 0.0, 0, 0.0
        for (_, x, mask), peak, y in zip(self.rows, self.peaks, itertools.chain(*decoded), strict=True):
            e = _valid(y, mask) - _valid(x, mask)
            total += float(np.einsum("i,i", e, e)) / peak**2
            count += e.size
            worst = max(worst, float(np.abs(e).max(initial=0.0)))
        psnr = decibels(total / count if total else 0.0)
        return psnr, worst / bound if bound else (math.inf if worst else 0.0)


def _valid(x: Array, mask: Array | None) -> Array:
    return np.asarray((x if mask is None else x[mask]).ravel(), np.float64)
