"""Name and options of a codec of arrays: the whole of its configuration, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from stac_latent.arrays.chains import NoSuchChain, chain_for, takes_any_bands
from stac_latent.arrays.layout import Layout
from stac_latent.errors import CodecError, FieldError, OptionError
from stac_latent.field.error_bound import BoundLike, ErrorBound
from stac_latent.field.rate_target import TARGETS, Target
from stac_latent.system.suggest import refuse_unknown

__all__ = ["NAME", "OPTIONS", "Settings"]

NAME = "stac_latent.pixels"
"""Of the codec, in the metadata of Zarr 3 and as an id of numcodecs."""
OPTIONS = ("codec", "error_bound", *TARGETS, "nodata", "band_axis")
KINDS = "biufc"
"""Kinds of types that arrays may have."""


@dataclass(frozen=True)
class Settings:
    """How arrays are coded.

    Parameters
    ----------
    codec
        Name of an installed codec.
    error_bound
        What every value keeps; 0 where neither it nor a target is given.
    psnr, max_bits_per_pixel, max_error, quality, step
        At most one of the targets of :class:`~stac_latent.field.rate_target.Target`.
    nodata
        Value that is kept exactly, and that no other value becomes.
    band_axis
        Axis of the bands, where it is not the one before rows and columns.

    Raises
    ------
    CodecError
        If there is no such codec, or it cannot do what is asked of it.
    OptionError
        If an option is of a wrong type.
    """

    codec: Any = "lin"
    error_bound: BoundLike | None = None
    psnr: float | None = None
    max_bits_per_pixel: float | None = None
    max_error: float | None = None
    quality: float | None = None
    step: float | None = None
    nodata: float | None = None
    band_axis: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.codec, str):
            raise OptionError(
                f"codec={self.codec!r}: expected the name of an installed codec, such as 'lin'; 'stac-latent codecs' lists them"
            )
        if self.nodata is not None and (
            isinstance(self.nodata, bool) or not isinstance(self.nodata, int | float | np.number)
        ):
            raise OptionError(f"nodata={self.nodata!r}: expected a number")
        nodata: Any = self.nodata
        if isinstance(nodata, int) and not -(2**63) <= nodata < 2**64:
            raise OptionError(
                f"nodata is a whole number of {nodata.bit_length()} bits: expected one that the array's type holds, of at most 64"
            )
        if self.band_axis is not None and type(self.band_axis) is not int:
            raise OptionError(f"band_axis={self.band_axis!r}: expected the number of an axis, such as -1")
        for name in ("error_bound", "nodata", *TARGETS):  # JSON has no types of NumPy
            if isinstance(value := getattr(self, name), np.number):
                object.__setattr__(self, name, value.item())
        self._check()

    def _check(self) -> None:
        target = self.target
        bands = None if takes_any_bands(self.codec) else len(chain_for(self.codec).bands)
        chain = chain_for(self.codec, 1 if bands is None else bands)
        if chain.kind != "codec":
            raise CodecError(
                f"codec {self.codec!r} is an embedder: its latents cannot be decoded to the array; take one of kind codec, such "
                "as 'lin'"
            )
        if len(chain.grid_chains) > 1 or max(chain.native_pixels) > 1:
            raise CodecError(
                f"codec {self.codec!r} codes bands on several native grids, and an array has one; take a codec of one grid"
            )
        chain.with_target(target)
        if self.error_bound is not None:
            if isinstance(self.error_bound, bool):
                raise OptionError(
                    f"error_bound={self.error_bound!r}: expected a number, or a text such as '1%'"
                )
            if isinstance(self.error_bound, Mapping) and bands is None:
                raise CodecError(
                    f"error_bound={dict(self.error_bound)!r} names bands, and codec {self.codec!r} has none of its own: give one "
                    "bound for all"
                )
            ErrorBound.of(self.error_bound, chain.bands)

    @classmethod
    def of(cls, options: Mapping[str, Any], where: str) -> Self:
        """From options by name.

        Raises
        ------
        OptionError
            If there are others; ``where`` says what was given them.
        """
        refuse_unknown(where, options, OPTIONS)
        return cls(**options)

    @property
    def target(self) -> Target:
        """What is coded towards."""
        return Target.of({n: getattr(self, n) for n in TARGETS}, "the codec of arrays")

    @property
    def bound(self) -> BoundLike | None:
        """What every value keeps; None where a target alone was asked for."""
        if self.error_bound is not None:
            return self.error_bound
        return None if self.target.given else 0

    @property
    def exact(self) -> bool:
        """Whether every value comes back as it was."""
        return self.bound == 0

    def to_config(self) -> dict[str, Any]:
        """What was asked for, as JSON has it; the codec is always named."""
        rest = {n: getattr(self, n) for n in OPTIONS[1:] if getattr(self, n) is not None}
        if isinstance(self.error_bound, Mapping):
            rest["error_bound"] = dict(self.error_bound)
        if isinstance(self.nodata, float) and not np.isfinite(self.nodata):
            rest["nodata"] = str(self.nodata)
        return {"codec": self.codec, **rest}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str) -> Self:
        """Inverse of :meth:`to_config`."""
        options = dict(config)
        if options.get("nodata") in ("nan", "inf", "-inf"):
            options["nodata"] = float(options["nodata"])
        return cls.of(options, where)

    def check(self, dtype: np.dtype[Any], chunk: tuple[int, ...]) -> None:
        """Refuse chunks that can never be coded.

        Raises
        ------
        FieldError
            If type, dimensions or bands are none that the codec takes.
        """
        if dtype.kind not in KINDS or dtype.itemsize > (16 if dtype.kind == "c" else 8):
            raise FieldError(
                f"codec {NAME!r} takes numbers of 8 to 64 bits, complex ones and bool; got {dtype}. View or convert the array "
                "to one of these"
            )
        bands = Layout(chunk, self.band_axis).field[0]
        if dtype.kind == "f" and self.quality is not None and takes_any_bands(self.codec):
            raise FieldError(
                f"quality={self.quality:g} counts from the step of codec {self.codec!r}, which is one of whole numbers; the array is of "
                f"{dtype}. Take error_bound, psnr, max_error or step"
            )
        if takes_any_bands(self.codec):
            return
        own = chain_for(self.codec).bands
        fits = dtype.kind in "iuf" and bands % len(own) == 0
        try:
            if fits:
                chain_for(self.codec, len(own), dtype.name)
        except NoSuchChain:
            fits = False
        if not fits:
            raise FieldError(
                f"codec {self.codec!r} codes {len(own)} bands ({', '.join(b.name for b in own)}) of {own[0].data_type}; the array has "
                f"chunks of {chunk} {dtype}, hence {bands} bands. Chunk all bands together, name their axis with band_axis=, or take "
                "codec 'lin', which codes any"
            )
