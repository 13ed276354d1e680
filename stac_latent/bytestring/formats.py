"""The byte strings that a chain writes a field as, and which of them a field is written as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stac_latent.aliases import Array
from stac_latent.bytestring import bounded, multi_grid, single_grid
from stac_latent.bytestring.framing import BOUNDED, ONE_GRID, SEVERAL_GRIDS
from stac_latent.bytestring.options import CompressOptions
from stac_latent.chain import Chain

__all__ = ["FORMATS", "Format", "format_for", "format_of"]


class _Encode(Protocol):
    def __call__(self, chain: Chain, field: Any, options: CompressOptions, /) -> bytes: ...


class _Decode(Protocol):
    def __call__(self, chain: Chain, data: bytes, /) -> Any: ...


@dataclass(frozen=True)
class Format:
    """A byte string that holds a field: what ``decode`` gives is what ``encode`` was given, within what the chain loses.

    Parameters
    ----------
    magic
        Its first four bytes.
    encode
        From a chain, a field ``(band, y, x)`` or a list of them, and options to bytes.
    decode
        From a chain and bytes to the field, or a list of them.
    """

    magic: bytes
    encode: _Encode
    decode: _Decode


_SINGLE = Format(ONE_GRID, single_grid.encode, single_grid.decode)
_MULTI = Format(SEVERAL_GRIDS, multi_grid.encode, multi_grid.decode)
_BOUNDED = Format(BOUNDED, bounded.encode, bounded.decode)
FORMATS = (_SINGLE, _MULTI, _BOUNDED)
"""Every form of byte string."""


def format_for(field: Array | Sequence[Array], options: CompressOptions) -> Format:
    """The form that a field is written in: within an error bound, of several grids, or of one."""
    if options.error_bound is not None:
        return _BOUNDED
    return _MULTI if isinstance(field, list | tuple) else _SINGLE


def format_of(data: bytes) -> Format:
    """The form of a byte string, by its first four bytes; that of one grid, which says what is wrong, for any other."""
    return next((f for f in FORMATS if data[:4] == f.magic), _SINGLE)
