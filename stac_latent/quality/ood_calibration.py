"""Guards of a codec: calibrated on tiles like those that it was fitted on, and asked about each tile that is encoded.

A calibration is part of the model card, ``about["guard"]``: it rules what is written, not how it is decoded, so that a codec
with another guard has the same space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array
from stac_latent.codec.codec import Codec
from stac_latent.errors import BundleError, CodecError
from stac_latent.field.rate_target import Target
from stac_latent.quality.distortion import Distortion
from stac_latent.quality.ood_score import Guard, Score, Seen, features, fit_guard

__all__ = ["QUALITIES", "Layers", "calibrated", "guards_of", "judge", "observe"]

Layers = list[tuple[Array, "npt.NDArray[np.bool_] | None"]]
"""Field ``(band, y, x)`` and valid pixels of each lattice of a tile; None for all."""
Tiles = Callable[[], Iterable[Layers]]

QUALITIES = (30.0, 50.0, 70.0)
"""Of ``compress(quality=)``, at which rate and error are calibrated where a codec has several."""
_FORMAT = "stac-latent-guard-1"
_QUARTER = 128


def guards_of(codec: Codec) -> tuple[Guard, ...] | None:
    """Guard of each of a codec's lattices; None where it was never calibrated.

    Raises
    ------
    BundleError
        If the calibration is malformed, or of a form that is not known here.
    """
    given = codec.about.get("guard")
    if given is None:
        return None
    if not isinstance(given, dict) or given.get("format") != _FORMAT:
        form = given.get("format") if isinstance(given, dict) else given
        raise BundleError(
            f"codec {codec.name!r} has a guard of the form {form!r}; this version reads {_FORMAT!r}: update stac-latent, or "
            "encode without a guard"
        )
    rows = given.get("lattices")
    if not isinstance(rows, list) or len(rows) != len(codec.grid_chains):
        raise BundleError(
            f"the guard of codec {codec.name!r} is not one of {len(codec.grid_chains)} lattice(s); calibrate it again"
        )
    return tuple(Guard.from_dict(r, len(p.bands)) for r, p in zip(rows, codec.grid_chains, strict=True))


def calibrated(codec: Codec, first: Tiles, second: Tiles, share: float = 0.99, note: str = "") -> Codec:
    """The codec with a guard: its space stays as it is.

    Parameters
    ----------
    codec
        Fitted.
    first
        Gives in-distribution tiles, from which expected rates, errors and latents are learnt.
    second
        Gives others, of places of their own: the split-conformal quantile of their scores makes the edge.
    share
        Of such tiles that shall pass; what so few tiles can guarantee where that is less.
    note
        What the tiles are, for the model card.

    Raises
    ------
    CodecError
        If there are too few tiles.

    Notes
    -----
    Tiles of 256 pixels are cut in quarters, so that there are four times as many. Larger tiles vary less than their
    quarters.
    """
    halves = [
        [_raw(codec, layers) for tile in tiles() for layers in _quarters(tile)] for tiles in (first, second)
    ]
    rows = []
    for i in range(len(codec.grid_chains)):
        own = [[tile[i] for tile in half if tile[i]] for half in halves]
        units = _units([r[0] for r in own[0]])
        learnt, apart = ([[r.seen(units) for r in tile] for tile in half] for half in own)
        rows.append(fit_guard(learnt, apart, units, share).to_dict())
    card = {"format": _FORMAT, "about": note, "lattices": rows}
    return replace(codec, about={**codec.about, "guard": card})


def judge(codec: Codec, field: Array, mask: npt.NDArray[np.bool_] | None = None) -> Score:
    """Score of one tile, coded at the codec's own step; ``encode`` scores what it stores.

    Parameters
    ----------
    codec
        With a guard, of one lattice.
    field
        ``(band, y, x)`` in the stored unit, whole cells.
    mask
        Valid pixels ``(1 or band, y, x)``; None for all.

    Raises
    ------
    CodecError
        If the codec was never calibrated.
    """
    guards = guards_of(codec)
    if guards is None:
        raise CodecError(
            f"codec {codec.name!r} has no guard: it was never calibrated; see stac_latent.quality.calibrated"
        )
    rows = _raw(codec, [(field, mask)], (None,))[0]
    return guards[0].score(rows[0].seen(guards[0].units)) if rows else Score(*(math.nan,) * 4)


def observe(
    codec: Codec, units: Array, latent: Array, cells: npt.NDArray[np.bool_] | None, sse: Array, count: Array,
    payload: bytes | None, *, exact: bool = False,
) -> Seen:  # fmt: skip
    """What coding a tile showed.

    Parameters
    ----------
    codec
        One lattice's.
    units
        Deviation of each band.
    latent
        Dequantised, ``(channel, y, x)``.
    cells
        Those that count, ``(y, x)``; None for all.
    sse, count
        Sum of squared errors and number of valid pixels of each band.
    payload
        Stored bytes; None where they tell no rate.
    exact
        Whether the errors are not those of the chain, as with an error bound.
    """
    return _RawTile.of(codec, latent, cells, sse, count, payload).seen(units, exact=exact)


@dataclass(frozen=True)
class _RawTile:
    """What coding a tile showed, before the bands' units are known."""

    features: Array
    sse: Array
    count: Array
    rate: float | None
    step: float
    values: Array | None = None
    """Sums and sums of squares of each band."""

    @classmethod
    def of(
        cls, codec: Codec, latent: Array, cells: Array | None, sse: Array, count: Array, payload: bytes | None,
        values: Array | None = None,
    ) -> _RawTile:  # fmt: skip
        known = latent.reshape(len(latent), -1) if cells is None else latent[:, cells]
        z = known.astype(np.float64)
        mean, square = z.mean(axis=1), np.einsum("ci,ci->c", z, z) / max(1, z.shape[1])
        order = np.arange(len(mean))
        if codec.stats is not None and len(codec.stats.mean) == len(mean):
            centre, spread = np.asarray(codec.stats.mean), np.asarray(codec.stats.std)
            spread = np.maximum(spread, 1e-6 * spread.max(initial=0) or 1.0)
            square = (square - 2 * centre * mean + centre**2) / spread**2
            mean = (mean - centre) / spread
            order = np.argsort(-spread, kind="stable")
        rate = None if payload is None else math.log2(8 * len(payload) / max(1, count.sum()))
        step = 0.0
        if payload is not None and codec.rate_control is not None:
            step = math.log2(codec.rate_control.step_of(payload))
        return cls(features(mean[order], square[order]), sse, count, rate, step, values)

    def seen(self, units: Array, *, exact: bool = False) -> Seen:
        used = self.count > 0
        mse = float((self.sse[used] / self.count[used] / units[used] ** 2).mean()) if used.any() else 0.0
        error = None if exact else 0.5 * math.log2(max(mse, 1e-12))
        return Seen(self.features, float(self.count.sum() / len(self.count)), self.rate, error, self.step)


def _raw(codec: Codec, layers: Layers, qualities: Sequence[float | None] = QUALITIES) -> list[list[_RawTile]]:
    """A tile as it is coded at each quality, for each lattice; none of a lattice without a valid pixel."""
    several = codec.rate_control is not None
    out = []
    for part, (field, mask) in zip(codec.grid_chains, layers, strict=True):
        rows: list[_RawTile] = []
        field, mask = _in_cells(field, mask, part.stride)  # noqa: PLW2901 - from here on
        valid = np.ones((1, *field.shape[1:]), bool) if mask is None else mask
        for quality in (qualities if several else (None,)) if valid.any() else ():
            coder = part.with_target(Target(quality=quality))
            symbols = part.encode(field, mask=mask, upto="symbols")
            payload = None
            if part.tail is not None:
                payload = coder.measured_over(mask).entropy_encode(symbols)
                symbols = part.entropy_decode(payload)
            errors = Distortion(part.bands, part.native_pixels)
            if part.kind == "codec":
                errors.add(field, part.decode(symbols), valid)
            latent = part.spec.quantization.dequantise(symbols)
            values = _sums(field, valid, part.native_pixels)
            rows.append(
                _RawTile.of(
                    part, latent, full_cells(valid, part.stride), errors.sse, errors.count, payload, values
                )
            )
        out.append(rows)
    return out


def _in_cells(field: Array, mask: Array | None, stride: tuple[int, int]) -> tuple[Array, Array | None]:
    """A tile without the cells that its ends cut through."""
    h, w = (n - n % s for n, s in zip(field.shape[1:], stride, strict=True))
    return field[:, :h, :w], None if mask is None else mask[:, :h, :w]


def full_cells(valid: Array, stride: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """Cells ``(y, x)`` without a hole, or, where there are none, those with data; None where all are whole.

    Parameters
    ----------
    valid
        Pixels ``(1 or band, y, x)`` of whole cells.
    stride
        Pixels of a cell.
    """
    if valid.all():
        return None
    h, w = (n // s for n, s in zip(valid.shape[1:], stride, strict=True))
    parts = valid.reshape(len(valid), h, stride[0], w, stride[1])
    whole = parts.all(axis=(0, 2, 4))
    return np.asarray(whole if whole.any() else parts.any(axis=(0, 2, 4)))


def _sums(field: Array, valid: Array, steps: Sequence[int]) -> Array:
    mask = np.broadcast_to(valid, field.shape)
    bands = [x[::s, ::s][m[::s, ::s]].astype(np.float64) for x, m, s in zip(field, mask, steps, strict=True)]
    return np.array([[b.size, b.sum(), float(np.einsum("i,i", b, b))] for b in bands]).T


def _units(tiles: Sequence[_RawTile]) -> Array:
    """Deviation of each band over tiles; 1 of a band that is constant."""
    n, total, square = np.sum([t.values for t in tiles if t.values is not None], axis=0)
    n = np.maximum(n, 1)
    std = np.sqrt(np.maximum(square / n - (total / n) ** 2, 0))
    return np.where(std > 0, std, 1.0)


def _quarters(layers: Layers) -> Iterator[Layers]:
    """Parts of a tile of 128 pixels of the finest lattice; a smaller tile, or one of several lattices, as it is."""
    field, mask = layers[0]
    if len(layers) > 1 or min(field.shape[1:]) < 2 * _QUARTER:
        yield layers
        return
    for y in range(0, field.shape[1] - _QUARTER + 1, _QUARTER):
        for x in range(0, field.shape[2] - _QUARTER + 1, _QUARTER):
            cut = (slice(None), slice(y, y + _QUARTER), slice(x, x + _QUARTER))
            piece = None if mask is None else mask[cut]
            yield [(field[cut], None if piece is None or piece.all() else piece)]
