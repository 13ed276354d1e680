"""Quantisers: real latents to the integers that are stored, and back."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from stac_latent.aliases import Array, Level
from stac_latent.errors import BundleError
from stac_latent.spec import Quantization
from stac_latent.stage import Quantiser, StoresType
from stac_latent.stages.base import FRACTION_BITS, BaseStage

__all__ = ["Power", "Uniform"]

_log = logging.getLogger(__name__)


class Uniform(BaseStage, Quantiser, StoresType):
    """Uniform quantiser with a dead zone: ``q = sign(y) floor(|y| / step + rounding)``, decoded as ``q step``.

    Exact on the integer-valued latents of the transforms. ``rounding`` 1/2 is plain rounding; less widens the
    dead zone, which at low rates costs less distortion than the bits it saves.

    Parameters
    ----------
    step
        In units of 2**-4 of the normalised unit: one integer, or one for each channel.
    rounding
        In 1/16: 8 is plain rounding.
    data_type
        ``int8`` or ``int16``; symbols beyond its range are clipped, with a warning in the log.

    Examples
    --------
    >>> stage = Uniform(step=[160], rounding=6)
    >>> stage.forward(np.array([[[95.0, 101.0, -500.0]]]))
    array([[[ 0,  1, -3]]], dtype=int16)
    >>> stage.quantization.scale  # in the normalised unit
    (10.0,)
    """

    name: ClassVar[str] = "uniform"
    level: ClassVar[Level] = "symbols"

    def __init__(self, step: Sequence[int], rounding: int = 8, data_type: str = "int16") -> None:
        self.step = np.asarray(step, np.int64)
        if self.step.ndim != 1 or self.step.size == 0 or self.step.min() < 1 or self.step.max() > 2**26:
            raise BundleError(
                f"uniform: steps are positive integers up to 2**26, one or one per channel; got {step}"
            )
        if not 0 < rounding <= 8 or data_type not in ("int8", "int16"):
            raise BundleError(
                f"uniform: rounding is 1 to 8, data_type int8 or int16; got {rounding}, {data_type!r}"
            )
        self.rounding, self.data_type = int(rounding), data_type

    @property
    def quantization(self) -> Quantization:
        """Linear, with the step in the normalised unit."""
        return Quantization("linear", scale=tuple((self.step * 2.0**-FRACTION_BITS).tolist()))

    def forward(self, x: Array) -> Array:
        """Integer-valued float64 to symbols of ``data_type``."""
        step = self.step.astype(np.float64).reshape(-1, 1, 1)
        q = np.abs(x)
        q += np.floor(step * (self.rounding / 16))
        q /= step
        np.floor(q, out=q)
        limit = np.iinfo(self.data_type).max
        if q.max(initial=0) > limit:
            _log.warning("%d symbols exceed %s and are clipped", int((q > limit).sum()), self.data_type)
            np.minimum(q, limit, out=q)
        return np.copysign(q, x, out=q).astype(self.data_type)

    def inverse(self, y: Array) -> Array:
        """Symbols to integer-valued float64."""
        return y * self.step.astype(np.float64).reshape(-1, 1, 1)

    def config(self) -> dict[str, Any]:
        """Steps, rounding and stored type."""
        return {"step": self.step.tolist(), "rounding": self.rounding, "data_type": self.data_type}

    @classmethod
    def build(cls, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Self:
        """Rebuild from :meth:`config`."""
        del tensors
        return cls(config["step"], config["rounding"], config["data_type"])


class Power(BaseStage, Quantiser, StoresType):
    """Embedding quantiser to int8: ``q = sign(v) rint(|v|**(1/power) / scale)``, ``v = sign(q) (|q| scale)**power``.

    ``power`` 1 is plain linear int8; 2 spends the levels near zero, as AlphaEarth does (scale 1/127.5). Values
    beyond the range saturate; -128 stays free for cells without data.

    Parameters
    ----------
    scale
        One value, or one for each channel, in the latent's normalised unit to the power ``1 / power``.
    power
        Exponent of the dequantiser.
    """

    name: ClassVar[str] = "power"
    level: ClassVar[Level] = "symbols"
    data_type = "int8"

    def __init__(self, scale: Sequence[float], power: float = 1.0) -> None:
        self.scale = np.asarray(scale, np.float64)
        self.power = float(power)
        if (
            self.scale.ndim != 1
            or not (self.scale > 0).all()
            or not np.isfinite(self.scale).all()
            or self.power <= 0
        ):
            raise BundleError(f"power: scales and power must be positive; got {scale}, {power}")

    @property
    def quantization(self) -> Quantization:
        """``linear`` for power 1, else ``power``."""
        return Quantization(
            "linear" if self.power == 1 else "power", scale=tuple(self.scale.tolist()), power=self.power
        )

    def forward(self, x: Array) -> Array:
        """Latents (in units of 2**-4) to int8."""
        v = x * 2.0**-FRACTION_BITS
        q = np.abs(v) ** (1 / self.power) / self.scale.reshape(-1, 1, 1)
        return np.copysign(np.minimum(np.rint(q), 127), v).astype(np.int8)

    def inverse(self, y: Array) -> Array:
        """Int8 to latents in units of 2**-4, rounded."""
        v = (np.abs(y.astype(np.float64)) * self.scale.reshape(-1, 1, 1)) ** self.power
        return np.rint(np.copysign(v, y) * 2.0**FRACTION_BITS)

    def config(self) -> dict[str, Any]:
        """Scales and power."""
        return {"scale": self.scale.tolist(), "power": self.power}

    @classmethod
    def build(cls, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Self:
        """Rebuild from :meth:`config`."""
        del tensors
        return cls(config["scale"], config["power"])
