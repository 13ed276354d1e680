"""Factories of the codecs that ship with the package, and the closed-form fit behind them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stac_latent.aliases import Array
from stac_latent.codec.bundle import load_bundle
from stac_latent.codec.codec import Codec
from stac_latent.errors import CodecError
from stac_latent.field.rate_target import Target
from stac_latent.field.validity import valid_mask
from stac_latent.spec import Band, Stats
from stac_latent.stages.classical import Jpeg2000, Zstd
from stac_latent.stages.lin.pyramid import CELL, Pyramid
from stac_latent.stages.lin.stage import Lin
from stac_latent.stages.lin.tile import MAX_LEVELS
from stac_latent.stages.rans.stage import Rans
from stac_latent.stages.rans.tables import TableSet, counts_of, laplace_tables, run_tables
from stac_latent.stages.transform.block_dct import BlockDCT
from stac_latent.stages.transform.integer_wavelet import Wavelet, subband_norms
from stac_latent.stages.transform.klt import SpectralKLT, integer_matrix
from stac_latent.stages.transform.normalise import Normalise
from stac_latent.stages.transform.quantise import Power, Uniform

__all__ = [
    "dct",
    "embed_patch",
    "era5_surface",
    "fit",
    "jpeg2000",
    "landsat_c2l2_6b",
    "lin",
    "s1_grd_db",
    "s2_10m_4b",
    "s2_10m_embed",
    "s2_l2a_12b",
    "wavelet",
    "zstd",
]

_BUNDLES = Path(__file__).parents[1] / "bundles"
_FRACTION = 16


def _bands(bands: Sequence[Band | str] | None, name: str) -> tuple[Band, ...]:
    if not bands:
        raise CodecError(
            f"codec {name!r} takes any bands and needs to be told which: bands=['B02', ...] or Band objects (--bands B02,...)"
        )
    return tuple(b if isinstance(b, Band) else Band(b, nodata=0) for b in bands)


def _untyped(bands: Sequence[Band | str] | None) -> frozenset[str]:
    """Bands that were given by name alone."""
    return frozenset(b for b in bands or () if isinstance(b, str))


def s2_10m_4b(step: float | None = None) -> Codec:
    """Sentinel-2 L2A, B02 B03 B04 B08 at 10 m."""
    return _shipped("s2-10m-4b", step)


def s2_l2a_12b(step: float | None = None) -> Codec:
    """Sentinel-2 L2A, twelve bands on one grid."""
    return _shipped("s2-l2a-12b", step)


def s1_grd_db(step: float | None = None) -> Codec:
    """Sentinel-1, VV and VH in dB."""
    return _shipped("s1-grd-db", step)


def landsat_c2l2_6b(step: float | None = None) -> Codec:
    """Landsat Collection 2 Level 2, six reflectance bands."""
    return _shipped("landsat-c2l2-6b", step)


def era5_surface(step: float | None = None) -> Codec:
    """ERA5, temperature or dew point at 2 m in kelvin."""
    return _shipped("era5-surface", step)


def s2_10m_embed() -> Codec:
    """Embedder of Sentinel-2 B02 B03 B04 B08: 32 int8 features for each 8x8 patch (80 m)."""
    return load_bundle(_BUNDLES / "s2-10m-embed")


def _shipped(name: str, step: float | None) -> Codec:
    """A bundle of the package; another step, in stored units, leaves its space as it is."""
    codec = load_bundle(_BUNDLES / name)
    return codec if step is None else codec.with_target(Target(step=step))


def dct(
    bands: Sequence[Band | str] | None = None, step: float = 64.0, mean: float = 0.0, unit: float = 1.0
) -> Codec:
    """Plain 8x8 block DCT for any bands, without a fit. ``step`` in units of ``unit``, that in stored units."""
    b = _bands(bands, "dct")
    block = BlockDCT(8, len(b))
    rans = Rans(laplace_tables(), np.full(block.channels, 4), np.arange(0, block.channels, 64))
    stages = (Normalise([mean] * len(b), [unit] * len(b)), block, Uniform([round(step * _FRACTION)], 6), rans)
    return Codec("dct", stages, b, dimensions=block.channels, untyped=_untyped(bands))


def wavelet(
    bands: Sequence[Band | str] | None = None,
    step: float = 64.0,
    levels: int = 3,
    mean: float = 0.0,
    unit: float = 1.0,
) -> Codec:
    """CDF 9/7 integer wavelet for any bands, without a fit; smooth at low rates, needs a halo of four cells."""
    b = _bands(bands, "wavelet")
    transform = Wavelet(levels)
    steps = np.maximum(1, np.rint(step * _FRACTION / np.tile(subband_norms(levels), len(b)))).astype(int)
    per = 4**levels
    rans = Rans(laplace_tables(), np.full(per * len(b), 4), np.arange(0, per * len(b), per))
    stages = (Normalise([mean] * len(b), [unit] * len(b)), transform, Uniform(steps.tolist(), 6), rans)
    return Codec("wavelet", stages, b, dimensions=per * len(b), untyped=_untyped(bands))


def lin(
    bands: Sequence[Band | str] | None = None,
    step: float = 64.0,
    mean: Sequence[float] | float = 0.0,
    unit: Sequence[float] | float = 1.0,
) -> Codec:
    """Wavelet, spectral rotations of each tile, integer contexts: for any bands, without a fit.

    Parameters
    ----------
    bands
        Bands of the field.
    step
        Quantiser step in units of ``unit``; payloads may have any other.
    mean, unit
        Of all bands or of each, in stored units: ``unit`` is what an error of one step unit weighs alike in all bands.
        Floats are kept to 1/16 of it.
    """
    b = _bands(bands, "lin")
    means, units = (np.broadcast_to(np.asarray(v, np.float64), (len(b),)).tolist() for v in (mean, unit))
    basis = np.broadcast_to(np.eye(len(b), dtype=np.float32), (MAX_LEVELS + 1, len(b), len(b)))
    stages = (Normalise(means, units), Pyramid(), Lin(np.ascontiguousarray(basis), step=step))
    return Codec("lin", stages, b, dimensions=CELL**2 * len(b), untyped=_untyped(bands))


def jpeg2000(
    bands: Sequence[Band | str] | None = None, quality: float = 10.0, reversible: bool = False
) -> Codec:
    """JPEG 2000 for any bands; ``quality`` in percent of the raw bytes."""
    b = _bands(bands, "jpeg2000")
    chain = (Jpeg2000(quality, reversible),)
    return Codec("jpeg2000", chain, b, dimensions=len(b), granularity="pixel", untyped=_untyped(bands))


def zstd(bands: Sequence[Band | str] | None = None, effort: int = 9) -> Codec:
    """Lossless zstd over differences, for any bands and types."""
    b = _bands(bands, "zstd")
    chain = (Zstd(effort),)
    return Codec("zstd", chain, b, dimensions=len(b), granularity="pixel", untyped=_untyped(bands))


def embed_patch(name: str, base: Codec, features: int, power: float = 2.0) -> Codec:
    """Embedder from a fitted chain: its ``features`` channels of largest deviation, as power-law int8.

    Scales put four deviations at the end of the int8 range; dequantised values are in the base's stored unit.
    """
    if base.stats is None:
        raise CodecError(f"codec {base.name!r} has no statistics; an embedder needs a fitted chain")
    normalise, klt, block = base.stages[:3]
    if not isinstance(block, BlockDCT):
        raise CodecError(f"codec {base.name!r} is no block transform chain")
    std = np.asarray(base.stats.std)
    best = np.sort(np.argsort(-std, kind="stable")[:features])
    keep = BlockDCT(block.size, block.components, block.keep[best].tolist())
    scale = ((4 * np.maximum(std[best], 1)) ** (1 / power) / 127).tolist()
    mean = tuple(base.stats.mean[i] for i in best)
    return Codec(
        name,
        (normalise, klt, keep, Power(scale, power)),
        base.bands,
        kind="embedding",
        dimensions=len(best),
        stats=Stats(mean, tuple(std[best].tolist())),
        about={
            **base.about,
            "description": f"{len(best)} int8 features of each {block.size} x {block.size} patch",
        },
    )


def fit(
    name: str,
    fields: Iterable[Array],
    bands: Sequence[Band],
    *,
    step: float = 64.0,
    size: int = 8,
    floor: float = 50.0,
    about: dict[str, Any] | None = None,
) -> Codec:
    """Fit a KLT + block DCT + rANS chain in closed form.

    Parameters
    ----------
    name
        Name of the codec.
    fields
        Tiles ``(band, y, x)`` in the stored unit; passed over three times, so give a list.
    bands
        Their bands.
    step
        Quantiser step, stored unit.
    size
        Pixels along a block.
    floor
        Pixels are weighted by ``1 / (e + floor**2)``, e their mean square deviation: else snow and clouds dominate.
    about
        Model card.

    Notes
    -----
    Mean and covariance are weighted moments over valid pixels; the KLT holds the eigenvectors of the covariance.
    Channels that quantise to zero on all but one cell in 10,000 are dropped. Tables start as Laplacians and are
    refitted on the symbols that they coded.
    """
    tiles = [f[:, : f.shape[1] // size * size, : f.shape[2] // size * size] for f in fields]
    mean, matrix = _weighted_klt(tiles, bands, floor)
    head = (Normalise(mean.tolist(), [1.0] * len(bands)), SpectralKLT(integer_matrix(matrix)))
    full = Codec(
        name, (*head, BlockDCT(size, len(bands)), Uniform([round(step * _FRACTION)], 6)), tuple(bands)
    )
    symbols = [full.encode(t, mask=valid_mask(t, full.bands), upto="symbols") for t in tiles]
    used = sum(np.count_nonzero(s, axis=(1, 2)) for s in symbols) / sum(
        s.shape[1] * s.shape[2] for s in symbols
    )
    keep = np.flatnonzero(used > 1e-4)
    block = BlockDCT(size, len(bands), keep.tolist())
    symbols = [s[keep] for s in symbols]
    latent = np.concatenate([s.reshape(len(keep), -1) for s in symbols], axis=1) * float(step)
    stats = Stats(tuple(latent.mean(axis=1).tolist()), tuple(latent.std(axis=1).tolist()))
    predicted = np.flatnonzero(keep % (size * size) == 0)
    rans = _fit_tables(Rans(laplace_tables(), np.full(len(keep), 4), predicted), symbols)
    stages = (*head, block, full.stages[3], rans)
    return Codec(name, stages, tuple(bands), dimensions=len(keep), stats=stats, about=about or {})


def _weighted_klt(tiles: Sequence[Array], bands: Sequence[Band], floor: float) -> tuple[Array, Array]:
    n = len(bands)
    probe = Codec("fit", (Normalise([0.0] * n, [1.0] * n),), tuple(bands))
    pixels = []
    for t in tiles:
        mask = valid_mask(t, probe.bands)
        flat = t.reshape(n, -1).astype(np.float64)
        pixels.append(flat if mask is None else flat[:, mask.all(axis=0).ravel()])
    x = np.concatenate(pixels, axis=1)
    if x.shape[1] < 10 * n:
        raise CodecError(f"only {x.shape[1]} valid pixels to fit {n} bands on; at least {10 * n} are needed")
    mean = np.median(x, axis=1)
    for _ in range(2):
        w = 1 / (np.square(x - mean[:, None]).mean(axis=0) + floor**2)
        mean = (x * w).sum(axis=1) / w.sum()
    mean = np.rint(mean)
    centred = x - mean[:, None]
    _, vectors = np.linalg.eigh((centred * w) @ centred.T / w.sum())
    matrix = vectors.T[::-1]
    signs = np.sign(matrix[np.arange(n), np.abs(matrix).argmax(axis=1)])
    return mean, matrix * signs[:, None]


def _fit_tables(rans: Rans, symbols: Sequence[Array]) -> Rans:
    """Refit the tables on what they code; two rounds."""
    for _ in range(2):
        tables = rans.tables
        hist = [np.zeros(t.size) for t in tables.tables]
        class_hist, index_all = np.zeros(tables.class_counts.size), []
        for s in symbols:
            flat = rans._predict(s).reshape(rans.channels, -1)  # noqa: SLF001 - the fit codes as the coder does
            index, classes = tables.assign(flat)
            index_all.append(index)
            delta = np.diff(classes, prepend=4) + (class_hist.size // 2)
            class_hist += np.bincount(delta, minlength=class_hist.size)
            which = rans.which(index)[:, classes]
            for t in range(1, tables.count + 1):
                r = int(tables.radius[t - 1])
                v = flat[which == t]
                coded = np.where(np.abs(v) > r, 2 * r + 1, v + r)
                hist[t - 1] += np.bincount(coded, minlength=2 * r + 2)
        typical = np.median(np.stack(index_all), axis=0).astype(np.int64)
        offset = np.concatenate([i - typical for i in index_all]) + tables.count
        index_hist = np.bincount(offset, minlength=tables.index_counts.size)
        new = [counts_of(_smooth(h, t)) for h, t in zip(hist, tables.tables, strict=True)]
        fitted = TableSet(
            new,
            tables.radius,
            counts_of(_smooth(class_hist, tables.class_counts)),
            counts_of(_smooth(index_hist, tables.index_counts)),
            *run_tables(new),
        )
        rans = Rans(fitted, typical, rans.predicted)
    return rans


def _smooth(hist: Array, prior: Array, strength: float = 2000.0) -> Array:
    """Counts made symmetric (signs carry no information) and mixed with the prior table."""
    h = hist.astype(np.float64)
    body = h[:-1] if h.size % 2 == 0 else h
    body[:] = (body + body[::-1]) / 2
    return np.asarray(h + strength * prior / prior.sum())
