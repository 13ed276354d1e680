"""Which chain codes a chunk: that of an installed codec, with a mean and a unit that suit the chunk where it takes any."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stac_latent.aliases import Array
from stac_latent.codec.registry import codec_names, factory_of, open_codec
from stac_latent.errors import CodecError, FieldError
from stac_latent.spec import Band

if TYPE_CHECKING:
    from stac_latent.codec.codec import Codec
    from stac_latent.field.rate_target import Target

__all__ = ["FIXED", "NoSuchChain", "Scale", "chain_for", "scale_for", "takes_any_bands"]

_REACH = 2.0**15
"""Units that values reach at most; the chains clip at four times as many."""
_COARSE = 16.0
"""Units of a base in bounds: a residual codes what is finer, in fewer bytes."""
_FINE = 64.0
"""Units in a step that was asked for."""


class NoSuchChain(FieldError):  # noqa: N818 - caught within this room alone
    """A codec has no chain for such bands."""


@dataclass(frozen=True)
class Scale:
    """Mean and unit of a chain: ``2**exponent``, and how many of them the mean is."""

    exponent: int
    units: int

    @property
    def unit(self) -> float:
        """In the array's unit."""
        return math.ldexp(1.0, self.exponent)

    @property
    def mean(self) -> float:
        """In the array's unit."""
        return self.units * self.unit


FIXED = Scale(0, 0)
"""Of a chain that is taken as it is."""


@lru_cache(maxsize=64)
def _options(name: str) -> tuple[str, ...]:
    factory = factory_of(name)
    if factory is None:
        if Path(name).is_dir():
            raise CodecError(
                f"codec {name!r} is a folder; an array names an installed codec ({', '.join(codec_names())}), so that other machines can "
                "read it"
            )
        open_codec(name)  # says what is installed
    assert factory is not None, name  # noqa: S101 - open_codec refused it
    return tuple(inspect.signature(factory).parameters)


def takes_any_bands(name: str) -> bool:
    """Whether a codec codes bands of any number and type.

    Raises
    ------
    CodecError
        If no codec has that name.
    """
    return "bands" in _options(name)


@lru_cache(maxsize=64)
def chain_for(
    name: str, bands: int = 1, dtype: str | None = None, nodata: float | None = None, scale: Scale = FIXED
) -> Codec:
    """Chain of an installed codec.

    Parameters
    ----------
    name
        Of the codec.
    bands
        How many; of a codec with bands of its own, their number.
    dtype
        Of the array; None for that of the codec's own bands.
    nodata
        Value of pixels without data.
    scale
        Mean and unit, where the codec takes them.

    Raises
    ------
    NoSuchChain
        If the codec's own bands are others.
    """
    options = _options(name)
    factory = factory_of(name)
    assert factory is not None, name  # noqa: S101 - _options refused it
    if "bands" in options:
        own = [Band(str(i), dtype or "uint16", nodata) for i in range(bands)]
        more = {"mean": scale.mean, "unit": scale.unit} if {"mean", "unit"} <= {*options} else {}
        return factory(bands=own, **more)
    codec = factory()
    if dtype is None:
        return codec
    kinds = {np.dtype(b.data_type).kind in "iu" for b in codec.bands}
    if bands != len(codec.bands) or kinds != {np.dtype(dtype).kind in "iu"}:
        raise NoSuchChain(f"{bands} bands of {dtype}")
    return codec.for_bands([replace(b, data_type=dtype, nodata=nodata) for b in codec.bands])


def scale_for(name: str, x: Array, bound: float | None, target: Target) -> Scale | None:
    """Mean and unit for the values of a chunk.

    Parameters
    ----------
    name
        Of the codec.
    x
        Finite values that hold data.
    bound
        Largest error; None for none.
    target
        What is coded towards.

    Returns
    -------
    Scale or None
        None where values are too far apart for any.
    """
    if not {"mean", "unit"} <= {*_options(name)} or target.quality is not None:
        return FIXED
    low, high = float(x.min()), float(x.max())
    whole = x.dtype.kind in "iu"
    with np.errstate(over="ignore"):
        spread = np.float64(high) - np.float64(low)
    if not math.isfinite(spread):
        return None
    fine = 0.0
    if bound is not None and not target.given:
        fine = _COARSE * (bound + 0.5 * whole)
    elif (asked := target.step or target.max_error) is not None:
        fine = asked / _FINE
    unit = max(spread / _REACH, fine, 1.0 if whole else 0.0)
    exponent = min(max(math.frexp(unit)[1], -500), 1000)
    if target.given and whole and spread <= _REACH:
        exponent = 0
    units = round(math.ldexp(low + spread / 2, -exponent))
    return Scale(exponent, units) if abs(units) < 2**53 else None
