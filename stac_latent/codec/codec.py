"""A codec: a chain that codes fields of any size as self-contained byte strings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array
from stac_latent.bytestring.formats import format_for, format_of
from stac_latent.bytestring.options import CompressOptions
from stac_latent.chain import BandDecoder, Chain, FastPath
from stac_latent.errors import CodecError
from stac_latent.field.error_bound import BoundLike
from stac_latent.field.rate_target import Target
from stac_latent.stages.transform.fused import synthesis
from stac_latent.system.suggest import known_options

__all__ = ["Codec"]


@dataclass(frozen=True)
class Codec(Chain):
    """A chain of stages that codes fields of any size; its parameters are those of :class:`~stac_latent.chain.Chain`."""

    @known_options()
    def compress(
        self,
        field: Array | Sequence[Array],
        *,
        psnr: float | None = None,
        max_bits_per_pixel: float | None = None,
        max_error: float | None = None,
        quality: float | None = None,
        step: float | None = None,
        error_bound: BoundLike | None = None,
        band_weights: Sequence[float] | None = None,
        roi: npt.NDArray[np.bool_] | None = None,
        roi_weight: float = 0.1,
        mask: npt.NDArray[np.bool_] | None = None,
    ) -> bytes:
        """One self-contained byte string of a field of any size, nodata kept.

        Parameters
        ----------
        field
            ``(band, y, x)`` in the bands' stored unit. A list or tuple holds the fields of several grids, finest first.
        psnr
            At least this [dB]. At most one of the five targets is given; without any, the codec's own step.
        max_bits_per_pixel
            At most this many bits per pixel and band.
        max_error
            At most this absolute error [stored unit].
        quality
            0 to 100; 50 is the codec's own step, 10 more halve it.
        step
            Quantiser step [stored unit].
        error_bound
            What a residual guarantees for every pixel, beside any target: ``2`` in the stored unit, ``"1%"`` of the value, or
            either by name of the band; 0 is lossless.
        band_weights
            Factor on the precision of each band: 2 halves its error against the others'.
        roi
            Region of interest ``(y, x)``: outside it squared errors weigh ``roi_weight``, and bits move inside.
        roi_weight
            More than 0, at most 1.
        mask
            Pixels to code ``(1 or band, y, x)``; default: those that hold data.

        Raises
        ------
        FieldError
            If bands, shape or type do not fit the codec.
        CodecError
            If the target makes no sense, or no step reaches it.
        OptionError
            If there is no such option, or the field cannot have it.
        """
        targets = {
            "psnr": psnr,
            "max_bits_per_pixel": max_bits_per_pixel,
            "max_error": max_error,
            "quality": quality,
            "step": step,
        }
        options = CompressOptions(
            Target.of(targets, "compress()"), error_bound, band_weights, roi, roi_weight, mask
        )
        return format_for(field, options).encode(self, field, options)

    def decompress(self, data: bytes) -> Any:
        """Inverse of :meth:`compress`: ``(band, y, x)`` in the bands' stored type, or a list of them, one for each grid.

        Raises
        ------
        CorruptDataError
            If the bytes are truncated or changed, or of another space than the codec's.
        """
        return format_of(data).decode(self, data)

    @cached_property
    def reductions(self) -> int:
        """Times that the resolution can be halved in :meth:`decode_reduced`."""
        return len(self._reduced_decoders)

    def prefixes(self, payload: bytes) -> tuple[int, ...]:
        """Bytes at the beginning of a coded chunk that :meth:`decode_reduced` needs for each reduction, from 1 on.

        Parameters
        ----------
        payload
            Of a chunk, as :meth:`encode` gives it.

        Returns
        -------
        tuple of int
            One for each of :attr:`reductions`.

        Raises
        ------
        CorruptDataError
            If the bytes are truncated or changed.
        """
        last = self.stages[-1]
        return last.prefixes(payload) if self.reductions and isinstance(last, FastPath) else ()

    def decode_reduced(self, payload: bytes, reduction: int, *, prefix: bool = False) -> Array:
        """Pixels of one coded chunk at a fraction of the resolution, from the part of the bytes that they need.

        Parameters
        ----------
        payload
            Of a chunk, as :meth:`encode` gives it.
        reduction
            1 for half of the pixels along each axis, 2 for a quarter, ... up to :attr:`reductions`.
        prefix
            Whether ``payload`` may end after what :meth:`prefixes` says; its own checksum is then not looked at.

        Returns
        -------
        ndarray
            ``(band, y, x)`` in the bands' stored type: the low bands of the wavelet, each about the mean of the pixels under it.

        Raises
        ------
        CodecError
            If the codec cannot.
        CorruptDataError
            If the bytes are truncated or changed.
        """
        if not 1 <= reduction <= self.reductions:
            raise CodecError(
                f"codec {self.name!r} halves its resolution 0 to {self.reductions} times; got reduction={reduction}"
            )
        return self._reduced_decoders[reduction - 1][prefix](payload)

    @cached_property
    def _reduced_decoders(self) -> tuple[tuple[BandDecoder, BandDecoder], ...]:
        """For each reduction, that of whole payloads and that of prefixes."""
        last = self.stages[-1]
        if self.kind == "embedding" or not isinstance(last, FastPath):
            return ()
        every = (
            (last.decoder(self, k), last.decoder(self, k, prefix=True)) for k in range(1, last.reductions + 1)
        )
        return tuple((whole, part) for whole, part in every if whole is not None and part is not None)

    @cached_property
    def _synthesis(self) -> Callable[[Array], Array] | None:
        return synthesis(self)
