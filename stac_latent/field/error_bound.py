"""Error bounds: what every decoded pixel of a band shall keep, absolute or relative to its value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array
from stac_latent.errors import CodecError
from stac_latent.spec import Band

__all__ = ["BoundLike", "ErrorBound", "within"]

BoundLike = float | str | Mapping[str, float | str]


@dataclass(frozen=True)
class ErrorBound:
    """Largest error of each band.

    Parameters
    ----------
    values
        One for each band: in its stored unit, or a share of the value where ``relative``. 0 is lossless.
    relative
        Whether each is a share.

    Examples
    --------
    >>> bands = [Band("red"), Band("nir"), Band("swir")]
    >>> ErrorBound.of({"red": 1, "nir": "1%", "*": 4}, bands)
    ErrorBound(values=(1.0, 0.01, 4.0), relative=(False, True, False))
    """

    values: tuple[float, ...]
    relative: tuple[bool, ...]

    @classmethod
    def of(cls, given: BoundLike, bands: Sequence[Band]) -> Self:
        """Bounds of bands from what a user wrote.

        Parameters
        ----------
        given
            A number in the stored unit, a text such as ``"1%"`` (of the value), or either by the name of a band, with
            ``"*"`` for the others.
        bands
            In order.

        Raises
        ------
        CodecError
            If a bound is no number from 0 on, a share is not less than 1, or a band has none.
        """
        names = [b.name for b in bands]
        if not isinstance(given, Mapping):
            given = {"*": given}
        if unknown := sorted(set(given) - {*names, "*"}):
            raise CodecError(
                f"error_bound names {', '.join(unknown)}; the bands are {', '.join(names)}, and '*' stands for the others"
            )
        if missing := [n for n in names if n not in given and "*" not in given]:
            raise CodecError(
                f"error_bound has nothing for {', '.join(missing)}; name them, or give '*' for all others"
            )
        pairs = [_read(given.get(n, given.get("*", 0.0))) for n in names]
        return cls(tuple(v for v, _ in pairs), tuple(r for _, r in pairs))

    def largest(self, magnitudes: Sequence[float]) -> float:
        """Largest absolute error that is possible where values of each band are at most ``magnitudes``, stored unit."""
        pairs = zip(self.values, self.relative, magnitudes, strict=True)
        return max(v * m if r else v for v, r, m in pairs)

    def typical(self, magnitudes: Sequence[float]) -> float:
        """Geometric mean of the bands' absolute bounds about such values; 0 where one of them is 0."""
        pairs = zip(self.values, self.relative, magnitudes, strict=True)
        bounds = [v * m if r else v for v, r, m in pairs]
        return 0.0 if min(bounds) == 0 else math.exp(sum(math.log(b) for b in bounds) / len(bounds))

    def some(self, chosen: Sequence[int]) -> Self:
        """Bounds of some of the bands, by their positions."""
        return type(self)(tuple(self.values[i] for i in chosen), tuple(self.relative[i] for i in chosen))

    def split(self, counts: Sequence[int]) -> list[Self]:
        """Bounds of so many bands each, in order."""
        ends = list(itertools.accumulate(counts, initial=0))
        return [self.some(range(a, b)) for a, b in itertools.pairwise(ends)]

    def to_fields(self, magnitudes: Sequence[float]) -> dict[str, Any]:
        """Fields of an asset: the largest error that is possible about such values, and each band's bound."""
        return {
            "latent:error_bound": self.largest(magnitudes),
            "latent:error_bounds": list(self.values),
            "latent:error_bound_kinds": ["relative" if r else "absolute" for r in self.relative],
        }

    def broken(self, truth: Array, decoded: Array, valid: Array, bands: Sequence[Band]) -> str | None:
        """What breaks the bound: how many pixels of the first such band, and one of them; None where all keep it.

        Parameters
        ----------
        truth, decoded
            ``(band, y, x)``, stored unit.
        valid
            Pixels that count, ``(1 or band, y, x)``.
        bands
            Their names.
        """
        mask = np.broadcast_to(valid, truth.shape)
        for i, band in enumerate(bands):
            lost = mask[i] & ~within(truth[i], decoded[i], self.values[i], relative=self.relative[i])
            if not lost.any():
                continue
            y, x = (int(v[0]) for v in np.nonzero(lost))
            unit = " of the value" if self.relative[i] else ""
            return (
                f"{int(lost.sum())} pixels of band {band.name!r} are not within {self.values[i]:g}{unit}: pixel ({y}, {x}) is "
                f"{truth[i, y, x]} and decodes to {decoded[i, y, x]}"
            )
        return None

    def __str__(self) -> str:
        texts = [f"{v * 100:g}%" if r else f"{v:g}" for v, r in zip(self.values, self.relative, strict=True)]
        return texts[0] if len(set(texts)) == 1 else ", ".join(texts)


def _read(given: float | str) -> tuple[float, bool]:
    text = str(given).strip()
    relative = text.endswith("%")
    try:
        value = float(text.removesuffix("%")) / (100 if relative else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value < (1 if relative else math.inf):
        raise CodecError(
            f"error_bound={given!r}: expected a number from 0 on in the stored unit, or a share below 100% such as '1%'"
        )
    return value, relative and value > 0


def within(truth: Array, decoded: Array, bound: float, *, relative: bool) -> npt.NDArray[np.bool_]:
    """Where decoded values keep a bound; infinite ones only where they are equal.

    Parameters
    ----------
    truth, decoded
        Of one shape, integers or floats.
    bound
        Largest error, or share of ``|truth|``.
    relative
        Which of them.
    """
    same = truth == decoded
    if truth.dtype.kind in "iu" and decoded.dtype.kind in "iu":
        a, b = truth.astype(np.int64), decoded.astype(np.int64)
        gap = (
            np.where(a > b, a - b, b - a).astype(np.uint64).astype(np.float64)
        )  # a difference of int64 fits uint64
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            gap = np.abs(truth.astype(np.float64) - decoded.astype(np.float64))
    if not relative:
        return np.asarray(same | (gap <= bound) & np.isfinite(gap))
    with np.errstate(invalid="ignore", over="ignore"):
        limit = np.abs(truth.astype(np.float64)) * bound
    return np.asarray(same | (gap <= limit) & np.isfinite(gap) & np.isfinite(limit))
