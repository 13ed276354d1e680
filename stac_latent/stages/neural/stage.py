"""The ``fast`` stage: the bitstream of ``lin``, and a learned correction of what it decodes to.

Entropy decoding and dequantising are those of :class:`~stac_latent.stages.lin.stage.Lin`, in integers. A network
(:mod:`stac_latent.stages.neural.network`) then corrects the wavelet coefficients of each tile. The encoder runs it too, and writes how much of the
correction each level takes, 0 to 15 eighths; where none helps, a tile decodes to what ``lin`` would give, bit for bit.

::

    share of each level, 4 bits | checksum | payload of lin
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import BundleError, CorruptDataError
from stac_latent.stages.base import take
from stac_latent.stages.context.coder import ContextModel
from stac_latent.stages.lin.payload import Head, unpack
from stac_latent.stages.lin.stage import Lin
from stac_latent.stages.lin.subbands import Layout
from stac_latent.stages.lin.tile import LAMBDA, MAX_LEVELS, Prepared
from stac_latent.stages.neural.network import Network, details

__all__ = ["Fast"]

_EIGHTHS = 8
_LEAST = 1e-3
"""Part of a tile's squared error that a level must take away to be worth decoding it: 0.004 dB."""


class Fast(Lin):
    """Entropy-coding stage of the ``fast`` chain.

    Parameters
    ----------
    basis, model, step, lam
        Of :class:`~stac_latent.stages.lin.stage.Lin`.
    network
        Corrects what is decoded.
    """

    name: ClassVar[str] = "fast"
    bitstream = "stac-latent-fast-1"
    splits: ClassVar[bool] = False

    def __init__(
        self,
        basis: Array,
        network: Network,
        model: ContextModel | None = None,
        step: float = 64.0,
        lam: float = LAMBDA,
    ) -> None:
        super().__init__(basis, model, step, lam)
        if network.bands != self.bands:
            raise BundleError(f"fast: the network is for {network.bands} bands, the basis for {self.bands}")
        if len(network.scales) > MAX_LEVELS:
            raise BundleError(f"fast: a network has at most {MAX_LEVELS} levels; got {len(network.scales)}")
        self.network = network

    @classmethod
    def on(cls, lin: Lin, network: Network) -> Self:
        """The stage ``lin`` with a network."""
        return cls(lin.basis, network, lin.model, lin.step, lin.lam)

    # -- one tile ------------------------------------------------------------------------------------------------

    def code(self, prepared: Prepared, step: float) -> bytes:
        """Code a tile at a step; choose the share of the correction that each level takes."""
        return self.code_measured(prepared, step)[0]

    def code_measured(self, prepared: Prepared, step: float) -> tuple[bytes, float]:
        """As :meth:`code`, and the mean square error of the coefficients."""
        payload, mse = super().code_measured(prepared, step)
        shares, gained = [0] * len(self.network.scales), 0.0
        if len(prepared.tile) == 1:
            (coded,) = super().decode_tile(payload)
            used, error = unpack(payload, self.bands)[0], mse * prepared.samples
            shares, gained = self._shares(prepared.tile[0], coded, used, prepared.layout, _LEAST * error)
        head = _pack(shares)
        mse = max(mse - gained / max(1, prepared.samples), 0.0)
        return head + bytes([_check(head, payload)]) + payload, mse

    def _shares(
        self, truth: Array, coded: Array, used: Head, layout: Layout, least: float
    ) -> tuple[list[int], float]:
        """Eighths of the correction of each level that come nearest to the truth, and the squared error they take away.

        Levels that take away less than ``least`` are left out.
        """
        out, total = [0] * len(self.network.scales), 0.0
        norms = {g.level: g.norms for g in layout.groups}
        for level, parts in self.network.corrections(coded, used.levels, used.step):
            wanted = energy = 0.0
            for part, (ys, xs), norm in zip(
                parts, details(coded.shape, used.levels, level), norms[level], strict=True
            ):
                flat = part.ravel()
                wanted += norm**2 * float(np.dot((truth[:, ys, xs] - coded[:, ys, xs]).ravel(), flat))
                energy += norm**2 * float(np.dot(flat, flat))
            if not (energy > 0 and np.isfinite(energy)):
                continue
            eighths = int(np.clip(np.rint(_EIGHTHS * wanted / energy), 0, 15))
            gained = eighths / _EIGHTHS * (2 * wanted - eighths / _EIGHTHS * energy)
            if gained > least:
                out[level - 1] = eighths
                total += gained
        return out, total

    @property
    def reductions(self) -> int:
        """None: the network corrects a tile as a whole."""
        return 0

    def decode_tile(
        self,
        payload: bytes,
        counts: Sequence[int] | None = None,
        *,
        borrow: bool = False,
        bands: Sequence[int] | None = None,
    ) -> list[Array]:
        """As of ``lin``, corrected; tiles of several grids are left as they are."""
        size = (len(self.network.scales) + 1) // 2
        head, rest = payload[:size], payload[size + 1 :]
        if rest[:2] != b"SL" or len(rest) < 7:
            raise CorruptDataError(
                f"the payload starts with {bytes(payload[: size + 3])!r}; expected {size + 1} bytes and b'SL': it is no fast "
                "bitstream of this codec"
            )
        if payload[size] != _check(head, rest):
            raise CorruptDataError("fast: the checksum does not match; the payload was truncated or changed")
        tiles = super().decode_tile(rest, counts, borrow=borrow)
        shares = _unpack(head, len(self.network.scales))
        if any(shares) and len(tiles) == 1:
            tile, used = tiles[0], unpack(rest, self.bands)[0]
            finest = next(k for k, share in enumerate(shares, 1) if share)
            for level, parts in self.network.corrections(tile, used.levels, used.step, finest):
                share = np.float32(shares[level - 1] / _EIGHTHS)
                for part, (ys, xs) in zip(parts, details(tile.shape, used.levels, level), strict=True):
                    if share:
                        tile[:, ys, xs] += share * part
        return tiles if bands is None else [tiles[0][list(bands)]]

    # -- the stage -----------------------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Those of ``lin``, and the blocks of each level of the network."""
        return {**super().config(), "blocks": self.network.blocks}

    def tensors(self) -> dict[str, Array]:
        """Those of ``lin``, and the weights of the network."""
        return {**super().tensors(), **self.network.tensors()}

    @classmethod
    def build(cls, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Self:
        """Rebuild from :meth:`config` and :meth:`tensors`."""
        basis = take(tensors, "basis", cls.name, 3, "f")
        network = Network.build(tensors, [int(n) for n in config["blocks"]])
        return cls(basis, network, ContextModel.build(tensors), float(config["step"]), float(config["lam"]))


def _check(head: bytes, payload: bytes) -> int:
    """Checksum of the shares and of the payload's own."""
    return zlib.crc32(head + payload[3:7]) & 255


def _pack(shares: Sequence[int]) -> bytes:
    """Four bits for each level."""
    padded = [*shares, 0] if len(shares) % 2 else list(shares)
    return bytes(a << 4 | b for a, b in zip(padded[::2], padded[1::2], strict=True))


def _unpack(head: bytes, count: int) -> list[int]:
    return [v for byte in head for v in (byte >> 4, byte & 15)][:count]
