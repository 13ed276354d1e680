"""One tile of residuals: bands one after the other, each in passes from coarse to fine."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import CorruptDataError
from stac_latent.spec import Band
from stac_latent.stages.residual.entropy import CAP, LARGEST, ROOT_BIN, Decoder, Encoder, bins_of
from stac_latent.stages.residual.predictor import (
    KINDS,
    BandModel,
    Planes,
    columns,
    count_contexts,
    count_features,
    fit_contexts,
    fit_weights,
    group_of,
)
from stac_latent.stages.residual.quantiser import RATIO, Values, apart
from stac_latent.stages.residual.scan_order import Pass
from stac_latent.stages.residual.side_information import Side, read_exact, write_exact

__all__ = ["GROUPS", "code_tile", "decode_tile"]

GROUPS = (3, 1)
"""Sets of weights by resolution: the two finest apart, or all alike."""
_HEAD = struct.Struct("<BBIIIII")
"""Groups of weights, lanes, bytes of side information, of exact values and of raw bits, number of raw bits, words."""


def code_tile(
    fields: Sequence[Array],
    starts: Sequence[Array],
    mask: Array,
    values: Sequence[Values],
    bands: Sequence[Band],
    shape: tuple[int, int],
    groups: int,
) -> tuple[bytes, int]:
    """Payload of a tile, and the bytes of its side information.

    Parameters
    ----------
    fields, starts
        Values and decoded base of each band in its stored type, flat.
    mask
        Valid pixels, ``(band, pixels)``.
    values, bands
        Kind of residuals, and nodata, of each band.
    shape
        Height and width.
    groups
        One of :data:`GROUPS`.
    """
    planes, side, coder = Planes(shape), Side(groups), Encoder()
    exact = []
    for i, (x, start, v) in enumerate(zip(fields, starts, values, strict=True)):
        own = v.plain(start)
        model, some = BandModel(planes, own.copy()), [np.flatnonzero(mask[i][p.at]) for p in planes.passes]
        weights = _fit_weights(model, some, v, x, groups, i)
        residual, lost = np.zeros(x.size, np.int64), np.zeros(x.size, bool)
        for p, chosen in zip(planes.passes, some, strict=True):
            at = p.at[chosen]
            guess = model.predict(own, p, chosen, weights[group_of(p, groups)])
            k, far = v.residual(x[at], guess)
            far |= np.abs(k) >= LARGEST
            k[far] = 0
            decoded = v.apply(guess, k)
            far |= ~(v.kept(x[at], decoded) & apart(x[at], decoded, bands[i]))
            decoded[far], k[far] = x[at][far], 0
            own[at], residual[at], lost[at] = v.plain(decoded), k, far
        magnitudes = np.minimum(np.abs(residual), CAP)
        contexts = _fit_contexts(model, v, own, some, magnitudes, groups, i)
        for p, chosen in zip(planes.passes, some, strict=True):
            at = p.at[chosen]
            bins = _bins(model, v, own, magnitudes, p, chosen, contexts, groups)
            coder.add(residual[at], bins, lost[at])
        planes.add(own, magnitudes)
        side.weights += weights
        side.contexts += contexts
        order = np.concatenate([p.at for p in planes.passes])
        exact.append(x[order[lost[order]]])
    packed = side.pack(values)
    kept = write_exact(exact)
    words, states, raw, bits = coder.finish()
    head = _HEAD.pack(groups, states.size, len(packed), len(kept), raw.size, bits, words.size)
    tail = raw.tobytes() + states.astype("<u4").tobytes() + words.astype("<u2").tobytes()
    return head + packed + kept + tail, len(packed)


def decode_tile(data: bytes, starts: Sequence[Array], mask: Array, bands: Sequence[Band], out: Array) -> None:
    """Inverse of :func:`code_tile`, into ``out`` ``(band, y, x)``."""
    if len(data) < _HEAD.size:
        raise CorruptDataError(f"residual: {len(data)} bytes are less than a header; truncated")
    groups, lanes, *sizes, bits, n_words = _HEAD.unpack_from(data)
    sizes += [4 * lanes, 2 * n_words]
    ends = [_HEAD.size, *(_HEAD.size + np.cumsum(sizes, dtype=np.int64)).tolist()]
    if groups not in GROUPS or ends[-1] != len(data):
        raise CorruptDataError(
            f"residual: the header declares {ends[-1]} bytes, there are {len(data)}; changed?"
        )
    packed, kept, raw, states, words = (data[a:b] for a, b in pairwise(ends))
    side, values = Side.unpack(packed, groups, bands)
    coder = Decoder(
        np.frombuffer(words, "<u2"), np.frombuffer(states, "<u4"), np.frombuffer(raw, np.uint8), bits
    )
    exact = read_exact(kept, mask, bands)
    planes = Planes((out.shape[1], out.shape[2]))
    for i, v in enumerate(values):
        final = starts[i].copy()
        own = v.plain(final)
        model, magnitudes, used = BandModel(planes, own.copy()), np.zeros(own.size, np.int64), 0
        weights, contexts = (
            s[i * groups * KINDS : (i + 1) * groups * KINDS] for s in (side.weights, side.contexts)
        )
        for p in planes.passes:
            chosen = np.flatnonzero(mask[i][p.at])
            at = p.at[chosen]
            guess = model.predict(own, p, chosen, weights[group_of(p, groups)])
            k, lost = coder.take(_bins(model, v, own, magnitudes, p, chosen, contexts, groups))
            decoded = v.apply(guess, k)
            n = int(lost.sum())
            if used + n > exact[i].size:
                raise CorruptDataError(
                    "residual: there are fewer exact values than pixels that ask for them; changed?"
                )
            decoded[lost] = exact[i][used : used + n]
            used += n
            own[at], magnitudes[at], final[at] = v.plain(decoded), np.minimum(np.abs(k), CAP), decoded
        if used < exact[i].size:
            raise CorruptDataError(
                "residual: there are more exact values than pixels that ask for them; changed?"
            )
        planes.add(own, magnitudes)
        out[i].reshape(-1)[mask[i]] = final[mask[i]]
    coder.end()


def _bins(
    model: BandModel,
    v: Values,
    own: Array,
    magnitudes: Array,
    p: Pass,
    chosen: Array,
    contexts: Sequence[Array],
    groups: int,
) -> Array:
    if p.kind < 0:
        return np.full(chosen.size, ROOT_BIN, np.int64)
    spread = model.spread(own, p, chosen, v.unit)
    return bins_of(model.expect(magnitudes, spread, p, chosen, contexts[group_of(p, groups)]))


def _fit_weights(
    model: BandModel, some: Sequence[Array], v: Values, x: Array, groups: int, band: int
) -> list[Array]:
    """Weights of the predictions of a band, from values about as decoding will have them."""
    want, unit = v.plain(x), v.unit
    near = model.base + unit * np.rint((want - model.base) / unit)
    known = np.where(np.isfinite(near), near, want) if v.kind != RATIO else want
    out = []
    for group in range(groups * KINDS):
        parts, wanted = [], []
        for p, chosen in zip(model.planes.passes, some, strict=True):
            if p.kind >= 0 and group_of(p, groups) == group and chosen.size:
                with np.errstate(all="ignore"):
                    mean, features = model.features(known, p, chosen)
                    wanted.append(want[p.at[chosen]] - mean)
                parts.append(features)
        if not parts:
            out.append(np.zeros(count_features(band, group % KINDS), np.int16))
            continue
        f, y = (
            np.nan_to_num(columns(parts), posinf=0, neginf=0),
            np.nan_to_num(np.concatenate(wanted), posinf=0, neginf=0),
        )
        out.append(fit_weights(f, y, unit))
    return out


def _fit_contexts(
    model: BandModel, v: Values, own: Array, some: Sequence[Array], magnitudes: Array, groups: int, band: int
) -> list[Array]:
    """Weights of the expected magnitudes of a band."""
    out = []
    for group in range(groups * KINDS):
        inside = [
            (p, chosen)
            for p, chosen in zip(model.planes.passes, some, strict=True)
            if p.kind >= 0 and group_of(p, groups) == group and chosen.size
        ]
        if not inside:
            out.append(np.zeros(count_contexts(band, group % KINDS), np.uint8))
            continue
        f = columns(
            [
                model.contexts(magnitudes, model.spread(own, p, chosen, v.unit), p, chosen)
                for p, chosen in inside
            ]
        )
        out.append(fit_contexts(f, np.concatenate([magnitudes[p.at[chosen]] for p, chosen in inside])))
    return out
